//! Whose a frame is, by its tags.

use vdpa_sim::port::Membership;
use vdpa_sim::port::vlan::{self, Admitted, Refused, Rewrite, TAG_BYTES};

/// Where the addresses of a frame end, and a tag stands.
pub(super) const TAG_AT: usize = 12;

/// The type that says that a tag of a VLAN follows: 802.1Q.
pub(super) const TAG: [u8; 2] = [0x81, 0x00];

/// Types that say that a tag follows, of any kind: 802.1Q, 802.1ad, and what was there before that.
const TAGS: [[u8; 2]; 5] = [TAG, [0x88, 0xa8], [0x91, 0x00], [0x92, 0x00], [0x93, 0x00]];

/// A frame that may be passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    admitted: Admitted,
    /// It has a tag that nobody takes out: of another kind, or behind the one of its VLAN.
    stacked: bool,
}

impl Passage {
    /// Takes in a frame that comes from a slice, or the wire, which is a trunk. From a slice that sends no tags none of
    /// any kind is let in.
    ///
    /// # Errors
    /// [`Refused`]: the frame is not passed on.
    #[inline]
    pub(super) fn of(frame: &[u8], at: Membership) -> Result<Self, Refused> {
        let admitted = vlan::admit(frame, at)?;
        let own = if admitted.tagged { TAG_BYTES } else { 0 };
        let behind = frame.get(TAG_AT.saturating_add(own)..);
        let kind = behind.and_then(<[u8]>::first_chunk);
        let stacked = kind.is_some_and(|kind| TAGS.contains(kind));
        if stacked && at != Membership::Trunk {
            return Err(Refused::Vlan);
        }
        Ok(Self { admitted, stacked })
    }

    /// Whether it is for all of its VLAN.
    #[inline]
    pub(super) fn is_for_a_group(&self) -> bool {
        self.admitted.to.is_none()
    }

    /// What is done to the frame on its way to a slice, or the wire; `None`: it does not go there. To a slice that sees no
    /// tags none of any kind goes.
    #[inline]
    pub(super) fn leaves(&self, at: Membership) -> Option<Rewrite> {
        match at {
            Membership::Access(_) if self.stacked => None,
            at => self.admitted.leaves(at),
        }
    }
}
