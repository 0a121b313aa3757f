//! What is asked of a device through its control queue, virtio 1.4 §5.1.9.

use std::fmt;

use vdpa_core::FeatureBit;
use vdpa_core::bits::net;
use vdpa_core::config::Mac;

/// A command for the control queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// Use this many queue pairs.
    Pairs(u16),
}

impl Command {
    /// The longest command, in bytes.
    pub(super) const MAX_BYTES: usize = 8;

    /// The feature that has to be negotiated for it.
    pub const fn feature(self) -> FeatureBit {
        match self {
            Self::Promiscuous(_) | Self::AllMulticast(_) => net::CTRL_RX,
            Self::Address(_) => net::CTRL_MAC_ADDR,
            Self::VlanAdd(_) | Self::VlanRemove(_) => net::CTRL_VLAN,
            Self::Pairs(_) => net::MQ,
        }
    }

    /// Class, command and data, as the device reads them; how many bytes.
    pub(super) fn encode(self, to: &mut [u8; Self::MAX_BYTES]) -> usize {
        let (class, command) = match self {
            Self::Promiscuous(_) => (0, 0),
            Self::AllMulticast(_) => (0, 1),
            Self::Address(_) => (1, 1),
            Self::VlanAdd(_) => (2, 0),
            Self::VlanRemove(_) => (2, 1),
            Self::Pairs(_) => (4, 0),
        };
        let mut put = |data: &[u8]| {
            let len = 2 + data.len();
            to[0] = class;
            to[1] = command;
            to[2..len].copy_from_slice(data);
            len
        };
        match self {
            Self::Promiscuous(on) | Self::AllMulticast(on) => put(&[u8::from(on)]),
            Self::Address(mac) => put(&mac.octets()),
            Self::VlanAdd(id) | Self::VlanRemove(id) => put(&id.to_le_bytes()),
            Self::Pairs(count) => put(&count.to_le_bytes()),
        }
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
            Self::Pairs(count) => write!(f, "{count} queue pairs"),
        }
    }
}

#[cfg(test)]
mod tests {
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
    }
}
