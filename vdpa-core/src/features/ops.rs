//! Operators and conversions of the set.

use std::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign, BitXor, BitXorAssign, Sub, SubAssign};

use super::{Bits, FeatureBit, Features};

impl IntoIterator for Features {
    type Item = FeatureBit;
    type IntoIter = Bits;

    fn into_iter(self) -> Bits {
        self.iter()
    }
}

impl FromIterator<FeatureBit> for Features {
    fn from_iter<I: IntoIterator<Item = FeatureBit>>(bits: I) -> Self {
        bits.into_iter().fold(Self::NONE, Self::with)
    }
}

impl Extend<FeatureBit> for Features {
    fn extend<I: IntoIterator<Item = FeatureBit>>(&mut self, bits: I) {
        *self = bits.into_iter().fold(*self, Self::with);
    }
}

impl From<FeatureBit> for Features {
    fn from(bit: FeatureBit) -> Self {
        bit.mask()
    }
}

/// Both operands may be a set or a single bit, so that `net::MAC | net::MTU` is a set.
macro_rules! operators {
    ($($left:ty, $right:ty);* $(;)?) => {$(
        impl BitOr<$right> for $left {
            type Output = Features;
            fn bitor(self, other: $right) -> Features {
                Features::from(self).union(other.into())
            }
        }
    )*};
}
operators! {
    Features, Features; Features, FeatureBit; FeatureBit, Features; FeatureBit, FeatureBit;
}

impl<T: Into<Features>> BitAnd<T> for Features {
    type Output = Self;
    fn bitand(self, other: T) -> Self {
        self.intersection(other.into())
    }
}

impl<T: Into<Features>> Sub<T> for Features {
    type Output = Self;
    fn sub(self, other: T) -> Self {
        self.difference(other.into())
    }
}

impl<T: Into<Features>> BitXor<T> for Features {
    type Output = Self;
    fn bitxor(self, other: T) -> Self {
        Self(self.0 ^ other.into().0)
    }
}

impl<T: Into<Features>> BitOrAssign<T> for Features {
    fn bitor_assign(&mut self, other: T) {
        *self = self.union(other.into());
    }
}

impl<T: Into<Features>> BitAndAssign<T> for Features {
    fn bitand_assign(&mut self, other: T) {
        *self = self.intersection(other.into());
    }
}

impl<T: Into<Features>> SubAssign<T> for Features {
    fn sub_assign(&mut self, other: T) {
        *self = self.difference(other.into());
    }
}

impl<T: Into<Features>> BitXorAssign<T> for Features {
    fn bitxor_assign(&mut self, other: T) {
        *self = *self ^ other;
    }
}
