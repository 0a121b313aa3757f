//! Why a tap interface cannot be opened.

use std::io;

use super::sys::CONTROL;

/// A tap interface that cannot be opened: its name, and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// It is no name of an interface.
    #[error("tap:{name}: not {}", Self::LEGAL_NAME)]
    Name {
        /// The name.
        name: String,
    },
    /// There is no tun driver, or it is out of reach.
    #[error(
        "tap:{name}: {CONTROL} cannot be opened: load the tun driver (`modprobe tun`), or let this process have the file"
    )]
    NoControl {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The interface may not be made, or belongs to somebody else.
    #[error(
        "tap:{name}: no permission: this needs CAP_NET_ADMIN, or a persistent tap of this user \
         (as root: `ip tuntap add dev {name} mode tap{} user $USER`)",
        if *pairs > 1 { " multi_queue" } else { "" }
    )]
    Permission {
        /// The interface.
        name: String,
        /// The device's queue pairs.
        pairs: u16,
    },
    /// The name belongs to something else.
    #[error("tap:{name}: {name} is an interface already, and no tap: choose another name")]
    NoTap {
        /// The interface.
        name: String,
    },
    /// The interface was made for one queue.
    #[error(
        "tap:{name}: {name} has a single queue, and {pairs} pairs need one each: make it with \
         `ip tuntap add dev {name} mode tap multi_queue`, or open the device with queue_pairs=1"
    )]
    SingleQueue {
        /// The interface.
        name: String,
        /// The device's queue pairs.
        pairs: u16,
    },
    /// Somebody else has its queue, or all that it can have.
    #[error(
        "tap:{name}: {name} is in use: another device or process has its queues; close that, or choose another name"
    )]
    Busy {
        /// The interface.
        name: String,
    },
    /// Something else failed.
    #[error("tap:{name}: cannot {what}")]
    System {
        /// The interface.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl TapError {
    /// What a name has to be.
    pub const LEGAL_NAME: &str =
        "the name of an interface: 1 to 15 bytes, without blanks and any of / : %";
}
