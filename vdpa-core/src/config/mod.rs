//! The device config space by type: layouts, fields by name, and which feature each depends on.
//!
//! A layout is a struct of plain integers ([`NetConfig`], [`BlockConfig`]) that converts to and
//! from the little-endian bytes of virtio 1.4 (§2.5), and a table of [`Field`]s with offset and
//! width. A device may show fewer bytes than a layout has, since trailing fields come with their
//! features, or more, when it is newer (virtio 1.4 §2.5.1); both are read.
//!
//! ```
//! use vdpa_core::bits::net;
//! use vdpa_core::config::{self, NetConfig};
//! use vdpa_core::DeviceType;
//!
//! let config = NetConfig::new().with_mtu(9000).with_max_virtqueue_pairs(4);
//! let shown: Vec<String> = config::show(DeviceType::Net, net::MTU.mask(), &config.to_bytes())
//!     .map(|(field, value)| format!("{} {value}", field.name()))
//!     .collect();
//! assert_eq!(shown, ["mtu 9000"]);
//! ```

use std::fmt;

use crate::device_type::DeviceType;
use crate::features::{FeatureBit, Features};

/// Whether a driver may write a config field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// The driver only reads it.
    Never,
    /// The driver may write it.
    ByDriver,
}

/// One field of a config space: where it is, how wide, and when it exists.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    name: &'static str,
    offset: u32,
    width: u32,
    any_of: &'static [FeatureBit],
    writable: Writable,
}

impl Field {
    /// The specification's name; fields of a nested struct as `zoned.model`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes from the start of the config space.
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// Width in bytes: 1, 2, 4 or 8, and 6 for a MAC address.
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// The first byte after the field.
    pub const fn end(&self) -> u32 {
        self.offset + self.width
    }

    /// The features of which one must be there for the field to exist; none: it always exists.
    pub const fn any_of(&self) -> &'static [FeatureBit] {
        self.any_of
    }

    /// Whether the driver may write it.
    pub const fn writable(&self) -> Writable {
        self.writable
    }

    /// Whether the field exists with these features.
    pub const fn exists(&self, features: Features) -> bool {
        self.any_of.is_empty() || features.intersects(Features::of(self.any_of))
    }

    /// The field's value in the bytes of a config space, `None` if they end before it does.
    pub fn value(&self, bytes: &[u8]) -> Option<Value> {
        let bytes = bytes.get(self.offset as usize..self.end() as usize)?;
        if let Ok(mac) = <[u8; 6]>::try_from(bytes) {
            return Some(Value::Mac(Mac::new(mac)));
        }
        let mut wide = [0; 8];
        wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Value::Number(u64::from_le_bytes(wide)))
    }
}

/// What a config field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// An unsigned integer of the field's width.
    Number(u64),
    /// A MAC address.
    Mac(Mac),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::Mac(mac) => fmt::Display::fmt(mac, f),
        }
    }
}

/// The fields of a device type's config space in ascending order of offset; empty for a type
/// whose layout is not described here.
pub const fn fields(device: DeviceType) -> &'static [Field] {
    match device {
        DeviceType::Net => NetConfig::FIELDS,
        DeviceType::Block => BlockConfig::FIELDS,
        _ => &[],
    }
}

/// How long the config space of a device with these features must be, in bytes: to the end of
/// the last field that exists.
pub fn length(device: DeviceType, features: Features) -> u32 {
    fields(device)
        .iter()
        .filter(|field| field.exists(features))
        .map(Field::end)
        .max()
        .unwrap_or(0)
}

/// The fields that exist with these features, with their values, in ascending order of offset.
/// A field beyond the end of `bytes` is left out.
pub fn show(
    device: DeviceType,
    features: Features,
    bytes: &[u8],
) -> impl Iterator<Item = (&'static Field, Value)> {
    fields(device)
        .iter()
        .filter(move |field| field.exists(features))
        .filter_map(move |field| Some((field, field.value(bytes)?)))
}

