//! IOTLB messages, as they are read from and written to a vhost device.
//!
//! ```text
//!   vhost_msg     type: 1 │ 4 unused │ iova │ size │ uaddr │ perm │ type │ up to 72 bytes
//!   vhost_msg_v2  type: 2 │ asid     │ the same
//! ```

use std::mem::offset_of;

use super::numbers::{
    VHOST_ACCESS_RO, VHOST_ACCESS_RW, VHOST_ACCESS_WO, VHOST_IOTLB_ACCESS_FAIL,
    VHOST_IOTLB_BATCH_BEGIN, VHOST_IOTLB_BATCH_END, VHOST_IOTLB_INVALIDATE, VHOST_IOTLB_MISS,
    VHOST_IOTLB_MSG, VHOST_IOTLB_MSG_V2, VHOST_IOTLB_UPDATE, vhost_iotlb_msg, vhost_msg,
    vhost_msg_v2,
};
use crate::Error;

/// What the device may do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// Both.
    ReadWrite,
}

/// What a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The device needs a mapping. From the kernel.
    Miss,
    /// A mapping comes.
    Update,
    /// A mapping goes.
    Invalidate,
    /// The device did what its mapping does not allow. From the kernel.
    AccessFail,
    /// Updates follow, which the device may take in one go.
    BatchBegin,
    /// They have come.
    BatchEnd,
}

/// An IOTLB message.
///
/// # Spec
/// `linux/vhost_types.h`, `struct vhost_msg_v2` with `struct vhost_iotlb_msg`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// The address space; 0 where there is one only.
    pub asid: u32,
    /// Where the device sees it.
    pub iova: u64,
    /// How long it is, in bytes.
    pub size: u64,
    /// Where this process has it.
    pub uaddr: u64,
    /// What the device may do, where the message says.
    pub access: Option<Access>,
}

const IOVA: usize = offset_of!(vhost_msg_v2, iotlb.iova);
const SIZE: usize = offset_of!(vhost_msg_v2, iotlb.size);
const UADDR: usize = offset_of!(vhost_msg_v2, iotlb.uaddr);
const PERM: usize = offset_of!(vhost_msg_v2, iotlb.perm);
const KIND: usize = offset_of!(vhost_msg_v2, iotlb.r#type);

// Both layouts differ in the word after the type only.
const _: () = assert!(size_of::<vhost_msg>() == Message::BYTES);
const _: () = assert!(offset_of!(vhost_msg, iotlb) == offset_of!(vhost_msg_v2, iotlb));

impl Message {
    /// How many bytes a message has.
    const BYTES: usize = size_of::<vhost_msg_v2>();

    /// One that is about no memory.
    pub fn of(kind: Kind, asid: u32) -> Self {
        Self {
            kind,
            asid,
            iova: 0,
            size: 0,
            uaddr: 0,
            access: None,
        }
    }

    /// In the second layout, with the ASID.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        put(&mut bytes, 0, &VHOST_IOTLB_MSG_V2.to_ne_bytes());
        put(
            &mut bytes,
            offset_of!(vhost_msg_v2, asid),
            &self.asid.to_ne_bytes(),
        );
        put(&mut bytes, IOVA, &self.iova.to_ne_bytes());
        put(&mut bytes, SIZE, &self.size.to_ne_bytes());
        put(&mut bytes, UADDR, &self.uaddr.to_ne_bytes());
        put(&mut bytes, PERM, &[self.access.map_or(0, Access::number)]);
        put(&mut bytes, KIND, &[self.kind.number()]);
        bytes
    }

    /// From either layout.
    ///
    /// # Errors
    /// [`Error::Short`] and [`Error::Unknown`]. What follows a whole message is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        const WHAT: &str = "IOTLB message";
        let unknown = |field, value| Error::Unknown {
            what: WHAT,
            field,
            value,
        };
        let least = offset_of!(vhost_msg_v2, iotlb).saturating_add(size_of::<vhost_iotlb_msg>());
        let short = || Error::Short {
            what: WHAT,
            len: bytes.len(),
            least,
        };
        if bytes.len() < least {
            return Err(short());
        }
        let layout = u32::from_ne_bytes(take(bytes, 0).ok_or_else(short)?);
        let asid = if layout == VHOST_IOTLB_MSG_V2 {
            u32::from_ne_bytes(take(bytes, offset_of!(vhost_msg_v2, asid)).ok_or_else(short)?)
        } else if layout == VHOST_IOTLB_MSG.cast_unsigned() {
            0
        } else {
            return Err(unknown("layout", layout.into()));
        };
        let word = |at| take(bytes, at).map(u64::from_ne_bytes).ok_or_else(short);
        let [kind] = take(bytes, KIND).ok_or_else(short)?;
        let [perm] = take(bytes, PERM).ok_or_else(short)?;
        Ok(Self {
            kind: Kind::of(kind).ok_or_else(|| unknown("type", kind.into()))?,
            asid,
            iova: word(IOVA)?,
            size: word(SIZE)?,
            uaddr: word(UADDR)?,
            access: match perm {
                0 => None,
                _ => Some(Access::of(perm).ok_or_else(|| unknown("perm", perm.into()))?),
            },
        })
    }
}

