//! What the driver chose to be hashed, and to which queue what it hashes to goes: receive-side scaling.
//!
//! ```text
//!   virtio_net_rss_config:   types u32 | mask u16 | unclassified u16 | table u16 * (mask + 1) | transmit queues u16
//!                            | key length u8 | key                                     virtio 1.4 §5.1.9.5.7.1
//!   virtio_net_hash_config:  types u32 | 0 u16 * 4 | key length u8 | key               virtio 1.4 §5.1.9.5.6.4
//! ```
//! All little-endian, and the driver's: everything is checked, and nothing may be left over.

use vdpa_core::config::net::HashTypes;

use super::flow::flow;
use super::toeplitz::{Key, MAX_KEY};

/// The most entries of an indirection table.
pub(super) const MAX_TABLE: usize = 128;

/// All hash types: those of virtio 1.4 §5.1.9.4.3.2.
pub(super) const HASH_TYPES: HashTypes = HashTypes::from_bits_retain(0x1ff);

/// `rss_max_key_size`, in a byte.
pub(super) const MAX_KEY_SIZE: u8 = MAX_KEY as u8;

/// Bytes behind the virtio-net header of a received packet with HASH_REPORT: value u32, report u16, padding u16.
pub(super) const REPORT_BYTES: usize = 8;

/// What is hashed, and how. At reset nothing is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Hashing {
    types: HashTypes,
    key: Key,
    steering: Option<Steering>,
}

/// Where frames go by their hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Steering {
    /// The pair of what has no hash.
    unclassified: u16,
    /// The pair for each value of the hash's low bits; a power of two.
    table: Box<[u16]>,
    /// How many transmit queues the driver uses.
    transmit: u16,
}

/// A number at the front, and what follows it.
fn u16_of(data: &[u8]) -> Option<(u16, &[u8])> {
    let (bytes, rest) = data.split_first_chunk()?;
    Some((u16::from_le_bytes(*bytes), rest))
}

impl Hashing {
    /// Reads a `virtio_net_rss_config` for a device of `pairs` pairs. `None`: it is not legal.
    pub(super) fn from_rss(data: &[u8], pairs: u16) -> Option<Self> {
        let (types, data) = data.split_first_chunk()?;
        let (mask, data) = u16_of(data)?;
        let entries = usize::from(mask).checked_add(1)?;
        // virtio 1.4 §5.1.9.5.7.2: a power of two, and no more than the device has.
        if !entries.is_power_of_two() || entries > MAX_TABLE {
            return None;
        }
        let (unclassified, data) = u16_of(data)?;
        let (table, data) = data.split_at_checked(entries.checked_mul(2)?)?;
        let table: Box<[u16]> = table
            .as_chunks()
            .0
            .iter()
            .map(|e| u16::from_le_bytes(*e))
            .collect();
        // Queues that there are. Whether one runs is looked at frame by frame: a vhost-vdpa driver commands before it
        // starts its queues, and what comes for one that is reset is dropped in any case. The reserved bit is above.
        if unclassified >= pairs || table.iter().any(|pair| *pair >= pairs) {
            return None;
        }
        let (transmit, data) = u16_of(data)?;
        if !(1..=pairs).contains(&transmit) {
            return None;
        }
        let mut hashing = Self::from_types_and_key(u32::from_le_bytes(*types), data)?;
        hashing.steering = Some(Steering {
            unclassified,
            table,
            transmit,
        });
        Some(hashing)
    }

    /// Reads a `virtio_net_hash_config`. `None`: it is not legal.
    pub(super) fn from_hash_config(data: &[u8]) -> Option<Self> {
        let (types, data) = data.split_first_chunk()?;
        let (reserved, data) = data.split_first_chunk()?;
        if *reserved != [0; 8] {
            return None;
        }
        Self::from_types_and_key(u32::from_le_bytes(*types), data)
    }

    fn from_types_and_key(types: u32, data: &[u8]) -> Option<Self> {
        let types = HashTypes::from_bits_retain(types);
        let (&len, key) = data.split_first()?;
        let whole = key.len() == usize::from(len);
        // Without a key every hash is 0, which is none.
        let missing = key.is_empty() && !types.is_empty();
        if !HASH_TYPES.contains(types) || !whole || missing {
            return None;
        }
        Some(Self {
            types,
            key: Key::new(key)?,
            steering: None,
        })
    }

