//! What a server tells of.

use std::fmt;

use vdpa_core::{Chain, Event, Features};

use super::CutOff;

/// The process at the other end of the socket, as the system says when it connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its process id; 0 where it is of another pid namespace.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// Something that happened to a server. Its [`Display`](fmt::Display) is a line for people.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Front ends may come.
    Listening {
        /// Where.
        at: &'a str,
    },
    /// Nobody listens where the server is to connect, or the system has no descriptor left for who comes; it tries again.
    /// Told once, until somebody is there.
    Waiting {
        /// Where.
        at: &'a str,
        /// What the system said.
        why: &'a std::io::Error,
    },
    /// A front end is there.
    Connected {
        /// Who, if the system says.
        peer: Option<Peer>,
    },
    /// The device is live, by what the front end set up; again, when more of its queues are on.
    Running {
        /// What was negotiated.
        features: Features,
        /// How many queues run by now and are switched on.
        queues: u16,
    },
    /// The last queue was stopped, or the device was reset; the front end is still there.
    Stopped,
    /// The front end misbehaved, or asked for what cannot be had: it is disconnected, and the device is reset.
    CutOff {
        /// What it did.
        why: &'a CutOff,
    },
    /// The front end left.
    Disconnected,
    /// Something that the device reported: see [`Event`]. Misses are answered by the front end, and not told.
    Device {
        /// What.
        event: &'a Event,
    },
    /// The device's counters; while a front end is there, as often as
    /// [`Options::stats_every`](super::Options::stats_every) has it.
    Stats {
        /// Names and values, in the device's order.
        counters: &'a [(String, u64)],
    },
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { at } => write!(f, "waiting for a front end at {at}"),
            Self::Waiting { at, why } => write!(f, "cannot reach {at} yet: {why}"),
            Self::Connected { peer: Some(peer) } => {
                write!(
                    f,
                    "front end connected: process {}, user {}",
                    peer.pid, peer.uid
                )
            }
            Self::Connected { peer: None } => f.write_str("front end connected"),
            Self::Running { queues, .. } => write!(f, "running with {queues} queues"),
            Self::Stopped => f.write_str("stopped by the front end"),
            Self::CutOff { why } => write!(f, "front end cut off: {}", Chain(*why)),
            Self::Disconnected => f.write_str("front end left"),
            Self::Device { event } => write!(f, "device: {event:?}"),
            Self::Stats { counters } => {
                for (at, (name, value)) in counters.iter().enumerate() {
                    let apart = if at == 0 { "" } else { " " };
                    write!(f, "{apart}{name}={value}")?;
                }
                Ok(())
            }
        }
    }
}
