//! Addresses that never mix.

use core::fmt;

use crate::MemError;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            pub const fn new(at: u64) -> Self {
                Self(at)
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` past the end of the 64-bit space.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(at) => Some(Self(at)),
                    None => None,
                }
            }

            /// Whether the address is a multiple of `align` bytes (a power of two).
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & align.wrapping_sub(1) == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// An address as the device uses it: what stands in descriptors and ring addresses.
    Iova
}
address! {
    /// A guest-physical address. Only a dirty log speaks it; a device never does.
    Gpa
}
address! {
    /// A host-virtual address: where a byte is in this process.
    Hva
}

/// A non-empty range of [`Iova`] that does not wrap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IovaRange {
    first: Iova,
    len: u64,
}

impl IovaRange {
    /// The range of `len` bytes from `first` on.
    ///
    /// # Errors
    /// [`MemError::Range`] when `len` is 0 or the last byte would lie past 2^64 - 1.
    pub const fn new(first: Iova, len: u64) -> Result<Self, MemError> {
        if len == 0 || first.checked_add(len - 1).is_none() {
            return Err(MemError::Range { first, len });
        }
        Ok(Self { first, len })
    }

    /// The first address.
    pub const fn first(self) -> Iova {
        self.first
    }

    /// The length in bytes, never 0.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// The last address, inclusive.
    pub const fn last(self) -> Iova {
        // Cannot wrap: `new` checked it.
        Iova(self.first.0.wrapping_add(self.len - 1))
    }

    /// Whether the two share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first.0 <= other.last().0 && other.first.0 <= self.last().0
    }

    /// Whether every address of `other` is in this range.
    pub const fn contains(self, other: Self) -> bool {
        self.first.0 <= other.first.0 && other.last().0 <= self.last().0
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first.0, self.last().0)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn range_refuses_empty_and_wrapping() {
        assert!(IovaRange::new(Iova::new(5), 0).is_err());
        assert!(IovaRange::new(Iova::new(u64::MAX), 2).is_err());
        let top = IovaRange::new(Iova::new(u64::MAX), 1).unwrap();
        assert_eq!(top.last(), Iova::new(u64::MAX));
    }

    #[test]
    fn range_overlap_is_by_shared_addresses() {
        let range = |first, len| IovaRange::new(Iova::new(first), len).unwrap();
        assert!(range(0, 10).overlaps(range(9, 1)));
        assert!(!range(0, 10).overlaps(range(10, 1)));
        assert!(range(0, 10).contains(range(9, 1)));
        assert!(!range(0, 10).contains(range(9, 2)));
    }

    #[test]
    fn addresses_and_ranges_are_printed_as_hexadecimal_numbers() {
        let at = Iova::new(0x1f000);
        assert_eq!(at.to_string(), "0x1f000");
        assert_eq!(format!("{at:x} {at:#x} {at:08x}"), "1f000 0x1f000 0001f000");
        assert_eq!(
            format!("{at:?} {:?}", Gpa::new(16)),
            "Iova(0x1f000) Gpa(0x10)"
        );
        let range = IovaRange::new(at, 0x1000).unwrap();
        assert_eq!(range.to_string(), "0x1f000..=0x1ffff");
    }
}