    /// The same as a `virtio_net_rss_config`, or a `virtio_net_hash_config` where nothing is steered.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.types.bits().to_le_bytes().to_vec();
        match &self.steering {
            Some(steering) => {
                // A power of two up to `MAX_TABLE`.
                let mask = steering.table.len().saturating_sub(1) as u16;
                let words = [mask, steering.unclassified].into_iter();
                let words = words.chain(steering.table.iter().copied());
                let words = words.chain([steering.transmit]);
                bytes.extend(words.flat_map(u16::to_le_bytes));
            }
            None => bytes.extend([0; 8]),
        }
        // Up to `MAX_KEY`.
        bytes.push(self.key.bytes().len() as u8);
        bytes.extend(self.key.bytes());
        bytes
    }

    /// The same without steering: the driver went back to automatic steering.
    pub(super) fn unsteered(&self) -> Self {
        Self {
            steering: None,
            ..self.clone()
        }
    }

    /// Where frames go by their hash, if they do.
    #[inline]
    pub(super) fn steering(&self) -> Option<&Steering> {
        self.steering.as_ref()
    }

    /// The hash of a frame and its type, unless it is of no type that is enabled.
    #[inline]
    fn hash(&self, frame: &[u8]) -> Option<(u32, HashTypes)> {
        if self.types.is_empty() {
            return None;
        }
        let flow = flow(frame, self.types)?;
        Some((self.key.hash(flow.input()), flow.kind))
    }

    /// The pair that a frame goes to by `steering`, which is this one's.
    #[inline]
    pub(super) fn pair(&self, steering: &Steering, frame: &[u8]) -> u16 {
        let Some((hash, _)) = self.hash(frame) else {
            return steering.unclassified;
        };
        let place = hash as usize & steering.table.len().saturating_sub(1);
        // The mask keeps it in the table.
        let pair = steering.table.get(place).copied();
        pair.unwrap_or(steering.unclassified)
    }

    /// What the header of a frame says of its hash, virtio 1.4 §5.1.9.4.5.
    #[inline]
    pub(super) fn report(&self, frame: &[u8]) -> [u8; REPORT_BYTES] {
        let Some((hash, kind)) = self.hash(frame) else {
            return [0; REPORT_BYTES];
        };
        let [a, b, c, d] = hash.to_le_bytes();
        // The types are bits, the reports count from 1.
        let report = kind.bits().trailing_zeros().saturating_add(1) as u16;
        let [e, f] = report.to_le_bytes();
        [a, b, c, d, e, f, 0, 0]
    }
}

