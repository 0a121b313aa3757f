//! What the device says about its Ethernet side.

use vdpa_core::Features;
use vdpa_core::bits::net;
use vdpa_core::config::{Mac, NetConfig};

/// Address and MTU of a network device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Its address, if it has one (feature MAC).
    pub mac: Option<Mac>,
    /// The longest payload of a frame, in bytes; 1500 where the device does not say (feature MTU).
    pub mtu: u16,
}

impl Ethernet {
    /// Destination, source and type.
    pub const HEADER_BYTES: usize = 14;
    /// An 802.1Q tag, which the MTU does not count.
    pub const TAG_BYTES: usize = 4;

    const USUAL_MTU: u16 = 1500;

    /// As the configuration of a device with these features negotiated has it.
    pub(super) fn of(features: Features, config: &NetConfig) -> Self {
        let mtu = features.contains(net::MTU).then(|| config.mtu());
        Self {
            mac: features.contains(net::MAC).then(|| config.mac()),
            mtu: mtu.unwrap_or(Self::USUAL_MTU),
        }
    }

    /// The longest frame without a tag, in bytes.
    pub const fn max_untagged(&self) -> usize {
        Self::HEADER_BYTES + self.mtu as usize
    }

    /// The longest frame of all, in bytes.
    pub const fn max_tagged(&self) -> usize {
        self.max_untagged() + Self::TAG_BYTES
    }

    /// The longest that `frame` may be, in bytes: a tagged one may be longer by the tag.
    pub fn max_frame(&self, frame: &[u8]) -> usize {
        if is_tagged(frame) {
            self.max_tagged()
        } else {
            self.max_untagged()
        }
    }

    /// The bytes of `frame` that the MTU counts: those behind its header and its tag.
    pub fn payload(frame: &[u8]) -> usize {
        let tag = if is_tagged(frame) { Self::TAG_BYTES } else { 0 };
        frame.len().saturating_sub(Self::HEADER_BYTES + tag)
    }
}

/// 802.1Q and 802.1ad.
fn is_tagged(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_not_counted() {
        let ethernet = Ethernet {
            mac: None,
            mtu: 1500,
        };
        let mut frame = [0; 60];
        assert_eq!(ethernet.max_frame(&frame), 1514);
        frame[12] = 0x81;
        assert_eq!(ethernet.max_frame(&frame), 1518);
        assert_eq!(ethernet.max_frame(&[]), 1514);
    }

    #[test]
    fn what_is_not_negotiated_is_not_believed() {
        let config = NetConfig::new()
            .with_mtu(9000)
            .with_mac(Mac::new([2, 0, 0, 0, 0, 1]));
        let none = Ethernet::of(Features::NONE, &config);
        assert_eq!((none.mac, none.mtu), (None, 1500));
        let both = Ethernet::of(net::MAC | net::MTU, &config);
        assert_eq!((both.mac, both.mtu), (Some(config.mac()), 9000));
    }
}
