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
