//! What is asked of a device through its control queue, virtio 1.4 §5.1.9.

use std::fmt;

use vdpa_core::bits::net;
use vdpa_core::config::Mac;
use vdpa_core::{DeviceType, FeatureBit, Features};

use super::{Hashing, Spread};

/// A command for the control queue.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Receive everything, whoever it is for; or not.
    Promiscuous(bool),
    /// Receive every multicast frame; or not.
    AllMulticast(bool),
    /// Receive what is for this address.
    Address(Mac),
    /// Receive frames of this VLAN, 0 to 4095.
    VlanAdd(u16),
    /// Receive no frames of this VLAN.
    VlanRemove(u16),
    /// The network was told of this address again, as the device had asked for (ANNOUNCE in its status).
    Announced,
    /// Use this many queue pairs.
    Pairs(u16),
    /// Spread received packets over the pairs so; in place of [`Pairs`](Self::Pairs).
    Spread(Box<Spread>),
    /// Find these hashes for received packets.
    Hash(Box<Hashing>),
    /// Of the receive offloads that were negotiated, leave these to the driver from now on. Frames that are on their way
    /// may still be as before.
    GuestOffloads(Features),
}

impl Command {
    /// The longest command, in bytes.
    pub(super) const MAX_BYTES: usize = 512;

    /// The feature that has to be negotiated for it.
    pub const fn feature(&self) -> FeatureBit {
        match self {
            Self::Promiscuous(_) | Self::AllMulticast(_) => net::CTRL_RX,
            Self::Address(_) => net::CTRL_MAC_ADDR,
            Self::VlanAdd(_) | Self::VlanRemove(_) => net::CTRL_VLAN,
            Self::Announced => net::GUEST_ANNOUNCE,
            Self::Pairs(_) => net::MQ,
            Self::Spread(_) => net::RSS,
            Self::Hash(_) => net::HASH_REPORT,
            Self::GuestOffloads(_) => net::CTRL_GUEST_OFFLOADS,
        }
    }

    /// Class, command and data, as the device reads them; how many bytes.
    pub(super) fn encode(&self, to: &mut [u8; Self::MAX_BYTES]) -> usize {
        let (class, command) = match self {
            Self::Promiscuous(_) => (0, 0),
            Self::AllMulticast(_) => (0, 1),
            Self::Address(_) => (1, 1),
            Self::VlanAdd(_) => (2, 0),
            Self::VlanRemove(_) => (2, 1),
            Self::Announced => (3, 0),
            Self::Pairs(_) => (4, 0),
            Self::Spread(_) => (4, 1),
            Self::Hash(_) => (4, 2),
            Self::GuestOffloads(_) => (5, 0),
        };
        let mut len = 0;
        // The longest is a table of 128 entries: 309 bytes.
        let mut put = |data: &[u8]| {
            to[len..len + data.len()].copy_from_slice(data);
            len += data.len();
        };
        put(&[class, command]);
        match self {
            Self::Promiscuous(on) | Self::AllMulticast(on) => put(&[u8::from(*on)]),
            Self::Address(mac) => put(&mac.octets()),
            Self::VlanAdd(id) | Self::VlanRemove(id) => put(&id.to_le_bytes()),
            Self::Announced => {}
            Self::Pairs(count) => put(&count.to_le_bytes()),
            Self::Spread(spread) => spread.encode(put),
            Self::Hash(hashing) => hashing.encode(put),
            // Their bits are those of the features, virtio 1.4 §5.1.9.5.9.
            Self::GuestOffloads(offloads) => put(&offloads.low_u64().to_le_bytes()),
        }
        len
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promiscuous(on) => write!(f, "promiscuous {on}"),
            Self::AllMulticast(on) => write!(f, "all multicast {on}"),
            Self::Address(mac) => write!(f, "address {mac}"),
            Self::VlanAdd(id) => write!(f, "add VLAN {id}"),
            Self::VlanRemove(id) => write!(f, "remove VLAN {id}"),
            Self::Announced => f.write_str("announced"),
            Self::Pairs(count) => write!(f, "{count} queue pairs"),
            Self::Spread(_) => f.write_str("receive-side scaling"),
            Self::Hash(_) => f.write_str("hash report"),
            Self::GuestOffloads(offloads) => {
                write!(f, "receive offloads {}", offloads.display(DeviceType::Net))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vdpa_core::config::net::HashTypes;

    use super::*;

    fn bytes(command: Command) -> Vec<u8> {
        let mut bytes = [0; Command::MAX_BYTES];
        let len = command.encode(&mut bytes);
        bytes[..len].to_vec()
    }

    #[test]
    fn commands_are_as_the_specification_has_them() {
        let mac = Mac::new([2, 0, 0, 0, 0, 9]);
        assert_eq!(bytes(Command::Promiscuous(true)), [0, 0, 1]);
        assert_eq!(bytes(Command::AllMulticast(false)), [0, 1, 0]);
        assert_eq!(bytes(Command::Address(mac)), [1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(bytes(Command::VlanAdd(0x123)), [2, 0, 0x23, 1]);
        assert_eq!(bytes(Command::VlanRemove(1)), [2, 1, 1, 0]);
        assert_eq!(bytes(Command::Pairs(2)), [4, 0, 2, 0]);
        assert_eq!(bytes(Command::Announced), [3, 0]);
        let offloads = net::GUEST_CSUM | net::GUEST_TSO4 | net::GUEST_USO4;
        let guest = [5, 0, 0x82, 0, 0, 0, 0, 0, 0x40, 0];
        assert_eq!(bytes(Command::GuestOffloads(offloads)), guest);
    }

    #[test]
    fn hashes_are_as_the_specification_has_them() {
        let hashing = Hashing {
            types: HashTypes::IPV4 | HashTypes::TCPV6,
            key: [7; 40],
        };
        let key = [&[40][..], &[7; 40]].concat();
        let hash = [&[4, 2, 0x11, 0, 0, 0][..], &[0; 8], &key].concat();
        assert_eq!(bytes(Command::Hash(Box::new(hashing))), hash);
        let spread = Spread::new(hashing, vec![0, 2], 1, 3).unwrap();
        let head = [4, 1, 0x11, 0, 0, 0, 1, 0, 1, 0, 0, 0, 2, 0, 3, 0];
        let expected = [&head[..], &key].concat();
        assert_eq!(bytes(Command::Spread(Box::new(spread))), expected);
        let longest = Spread::even(hashing, 3).unwrap();
        assert_eq!(bytes(Command::Spread(Box::new(longest))).len(), 309);
        for (table, rest) in [
            (vec![0; 3], 0),
            (vec![0; 256], 0),
            (vec![3], 0),
            (vec![0], 3),
        ] {
            assert!(Spread::new(hashing, table, rest, 3).is_err());
        }
    }
}