impl Steering {
    /// How many pairs may have something to do: for receiving, for what has no hash, and for sending.
    pub(super) fn reach(&self) -> u16 {
        let highest = self.table.iter().copied().max().unwrap_or(0);
        let receive = highest.max(self.unclassified).saturating_add(1);
        receive.max(self.transmit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::toeplitz::tests::KEY;
    use super::*;

    /// A legal configuration of 4 entries for 4 pairs.
    fn rss() -> Vec<u8> {
        let mut bytes = 0x3f_u32.to_le_bytes().to_vec();
        for word in [3_u16, 1, 0, 1, 2, 3, 4] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.push(40);
        bytes.extend(KEY);
        bytes
    }

    fn with(at: usize, bytes: &[u8]) -> Option<Hashing> {
        let mut all = rss();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        Hashing::from_rss(&all, 4)
    }

    #[test]
    fn a_configuration_comes_out_as_it_went_in() {
        let hashing = Hashing::from_rss(&rss(), 4).unwrap();
        assert_eq!(hashing.to_bytes(), rss());
        assert_eq!(hashing.steering().unwrap().reach(), 4);
        let plain = hashing.unsteered();
        let bytes = plain.to_bytes();
        assert_eq!(Hashing::from_hash_config(&bytes), Some(plain));
        assert_eq!(bytes.len(), 4 + 8 + 1 + 40);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(with(0, &[0]).is_some());
        assert!(with(1, &[1]).is_some(), "the types with extension headers");
        assert_eq!(with(1, &[2]), None, "a type that there is not");
        assert_eq!(with(4, &[2, 0]), None, "three entries");
        assert_eq!(with(4, &[7, 0]), None, "entries that are not there");
        assert_eq!(with(4, &[0xff, 0]), None, "256 entries");
        assert_eq!(with(4, &[0xff, 0xff]), None, "65536 entries");
        assert_eq!(with(6, &[4, 0]), None, "no such pair");
        assert_eq!(with(7, &[0x80]), None, "the reserved bit");
        assert_eq!(with(10, &[4, 0]), None, "no such pair in the table");
        assert_eq!(with(16, &[0, 0]), None, "no transmit queue");
        assert_eq!(with(16, &[5, 0]), None, "too many transmit queues");
        assert_eq!(with(18, &[39]), None, "a byte left over");
        assert_eq!(with(18, &[41]), None, "a byte too few");
        let mut long = rss();
        long[18] = 41;
        long.push(0);
        assert_eq!(Hashing::from_rss(&long, 4), None, "a key that is too long");
        for len in 0..rss().len() {
            assert_eq!(Hashing::from_rss(&rss()[..len], 4), None, "cut at {len}");
        }
        let mut keyless = rss()[..19].to_vec();
        keyless[18] = 0;
        assert_eq!(Hashing::from_rss(&keyless, 4), None, "types without a key");
        keyless[..4].fill(0);
        let none = Hashing::from_rss(&keyless, 4).unwrap();
        let steering = none.steering().unwrap();
        assert_eq!(
            none.pair(steering, &[0; 60]),
            1,
            "all of it is unclassified"
        );
    }

    #[test]
    fn reserved_words_of_a_hash_configuration_are_zero() {
        let mut bytes = Hashing::from_rss(&rss(), 4).unwrap().unsteered().to_bytes();
        bytes[11] = 1;
        assert_eq!(Hashing::from_hash_config(&bytes), None);
        for len in 0..bytes.len() {
            assert_eq!(Hashing::from_hash_config(&bytes[..len]), None);
        }
    }

    #[test]
    fn sizes_and_values_are_those_of_the_kernel_headers() {
        use virtio_bindings::virtio_net::*;
        let types = VIRTIO_NET_RSS_HASH_TYPE_IPv4
            | VIRTIO_NET_RSS_HASH_TYPE_TCPv4
            | VIRTIO_NET_RSS_HASH_TYPE_UDPv4
            | VIRTIO_NET_RSS_HASH_TYPE_IPv6
            | VIRTIO_NET_RSS_HASH_TYPE_TCPv6
            | VIRTIO_NET_RSS_HASH_TYPE_UDPv6
            | VIRTIO_NET_RSS_HASH_TYPE_IP_EX
            | VIRTIO_NET_RSS_HASH_TYPE_TCP_EX
            | VIRTIO_NET_RSS_HASH_TYPE_UDP_EX;
        assert_eq!(HASH_TYPES.bits(), types);
        let kinds = [
            (HashTypes::IPV4, VIRTIO_NET_HASH_REPORT_IPv4),
            (HashTypes::TCPV4, VIRTIO_NET_HASH_REPORT_TCPv4),
            (HashTypes::UDPV4, VIRTIO_NET_HASH_REPORT_UDPv4),
            (HashTypes::IPV6, VIRTIO_NET_HASH_REPORT_IPv6),
            (HashTypes::TCPV6, VIRTIO_NET_HASH_REPORT_TCPv6),
            (HashTypes::UDPV6, VIRTIO_NET_HASH_REPORT_UDPv6),
            (HashTypes::IP_EX, VIRTIO_NET_HASH_REPORT_IPv6_EX),
            (HashTypes::TCP_EX, VIRTIO_NET_HASH_REPORT_TCPv6_EX),
            (HashTypes::UDP_EX, VIRTIO_NET_HASH_REPORT_UDPv6_EX),
        ];
        for (kind, report) in kinds {
            assert_eq!(kind.bits().trailing_zeros() + 1, report);
        }
        let header = size_of::<virtio_net_hdr_v1_hash>();
        assert_eq!(header, crate::frames::HEADER_BYTES + REPORT_BYTES);
    }
}
