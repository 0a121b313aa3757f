//! When a peer wants to be told: the one copy of the event tests.

use crate::state::Pos;

/// Whether moving an index from `old` to `new` passes `event` (`virtio 1.4 §2.7.10`), right
/// across 65535.
#[inline(always)]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// The same for a packed ring of `size` slots: whether the last `slots` slots before `new`
/// include `event` (`virtio 1.4 §2.8.14`). `slots` is at most `size`.
#[inline(always)]
pub const fn need_event_packed(event: Pos, new: Pos, slots: u16, size: u16) -> bool {
    // An event of the other lap lies one ring behind.
    let at = if event.wrap == new.wrap {
        event.index
    } else {
        event.index.wrapping_sub(size)
    };
    need_event(at, new.index, new.index.wrapping_sub(slots))
}

/// What the packed ring's event words ask for (`virtio 1.4 §2.8.14`).
pub(crate) mod mode {
    /// Notify always.
    pub(crate) const ENABLE: u16 = 0;
    /// Notify never.
    pub(crate) const DISABLE: u16 = 1;
    /// Notify when a position is passed; legal with EVENT_IDX alone.
    pub(crate) const POSITION: u16 = 2;
}

/// Split: the peer's `flags` bit that asks for silence; the same bit in both directions.
pub(crate) const SILENT: u16 = 1;

/// Decides for a packed ring whether to notify, from the words the peer wrote. Reserved modes,
/// a position outside the ring and a position without EVENT_IDX ask for nothing legal: they get
/// a notification, which is always allowed.
#[inline]
pub(crate) fn packed_wants(
    mode: u16,
    position: impl FnOnce() -> Pos,
    event_idx: bool,
    new: Pos,
    slots: u16,
    size: u16,
) -> bool {
    match mode & 3 {
        mode::DISABLE => false,
        mode::POSITION if event_idx => {
            let event = position();
            event.index >= size || need_event_packed(event, new, slots, size)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks every step instead of comparing.
    fn passes(event: u16, new: u16, old: u16) -> bool {
        let mut at = old;
        while at != new {
            if at == event {
                return true;
            }
            at = at.wrapping_add(1);
        }
        false
    }

    #[test]
    fn kick_is_not_lost_when_avail_idx_wraps() {
        for old in [0u16, 1, 5, 65530, 65534, 65535] {
            for by in 0..12u16 {
                let new = old.wrapping_add(by);
                for off in 0..20u16 {
                    let event = old.wrapping_sub(4).wrapping_add(off);
                    assert_eq!(
                        need_event(event, new, old),
                        passes(event, new, old),
                        "event {event} new {new} old {old}"
                    );
                }
            }
        }
    }

    #[test]
    fn packed_event_is_passed_across_the_ring_end_for_any_size() {
        for size in [1u16, 2, 3, 7, 8] {
            for start in 0..size {
                for wrap in [false, true] {
                    let old = Pos { index: start, wrap };
                    for slots in 0..=size {
                        let new = old.advance(slots, size);
                        let mut walked = std::vec::Vec::new();
                        for by in 0..slots {
                            walked.push(old.advance(by, size));
                        }
                        // Any event of the laps of old and new that has not long passed.
                        for by in 0..=size {
                            let event = old.advance(by, size);
                            if by == size && slots == size {
                                continue; // Equals `new`, which is not passed.
                            }
                            assert_eq!(
                                need_event_packed(event, new, slots, size),
                                walked.contains(&event),
                                "size {size} old {old:?} slots {slots} event {event:?}"
                            );
                        }
                        assert!(!need_event_packed(new, new, slots, size));
                    }
                }
            }
        }
    }

    #[test]
    fn illegal_event_words_get_a_notification() {
        let new = Pos {
            index: 3,
            wrap: true,
        };
        let never = || Pos {
            index: 3,
            wrap: true,
        };
        assert!(packed_wants(3, never, true, new, 1, 7), "reserved mode");
        assert!(
            packed_wants(2, never, false, new, 1, 7),
            "position without EVENT_IDX"
        );
        assert!(
            packed_wants(
                2,
                || Pos {
                    index: 7,
                    wrap: true
                },
                true,
                new,
                1,
                7
            ),
            "outside"
        );
        assert!(!packed_wants(2, never, true, new, 1, 7));
        assert!(!packed_wants(1, never, true, new, 1, 7));
    }
}