impl Access {
    /// As the kernel has it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Read => VHOST_ACCESS_RO,
            Self::Write => VHOST_ACCESS_WO,
            Self::ReadWrite => VHOST_ACCESS_RW,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Read, Self::Write, Self::ReadWrite]
            .into_iter()
            .find(|access| access.number() == number)
    }
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Miss,
        Self::Update,
        Self::Invalidate,
        Self::AccessFail,
        Self::BatchBegin,
        Self::BatchEnd,
    ];

    /// As the kernel has it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Miss => VHOST_IOTLB_MISS,
            Self::Update => VHOST_IOTLB_UPDATE,
            Self::Invalidate => VHOST_IOTLB_INVALIDATE,
            Self::AccessFail => VHOST_IOTLB_ACCESS_FAIL,
            Self::BatchBegin => VHOST_IOTLB_BATCH_BEGIN,
            Self::BatchEnd => VHOST_IOTLB_BATCH_END,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Message {
        Message {
            kind: Kind::Update,
            asid: 3,
            iova: 0x1000,
            size: 0x2000,
            uaddr: 0x7fff_0000_0000,
            access: Some(Access::ReadWrite),
        }
    }

    #[test]
    fn message_comes_back_as_it_was() {
        for kind in Kind::ALL {
            for access in [
                None,
                Some(Access::Read),
                Some(Access::Write),
                Some(Access::ReadWrite),
            ] {
                let message = Message {
                    kind,
                    access,
                    ..some()
                };
                assert_eq!(Message::decode(&message.encode()).unwrap(), message);
            }
        }
    }

    #[test]
    fn bytes_are_where_the_kernel_looks_for_them() {
        let bytes = some().encode();
        assert_eq!(
            bytes[..8],
            [2, 0, 0, 0, 3, 0, 0, 0].map(|b: u8| b),
            "little-endian hosts"
        );
        assert_eq!(bytes[8..16], 0x1000u64.to_ne_bytes());
        assert_eq!(bytes[32..34], [3, 2]);
        assert_eq!(bytes[34..], [0; 38]);
    }

    #[test]
    fn first_layout_has_no_asid() {
        let mut bytes = some().encode();
        bytes[..4].copy_from_slice(&1u32.to_ne_bytes());
        assert_eq!(
            Message::decode(&bytes).unwrap(),
            Message { asid: 0, ..some() }
        );
    }

    #[test]
    fn cut_or_senseless_messages_are_refused() {
        let whole = some().encode();
        for len in 0..40 {
            let error = Message::decode(&whole[..len]).unwrap_err();
            assert!(
                matches!(error, Error::Short { len: l, least: 40, .. } if l == len),
                "{error}"
            );
        }
        Message::decode(&whole[..40]).unwrap();
        for (at, field) in [(0, "layout"), (32, "perm"), (33, "type")] {
            for wrong in [7, 0x80, 0xff] {
                let mut bytes = whole;
                bytes[at] = wrong;
                let error = Message::decode(&bytes).unwrap_err();
                assert!(
                    matches!(error, Error::Unknown { field: f, .. } if f == field),
                    "{error}"
                );
            }
        }
    }
}
