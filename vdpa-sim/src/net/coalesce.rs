//! How calls are held back: the parameters of virtio 1.4 §5.1.9.5.10, queue by queue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::queue::Hold;

/// Which queues a command is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Receive,
    Transmit,
}

/// Parameters as the driver gives them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Params {
    pub(super) max_packets: u32,
    pub(super) max_usecs: u32,
}

impl Params {
    fn from_word(word: u64) -> Self {
        Self {
            max_packets: (word >> 32) as u32,
            max_usecs: word as u32,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.max_packets) << 32 | u64::from(self.max_usecs)
    }

    /// `virtio_net_ctrl_coal`: packets u32, microseconds u32.
    pub(super) fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            max_packets: u32::from_le_bytes([a, b, c, d]),
            max_usecs: u32::from_le_bytes([e, f, g, h]),
        }
    }

    /// The same as [`from_bytes`](Self::from_bytes) reads.
    pub(super) fn to_bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.max_packets.to_le_bytes();
        let [e, f, g, h] = self.max_usecs.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// The parameters of all data queues. Workers look at their own once a batch.
pub(super) struct Coalescing {
    /// What a queue has once it was reset: receive, transmit.
    global: [AtomicU64; 2],
    queues: Box<[Pace]>,
}

/// One queue's.
struct Pace {
    params: AtomicU64,
    runs: AtomicBool,
}

impl Coalescing {
    /// For `pairs` pairs, all at 0.
    pub(super) fn new(pairs: u16) -> Self {
        let pace = |_| Pace {
            params: AtomicU64::new(0),
            runs: AtomicBool::new(false),
        };
        Self {
            global: [AtomicU64::new(0), AtomicU64::new(0)],
            queues: (0..pairs.saturating_mul(2)).map(pace).collect(),
        }
    }

    /// Everything is 0 again, and no queue runs.
    pub(super) fn reset(&self) {
        for word in &self.global {
            word.store(0, Ordering::Relaxed);
        }
        for queue in &self.queues {
            queue.params.store(0, Ordering::Relaxed);
            queue.runs.store(false, Ordering::Relaxed);
        }
    }

    /// Queue `queue` runs from here on. No data queue: no effect.
    pub(super) fn started(&self, queue: u16) {
        if let Some(pace) = self.queues.get(usize::from(queue)) {
            pace.runs.store(true, Ordering::Relaxed);
        }
    }

