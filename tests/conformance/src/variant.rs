//! The ways to run a ring.

use std::fmt;

use vdpa_core::{FeatureBit, Features, bits};
use vdpa_ring::{Format, RingFeatures};

/// A ring format with the ring features that change what is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Variant {
    /// Split or packed.
    pub format: Format,
    /// Whether IN_ORDER is negotiated.
    pub in_order: bool,
    /// Whether EVENT_IDX is negotiated.
    pub event_idx: bool,
    /// Whether INDIRECT_DESC is negotiated.
    pub indirect: bool,
}

impl Variant {
    /// A plain split ring.
    pub const SPLIT: Variant = Variant {
        format: Format::Split,
        in_order: false,
        event_idx: false,
        indirect: false,
    };

    /// All of them.
    pub fn all() -> impl Iterator<Item = Variant> {
        (0..16u8).map(|bits| Variant {
            format: if bits & 8 == 0 {
                Format::Split
            } else {
                Format::Packed
            },
            in_order: bits & 4 != 0,
            event_idx: bits & 2 != 0,
            indirect: bits & 1 != 0,
        })
    }

    /// Whether the ring is packed.
    pub fn is_packed(&self) -> bool {
        self.format == Format::Packed
    }

    /// The feature bits that it takes.
    pub fn features(&self) -> Features {
        let of = [
            (bits::RING_PACKED, self.is_packed()),
            (bits::IN_ORDER, self.in_order),
            (bits::EVENT_IDX, self.event_idx),
            (bits::INDIRECT_DESC, self.indirect),
        ];
        let on = of.into_iter().filter(|(_, on)| *on);
        on.fold(Features::NONE, |set, (bit, _)| set.with(bit))
    }

    /// The bits that any variant may take.
    pub const BITS: Features = Features::of(&[
        bits::RING_PACKED,
        bits::IN_ORDER,
        bits::EVENT_IDX,
        bits::INDIRECT_DESC,
    ]);

    /// The first bit that it takes and `offered` lacks.
    pub fn lacks(&self, offered: Features) -> Option<FeatureBit> {
        self.features().difference(offered).iter().next()
    }

    /// The same for the rings.
    pub fn ring_features(&self) -> RingFeatures {
        let mut ring = RingFeatures::empty();
        ring.set(RingFeatures::INDIRECT_DESC, self.indirect);
        ring.set(RingFeatures::EVENT_IDX, self.event_idx);
        ring.set(RingFeatures::IN_ORDER, self.in_order);
        ring
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_packed() { "packed" } else { "split" })?;
        for (on, name) in [
            (self.in_order, "+in-order"),
            (self.event_idx, "+event-idx"),
            (self.indirect, "+indirect"),
        ] {
            if on {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}
