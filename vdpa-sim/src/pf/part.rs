//! Device parts: the state of a member, cut into pieces that have names.
//!
//! ```text
//!  a part   type u16 | flags u8 | 0 u8 | selector u8[8] | length u32 | value
//! ```
//! All little-endian, one part right behind the other. Zeroes behind the last one are padding: commands are multiples of
//! eight bytes.

use super::command::Fields;

/// Bytes of a part before its value.
pub const PART_HEADER: usize = 16;

/// The most parts that are read at once: more than a device with 65535 queues has.
const MOST: usize = 1 << 18;

/// The flag of a part that a device can do without: a bit's number, virtio 1.4 §2.14.
const OPTIONAL: u8 = 1 << 0;

/// Which part it is, in the order in which parts come.
///
/// # Spec
/// virtio 1.4 §2.12.1.4.4 "Device parts order" and §2.14.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum PartType {
    /// The features that the device offers: compared, never set.
    DeviceFeatures = 0x100,
    /// Those that the driver has chosen.
    DriverFeatures = 0x101,
    /// A field of the common configuration; the selector begins with its offset.
    PciCommonConfig = 0x102,
    /// The status byte.
    DeviceStatus = 0x103,
    /// How a queue is set up; the selector begins with its index.
    QueueConfig = 0x104,
    /// How a queue is notified; the selector begins with its index.
    QueueNotifyConfig = 0x105,
    /// What else this simulator has to know: where its queues stand, and the state of the class. At the end of what is
    /// reserved for device types, where no specification has put anything.
    Simulated = 0x5ff,
}

impl PartType {
    const ALL: [Self; 7] = [
        Self::DeviceFeatures,
        Self::DriverFeatures,
        Self::PciCommonConfig,
        Self::DeviceStatus,
        Self::QueueConfig,
        Self::QueueNotifyConfig,
        Self::Simulated,
    ];

    /// The type of this number, if it is known here.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u16 == number)
    }
}

/// What names a part among those of a device. The order is that in which parts come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartName {
    /// Which part.
    pub kind: PartType,
    /// Which one of them: an offset, an index of a queue, or 0.
    pub selector: u64,
}

impl PartName {
    /// The only part of its type.
    pub const fn only(kind: PartType) -> Self {
        Self { kind, selector: 0 }
    }

    /// One of many.
    pub const fn of(kind: PartType, selector: u64) -> Self {
        Self { kind, selector }
    }
}

/// A part of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which one.
    pub name: PartName,
    /// Its value.
    pub value: Vec<u8>,
}

impl Part {
    /// A part of this name and value.
    pub const fn new(name: PartName, value: Vec<u8>) -> Self {
        Self { name, value }
    }

    /// Its header.
    pub fn header(&self) -> [u8; PART_HEADER] {
        let optional = self.name.kind == PartType::DeviceFeatures;
        let flags = if optional { OPTIONAL } else { 0 };
        let kind = (self.name.kind as u16).to_le_bytes();
        let selector = self.name.selector.to_le_bytes();
        // No part is as long as that.
        let length = u32::try_from(self.value.len()).unwrap_or(u32::MAX);
        let mut header = [0; PART_HEADER];
        let bytes = kind.into_iter().chain([flags, 0]);
        let bytes = bytes.chain(selector).chain(length.to_le_bytes());
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = from;
        }
        header
    }

    /// The bytes of these parts, one behind the other.
    pub fn all_to_bytes(parts: &[Self]) -> Vec<u8> {
        let mut to = Vec::new();
        for part in parts {
            to.extend(part.header());
            to.extend(&part.value);
        }
        to
    }

    /// Reads parts, up to padding. `None`: one is cut, of a type that is not known here, or not behind the one before it
    /// in the order of parts; or there are more than any device has.
    pub fn parse_all(from: &[u8]) -> Option<Vec<Self>> {
        let mut parts: Vec<Self> = Vec::new();
        let mut rest = from;
        while rest.iter().any(|byte| *byte != 0) {
            let (header, behind) = rest.split_at_checked(PART_HEADER)?;
            let (name, length) = name(Fields(header))?;
            let (value, behind) = behind.split_at_checked(length)?;
            if parts.len() == MOST || parts.last().is_some_and(|last| last.name >= name) {
                return None;
            }
            parts.push(Self::new(name, value.to_vec()));
            rest = behind;
        }
        Some(parts)
    }
}

/// Reads the headers of parts that are asked for, up to padding. Those of types that are not known here name no part; what
/// is cut does not either.
pub(super) fn names(from: &[u8]) -> Vec<PartName> {
    from.chunks_exact(PART_HEADER)
        .filter_map(|header| Some(name(Fields(header))?.0))
        .collect()
}

/// What a header says: the name of a part, and its length in bytes.
fn name(header: Fields<'_>) -> Option<(PartName, usize)> {
    let kind = PartType::from_number(header.u16(0))?;
    let selector = match kind {
        PartType::PciCommonConfig => header.u32(4).into(),
        PartType::QueueConfig | PartType::QueueNotifyConfig => header.u16(4).into(),
        // Reserved.
        _ => 0,
    };
    let length = usize::try_from(header.u32(12)).ok()?;
    Some((PartName { kind, selector }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Part> {
        vec![
            Part::new(PartName::only(PartType::DeviceFeatures), vec![1; 16]),
            Part::new(PartName::of(PartType::PciCommonConfig, 16), vec![2, 3]),
            Part::new(PartName::only(PartType::DeviceStatus), vec![7]),
            Part::new(PartName::of(PartType::QueueConfig, 0), vec![4; 32]),
            Part::new(PartName::of(PartType::QueueConfig, 1), vec![5; 32]),
        ]
    }

    #[test]
    fn parts_come_back_as_they_were() {
        let mut bytes = Part::all_to_bytes(&some());
        assert_eq!(&bytes[..4], [0, 1, 1, 0], "optional, and no other is");
        assert_eq!(&bytes[32..40], [2, 1, 0, 0, 16, 0, 0, 0]);
        assert_eq!(Part::parse_all(&bytes), Some(some()));
        bytes.extend([0; 21]);
        assert_eq!(Part::parse_all(&bytes), Some(some()), "padding");
        bytes.extend([1]);
        assert_eq!(Part::parse_all(&bytes), None, "no padding");
    }

    #[test]
    fn parts_that_are_cut_unknown_or_out_of_order_are_refused() {
        let bytes = Part::all_to_bytes(&some());
        for len in 1..bytes.len() {
            let parsed = Part::parse_all(&bytes[..len]);
            assert!(parsed.is_none_or(|parts| parts.len() < some().len()));
        }
        let mut turned = some();
        turned.swap(3, 4);
        assert_eq!(Part::parse_all(&Part::all_to_bytes(&turned)), None);
        let twice = [some()[2].clone(), some()[2].clone()];
        assert_eq!(Part::parse_all(&Part::all_to_bytes(&twice)), None);
        let mut unknown = bytes;
        unknown[0] = 0x77;
        assert_eq!(Part::parse_all(&unknown), None);
    }

    #[test]
    fn reserved_bytes_name_nothing() {
        let mut header = Part::new(PartName::of(PartType::QueueConfig, 3), vec![0; 32]).header();
        header[3] = 9;
        header[6..12].fill(9);
        let named = names(&header);
        assert_eq!(named, [PartName::of(PartType::QueueConfig, 3)]);
    }
}
