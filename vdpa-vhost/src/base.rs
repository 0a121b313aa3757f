//! Where a queue stands, as one number of 32 bits.
//!
//! ```text
//!   split    bits 0-15   next entry of the available ring
//!   packed   bits 0-14   next slot to take · 15 its wrap counter · 16-30 next slot to mark used · 31 its wrap counter
//! ```
//!
//! # Spec
//! vhost-user, "A vring descriptor index for split virtqueues" and "Vring descriptor indices for packed virtqueues".

use vdpa_core::QueueState;
use vdpa_ring::{Format, Pos};

/// The base of a queue that goes on in this state, or at its beginning.
///
/// A split queue's place in the used ring is not told: the back end reads it there. So the two are the same unless chains
/// are in flight, which a queue that was stopped has none of.
pub(crate) fn encode(format: Format, state: Option<QueueState>) -> u32 {
    match (state, format) {
        (Some(QueueState::Split { avail, .. }), _) => u32::from(avail),
        (Some(QueueState::Packed { avail, used }), _) => {
            u32::from(used.bits()) << 16 | u32::from(avail.bits())
        }
        (None, Format::Split) => 0,
        (None, Format::Packed) => u32::from(Pos::START.bits()) << 16 | u32::from(Pos::START.bits()),
    }
}

/// The state of a queue that a back end has stopped.
///
/// * `size`: of the queue, in descriptors
///
/// `None`: no queue of this format and size can stand there.
pub(crate) fn decode(format: Format, size: u16, base: u32) -> Option<QueueState> {
    let low = u16::try_from(base & 0xffff).ok()?;
    let high = u16::try_from(base >> 16).ok()?;
    match format {
        // What is above is not looked at, since some back ends leave their own there.
        Format::Split => Some(QueueState::Split {
            avail: low,
            used: None,
        }),
        Format::Packed => {
            // Nothing above: told in 16 bits, as DPDK does. A queue that was stopped has nothing in flight, so both are one.
            let high = if high == 0 { low } else { high };
            let (avail, used) = (Pos::from_bits(low), Pos::from_bits(high));
            let legal = avail.index < size && used.index < size;
            legal.then_some(QueueState::Packed { avail, used })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_queue_begins_as_the_specification_has_it() {
        assert_eq!(encode(Format::Split, None), 0);
        assert_eq!(encode(Format::Packed, None), 0x8000_8000);
    }

    #[test]
    fn states_come_back_as_they_went() {
        for index in [0, 1, 255, 0x7fff] {
            for wrap in [false, true] {
                let pos = Pos { index, wrap };
                let state = QueueState::Packed {
                    avail: pos,
                    used: Pos::START,
                };
                let base = encode(Format::Packed, Some(state));
                assert_eq!(decode(Format::Packed, 0x8000, base), Some(state));
            }
        }
        let split = QueueState::Split {
            avail: 0xfffe,
            used: None,
        };
        let base = encode(Format::Split, Some(split));
        assert_eq!(decode(Format::Split, 8, base), Some(split));
    }

    #[test]
    fn a_place_of_a_packed_queue_that_is_told_in_16_bits_is_that_of_both_sides() {
        for (base, index, wrap) in [(0x8023, 35, true), (0x0023, 35, false), (0, 0, false)] {
            let at = Pos { index, wrap };
            let state = QueueState::Packed {
                avail: at,
                used: at,
            };
            assert_eq!(decode(Format::Packed, 64, base), Some(state), "{base:#x}");
        }
    }

    #[test]
    fn a_position_past_the_end_of_a_packed_queue_is_no_state() {
        assert_eq!(decode(Format::Packed, 8, 0x8000_8008), None);
        assert_eq!(decode(Format::Packed, 8, 0x8008_8000), None);
        assert!(decode(Format::Packed, 8, 0x8007_8007).is_some());
    }
}
