//! Where a ring stands, and what was negotiated for it.

bitflags::bitflags! {
    /// What a ring works by: negotiated features, and what is known of the queue.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RingFeatures: u8 {
        /// VIRTIO_F_INDIRECT_DESC: a descriptor may point to a table of descriptors.
        const INDIRECT_DESC = 1;
        /// VIRTIO_F_EVENT_IDX: notifications at a position instead of on or off.
        const EVENT_IDX = 2;
        /// VIRTIO_F_IN_ORDER: buffers are used in the order they were made available.
        const IN_ORDER = 4;
        /// No feature: nothing in this queue is for the device to write, and so WRITE means nothing
        /// in the tables of a packed ring. DPDK's driver leaves it there, on what a network device
        /// is to send, against `virtio 1.4 §2.8.7`.
        const DEVICE_READS_ALL = 8;
    }
}

/// A position in a packed ring: slot, and wrap counter of the lap (`virtio 1.4 §2.8.1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pos {
    /// Slot, below the queue size.
    pub index: u16,
    /// Wrap counter; starts at true and flips past the last slot.
    pub wrap: bool,
}

impl Pos {
    /// Where both sides start.
    pub const START: Self = Self {
        index: 0,
        wrap: true,
    };

    /// The position `by` slots on, `by` at most `size`.
    #[inline(always)]
    #[must_use]
    pub const fn advance(self, by: u16, size: u16) -> Self {
        let to = (self.index as u32).wrapping_add(by as u32);
        if to >= size as u32 {
            Self {
                index: to.wrapping_sub(size as u32) as u16,
                wrap: !self.wrap,
            }
        } else {
            Self {
                index: to as u16,
                wrap: self.wrap,
            }
        }
    }

    /// [`advance`](Self::advance) for chains that are mostly of one slot.
    #[inline(always)]
    pub(crate) fn past(self, slots: u16, size: u16) -> Self {
        match slots {
            1 => self.advance(1, size),
            // Kept apart: a predicted branch here lets the next slot be loaded before this
            // chain's record has arrived.
            _ => self.past_list(slots, size),
        }
    }

    #[cold]
    fn past_list(self, slots: u16, size: u16) -> Self {
        self.advance(slots, size)
    }

    /// The position `by` slots back, `by` at most `size`.
    #[inline(always)]
    #[must_use]
    pub const fn retreat(self, by: u16, size: u16) -> Self {
        if by > self.index {
            Self {
                index: self.index.wrapping_add(size).wrapping_sub(by),
                wrap: !self.wrap,
            }
        } else {
            Self {
                index: self.index.wrapping_sub(by),
                wrap: self.wrap,
            }
        }
    }

    /// Slots from `earlier` to here, if that is between 0 and `size`.
    #[must_use]
    pub const fn since(self, earlier: Self, size: u16) -> Option<u16> {
        if self.wrap == earlier.wrap {
            return self.index.checked_sub(earlier.index);
        }
        match self.index.checked_add(size) {
            Some(to) => match to.checked_sub(earlier.index) {
                Some(slots) if slots <= size => Some(slots),
                _ => None,
            },
            None => None,
        }
    }

    /// As the event words and NOTIFICATION_DATA carry it: slot in bits 0-14, wrap in bit 15.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.index | ((self.wrap as u16) << 15)
    }

    /// The opposite of [`bits`](Self::bits).
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self {
            index: bits & 0x7fff,
            wrap: bits & 0x8000 != 0,
        }
    }
}

/// Where a queue stands: enough to go on elsewhere once nothing is in flight, or with what is in
/// flight taken along by the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueState {
    /// Free-running indices.
    Split {
        /// Next entry of the available ring to take.
        avail: u16,
        /// Next entry of the used ring to write. `None`: read `used.idx` once at start.
        used: Option<u16>,
    },
    /// Positions with their wrap counters.
    Packed {
        /// Next slot to take.
        avail: Pos,
        /// Next slot to mark used.
        used: Pos,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_advance_retreat_and_measure_alike() {
        for size in [1u16, 2, 7, 8, 32767, 32768] {
            for index in [0, size / 2, size - 1] {
                for wrap in [false, true] {
                    let here = Pos { index, wrap };
                    for by in [0, 1, size / 2, size - 1, size] {
                        let there = here.advance(by, size);
                        assert!(there.index < size);
                        assert_eq!(there.retreat(by, size), here);
                        assert_eq!(there.since(here, size), Some(by));
                    }
                    assert_eq!(Pos::from_bits(here.bits()), here);
                }
            }
        }
    }

    #[test]
    fn a_position_ahead_of_its_earlier_one_is_no_distance() {
        let at = |index, wrap| Pos { index, wrap };
        assert_eq!(at(2, true).since(at(3, true), 7), None);
        assert_eq!(at(4, false).since(at(3, true), 7), None);
        assert_eq!(at(3, false).since(at(3, true), 7), Some(7));
    }
}
