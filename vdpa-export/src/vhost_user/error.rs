//! Why a server cannot go on, and why a front end is cut off.

use std::io;
use std::path::PathBuf;

use vdpa_core::{ErrorKind, ParentError, QueueIndex};
use vdpa_mem::MemError;

pub use crate::serve::{EventKind, ServeError};

/// Why a server could not begin, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Somebody listens there.
    #[error("{} is in use, somebody listens there: end that, or give another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A socket that the process may not connect to, so that whether it is in use is not known.
    #[error(
        "{} is another user's socket: no permission to see whether it is in use; give another path",
        path.display()
    )]
    NotOurs {
        /// The path.
        path: PathBuf,
    },
    /// There is something else than a socket.
    #[error("{} is {kind}, not a socket: give another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// A path that no unix socket can have.
    #[error(
        "{} has {len} bytes, and a socket's path at most {most}: give a shorter one, or one relative to another directory",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The longest.
        most: usize,
    },
    /// A path that ends in no name.
    #[error("`{}` names no file: give a path to one, as in /run/vdpa/net0.sock", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// A path in a directory that is not there.
    #[error(
        "{}: there is no directory {}: make it first (mkdir -p {})",
        path.display(),
        dir.display(),
        dir.display()
    )]
    NoDirectory {
        /// The path.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
    },
    /// A path beneath something else than a directory.
    #[error("{}: {} is not a directory: give a path in one", path.display(), dir.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
        /// What is in the place of its directory.
        dir: PathBuf,
    },
    /// A directory that the process may not write to.
    #[error(
        "{}: user {user} may make no socket in {}, give another path or run as another user",
        path.display(),
        dir.display()
    )]
    MayNot {
        /// The path.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
        /// The number of the user who may not.
        user: u32,
        /// What the system said.
        source: io::Error,
    },
    /// A front end's socket that the process may not connect to.
    #[error(
        "{}: user {user} may not connect to it: have its owner let you (chmod g+w), give another path or run as another user",
        path.display()
    )]
    MayNotConnect {
        /// The path.
        path: PathBuf,
        /// The number of the user who may not.
        user: u32,
        /// What the system said.
        source: io::Error,
    },
    /// A socket that cannot be given to somebody.
    #[error("{}: the socket cannot be given to {owner}", path.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// The user and the group, by their numbers.
        owner: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not give a socket there.
    #[error("{}: cannot {what}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A descriptor that was handed in, and is not what it was said to be.
    #[error("the descriptor that was handed in is not {need}")]
    Descriptor {
        /// What it has to be.
        need: &'static str,
    },
    /// The system does not do what the server needs.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The device cannot be served, or is lost.
    #[error(transparent)]
    Device(#[from] vdpa_core::Error),
}

impl ServerError {
    pub(super) fn system(what: &'static str) -> impl Fn(nix::Error) -> Self {
        move |errno| Self::System {
            what,
            source: errno.into(),
        }
    }

    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Busy,
            Self::NotASocket { .. } | Self::TooLong { .. } | Self::Descriptor { .. } => {
                ErrorKind::Misuse
            }
            Self::NoName { .. } | Self::NoDirectory { .. } | Self::NotADirectory { .. } => {
                ErrorKind::Misuse
            }
            Self::NotOurs { .. } | Self::MayNot { .. } | Self::MayNotConnect { .. } => {
                ErrorKind::Io
            }
            Self::Owner { .. } => ErrorKind::Io,
            Self::Path { .. } | Self::System { .. } => ErrorKind::Io,
            Self::Device(error) => error.kind(),
        }
    }
}

impl ParentError for ServerError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

/// Whether it says that the device is gone. One that is broken may be so by its front end.
pub(super) fn is_lost(error: &vdpa_core::Error) -> bool {
    error.kind() == ErrorKind::Gone && !matches!(error, vdpa_core::Error::Broken)
}

/// Why a front end was cut off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutOff {
    /// It broke the protocol, or left in the midst of a message.
    #[error(transparent)]
    Protocol(vdpa_vhost_user::Error),
    /// It gave memory that is no file's, and so is its own.
    #[error(
        "{0}; each region comes with the one of its file: all of the guest's memory has to be shared, as by share=on"
    )]
    NotShared(vdpa_vhost_user::Error),
    /// It gave memory that cannot be used.
    #[error("{request}")]
    Memory {
        /// The request, as the specification calls it.
        request: &'static str,
        /// Why.
        source: MemoryError,
    },
    /// It asked for something that cannot be done.
    #[error("{request}")]
    Request {
        /// The request, as the specification calls it.
        request: &'static str,
        /// Why.
        source: ServeError,
    },
    /// It asked for something of a queue that the device has not.
    #[error("{request}: there is no queue {index}: the device has {count} for data")]
    Queue {
        /// The request, as the specification calls it.
        request: &'static str,
        /// The number of the queue.
        index: u32,
        /// How many there are, without a network device's control queue: that is the VMM's own.
        count: u16,
    },
    /// It asked for something that was not offered.
    #[error("{request}: {why}")]
    NotOffered {
        /// The request, as the specification calls it.
        request: &'static str,
        /// What was not.
        why: String,
    },
    /// It filled the counter of an eventfd that it gave, so that whoever wrote to it next had to wait.
    #[error(
        "queue {queue}: the counter of its {event} eventfd is full, and it is nobody's to wait for room in it"
    )]
    HeldUp {
        /// The queue.
        queue: QueueIndex,
        /// Which eventfd.
        event: EventKind,
    },
    /// It broke the device: by cutting the file of memory that it gave, say.
    #[error("the device is broken: {why}")]
    Broken {
        /// What the device says.
        why: String,
    },
    /// It does not take requests on the channel that it gave for them.
    #[error("the back-end channel")]
    Channel {
        /// Why.
        source: vdpa_vhost_user::Error,
    },
    /// It does not read its channel.
    #[error(
        "the back-end channel: {requests} requests wait for the front end to read those before"
    )]
    Unread {
        /// How many are kept at most.
        requests: usize,
    },
}

