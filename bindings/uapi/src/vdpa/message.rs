//! Messages of the family, for `netlink-packet-generic`.

use netlink_packet_core::{
    DecodeError, Emitable, ErrorContext, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::attribute::Attribute;
use super::numbers::*;

/// What a message asks for, or answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Command {
    /// An answer: a management device.
    MgmtdevNew,
    /// Which management devices are there?
    MgmtdevGet,
    /// Makes a device; an answer: a device.
    DevNew,
    /// Deletes a device.
    DevDel,
    /// Which devices are there?
    DevGet,
    /// What does the driver see of a device?
    DevConfigGet,
    /// How far have the vendor's counters of a queue counted?
    DevVstatsGet,
    /// Changes a device. Linux 6.12.
    DevAttrSet,
}

/// A message of the family `vdpa`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it asks for.
    pub command: Command,
    /// About what.
    pub attributes: Vec<Attribute>,
}

impl Command {
    const ALL: [Self; 8] = [
        Self::MgmtdevNew,
        Self::MgmtdevGet,
        Self::DevNew,
        Self::DevDel,
        Self::DevGet,
        Self::DevConfigGet,
        Self::DevVstatsGet,
        Self::DevAttrSet,
    ];

    /// As the kernel has it.
    pub const fn number(self) -> u8 {
        match self {
            Self::MgmtdevNew => VDPA_CMD_MGMTDEV_NEW,
            Self::MgmtdevGet => VDPA_CMD_MGMTDEV_GET,
            Self::DevNew => VDPA_CMD_DEV_NEW,
            Self::DevDel => VDPA_CMD_DEV_DEL,
            Self::DevGet => VDPA_CMD_DEV_GET,
            Self::DevConfigGet => VDPA_CMD_DEV_CONFIG_GET,
            Self::DevVstatsGet => VDPA_CMD_DEV_VSTATS_GET,
            Self::DevAttrSet => VDPA_CMD_DEV_ATTR_SET,
        }
    }

