//! What a network device is made with, and its configuration space.

use vdpa_core::config::net::{Duplex, NetStatus};
use vdpa_core::config::{Mac, NetConfig};
use vdpa_core::{Features, bits, bits::net};

use super::hashing::{HASH_TYPES, MAX_KEY_SIZE, MAX_TABLE, REPORT_BYTES};
use crate::frames::HEADER_BYTES;
use crate::offload::{LONGEST, TRANSMIT_GSO};

/// Bytes of an Ethernet header: two addresses and a type.
pub(super) const ETHERNET_BYTES: usize = 14;

/// Bytes of a VLAN tag.
const TAG_BYTES: usize = 4;

/// How many VLAN tags a frame may have on top of the MTU.
const TAGS: usize = 2;

/// The types that say that a VLAN tag follows: 802.1Q and 802.1ad.
const TAGGED: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// What a network device is made with. Fixed for its life, but for the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Its address at reset.
    pub mac: Mac,
    /// The longest payload of a frame in bytes, 68 to 65535.
    pub mtu: u16,
    /// Queue pairs, 1 to 128.
    pub pairs: u16,
    /// The largest queue size, 1 to 32768. A split ring uses powers of two up to it.
    pub queue_size: u16,
    /// What it offers.
    pub features: Features,
    /// The speed that it claims, in Mb/s.
    pub speed: Option<u32>,
    /// Whether the link is up at first.
    pub link: bool,
}

/// All that a network device can offer.
pub const POSSIBLE: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::RING_PACKED,
    bits::IN_ORDER,
    bits::NOTIFICATION_DATA,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    bits::RING_RESET,
    bits::SUSPEND,
    net::MAC,
    net::MTU,
    net::STATUS,
    net::SPEED_DUPLEX,
    net::MQ,
    net::MRG_RXBUF,
    net::CTRL_VQ,
    net::CTRL_RX,
    net::CTRL_RX_EXTRA,
    net::CTRL_VLAN,
    net::CTRL_MAC_ADDR,
    net::CSUM,
    net::HOST_TSO4,
    net::HOST_TSO6,
    net::HOST_ECN,
    net::HOST_USO,
    net::GUEST_CSUM,
    net::GUEST_TSO4,
    net::GUEST_TSO6,
    net::GUEST_ECN,
    net::GUEST_USO4,
    net::GUEST_USO6,
    net::CTRL_GUEST_OFFLOADS,
    net::GUEST_ANNOUNCE,
    net::RSS,
    net::HASH_REPORT,
    net::NOTF_COAL,
    net::VQ_NOTF_COAL,
    net::DEVICE_STATS,
]);

/// The most queue pairs.
pub const MAX_PAIRS: u16 = 128;

impl Settings {
    /// Bytes of the longest packet that a driver may send, with any tags: of a frame, or of what is to be segmented.
    pub fn longest(&self) -> usize {
        let whole = if self.features.intersects(TRANSMIT_GSO) {
            self.plain().max(LONGEST)
        } else {
            self.plain()
        };
        whole.saturating_add(TAGS.saturating_mul(TAG_BYTES))
    }

    /// Bytes of the longest frame without tags.
    #[inline]
    pub fn plain(&self) -> usize {
        usize::from(self.mtu).saturating_add(ETHERNET_BYTES)
    }

    /// Whether `frame` carries no more than the MTU: VLAN tags come on top of it.
    pub fn fits(&self, frame: &[u8]) -> bool {
        self.fits_cut(frame, frame.len())
    }

    /// Whether the first `len` bytes of `frame` would: a segment of it.
    pub fn fits_cut(&self, frame: &[u8], len: usize) -> bool {
        len <= self.plain().saturating_add(tag_bytes(frame))
    }

    /// The configuration space, virtio 1.4 §5.1.4.
    pub(super) fn space(&self, mac: Mac, status: NetStatus) -> NetConfig {
        let has = |bit| self.features.contains(bit);
        let mut space = NetConfig::new().with_mac(mac);
        // A field of a feature that is not offered does not exist: it reads 0.
        if has(net::STATUS) {
            space = space.with_status(status);
        }
        if has(net::MQ) || has(net::RSS) {
            space = space.with_max_virtqueue_pairs(self.pairs);
        }
        if has(net::MTU) {
            space = space.with_mtu(self.mtu);
        }
        if has(net::SPEED_DUPLEX) {
            space = space.with_speed(self.speed).with_duplex(Duplex::Full);
        }
        if has(net::RSS) || has(net::HASH_REPORT) {
            space = space
                .with_rss_max_key_size(MAX_KEY_SIZE)
                .with_supported_hash_types(HASH_TYPES);
        }
        if has(net::RSS) {
            space = space.with_rss_max_indirection_table_length(MAX_TABLE as u16);
        }
        space
    }
}

/// Whether the driver has the queues of all pairs, whichever it uses: virtio 1.4 §5.1.2.
pub(super) fn has_pairs(features: Features) -> bool {
    features.contains(net::MQ) || features.contains(net::RSS)
}

/// Bytes of the header of a packet in a queue, virtio 1.4 §5.1.9.
#[inline]
pub(super) fn header_bytes(features: Features) -> usize {
    if features.contains(net::HASH_REPORT) {
        HEADER_BYTES.saturating_add(REPORT_BYTES)
    } else {
        HEADER_BYTES
    }
}

/// Bytes of the VLAN tags at the head of a frame.
fn tag_bytes(frame: &[u8]) -> usize {
    let tags = frame
        .get(12..)
        .unwrap_or_default()
        .chunks(TAG_BYTES)
        .take(TAGS)
        .take_while(|tag| tag.first_chunk().is_some_and(|kind| TAGGED.contains(kind)));
    tags.count().saturating_mul(TAG_BYTES)
}

/// The VLAN of a frame with an 802.1Q tag.
#[inline]
pub(super) fn vlan(frame: &[u8]) -> Option<u16> {
    let [kind_a, kind_b, tag_a, tag_b] = *frame.get(12..)?.first_chunk()?;
    ([kind_a, kind_b] == [0x81, 0x00]).then_some(u16::from_be_bytes([tag_a, tag_b]) & 0xfff)
}
