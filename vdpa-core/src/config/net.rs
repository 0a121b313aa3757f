//! The config space of a network device (virtio 1.4 §5.1.4).
//!
//! ```text
//!  0               6        8            10     12      16      17
//!  | mac           | status | max pairs  | mtu  | speed | duplex|
//! 17             18                   20                   24                       28
//!  | rss key size | rss table length  | hash types         | tunnel types           |
//! ```

use bitflags::bitflags;

use super::{Cell, Field, FieldError, Mac, Writable, check};
use crate::bits::net;
use crate::features::Features;

bitflags! {
    /// The link's status (virtio 1.4 §5.1.4).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct NetStatus: u16 {
        /// The link is up.
        const LINK_UP = 1;
        /// The driver is asked to announce itself.
        const ANNOUNCE = 2;
        const _ = !0;
    }
}

bitflags! {
    /// The packets whose hash a device can calculate (virtio 1.4 §5.1.9.4.3).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct HashTypes: u32 {
        /// IPv4 addresses.
        const IPV4 = 1 << 0;
        /// IPv4 addresses and TCP ports.
        const TCPV4 = 1 << 1;
        /// IPv4 addresses and UDP ports.
        const UDPV4 = 1 << 2;
        /// IPv6 addresses.
        const IPV6 = 1 << 3;
        /// IPv6 addresses and TCP ports.
        const TCPV6 = 1 << 4;
        /// IPv6 addresses and UDP ports.
        const UDPV6 = 1 << 5;
        /// IPv6 addresses of the extension headers.
        const IP_EX = 1 << 6;
        /// IPv6 addresses of the extension headers, and TCP ports.
        const TCP_EX = 1 << 7;
        /// IPv6 addresses of the extension headers, and UDP ports.
        const UDP_EX = 1 << 8;
        const _ = !0;
    }
}

bitflags! {
    /// The tunnels whose inner header a device can hash (virtio 1.4 §5.1.9.4.3).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TunnelTypes: u32 {
        /// GRE, RFC 2784.
        const GRE_2784 = 1 << 0;
        /// GRE with key and sequence number, RFC 2890.
        const GRE_2890 = 1 << 1;
        /// GRE over IPv6, RFC 7676.
        const GRE_7676 = 1 << 2;
        /// GRE in UDP, RFC 8086.
        const GRE_UDP = 1 << 3;
        /// VXLAN.
        const VXLAN = 1 << 4;
        /// VXLAN-GPE.
        const VXLAN_GPE = 1 << 5;
        /// Geneve.
        const GENEVE = 1 << 6;
        /// IP in IP.
        const IPIP = 1 << 7;
        /// NVGRE.
        const NVGRE = 1 << 8;
        const _ = !0;
    }
}

/// How the link is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplex {
    /// One way at a time.
    Half,
    /// Both ways at once.
    Full,
    /// The device does not say.
    Unknown,
}

impl Duplex {
    /// The value in the config space.
    ///
    /// Virtio 1.4 contradicts itself here: the description of the field has 1 for full, the
    /// device's requirements have 0. Drivers in use follow the description.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Half => 0,
            Self::Full => 1,
            Self::Unknown => 0xff,
        }
    }

    /// What the value means; a driver takes any other for unknown.
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Half,
            1 => Self::Full,
            _ => Self::Unknown,
        }
    }
}

/// The value of `speed` that means unknown.
pub const SPEED_UNKNOWN: u32 = u32::MAX;

layout! {
    /// The config space of a network device. No field of it may be written by the driver.
    pub struct NetConfig(28 bytes);
    mac / with_mac: Mac = "mac" at 0 if net::MAC;
    status / with_raw_status: u16 = "status" at 6 if net::STATUS;
    max_virtqueue_pairs / with_max_virtqueue_pairs: u16 = "max_virtqueue_pairs" at 8
        if net::MQ | net::RSS;
    mtu / with_mtu: u16 = "mtu" at 10 if net::MTU;
    speed / with_raw_speed: u32 = "speed" at 12 if net::SPEED_DUPLEX;
    duplex / with_raw_duplex: u8 = "duplex" at 16 if net::SPEED_DUPLEX;
    rss_max_key_size / with_rss_max_key_size: u8 = "rss_max_key_size" at 17
        if net::RSS | net::HASH_REPORT;
    rss_max_indirection_table_length / with_rss_max_indirection_table_length: u16
        = "rss_max_indirection_table_length" at 18 if net::RSS;
    supported_hash_types / with_raw_hash_types: u32 = "supported_hash_types" at 20
        if net::RSS | net::HASH_REPORT;
    supported_tunnel_types / with_raw_tunnel_types: u32 = "supported_tunnel_types" at 24
        if net::HASH_TUNNEL;
}

