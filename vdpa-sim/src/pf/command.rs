//! What group administration commands look like: their numbers, and how they begin and end.
//!
//! ```text
//!  readable   opcode u16 | group type u16 | reserved u8[12] | member u64 | command specific data
//!  writable   status u16 | qualifier u16 | reserved u8[4] | command specific result
//! ```
//! All little-endian. What a driver leaves out reads as zero; what it adds behind is not looked at.

/// Bytes of a command before its data.
pub const COMMAND_HEADER: usize = 24;

/// Bytes of an answer before its result.
pub const REPLY_HEADER: usize = 8;

/// Which devices a command is for.
///
/// # Spec
/// virtio 1.4 §2.12.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum GroupType {
    /// The owner itself.
    Itself = 0,
    /// The virtual functions of the owner.
    SrIov = 1,
}

impl GroupType {
    /// The type of this number, if there is one.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Itself),
            1 => Some(Self::SrIov),
            _ => None,
        }
    }
}

/// What a command does.
///
/// The table of opcodes in §2.12.1 has modify and query the other way round than the sections on those commands; the
/// sections count here.
///
/// # Spec
/// virtio 1.4 §2.12.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Opcode {
    /// Which commands there are.
    ListQuery = 0x0,
    /// Which ones the driver uses.
    ListUse = 0x1,
    /// Which capabilities there are.
    CapIdListQuery = 0x7,
    /// What the device can do.
    DeviceCapGet = 0x8,
    /// What the driver makes use of.
    DriverCapSet = 0x9,
    /// Makes a resource object.
    ResourceObjCreate = 0xa,
    /// Changes one.
    ResourceObjModify = 0xb,
    /// Asks what one is.
    ResourceObjQuery = 0xc,
    /// Destroys one.
    ResourceObjDestroy = 0xd,
    /// Which parts a member has.
    DevPartsMetadataGet = 0xe,
    /// The parts.
    DevPartsGet = 0xf,
    /// Changes parts.
    DevPartsSet = 0x10,
    /// Stops or resumes a member.
    DevModeSet = 0x11,
}

impl Opcode {
    /// All that are known here.
    pub const ALL: [Self; 13] = [
        Self::ListQuery,
        Self::ListUse,
        Self::CapIdListQuery,
        Self::DeviceCapGet,
        Self::DriverCapSet,
        Self::ResourceObjCreate,
        Self::ResourceObjModify,
        Self::ResourceObjQuery,
        Self::ResourceObjDestroy,
        Self::DevPartsMetadataGet,
        Self::DevPartsGet,
        Self::DevPartsSet,
        Self::DevModeSet,
    ];

    /// The opcode of this number, if it is known here.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.number() == number)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Its bit in the first entry of a list of commands.
    pub const fn bit(self) -> u64 {
        1 << self.number()
    }
}

/// How a command ended; the numbers are those of Linux's errors.
///
/// # Spec
/// virtio 1.4 §2.12.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Status {
    /// Well.
    Ok = 0,
    /// What was set is nothing that the member can go on with. Not a number of the specification's: one of the others.
    Io = 5,
    /// No such capability or resource object.
    NoEntry = 6,
    /// Try again; nothing has changed.
    TryAgain = 11,
    /// Not enough room; nothing has changed.
    NoMemory = 12,
    /// The device is busy.
    Busy = 16,
    /// The resource object exists already.
    Exists = 17,
    /// The command is invalid; nothing has changed.
    Invalid = 22,
    /// The device has no resources left.
    NoSpace = 28,
}

/// Why a command failed, for people.
///
/// # Spec
/// virtio 1.4 §2.12.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Qualifier {
    /// It did not.
    Ok = 0,
    /// No more is to be said.
    InvalidCommand = 1,
    /// The opcode.
    InvalidOpcode = 2,
    /// A field of the data.
    InvalidField = 3,
    /// The group type.
    InvalidGroup = 4,
    /// The member.
    InvalidMember = 5,
    /// Resources of the device's own.
    NoResource = 6,
    /// It takes too long.
    TryAgain = 7,
}

/// The beginning of a command, as it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) opcode: u16,
    pub(super) group: u16,
    pub(super) member: u64,
}

/// A command, which reads as zero behind its end.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'b>(pub(crate) &'b [u8]);

impl<'b> Fields<'b> {
    /// `N` bytes from `at` on.
    pub(crate) fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        let mut to = [0; N];
        let from = self.0.get(at..).unwrap_or_default();
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        to
    }

    pub(crate) fn u8(self, at: usize) -> u8 {
        u8::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// What is behind the first `at` bytes.
    pub(crate) fn rest(self, at: usize) -> Self {
        Self(self.0.get(at..).unwrap_or_default())
    }
}