impl From<vdpa_vhost_user::Error> for CutOff {
    fn from(error: vdpa_vhost_user::Error) -> Self {
        use vdpa_vhost_user::{Error, FrontRequest};
        let memory = [FrontRequest::SetMemTable, FrontRequest::AddMemReg];
        match error {
            Error::Fds {
                name, have, least, ..
            } if have < least && memory.iter().any(|request| request.form().name == name) => {
                Self::NotShared(error)
            }
            other => Self::Protocol(other),
        }
    }
}

impl CutOff {
    /// Whether nothing has changed, so that a front end that is told so can go on.
    pub(super) fn leaves_all_as_it_was(&self) -> bool {
        let source = match self {
            Self::Request { source, .. } => source,
            _ => return false,
        };
        matches!(
            source,
            ServeError::TooLarge { .. } | ServeError::NoPowerOfTwo { .. }
        )
    }

    /// Whether it is the device that is gone, and not the front end that did something.
    pub(super) fn is_of_a_lost_device(&self) -> bool {
        match self {
            Self::Request {
                source: ServeError::Device(error),
                ..
            }
            | Self::Memory {
                source: MemoryError::Device(error),
                ..
            } => is_lost(error),
            _ => false,
        }
    }

    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Protocol(_) | Self::Channel { .. } | Self::Queue { .. } => {
                ErrorKind::PeerMisbehaved
            }
            Self::NotShared(_) => ErrorKind::PeerMisbehaved,
            Self::NotOffered { .. } | Self::HeldUp { .. } | Self::Unread { .. } => {
                ErrorKind::PeerMisbehaved
            }
            Self::Broken { .. } => ErrorKind::Gone,
            Self::Memory { source, .. } => source.kind(),
            Self::Request { source, .. } => source.kind(),
        }
    }
}

impl ParentError for CutOff {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

/// What is wrong with memory that a front end gave.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A region that cannot be mapped here.
    #[error("the memory region at {at:#x} of {size:#x} bytes cannot be used")]
    Region {
        /// Its guest address.
        at: u64,
        /// Its length in bytes.
        size: u64,
        /// Why.
        source: MemError,
    },
    /// A region's file that cannot be examined.
    #[error("the file of the memory region at {at:#x} cannot be examined")]
    File {
        /// Its guest address.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A region whose file was cut while it was in use.
    #[error("the file of the memory region at {at:#x} was cut")]
    Cut {
        /// Its guest address.
        at: u64,
    },
    /// A region over another one.
    #[error("the memory region at {at:#x} overlaps the one at {other:#x}")]
    Overlap {
        /// Its guest address.
        at: u64,
        /// The other's.
        other: u64,
    },
    /// More regions than there can be.
    #[error("there are {most} memory regions already, which is the most")]
    Slots {
        /// How many there can be.
        most: usize,
    },
    /// A region that is to go and never came.
    #[error("there is no such memory region at {at:#x}")]
    NoRegion {
        /// Its guest address.
        at: u64,
    },
    /// A translation to memory that was not given.
    #[error(
        "user address {at:#x} is in no memory region: all of the guest's memory has to be shared, as by share=on"
    )]
    Nowhere {
        /// The address.
        at: u64,
    },
    /// A translation where none is negotiated.
    #[error("a translation without ACCESS_PLATFORM: negotiate it first")]
    NotTranslated,
    /// Records for what the device has not.
    #[error(
        "no record for {queues} queues of {size}: the device has {most} queues, of up to 32768"
    )]
    Records {
        /// How many queues.
        queues: u16,
        /// Of which size.
        size: u16,
        /// How many queues the device has.
        most: u16,
    },
    /// A region for records in which they have no room.
    #[error("{len:#x} bytes for the records of {queues} queues of {size}, which need {needed:#x}")]
    ShortRecords {
        /// How long the region is, in bytes.
        len: u64,
        /// How long it has to be.
        needed: u64,
        /// How many queues.
        queues: u16,
        /// Of which size.
        size: u16,
    },
    /// Shared memory without a file to hand over.
    #[error("shared memory without a file")]
    NoFile,
    /// What the address space refuses.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// What the device refuses.
    #[error(transparent)]
    Device(#[from] vdpa_core::Error),
}

impl MemoryError {
    /// Whose fault it is, and what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Device(error) => error.kind(),
            Self::NoFile => ErrorKind::Io,
            _ => ErrorKind::PeerMisbehaved,
        }
    }
}
