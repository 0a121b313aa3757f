//! Where a ring stands, as 32 bits.
//!
//! ```text
//!   split    bits 0-15 next available index
//!   packed   bits 0-14 next available slot, 15 its wrap counter, 16-30 next used slot, 31 its wrap counter
//! ```

use vdpa_core::{Format, Pos, QueueIndex, QueueState};

use super::ServeError;

/// What these 32 bits say of a ring of this format.
///
/// A packed ring whose upper half is 0 has nothing in flight, by front ends that know of 16 bits alone (DPDK's
/// virtio-user): as a position it would be one of the second lap, which the lower half then says as well.
pub(super) fn decode(q: QueueIndex, format: Format, base: u32) -> Result<QueueState, ServeError> {
    let [a, b, c, d] = base.to_le_bytes();
    let (low, high) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    match format {
        Format::Split if high != 0 => Err(ServeError::Base { queue: q, base }),
        Format::Split => Ok(QueueState::Split {
            avail: low,
            used: None,
        }),
        Format::Packed => {
            let avail = Pos::from_bits(low);
            let used = match high {
                0 => avail,
                high => Pos::from_bits(high),
            };
            Ok(QueueState::Packed { avail, used })
        }
    }
}

/// The state in 32 bits.
pub(super) fn encode(state: QueueState) -> u32 {
    let (low, high) = match state {
        QueueState::Split { avail, .. } => (avail, 0),
        QueueState::Packed { avail, used } => (avail.bits(), used.bits()),
    };
    u32::from(low) | u32::from(high) << 16
}

/// That of a ring nobody has touched.
pub(super) fn fresh(format: Format) -> u32 {
    match format {
        Format::Split => 0,
        Format::Packed => encode(QueueState::Packed {
            avail: Pos::START,
            used: Pos::START,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: QueueIndex = QueueIndex::new(0);

    fn packed(avail: (u16, bool), used: (u16, bool)) -> QueueState {
        let pos = |(index, wrap)| Pos { index, wrap };
        QueueState::Packed {
            avail: pos(avail),
            used: pos(used),
        }
    }

    #[test]
    fn a_packed_base_of_32_bits_comes_back_as_it_went() {
        for avail in [(0, true), (5, false), (32767, true)] {
            for used in [(0, true), (1, false), (32767, false)] {
                let state = packed(avail, used);
                let base = encode(state);
                assert_eq!(decode(Q, Format::Packed, base).unwrap(), state, "{base:#x}");
            }
        }
        assert_eq!(fresh(Format::Packed), 0x8000_8000);
    }

    #[test]
    fn sixteen_bits_of_a_packed_base_have_nothing_in_flight() {
        let state = decode(Q, Format::Packed, 0x8000).unwrap();
        assert_eq!(state, packed((0, true), (0, true)));
        let state = decode(Q, Format::Packed, 7).unwrap();
        assert_eq!(state, packed((7, false), (7, false)));
    }

    #[test]
    fn a_split_base_is_not_cut_to_16_bits() {
        let state = decode(Q, Format::Split, 0xffff).unwrap();
        assert_eq!(encode(state), 0xffff);
        let refused = decode(Q, Format::Split, 0x1_0001);
        assert!(matches!(
            refused,
            Err(ServeError::Base { base: 0x1_0001, .. })
        ));
    }
}