/// A config field whose value the specification does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config field {field}: {value} is out of range: {least}..={most}")]
pub struct FieldError {
    /// The field's name.
    pub field: &'static str,
    /// What it holds.
    pub value: u64,
    /// The least value allowed.
    pub least: u64,
    /// The greatest value allowed.
    pub most: u64,
}

/// Whether `value`, which matters only if `exists`, is in its range.
fn check(
    exists: bool,
    field: &'static str,
    value: impl Into<u64>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<(), FieldError> {
    let value = value.into();
    if !exists || range.contains(&value) {
        return Ok(());
    }
    Err(FieldError {
        field,
        value,
        least: *range.start(),
        most: *range.end(),
    })
}

/// An integer, or a MAC address, at a fixed place in a config space.
trait Cell: Copy + Default {
    const WIDTH: u32;
    fn put(self, to: &mut [u8]);
    /// `from` has exactly `WIDTH` bytes; anything else reads as the default.
    fn take(from: &[u8]) -> Self;
}

macro_rules! integer_cells {
    ($($int:ty),*) => {$(
        impl Cell for $int {
            const WIDTH: u32 = <$int>::BITS / 8;
            fn put(self, to: &mut [u8]) {
                to.copy_from_slice(&self.to_le_bytes());
            }
            fn take(from: &[u8]) -> Self {
                from.try_into().map(<$int>::from_le_bytes).unwrap_or_default()
            }
        }
    )*};
}
integer_cells!(u8, u16, u32, u64);

impl Cell for Mac {
    const WIDTH: u32 = 6;
    fn put(self, to: &mut [u8]) {
        to.copy_from_slice(&self.octets());
    }
    fn take(from: &[u8]) -> Self {
        from.try_into().map(Self::new).unwrap_or_default()
    }
}

/// A config space: the struct of integers, its table of fields, and both ways to the bytes.
macro_rules! layout {
    (
        $(#[$about:meta])*
        pub struct $config:ident($size:literal bytes);
        $(
            $(#[$doc:meta])*
            $field:ident / $with:ident: $int:ty = $name:literal at $offset:literal
                $(if $( $feature:path )|+)? $(, $writable:ident)?;
        )*
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $config {
            $( $field: $int, )*
        }

        impl $config {
            /// Length of the whole layout in bytes.
            pub const SIZE: usize = $size;

            /// The fields in ascending order of offset.
            pub const FIELDS: &[Field] = &[$( Field {
                name: $name,
                offset: $offset,
                width: <$int as Cell>::WIDTH,
                any_of: &[$( $( $feature ),+ )?],
                writable: layout!(@writable $($writable)?),
            } ),*];

            /// A config space of zeros.
            pub fn new() -> Self {
                Self::default()
            }

            /// The config space that starts with `bytes`: what is not there reads as zero, what
            /// is beyond the layout is left out.
            pub fn from_bytes(bytes: &[u8]) -> Self {
                let mut whole = [0; $size];
                let length = bytes.len().min($size);
                whole[..length].copy_from_slice(&bytes[..length]);
                Self {
                    $( $field: <$int as Cell>::take(
                        &whole[$offset..$offset + <$int as Cell>::WIDTH as usize]
                    ), )*
                }
            }

            /// The bytes as a driver sees them, little-endian, padding zero.
            pub fn to_bytes(&self) -> [u8; $size] {
                let mut whole = [0; $size];
                $( self.$field.put(
                    &mut whole[$offset..$offset + <$int as Cell>::WIDTH as usize]
                ); )*
                whole
            }

            $(
                #[doc = concat!("The same with another `", $name, "`.")]
                #[must_use]
                pub const fn $with(mut self, value: $int) -> Self {
                    self.$field = value;
                    self
                }
            )*
        }
    };
    (@writable) => { Writable::Never };
    (@writable writable) => { Writable::ByDriver };
}

pub mod block;
pub mod mac;
pub mod net;

pub use block::BlockConfig;
pub use mac::Mac;
pub use net::NetConfig;

#[cfg(test)]
mod tests;
