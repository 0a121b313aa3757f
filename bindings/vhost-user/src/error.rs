//! What a peer did wrong, and what the system refused.

use std::time::Duration;

use nix::errno::Errno;

/// Why a message was not received, not sent, or not taken. Each tells which message, and the numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call that failed.
    #[error("{call}: {errno}")]
    Io {
        /// Its name.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The peer is gone. Between two messages (`have` is 0) that is how a connection ends.
    #[error("{}", closed(*.have, *.want))]
    Closed {
        /// How many bytes of a message were through.
        have: usize,
        /// How many it has, as far as that is known.
        want: usize,
    },
    /// A message that began and did not go on.
    #[error("the peer stalled in a message: {have} of {want} bytes in {} ms", waited.as_millis())]
    Stalled {
        /// How many bytes were through.
        have: usize,
        /// How many it has, as far as that is known.
        want: usize,
        /// How long was waited for it.
        waited: Duration,
    },
    /// No message began before the deadline.
    #[error("no message came before the deadline")]
    TimedOut,
    /// A header of another version of the protocol.
    #[error("message {request} has version {version}: 1 is the only one")]
    Version {
        /// Its number.
        request: u32,
        /// The version.
        version: u32,
    },
    /// A header with flags that are not defined, or a reply where a request has to come.
    #[error("message {request} has flags {flags:#x}, which {what}")]
    Flags {
        /// Its number.
        request: u32,
        /// All of them.
        flags: u32,
        /// What is wrong with them.
        what: &'static str,
    },
    /// A header that announces more than any message has.
    #[error("message {request} announces a payload of {size} bytes: none has more than {most}")]
    Oversize {
        /// Its number.
        request: u32,
        /// How many it announces.
        size: u32,
        /// How many a message may have.
        most: usize,
    },
    /// A number that no request has.
    #[error("{number} is no request of a {side}")]
    Unknown {
        /// Whose request it was to be.
        side: &'static str,
        /// The number.
        number: u32,
    },
    /// A payload of the wrong length.
    #[error("{name} with a payload of {have} bytes: it has {want}")]
    Payload {
        /// The message, as the specification calls it.
        name: &'static str,
        /// How many bytes it had.
        have: usize,
        /// How many it has to have, in words.
        want: &'static str,
    },
    /// Descriptors that a message does not take, or lacks.
    #[error("{name} with {have} file descriptors: it takes {}", range(*.least, *.most))]
    Fds {
        /// The message, as the specification calls it.
        name: &'static str,
        /// How many came.
        have: usize,
        /// How many have to.
        least: usize,
        /// How many may.
        most: usize,
    },
    /// More descriptors than any message takes. They are closed.
    #[error("message {request} came with {have} file descriptors: none takes more than {most}")]
    TooManyFds {
        /// Its number.
        request: u32,
        /// How many came.
        have: usize,
        /// How many a message may have.
        most: usize,
    },
    /// Descriptors that the kernel dropped, since this process may open no more (`RLIMIT_NOFILE`).
    #[error(
        "message {request}: the kernel dropped its file descriptors: this process has none left, see RLIMIT_NOFILE"
    )]
    FdsLost {
        /// Its number.
        request: u32,
    },
    /// A field with a value that it cannot have.
    #[error("{name}: {field} is {value:#x}: {legal}")]
    Value {
        /// The message, as the specification calls it.
        name: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be, in words.
        legal: &'static str,
    },
    /// A range that runs past the end of the numbers, or is empty.
    #[error("{name}: {field} {start:#x} and {size:#x} bytes from there on are no range")]
    Range {
        /// The message, as the specification calls it.
        name: &'static str,
        /// What begins there.
        field: &'static str,
        /// Where.
        start: u64,
        /// How long it was to be, in bytes.
        size: u64,
    },
    /// Two regions of a table with bytes in common.
    #[error("{name}: regions {first} and {second} overlap in their {field}")]
    Overlap {
        /// The message, as the specification calls it.
        name: &'static str,
        /// The index of one.
        first: usize,
        /// The index of the other.
        second: usize,
        /// In what.
        field: &'static str,
    },
    /// A reply to another request than the one that was made.
    #[error("a reply to message {got} where one to {name} was due")]
    WrongReply {
        /// What was asked, as the specification calls it.
        name: &'static str,
        /// What was answered, by its number.
        got: u32,
    },
    /// The peer answered that it did not do it.
    #[error("{name} was refused by the peer with {value:#x}")]
    Refused {
        /// What was asked, as the specification calls it.
        name: &'static str,
        /// What it answered.
        value: u64,
    },
    /// An answer of another kind than the request has: a mistake of who answers.
    #[error("{name} is not answered with a {reply}")]
    NoSuchAnswer {
        /// What was asked, as the specification calls it.
        name: &'static str,
        /// The answer that was tried.
        reply: &'static str,
    },
}

impl Error {
    /// Whether this is how a peer takes its leave: it closed the connection, and not within a message.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed { have: 0, .. })
    }

    /// Whether the next message can be received all the same, since this one was taken off the socket whole.
    pub fn in_step(&self) -> bool {
        match self {
            Self::Io { .. }
            | Self::Closed { .. }
            | Self::Stalled { .. }
            | Self::Version { .. }
            | Self::Oversize { .. } => false,
            Self::TimedOut
            | Self::Flags { .. }
            | Self::Unknown { .. }
            | Self::Payload { .. }
            | Self::Fds { .. }
            | Self::TooManyFds { .. }
            | Self::FdsLost { .. }
            | Self::Value { .. }
            | Self::Range { .. }
            | Self::Overlap { .. }
            | Self::WrongReply { .. }
            | Self::Refused { .. }
            | Self::NoSuchAnswer { .. } => true,
        }
    }

    /// Whether the peer is to blame: it broke the protocol, or left in the midst of a message.
    pub fn is_misbehaviour(&self) -> bool {
        match self {
            Self::Closed { have, .. } => *have > 0,
            Self::Stalled { .. }
            | Self::Version { .. }
            | Self::Flags { .. }
            | Self::Oversize { .. }
            | Self::Unknown { .. }
            | Self::Payload { .. }
            | Self::Fds { .. }
            | Self::TooManyFds { .. }
            | Self::Value { .. }
            | Self::Range { .. }
            | Self::Overlap { .. }
            | Self::WrongReply { .. } => true,
            Self::Io { .. }
            | Self::TimedOut
            | Self::FdsLost { .. }
            | Self::Refused { .. }
            | Self::NoSuchAnswer { .. } => false,
        }
    }
}

fn closed(have: usize, want: usize) -> String {
    match have {
        0 => "the peer closed the connection".into(),
        _ => format!("the peer closed the connection in a message: {have} of {want} bytes"),
    }
}

fn range(least: usize, most: usize) -> String {
    match (least, most) {
        (_, 0) => "none".into(),
        (a, b) if a == b => a.to_string(),
        (a, b) => format!("{a} to {b}"),
    }
}
