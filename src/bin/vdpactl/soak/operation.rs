//! What interrupts the traffic, and what each of them may lose: the table that everything is judged by.
//!
//! | operation     | needs                                | a network device may lose               | a disk may leave undone |
//! |---------------|--------------------------------------|-----------------------------------------|-------------------------|
//! | `reset`       | nothing                              | what is in flight                       | what is in flight       |
//! | `queue_reset` | RING_RESET                           | what is in flight through the queue     | what is in the queue    |
//! | `suspend`     | suspend                              | nothing                                 | nothing                 |
//! | `move`        | suspend, and a second device         | nothing                                 | nothing                 |
//! | `link`        | a link that the management side sets | what is in flight, or sent meanwhile    | (none)                  |
//! | `pairs`       | MQ, and more pairs than one          | nothing                                 | (none)                  |
//! | `pause`       | queue pause                          | receive: what is in flight through it   | nothing                 |
//! | `disable`     | queue enable                         | what is in flight through it            | nothing                 |
//!
//! In flight is what was sent, and has not been received when the operation is over. `disable` is over when packets come
//! through the queue again, since it takes effect soon and not at once; `link` when the link is up, and all others when their
//! call returns.

use std::fmt;

use vdpa::net::Way;

/// An interruption.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Operation {
    /// The device is reset, and everything negotiated and set up anew.
    Reset,
    /// One queue is reset.
    QueueReset,
    /// The whole device is stopped, and goes on.
    Suspend,
    /// The whole device is stopped, and a new one goes on with its state.
    Move,
    /// The link goes down and up again.
    Link,
    /// Another number of queue pairs is used.
    Pairs,
    /// One queue is stopped, and goes on.
    Pause,
    /// One queue is switched off, and on again.
    Disable,
}

/// What an operation may lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// Nothing.
    Nothing,
    /// What is in flight through its queue.
    Queue,
    /// What is in flight.
    Everything,
}

impl Operation {
    /// All there are.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Reset,
        Self::QueueReset,
        Self::Suspend,
        Self::Move,
        Self::Link,
        Self::Pairs,
        Self::Pause,
        Self::Disable,
    ];

    /// The name in objects.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::QueueReset => "queue_reset",
            Self::Suspend => "suspend",
            Self::Move => "move",
            Self::Link => "link",
            Self::Pairs => "pairs",
            Self::Pause => "pause",
            Self::Disable => "disable",
        }
    }

    /// What it may lose of a network device's packets, done to a queue of this way if it is done to a queue.
    pub(crate) const fn loses_packets(self, way: Way) -> Loss {
        match (self, way) {
            (Self::Reset | Self::Link, _) => Loss::Everything,
            (Self::QueueReset | Self::Disable, _) => Loss::Queue,
            // What arrives while nobody receives is dropped. What is to be sent waits in the queue.
            (Self::Pause, Way::Receive) => Loss::Queue,
            (Self::Pause, Way::Transmit) | (Self::Suspend | Self::Move | Self::Pairs, _) => {
                Loss::Nothing
            }
        }
    }

    /// Which of a disk's requests it may leave undone.
    pub(crate) const fn loses_requests(self) -> Loss {
        match self {
            Self::Reset => Loss::Everything,
            Self::QueueReset => Loss::Queue,
            Self::Suspend | Self::Move | Self::Link | Self::Pairs | Self::Pause | Self::Disable => {
                Loss::Nothing
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
