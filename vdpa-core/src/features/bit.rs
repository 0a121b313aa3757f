//! One feature bit: its number and its name.

use std::fmt;

use super::Features;
use crate::bits;
use crate::device_type::DeviceType;

/// The number of one feature bit, 0 to 127. Not a mask: see [`FeatureBit::mask`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureBit(u8);

impl FeatureBit {
    /// How many feature bits there are (virtio 1.4 §2.2 reserves 128 and above).
    pub const COUNT: u8 = 128;

    /// The bit with this number, `None` for 128 and above.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// For the tables, which are constants: a wrong number does not compile.
    pub(crate) const fn at(number: u8) -> Self {
        assert!(number < Self::COUNT, "feature bits end at 127");
        Self(number)
    }

    /// The bit's number, 0 to 127.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The set that holds this bit alone.
    pub const fn mask(self) -> Features {
        Features(1 << self.0)
    }

    /// What the specification calls the bit on a device of this type, without its
    /// `VIRTIO_..._F_` prefix; `None` when it names no such bit.
    pub fn name(self, device: DeviceType) -> Option<&'static str> {
        bits::by_number(device, self).map(bits::Named::name)
    }

    /// The bit for printing: its name on a device of this type, or `bit-77`.
    pub fn display(self, device: DeviceType) -> FeatureName {
        FeatureName {
            bit: self,
            name: self.name(device),
        }
    }
}

impl fmt::Display for FeatureBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bit-{}", self.0)
    }
}

impl fmt::Debug for FeatureBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeatureBit({})", self.0)
    }
}

/// One bit as it is printed for a device type: `MRG_RXBUF`, or `bit-77` where no name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureName {
    bit: FeatureBit,
    name: Option<&'static str>,
}

impl FeatureName {
    /// The bit's number.
    pub const fn bit(self) -> FeatureBit {
        self.bit
    }

    /// The specification's name, if it has one.
    pub const fn known(self) -> Option<&'static str> {
        self.name
    }
}

impl fmt::Display for FeatureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.pad(name),
            None => f.pad(&self.bit.to_string()),
        }
    }
}