impl NetConfig {
    /// The MAC address; its bytes are there without `MAC` too, but mean nothing then.
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// The link's status, undefined bits kept. Exists with `STATUS`.
    pub const fn status(&self) -> NetStatus {
        NetStatus::from_bits_retain(self.status)
    }

    /// The same with another link status.
    #[must_use]
    pub const fn with_status(self, status: NetStatus) -> Self {
        self.with_raw_status(status.bits())
    }

    /// The most queue pairs, 1 to 0x8000. Exists with `MQ` or `RSS`.
    pub const fn max_virtqueue_pairs(&self) -> u16 {
        self.max_virtqueue_pairs
    }

    /// The maximum MTU in bytes, 68 to 65535. Exists with `MTU`.
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The speed in Mbit/s, 0 to 0x7fffffff; `None` for any other value, which a driver takes
    /// for unknown. Exists with `SPEED_DUPLEX`.
    pub const fn speed(&self) -> Option<u32> {
        if self.speed <= i32::MAX as u32 {
            Some(self.speed)
        } else {
            None
        }
    }

    /// The same with another speed in Mbit/s; `None` and what is above 0x7fffffff: unknown.
    #[must_use]
    pub const fn with_speed(self, speed: Option<u32>) -> Self {
        self.with_raw_speed(match speed {
            Some(speed) if speed <= i32::MAX as u32 => speed,
            _ => SPEED_UNKNOWN,
        })
    }

    /// The duplex mode. Exists with `SPEED_DUPLEX`.
    pub const fn duplex(&self) -> Duplex {
        Duplex::from_u8(self.duplex)
    }

    /// The same with another duplex mode.
    #[must_use]
    pub const fn with_duplex(self, duplex: Duplex) -> Self {
        self.with_raw_duplex(duplex.to_u8())
    }

    /// The longest hash key in bytes, at least 40. Exists with `RSS` or `HASH_REPORT`.
    pub const fn rss_max_key_size(&self) -> u8 {
        self.rss_max_key_size
    }

    /// The most entries of the indirection table, at least 128. Exists with `RSS`.
    pub const fn rss_max_indirection_table_length(&self) -> u16 {
        self.rss_max_indirection_table_length
    }

    /// What the device can hash. Exists with `RSS` or `HASH_REPORT`.
    pub const fn supported_hash_types(&self) -> HashTypes {
        HashTypes::from_bits_retain(self.supported_hash_types)
    }

    /// The same with other hash types.
    #[must_use]
    pub const fn with_supported_hash_types(self, types: HashTypes) -> Self {
        self.with_raw_hash_types(types.bits())
    }

    /// The tunnels whose inner header the device can hash. Exists with `HASH_TUNNEL`.
    pub const fn supported_tunnel_types(&self) -> TunnelTypes {
        TunnelTypes::from_bits_retain(self.supported_tunnel_types)
    }

    /// The same with other tunnel types.
    #[must_use]
    pub const fn with_supported_tunnel_types(self, types: TunnelTypes) -> Self {
        self.with_raw_tunnel_types(types.bits())
    }

    /// Whether a device that offers these features may show this config space.
    ///
    /// # Errors
    /// [`FieldError`] with the first field that is out of its range.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.4.1
    pub fn check(&self, offered: Features) -> Result<(), FieldError> {
        let pairs = offered.contains(net::MQ) || offered.contains(net::RSS);
        let key = offered.contains(net::RSS) || offered.contains(net::HASH_REPORT);
        check(
            pairs,
            "max_virtqueue_pairs",
            self.max_virtqueue_pairs,
            1..=0x8000,
        )?;
        check(offered.contains(net::MTU), "mtu", self.mtu, 68..=65535)?;
        check(key, "rss_max_key_size", self.rss_max_key_size, 40..=255)?;
        check(
            offered.contains(net::RSS),
            "rss_max_indirection_table_length",
            self.rss_max_indirection_table_length,
            128..=65535,
        )
    }
}
