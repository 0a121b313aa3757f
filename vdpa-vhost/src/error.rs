//! What a back end, its socket, or a device string for one can do wrong.

use std::io;
use std::path::PathBuf;

use vdpa_core::{DeviceType, ErrorKind, ParentError};
use vdpa_vhost_user::FrontRequest;

/// Why a back end cannot be opened or used. Each message names its socket and ends with the way out, if there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VhostError {
    /// A device string that does not say of which type the device is.
    #[error(
        "{}: a back end of vhost-user does not say what it is: add type=net, type=blk or another virtio device's name", path.display()
    )]
    TypeMissing {
        /// Its socket.
        path: PathBuf,
    },
    /// A path that no socket can have.
    #[error(
        "{}: {len} bytes are too long for the path of a socket, which has {most} at most: use a shorter one, or a relative one", path.display()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The most that the system takes.
        most: usize,
    },
    /// There is something else than a socket.
    #[error("{} is {kind}, not a socket: give another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// A socket that is to be made in a directory that is not there.
    #[error(
        "{}: there is no directory {}: make it first (mkdir -p {})", path.display(), dir.display(), dir.display()
    )]
    NoDirectory {
        /// The path.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
    },
    /// A socket that is to be made in a directory that the process may not write to.
    #[error(
        "{}: no permission to make a socket in {}: give another path or run as another user", path.display(), dir.display()
    )]
    MayNot {
        /// The path.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A back end without the configuration that a device of its type has.
    #[error(
        "{}: the back end has no such configuration: {request} of {size} bytes is answered with nothing; is type= right?", path.display()
    )]
    NoConfig {
        /// Its socket.
        path: PathBuf,
        /// The request, by its name in the specification.
        request: &'static str,
        /// How many bytes were asked for.
        size: u32,
    },
    /// A socket that cannot be connected to, or be made.
    #[error("{}: cannot {what}{}", path.display(), cure(source))]
    Socket {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A server whose back end did not come.
    #[error(
        "{}: no back end connected within {seconds} s: start it in its client mode (DPDK: client=1), or wait longer with timeout=", path.display()
    )]
    NobodyCame {
        /// The path.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// A back end that another device of this process has.
    #[error("{} is open already: close it first", path.display())]
    Open {
        /// Its socket.
        path: PathBuf,
    },
    /// A back end without what every device of its type needs.
    #[error("{}: the back end lacks {what}: {cure}", path.display())]
    Lacks {
        /// Its socket.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
        /// What can be done.
        cure: &'static str,
    },
    /// A configuration that no device of this type has.
    #[error(
        "{}: as a {device_type} its configuration makes no sense: {why}; is type= right?", path.display()
    )]
    Config {
        /// Its socket.
        path: PathBuf,
        /// What it was taken for.
        device_type: DeviceType,
        /// What is wrong.
        why: String,
    },
    /// A back end that answered a request with a refusal.
    #[error("{}: the back end refuses {request} (answer {code})", path.display())]
    Refused {
        /// Its socket.
        path: PathBuf,
        /// The request, by its name in the specification.
        request: &'static str,
        /// What it answered.
        code: u64,
    },
    /// A queue that is larger than those of the back end, which does not say how large they may be.
    #[error(
        "{}: the back end takes no queue {queue} of {size} descriptors: say how many it takes with queue_size=", path.display()
    )]
    QueueSize {
        /// Its socket.
        path: PathBuf,
        /// The queue.
        queue: u16,
        /// Its size, in descriptors.
        size: u16,
    },
    /// A back end with more queues than messages can name.
    #[error("{}: the back end has {have} queues, of which messages name {most}: have it offer fewer", path.display())]
    Queues {
        /// Its socket.
        path: PathBuf,
        /// How many it has.
        have: u16,
        /// How many can be named.
        most: u16,
    },
    /// A back end that did not answer in time. The connection is given up, since nobody can say which answer comes next.
    #[error(
        "{}: no answer to {request} within {seconds} s: the connection is given up; {}timeout= waits longer", path.display(), taken(request)
    )]
    Silent {
        /// Its socket.
        path: PathBuf,
        /// The request, by its name in the specification.
        request: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// An answer that is none.
    #[error("{}: the answer to {request} is not to be understood: {why}", path.display())]
    Answer {
        /// Its socket.
        path: PathBuf,
        /// The request, by its name in the specification.
        request: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A place where no queue can be.
    #[error(
        "{}: the back end says that queue {queue} stands at {base:#x}, which is no place in a packed queue of {size}", path.display()
    )]
    Position {
        /// Its socket.
        path: PathBuf,
        /// The queue.
        queue: u16,
        /// What it said.
        base: u32,
        /// The size of the queue, in descriptors.
        size: u16,
    },
    /// A queue that was stopped with chains that do not come back.
    #[error(
        "{}: the back end stopped queue {queue} with chains in flight, and has dropped them: it took entries up to {taken}, and gave back up to {back}", path.display()
    )]
    Dropped {
        /// Its socket.
        path: PathBuf,
        /// The queue.
        queue: u16,
        /// Where it stopped in the available ring.
        taken: u16,
        /// Where it stopped in the used ring.
        back: u16,
    },
    /// The connection ended.
    #[error("{}: the back end is gone", path.display())]
    Gone {
        /// Its socket.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: cannot {what}", path.display())]
    System {
        /// Its socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl ParentError for VhostError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TypeMissing { .. } | Self::PathTooLong { .. } | Self::Open { .. } => {
                ErrorKind::Misuse
            }
            Self::NotASocket { .. } | Self::NoDirectory { .. } => ErrorKind::Misuse,
            Self::Lacks { .. } | Self::QueueSize { .. } | Self::Queues { .. } => {
                ErrorKind::Unsupported
            }
            Self::Config { .. }
            | Self::NoConfig { .. }
            | Self::Refused { .. }
            | Self::Position { .. }
            | Self::Dropped { .. } => ErrorKind::PeerMisbehaved,
            Self::NobodyCame { .. } => ErrorKind::Busy,
            Self::MayNot { .. } | Self::Socket { .. } | Self::System { .. } => ErrorKind::Io,
            // After these nobody knows where the two sides stand.
            Self::Silent { .. } | Self::Answer { .. } | Self::Gone { .. } => ErrorKind::Gone,
        }
    }
}

/// Why nobody may answer to a request. One front end is served at a time, and the next one waits with its first question.
fn taken(request: &str) -> &'static str {
    match request == FrontRequest::GetFeatures.form().name {
        true => "another front end may have it; ",
        false => "",
    }
}

/// What mends a socket that cannot be used.
fn cure(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => {
            ": there is no such socket: start the back end first, or give its directory, or server=on"
        }
        io::ErrorKind::ConnectionRefused => {
            ": nobody listens there: start the back end, or remove the socket it left"
        }
        io::ErrorKind::PermissionDenied => ": no permission: chmod the socket, or run as its owner",
        io::ErrorKind::AddrInUse => {
            ": there is something of that name: take another, or remove it if nobody uses it"
        }
        _ => "",
    }
}
