//! Which rings to ask the device for.

use std::fmt;
use std::str::FromStr;

use vdpa_core::Features;
use vdpa_core::bits;

/// A ring format, and whether the device uses buffers in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Ring {
    /// Split rings, virtio 1.4 §2.7.
    #[default]
    Split,
    /// Packed rings, virtio 1.4 §2.8.
    Packed,
    /// Split rings whose buffers are used in order, virtio 1.4 §2.7.9.
    SplitInOrder,
    /// Packed rings whose buffers are used in order, virtio 1.4 §2.8.9.
    PackedInOrder,
}

impl Ring {
    /// All there are.
    pub const ALL: [Self; 4] = [
        Self::Split,
        Self::Packed,
        Self::SplitInOrder,
        Self::PackedInOrder,
    ];

    /// The name, as it is written on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Packed => "packed",
            Self::SplitInOrder => "split-in-order",
            Self::PackedInOrder => "packed-in-order",
        }
    }

    /// The features that the choice needs.
    pub const fn features(self) -> Features {
        match self {
            Self::Split => Features::NONE,
            Self::Packed => Features::NONE.with(bits::RING_PACKED),
            Self::SplitInOrder => Features::NONE.with(bits::IN_ORDER),
            Self::PackedInOrder => Features::NONE.with(bits::RING_PACKED).with(bits::IN_ORDER),
        }
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of [`Ring::ALL`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no ring is called {name:?}: use split, packed, split-in-order or packed-in-order")]
pub struct UnknownRing {
    /// The name.
    pub name: String,
}

impl FromStr for Ring {
    type Err = UnknownRing;

    fn from_str(name: &str) -> Result<Self, UnknownRing> {
        Self::ALL
            .into_iter()
            .find(|ring| ring.name() == name)
            .ok_or_else(|| UnknownRing {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ring_is_found_by_its_name() {
        for ring in Ring::ALL {
            assert_eq!(ring.name().parse(), Ok(ring));
        }
        let error = "Split".parse::<Ring>().unwrap_err();
        for ring in Ring::ALL {
            assert!(error.to_string().contains(ring.name()));
        }
    }
}