    /// The kernel's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MgmtdevNew => "VDPA_CMD_MGMTDEV_NEW",
            Self::MgmtdevGet => "VDPA_CMD_MGMTDEV_GET",
            Self::DevNew => "VDPA_CMD_DEV_NEW",
            Self::DevDel => "VDPA_CMD_DEV_DEL",
            Self::DevGet => "VDPA_CMD_DEV_GET",
            Self::DevConfigGet => "VDPA_CMD_DEV_CONFIG_GET",
            Self::DevVstatsGet => "VDPA_CMD_DEV_VSTATS_GET",
            Self::DevAttrSet => "VDPA_CMD_DEV_ATTR_SET",
        }
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        VDPA_GENL_NAME
    }

    fn command(&self) -> u8 {
        self.command.number()
    }

    fn version(&self) -> u8 {
        VDPA_GENL_VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let command = Command::ALL
            .into_iter()
            .find(|command| command.number() == header.cmd);
        let command =
            command.ok_or_else(|| DecodeError::from(format!("command {}", header.cmd)))?;
        let attributes = NlasIterator::new(bytes)
            .map(|attribute| attribute.and_then(|attribute| Attribute::parse(&attribute)))
            .collect::<Result<Vec<_>, _>>()
            .context("attributes of a vdpa message")?;
        Ok(Self {
            command,
            attributes,
        })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, NetlinkHeader, NetlinkMessage};
    use netlink_packet_generic::GenlMessage;

    use super::*;

    fn some() -> Message {
        Message {
            command: Command::DevNew,
            attributes: vec![
                Attribute::Name("card".into()),
                Attribute::ManagementDevice("vduse".into()),
                Attribute::Mac([2, 0, 0, 0, 0, 1]),
                Attribute::Mtu(1500),
                Attribute::ReadOnly(1),
                Attribute::Features(1 << 33),
                Attribute::Other(DefaultNla::new(999, vec![1, 2, 3])),
            ],
        }
    }

    fn bytes(message: &Message) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn parse(command: u8, bytes: &[u8]) -> Result<Message, DecodeError> {
        let header = GenlHeader {
            cmd: command,
            version: 1,
        };
        Message::parse_with_param(bytes, header)
    }

    #[test]
    fn message_comes_back_as_it_was() {
        for command in Command::ALL {
            let message = Message { command, ..some() };
            assert_eq!(parse(command.number(), &bytes(&message)).unwrap(), message);
        }
        let mut whole = NetlinkMessage::new(
            NetlinkHeader::default(),
            GenlMessage::from_payload(some()).into(),
        );
        whole.finalize();
        let mut bytes = vec![0; whole.buffer_len()];
        whole.serialize(&mut bytes);
        assert_eq!(bytes[16..20], [VDPA_CMD_DEV_NEW, VDPA_GENL_VERSION, 0, 0]);
    }

    /// As iproute2's `vdpa dev add` puts them.
    #[test]
    fn text_ends_with_a_nul_and_attributes_are_padded() {
        let message = Message {
            command: Command::DevDel,
            attributes: vec![Attribute::Name("abcd".into()), Attribute::Mtu(1)],
        };
        let expected: Vec<u8> = [
            &9u16.to_ne_bytes()[..],
            &4u16.to_ne_bytes(),
            b"abcd\0\0\0\0",
            &6u16.to_ne_bytes(),
            &13u16.to_ne_bytes(),
            &1u16.to_ne_bytes(),
            &[0, 0],
        ]
        .concat();
        assert_eq!(bytes(&message), expected);
    }

    #[test]
    fn cut_messages_are_refused_or_have_whole_attributes() {
        let whole = bytes(&some());
        for len in 0..whole.len() {
            if let Ok(message) = parse(VDPA_CMD_DEV_NEW, &whole[..len]) {
                let count = message.attributes.len();
                assert_eq!(message.attributes[..], some().attributes[..count], "{len}");
            }
        }
    }

    #[test]
    fn values_of_the_wrong_length_are_refused() {
        let attribute = |kind: u16, value: &[u8]| {
            let one = Message {
                command: Command::DevGet,
                attributes: vec![Attribute::Other(DefaultNla::new(kind, value.to_vec()))],
            };
            parse(VDPA_CMD_DEV_GET, &bytes(&one))
        };
        attribute(VDPA_ATTR_DEV_ID, &[0; 4]).unwrap();
        for (kind, value) in [
            (VDPA_ATTR_DEV_ID, &[0; 3][..]),
            (VDPA_ATTR_DEV_ID, &[0; 8]),
            (VDPA_ATTR_DEV_FEATURES, &[0; 4]),
            (VDPA_ATTR_DEV_NET_CFG_MACADDR, &[0; 5]),
            (VDPA_ATTR_DEV_BLK_FLUSH, &[]),
            (VDPA_ATTR_DEV_NAME, &[]),
            (VDPA_ATTR_DEV_NAME, b"no nul"),
            (VDPA_ATTR_DEV_NAME, b"two\0\0"),
            (VDPA_ATTR_DEV_NAME, b"\xff\0"),
        ] {
            let error = attribute(kind, value).unwrap_err();
            assert!(
                error.to_string().contains("vdpa"),
                "{kind} {value:?}: {error}"
            );
        }
        assert!(parse(9, &[]).is_err(), "a command that came later");
        assert!(parse(0, &[]).is_err());
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let mut bytes = some_bytes(state);
            // Lengths that are nearly right get further than others.
            if let Some(first) = bytes.first_mut() {
                *first %= 24;
            }
            if let Some(second) = bytes.get_mut(1) {
                *second = 0;
            }
            let _ = parse(VDPA_CMD_DEV_GET, &bytes);
        }
    }

    fn some_bytes(mut state: u64) -> Vec<u8> {
        let len = usize::from(state.to_le_bytes()[7] % 64);
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(3);
            state.to_le_bytes()[6]
        })
        .take(len)
        .collect()
    }
}
