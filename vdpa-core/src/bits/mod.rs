//! Every feature bit of virtio 1.4 by name: one table for all device types, one for each type.
//!
//! Bits that any device may have are re-exported here (`bits::VERSION_1`); a type's own bits are
//! in its module (`bits::net::MAC`). Names are the specification's without their `VIRTIO_..._F_`
//! prefix.
//!
//! ```text
//!   0 ..  23   the device type's own                      virtio 1.4 §2.2
//!  24 ..  40   queues and negotiation, any device type    virtio 1.4 §6
//!  41, 42      the device type's own by §2.2; §6 makes 41 ADMIN_VQ for every type,
//!              and legacy network devices had 41 and 42
//!  43          SUSPEND, any device type
//!  44 ..  49   reserved
//!  50 .. 127   the device type's own
//! ```
//!
//! Bit 30 has no name: the specification keeps it unused, because some implementations test it
//! to find peers that negotiate wrongly.

use crate::device_type::DeviceType;
use crate::features::{FeatureBit, Features};

/// Whether a bit is for today's interface or for the one before virtio 1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Defined for devices that offer `VERSION_1`.
    Current,
    /// Defined for the legacy interface: a transitional device may offer it, a driver that
    /// accepts `VERSION_1` does not accept it.
    Legacy,
}

/// One row of a table: a bit and its name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    bit: FeatureBit,
    name: &'static str,
    about: &'static str,
    era: Era,
}

impl Named {
    /// The bit's number.
    pub const fn bit(&self) -> FeatureBit {
        self.bit
    }

    /// The specification's name in upper case, without its `VIRTIO_..._F_` prefix.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it means in a few words, for listings.
    pub const fn about(&self) -> &'static str {
        self.about
    }

    /// Which interface it belongs to.
    pub const fn era(&self) -> Era {
        self.era
    }
}

/// A constant for each bit, and `TABLE` with all of them in ascending order.
macro_rules! table {
    (
        $prefix:literal
        { $( $name:ident = $number:literal, $about:literal; )* }
        $( legacy { $( $old:ident = $old_number:literal, $old_about:literal; )* } )?
    ) => {
        $(
            #[doc = concat!("`", $prefix, stringify!($name), "`, bit ", stringify!($number), ": ", $about, ".")]
            pub const $name: $crate::features::FeatureBit = $crate::features::FeatureBit::at($number);
        )*
        $($(
            #[doc = concat!("`", $prefix, stringify!($old), "`, bit ", stringify!($old_number), ", legacy interface only: ", $old_about, ".")]
            pub const $old: $crate::features::FeatureBit = $crate::features::FeatureBit::at($old_number);
        )*)?

        /// The bits of this module: current ones first, then those of the legacy interface, each
        /// in ascending order.
        pub const TABLE: &[$crate::bits::Named] = &[
            $( $crate::bits::Named {
                bit: $name,
                name: stringify!($name),
                about: $about,
                era: $crate::bits::Era::Current,
            }, )*
            $($( $crate::bits::Named {
                bit: $old,
                name: stringify!($old),
                about: $old_about,
                era: $crate::bits::Era::Legacy,
            }, )*)?
        ];
    };
}

pub mod block;
pub mod net;
mod types;
pub mod virtio;

pub use types::{
    balloon, can, console, crypto, fs, gpio, gpu, i2c, iommu, mem, pmem, rtc, scmi, scsi, socket,
    sound,
};
pub use virtio::{
    ACCESS_PLATFORM, ADMIN_VQ, ANY_LAYOUT, EVENT_IDX, IN_ORDER, INDIRECT_DESC, NOTIF_CONFIG_DATA,
    NOTIFICATION_DATA, NOTIFY_ON_EMPTY, ORDER_PLATFORM, RING_PACKED, RING_RESET, SR_IOV, SUSPEND,
    VERSION_1,
};

/// The bits that belong to this type of device alone. `None` where virtio 1.4 reserves an id and
/// describes no device: nothing is known of its bits then, not even that there are none.
pub const fn own(device: DeviceType) -> Option<&'static [Named]> {
    Some(match device {
        DeviceType::Net => net::TABLE,
        DeviceType::Block => block::TABLE,
        DeviceType::Console => console::TABLE,
        DeviceType::Balloon => balloon::TABLE,
        DeviceType::Scsi => scsi::TABLE,
        DeviceType::Gpu => gpu::TABLE,
        DeviceType::Crypto => crypto::TABLE,
        DeviceType::Socket => socket::TABLE,
        DeviceType::FileSystem => fs::TABLE,
        DeviceType::Iommu => iommu::TABLE,
        DeviceType::Sound => sound::TABLE,
        DeviceType::Memory => mem::TABLE,
        DeviceType::I2c => i2c::TABLE,
        DeviceType::Scmi => scmi::TABLE,
        DeviceType::Gpio => gpio::TABLE,
        DeviceType::Pmem => pmem::TABLE,
        DeviceType::Can => can::TABLE,
        DeviceType::Rtc => rtc::TABLE,
        // Described, and without bits of their own.
        DeviceType::Entropy
        | DeviceType::Input
        | DeviceType::Rpmb
        | DeviceType::Spi
        | DeviceType::Media => &[],
        _ => return None,
    })
}

/// All rows that hold for this type of device: those of any device, then its own.
pub fn all(device: DeviceType) -> impl Iterator<Item = &'static Named> {
    virtio::TABLE.iter().chain(own(device).unwrap_or(&[]))
}

/// The row of a bit. Where two rows have one number (41 on a network device), the current one.
pub fn by_number(device: DeviceType, bit: FeatureBit) -> Option<&'static Named> {
    all(device).find(|named| named.bit == bit)
}

/// The row with this name, in any case, with or without the specification's prefix
/// (`mrg_rxbuf`, `VIRTIO_NET_F_MRG_RXBUF`).
pub fn by_name(device: DeviceType, name: &str) -> Option<&'static Named> {
    let upper = name.to_ascii_uppercase();
    let bare = match upper.strip_prefix("VIRTIO_") {
        Some(rest) => rest.split_once("F_").map_or(rest, |(_, bare)| bare),
        None => &upper,
    };
    all(device).find(|named| named.name == bare)
}

fn of_era(device: DeviceType, era: Era) -> Features {
    all(device)
        .filter(|named| named.era == era)
        .map(Named::bit)
        .collect()
}

/// The bits that a device of this type may offer and a driver may accept, the legacy interface
/// left out. For a type whose own bits are not known, those of any device.
pub fn defined(device: DeviceType) -> Features {
    of_era(device, Era::Current)
}

/// The bits of the legacy interface alone.
pub fn legacy(device: DeviceType) -> Features {
    of_era(device, Era::Legacy) - defined(device)
}

/// The bits that virtio 1.4 §2.2 leaves to each device type.
pub const TYPE_RANGE: Features =
    Features::from_u128(0x00ff_ffff | 1 << 41 | 1 << 42 | (u128::MAX << 50));

#[cfg(test)]
mod tests;
