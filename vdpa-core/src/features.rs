//! The feature word: which bits a device offers, or a driver accepts.
//!
//! [`Features`] is an opaque 128-bit set. A bit's *number* ([`FeatureBit`]) and a *set* of bits
//! are different types, so a number is never taken for a mask. What a bit means depends on the
//! device type (bit 5 is `MAC` on a network device and `RO` on a block device); the names are in
//! [`crate::bits`], the dependencies in [`crate::graph`].
//!
//! ```
//! use vdpa_core::bits::{self, net};
//! use vdpa_core::DeviceType;
//! use vdpa_core::Features;
//!
//! const OFFER: Features = Features::NONE.with(bits::VERSION_1).with(net::MAC);
//! assert!(OFFER.contains(net::MAC));
//! assert_eq!(OFFER.display(DeviceType::Net).to_string(), "MAC VERSION_1");
//! ```

use std::fmt;

use crate::device_type::DeviceType;

mod bit;
mod ops;

pub use bit::{FeatureBit, FeatureName};

/// A set of feature bits: 128 of them, opaque, `Copy`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u128);

impl Features {
    /// No bit at all.
    pub const NONE: Self = Self(0);

    /// The bits 0 to 63, which is all that a 64-bit interface carries.
    pub const LOW_64: Self = Self(u64::MAX as u128);

    /// The set whose bit n is bit n of `word`.
    pub const fn from_u128(word: u128) -> Self {
        Self(word)
    }

    /// The set as one word; bit n of it is feature bit n.
    pub const fn to_u128(self) -> u128 {
        self.0
    }

    /// The set that a 64-bit interface gave: bits 64 to 127 are clear.
    pub const fn from_u64(low: u64) -> Self {
        Self(low as u128)
    }

    /// Bits 0 to 63. The bits above are lost: see [`Features::fits_u64`] and, for what to do
    /// about the bits that depended on them, [`crate::graph::close_down`].
    pub const fn low_u64(self) -> u64 {
        self.0 as u64
    }

    /// Whether [`Features::low_u64`] loses nothing.
    pub const fn fits_u64(self) -> bool {
        self.0 >> 64 == 0
    }

    /// The set without bits 64 to 127.
    pub const fn truncated_to_64(self) -> Self {
        self.intersection(Self::LOW_64)
    }

    /// The set from 32-bit windows, lowest first: what a driver reads from `device_feature` with
    /// `device_feature_select` 0, 1, 2, 3 (virtio 1.4 §4.1.4.3).
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(
            words[0] as u128
                | (words[1] as u128) << 32
                | (words[2] as u128) << 64
                | (words[3] as u128) << 96,
        )
    }

    /// The 32-bit windows, lowest first.
    pub const fn to_words(self) -> [u32; 4] {
        [self.word(0), self.word(1), self.word(2), self.word(3)]
    }

    /// The 32-bit window `select`; windows above the third read 0, since nothing is offered
    /// there.
    pub const fn word(self, select: u32) -> u32 {
        if select < 4 {
            (self.0 >> (select * 32)) as u32
        } else {
            0
        }
    }

    /// The set with its window `select` replaced; a window above the third changes nothing.
    #[must_use]
    pub const fn with_word(self, select: u32, word: u32) -> Self {
        if select < 4 {
            let at = select * 32;
            Self(self.0 & !((u32::MAX as u128) << at) | (word as u128) << at)
        } else {
            self
        }
    }

    /// The set of these bits; a `const` alternative to collecting an iterator.
    pub const fn of(bits: &[FeatureBit]) -> Self {
        let mut set = Self::NONE;
        let mut rest = bits;
        while let [first, tail @ ..] = rest {
            set = set.with(*first);
            rest = tail;
        }
        set
    }

    /// Whether the set has no bit.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many bits the set has, 0 to 128.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the bit is in the set.
    pub const fn contains(self, bit: FeatureBit) -> bool {
        self.0 & bit.mask().0 != 0
    }

    /// Whether every bit of `other` is in the set; true for the empty one.
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether at least one bit of `other` is in the set.
    pub const fn intersects(self, other: Self) -> bool {
        other.0 & self.0 != 0
    }

    /// The set with this bit.
    #[must_use]
    pub const fn with(self, bit: FeatureBit) -> Self {
        Self(self.0 | bit.mask().0)
    }

    /// The set without this bit.
    #[must_use]
    pub const fn without(self, bit: FeatureBit) -> Self {
        Self(self.0 & !bit.mask().0)
    }

    /// The bits in either set; also `|`.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits in both sets; also `&`.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The bits of this set that are not in `other`; also `-`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Adds a bit. Whether it was new.
    pub const fn insert(&mut self, bit: FeatureBit) -> bool {
        let new = !self.contains(bit);
        *self = self.with(bit);
        new
    }

    /// Takes a bit out. Whether it was there.
    pub const fn remove(&mut self, bit: FeatureBit) -> bool {
        let was = self.contains(bit);
        *self = self.without(bit);
        was
    }

    /// The bits of the set in ascending order.
    pub const fn iter(self) -> Bits {
        Bits(self.0)
    }

    /// The bits by the names they have on a device of this type, in ascending order of number.
    pub fn names(self, device: DeviceType) -> impl DoubleEndedIterator<Item = FeatureName> {
        self.iter().map(move |bit| bit.display(device))
    }

    /// The set for printing: names with a space between them, `none` for the empty set.
    pub fn display(self, device: DeviceType) -> FeatureList {
        FeatureList { set: self, device }
    }
}

/// A set of features as it is printed for a device type; see [`Features::display`].
#[derive(Clone, Copy, Debug)]
pub struct FeatureList {
    set: Features,
    device: DeviceType,
}

impl fmt::Display for FeatureList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.set.is_empty() {
            return f.write_str("none");
        }
        for (at, name) in self.set.names(self.device).enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{name}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x})", self.0)
    }
}

impl fmt::LowerHex for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// The bits of a set in ascending order; see [`Features::iter`].
#[derive(Clone, Debug)]
pub struct Bits(u128);

impl Iterator for Bits {
    type Item = FeatureBit;

    fn next(&mut self) -> Option<FeatureBit> {
        // 128, the count of trailing zeros of an empty word, is no bit.
        let bit = FeatureBit::new(self.0.trailing_zeros() as u8)?;
        self.0 &= !bit.mask().0;
        Some(bit)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.count_ones() as usize;
        (left, Some(left))
    }
}

impl DoubleEndedIterator for Bits {
    fn next_back(&mut self) -> Option<FeatureBit> {
        let bit = FeatureBit::new(127u8.checked_sub(self.0.leading_zeros() as u8)?)?;
        self.0 &= !bit.mask().0;
        Some(bit)
    }
}

impl ExactSizeIterator for Bits {}

#[cfg(test)]
mod tests;
