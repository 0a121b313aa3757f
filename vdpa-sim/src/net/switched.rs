//! Which pairs receive where the driver has no control queue to say so: those whose receive queues were started, and are on.
//!
//! Whoever keeps the control queue to itself, as QEMU does over vhost-user, carries its driver's number of pairs out by
//! [`QueueEnable`](vdpa_core::QueueEnable).

use std::sync::atomic::{AtomicBool, Ordering};

/// For each pair, whether its receive queue was started, and is on. One that is stopped goes on later: frames wait for it.
pub(super) struct Switched {
    on: Box<[AtomicBool]>,
}

impl Switched {
    /// None of so many is on.
    pub(super) fn new(pairs: u16) -> Self {
        Self {
            on: (0..pairs).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Switches the one of `pair`. Control calls come one at a time.
    pub(super) fn set(&self, pair: u16, on: bool) {
        if let Some(is_on) = self.on.get(usize::from(pair)) {
            is_on.store(on, Ordering::Relaxed);
        }
    }

    /// None of them is on.
    pub(super) fn reset(&self) {
        for on in &self.on {
            on.store(false, Ordering::Relaxed);
        }
    }

    /// How many pairs receive: up to the last one that is on; at least 1.
    pub(super) fn reach(&self) -> u16 {
        let last = self.on.iter().rposition(|on| on.load(Ordering::Relaxed));
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
        assert_eq!(switched.reach(), 1);
        (0..4).for_each(|pair| switched.set(pair, true));
        assert_eq!(switched.reach(), 4);
        switched.set(3, false);
        switched.set(1, false);
        assert_eq!(switched.reach(), 3);
        (0..4).for_each(|pair| switched.set(pair, false));
        assert_eq!(switched.reach(), 1);
        switched.set(1, true);
        assert_eq!(switched.reach(), 2);
        switched.set(4, true);
        assert_eq!(switched.reach(), 2);
        switched.reset();
        assert_eq!(switched.reach(), 1);
    }
}