    /// Queue `queue` does not run any more. `reset`: it comes back with the parameters for all of its direction.
    pub(super) fn stopped(&self, queue: u16, reset: bool) {
        let Some(pace) = self.queues.get(usize::from(queue)) else {
            return;
        };
        pace.runs.store(false, Ordering::Relaxed);
        if reset && let Some(word) = self.global.get(usize::from(queue & 1)) {
            pace.params
                .store(word.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Sets the parameters of all queues of a direction.
    pub(super) fn set_all(&self, direction: Direction, params: Params) {
        let side = usize::from(direction == Direction::Transmit);
        let queues = self.queues.iter().skip(side).step_by(2);
        let words = queues.map(|pace| &pace.params);
        for word in words.chain(self.global.get(side)) {
            word.store(params.word(), Ordering::Relaxed);
        }
    }

    /// Sets the parameters of a queue that runs; `None` for any other.
    pub(super) fn set(&self, queue: u16, params: Params) -> Option<()> {
        let pace = self.running(queue)?;
        pace.params.store(params.word(), Ordering::Relaxed);
        Some(())
    }

    /// The parameters of a queue that runs; `None` for any other.
    pub(super) fn params(&self, queue: u16) -> Option<Params> {
        let pace = self.running(queue)?;
        Some(Params::from_word(pace.params.load(Ordering::Relaxed)))
    }

    fn running(&self, queue: u16) -> Option<&Pace> {
        let pace = self.queues.get(usize::from(queue));
        pace.filter(|pace| pace.runs.load(Ordering::Relaxed))
    }

    /// How the calls of queue `queue` are held back: `None` for not at all.
    #[inline]
    pub(super) fn hold(&self, queue: u16) -> Option<Hold> {
        let pace = self.queues.get(usize::from(queue))?;
        let Params {
            max_packets,
            max_usecs,
        } = Params::from_word(pace.params.load(Ordering::Relaxed));
        // One of them 0: a call for each packet.
        (max_packets != 0 && max_usecs != 0).then(|| Hold {
            chains: max_packets as usize,
            time: Duration::from_micros(max_usecs.into()),
        })
    }

    /// The parameters of `pairs` pairs: for all receive queues, for all transmit queues, then queue by queue.
    pub(super) fn save(&self, pairs: u16) -> Vec<Params> {
        let queues = self.queues.iter().map(|pace| &pace.params);
        let queues = queues.take(usize::from(pairs).saturating_mul(2));
        let words = self.global.iter().chain(queues);
        words
            .map(|word| Params::from_word(word.load(Ordering::Relaxed)))
            .collect()
    }

    /// Takes over what [`save`](Self::save) gave. Queues that it says nothing of have what all of their direction have.
    pub(super) fn restore(&self, saved: &[Params]) {
        let mut saved = saved.iter().copied();
        for direction in [Direction::Receive, Direction::Transmit] {
            self.set_all(direction, saved.next().unwrap_or_default());
        }
        for (pace, params) in self.queues.iter().zip(saved) {
            pace.params.store(params.word(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(max_packets: u32, max_usecs: u32) -> Params {
        Params {
            max_packets,
            max_usecs,
        }
    }

    #[test]
    fn the_last_command_counts_and_a_queue_that_was_reset_has_what_all_have() {
        // The example of virtio 1.4 §5.1.9.5.10.
        let all = Coalescing::new(2);
        for queue in 0..4 {
            assert_eq!(all.params(queue), None, "it does not run");
            all.started(queue);
            assert_eq!(all.params(queue), Some(Params::default()));
        }
        all.set_all(Direction::Receive, params(1, 10));
        assert_eq!(all.params(2), Some(params(1, 10)));
        assert_eq!(all.params(3), Some(Params::default()));
        all.set(0, params(2, 20)).unwrap();
        assert_eq!(all.params(0), Some(params(2, 20)));
        assert_eq!(all.params(2), Some(params(1, 10)));
        all.set(1, params(3, 30)).unwrap();
        assert_eq!(all.params(3), Some(Params::default()));
        all.set_all(Direction::Transmit, params(4, 40));
        assert_eq!(all.params(1), Some(params(4, 40)));
        all.stopped(0, true);
        assert_eq!(all.set(0, params(9, 9)), None);
        all.started(0);
        assert_eq!(all.params(0), Some(params(1, 10)));
        all.set(0, params(5, 5)).unwrap();
        all.stopped(0, false);
        all.started(0);
        assert_eq!(all.params(0), Some(params(5, 5)), "a pause is no reset");
        for queue in [4, 5, u16::MAX] {
            all.started(queue);
            assert_eq!(all.set(queue, params(1, 1)), None);
        }
        all.reset();
        all.started(1);
        assert_eq!(all.params(1), Some(Params::default()));
    }

    #[test]
    fn a_zero_of_the_two_holds_nothing_back() {
        let all = Coalescing::new(1);
        all.started(0);
        for (packets, usecs, holds) in [(0, 0, false), (1, 0, false), (0, 1, false), (2, 3, true)] {
            all.set(0, params(packets, usecs)).unwrap();
            assert_eq!(all.hold(0).is_some(), holds);
        }
        all.set_all(Direction::Receive, params(7, 8));
        all.set(0, params(2, 3)).unwrap();
        let other = Coalescing::new(2);
        other.restore(&all.save(1));
        assert_eq!(other.hold(0), all.hold(0));
        other.started(2);
        assert_eq!(other.params(2), Some(params(7, 8)));
        assert_eq!(other.save(1), all.save(1));
        let bytes = params(0x0102_0304, 5).to_bytes();
        assert_eq!(bytes, [4, 3, 2, 1, 5, 0, 0, 0]);
        assert_eq!(Params::from_bytes(bytes), params(0x0102_0304, 5));
    }
}