impl Header {
    /// The header, and the data behind it.
    pub(super) fn parse(command: &[u8]) -> (Self, Fields<'_>) {
        let fields = Fields(command);
        let header = Self {
            opcode: fields.u16(0),
            group: fields.u16(2),
            member: fields.u64(16),
        };
        (header, fields.rest(COMMAND_HEADER))
    }
}

/// Why a command is not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// How it ended.
    pub status: Status,
    /// Why.
    pub qualifier: Qualifier,
}

impl Refusal {
    /// The group type is none that there is now.
    pub const GROUP: Self = Self::invalid(Qualifier::InvalidGroup);
    /// The opcode is none that may be used.
    pub const OPCODE: Self = Self::invalid(Qualifier::InvalidOpcode);
    /// There is no such member.
    pub const MEMBER: Self = Self::invalid(Qualifier::InvalidMember);
    /// A field of the data is wrong.
    pub const FIELD: Self = Self::invalid(Qualifier::InvalidField);
    /// There is no such capability or resource object.
    pub const NO_ENTRY: Self = Self::new(Status::NoEntry, Qualifier::InvalidField);
    /// There is such a resource object already.
    pub const EXISTS: Self = Self::new(Status::Exists, Qualifier::InvalidField);
    /// No more of them can be had.
    pub const NO_SPACE: Self = Self::new(Status::NoSpace, Qualifier::NoResource);
    /// The result does not fit into the answer's room.
    pub const NO_ROOM: Self = Self::new(Status::NoMemory, Qualifier::InvalidCommand);
    /// What it is about is in use, or not stopped.
    pub const BUSY: Self = Self::new(Status::Busy, Qualifier::InvalidCommand);
    /// It takes too long, and was taken back.
    pub const TRY_AGAIN: Self = Self::new(Status::TryAgain, Qualifier::TryAgain);
    /// The member cannot go on with what was set.
    pub const UNFIT: Self = Self::new(Status::Io, Qualifier::InvalidCommand);

    const fn new(status: Status, qualifier: Qualifier) -> Self {
        Self { status, qualifier }
    }

    const fn invalid(qualifier: Qualifier) -> Self {
        Self::new(Status::Invalid, qualifier)
    }
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// How it ended.
    pub status: Status,
    /// Why, if not well.
    pub qualifier: Qualifier,
    /// Its result; empty if not well.
    pub result: Vec<u8>,
}

impl From<Result<Vec<u8>, Refusal>> for Reply {
    fn from(outcome: Result<Vec<u8>, Refusal>) -> Self {
        match outcome {
            Ok(result) => Self {
                status: Status::Ok,
                qualifier: Qualifier::Ok,
                result,
            },
            Err(Refusal { status, qualifier }) => Self {
                status,
                qualifier,
                result: Vec::new(),
            },
        }
    }
}

impl Reply {
    /// The bytes of the answer: a multiple of eight, but no more than there is room for.
    ///
    /// # Spec
    /// virtio 1.4 §2.13.1.
    pub fn to_bytes(&self, room: usize) -> Vec<u8> {
        let mut to = Vec::with_capacity(REPLY_HEADER.saturating_add(self.result.len()));
        to.extend((self.status as u16).to_le_bytes());
        to.extend((self.qualifier as u16).to_le_bytes());
        to.extend([0; 4]);
        to.extend(&self.result);
        to.resize(to.len().next_multiple_of(8), 0);
        to.truncate(room);
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_reads_as_zero() {
        let (header, data) = Header::parse(&[0x11, 0, 1]);
        let expected = Header {
            opcode: 0x11,
            group: 1,
            member: 0,
        };
        assert_eq!(header, expected);
        assert_eq!(data.u64(0), 0);
        assert_eq!(Fields(&[1, 2, 3]).u32(1), 0x0302);
        assert_eq!(Fields(&[1]).u16(usize::MAX), 0);
    }

    #[test]
    fn answers_are_whole_words_or_what_fits() {
        let reply = Reply::from(Ok(vec![7, 9]));
        let whole = [0, 0, 0, 0, 0, 0, 0, 0, 7, 9, 0, 0, 0, 0, 0, 0];
        assert_eq!(reply.to_bytes(4096), whole);
        assert_eq!(reply.to_bytes(9), whole[..9]);
        assert!(reply.to_bytes(0).is_empty());
        let refused = Reply::from(Err(Refusal::MEMBER));
        assert_eq!(refused.to_bytes(64), [22, 0, 5, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn opcodes_have_the_numbers_of_their_sections() {
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_number(opcode.number()), Some(opcode));
        }
        assert_eq!(Opcode::from_number(0xb), Some(Opcode::ResourceObjModify));
        assert_eq!(Opcode::from_number(2), None);
        assert_eq!(Opcode::from_number(0x12), None);
    }
}
