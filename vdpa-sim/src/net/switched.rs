//! Which pairs receive where the driver has no control queue to say so: those whose receive queues are on.
//!
//! Whoever keeps the control queue to itself, as QEMU does over vhost-user, carries its driver's number of pairs out by
//! [`QueueEnable`](vdpa_core::QueueEnable).

use std::sync::atomic::{AtomicBool, Ordering};

/// For each pair, whether its receive queue was switched off.
pub(super) struct Switched {
    off: Box<[AtomicBool]>,
}

impl Switched {
    /// All of so many are on.
    pub(super) fn new(pairs: u16) -> Self {
        Self {
            off: (0..pairs).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Switches the one of `pair`. Control calls come one at a time.
    pub(super) fn set(&self, pair: u16, on: bool) {
        if let Some(off) = self.off.get(usize::from(pair)) {
            off.store(!on, Ordering::Relaxed);
        }
    }

    /// All of them are on.
    pub(super) fn reset(&self) {
        for off in &self.off {
            off.store(false, Ordering::Relaxed);
        }
    }

    /// How many pairs receive: up to the last one that is on; at least 1.
    pub(super) fn reach(&self) -> u16 {
        let last = self
            .off
            .iter()
            .rposition(|off| !off.load(Ordering::Relaxed));
        let reach = last.unwrap_or(0).saturating_add(1);
        u16::try_from(reach).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Switched;

    #[test]
    fn what_receives_ends_with_the_last_that_is_on() {
        let switched = Switched::new(4);
        assert_eq!(switched.reach(), 4);
        switched.set(3, false);
        switched.set(1, false);
        assert_eq!(switched.reach(), 3);
        (0..4).for_each(|pair| switched.set(pair, false));
        assert_eq!(switched.reach(), 1);
        switched.set(1, true);
        assert_eq!(switched.reach(), 2);
        switched.reset();
        assert_eq!(switched.reach(), 4);
    }
}
