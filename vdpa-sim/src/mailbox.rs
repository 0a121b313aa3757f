//! How control calls reach a worker: a list of commands and a bell.
//!
//! ```text
//!   control                              worker, each pass
//!     command put into the list            bell taken?  ─ no ─▶ its queues
//!     bell rung                               └ yes ─▶ commands carried out, one by one
//!     polls for the outcome                queues rung are served
//!                                          nothing to do: sleeps, unless a bell is pending
//! ```
//! The worker takes the bell before it takes the list, and looks at every bell after it has said that it sleeps: so a
//! command is not lost, whatever kicks come at the same time, and once a command to stop a queue is answered the queue
//! is not looked at again.

use std::sync::Arc;

use vdpa_core::{Bell, Sleeper};

#[cfg(loom)]
use loom::sync::Mutex;
#[cfg(not(loom))]
use std::sync::Mutex;

/// The commands for one worker.
pub(crate) struct Mailbox<C> {
    commands: Mutex<Vec<C>>,
    bell: Arc<Bell>,
}

impl<C> Mailbox<C> {
    /// An empty mailbox of the worker that sleeps at `sleeper`.
    pub(crate) fn new(sleeper: &Arc<Sleeper>) -> Self {
        Self {
            commands: Mutex::new(Vec::new()),
            bell: Bell::new(sleeper),
        }
    }

    /// The same, whose bell marks `mark`.
    pub(crate) fn marking(sleeper: &Arc<Sleeper>, mark: usize) -> Self {
        Self {
            commands: Mutex::new(Vec::new()),
            bell: Bell::marking(sleeper, mark),
        }
    }

    /// Gives the worker a command.
    pub(crate) fn post(&self, command: C) {
        self.list().push(command);
        self.bell.ring();
    }

    /// Gives the worker a command in place of those that wait and that it makes `stale`: a flood of them waits as one.
    pub(crate) fn post_instead(&self, command: C, mut stale: impl FnMut(&C) -> bool) {
        let mut list = self.list();
        list.retain(|waiting| !stale(waiting));
        list.push(command);
        drop(list);
        self.bell.ring();
    }

    /// Whether there may be commands. One load.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.bell.is_pending()
    }

    /// The commands since the last time, oldest first.
    pub(crate) fn take(&self) -> Vec<C> {
        if !self.bell.take() {
            return Vec::new();
        }
        std::mem::take(&mut *self.list())
    }

    fn list(&self) -> impl std::ops::DerefMut<Target = Vec<C>> {
        // Nothing panics while it holds the lock.
        self.commands
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_commands_that_replace_each_other_waits_as_one() {
        let mailbox = Mailbox::new(&Sleeper::new().unwrap());
        mailbox.post((1, 0));
        for i in 0..100_000 {
            let queue = 2 + i % 2;
            mailbox.post_instead((queue, i), |(waiting, _)| *waiting == queue);
        }
        assert_eq!(mailbox.take(), [(1, 0), (2, 99_998), (3, 99_999)]);
        assert!(mailbox.take().is_empty());
    }
}
