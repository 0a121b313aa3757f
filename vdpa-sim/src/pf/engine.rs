//! Administration commands, carried out: bytes in, bytes out, and no thread.
//!
//! ```text
//!   command ─▶ group type there? ─▶ opcode used? ─▶ member there? ─▶ fields legal? ─▶ carried out ─▶ reply
//! ```
//! The order of the checks is the specification's, and nothing has changed before all are passed. What takes time, such as
//! a stop, is *pending*: the same command is run again until it is not. Until then it has changed nothing here.

use std::task::Poll;

use super::command::{Fields, GroupType, Header, Opcode, Refusal, Reply};
use super::group::{Group, Member, Mode};
use super::objects::{Limits, OBJECT_HEADER, Objects, Purpose};
use super::part::{self, Part, PartType};

/// The commands that there are for the owner itself.
const FOR_ITSELF: u64 = Opcode::ListQuery.bit()
    | Opcode::ListUse.bit()
    | Opcode::CapIdListQuery.bit()
    | Opcode::DeviceCapGet.bit()
    | Opcode::DriverCapSet.bit();

/// The commands that there are for virtual functions: those of device parts come together, virtio 1.4 §2.12.1.4.4.1.
const FOR_SRIOV: u64 = Opcode::ListQuery.bit()
    | Opcode::ListUse.bit()
    | Opcode::ResourceObjCreate.bit()
    | Opcode::ResourceObjModify.bit()
    | Opcode::ResourceObjQuery.bit()
    | Opcode::ResourceObjDestroy.bit()
    | Opcode::DevPartsMetadataGet.bit()
    | Opcode::DevPartsGet.bit()
    | Opcode::DevPartsSet.bit()
    | Opcode::DevModeSet.bit();

/// The commands that may be used before the driver has said which it uses.
const AT_FIRST: u64 = Opcode::ListQuery.bit() | Opcode::ListUse.bit();

/// The only capability: VIRTIO_DEV_PARTS_CAP.
const DEV_PARTS: u16 = 0;

/// How many resource objects there can be, of all members together.
pub const OBJECTS: Limits = Limits { get: 32, set: 32 };

/// Bytes before the parts, or headers of them, in commands that name an object and a type.
const TYPED: usize = 16;

/// What administration commands change.
#[derive(Debug)]
pub struct Engine {
    /// The commands that the driver uses, by group type.
    itself: u64,
    sriov: u64,
    objects: Objects,
    /// Which members the objects are of.
    generation: Option<u64>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// As it is after a reset.
    pub fn new() -> Self {
        Self {
            itself: AT_FIRST,
            sriov: AT_FIRST,
            objects: Objects::default(),
            generation: None,
        }
    }

    /// Carries out a command.
    ///
    /// * `command`: what the device may read of it, of any length
    /// * `room`: how many bytes there are for the answer
    /// * `group`: the owner's virtual functions
    ///
    /// Pending: run it again, with the same bytes.
    ///
    /// # Spec
    /// virtio 1.4 §2.12.1.5 and §2.13.1.
    pub fn run(&mut self, command: &[u8], room: usize, group: &dyn Group) -> Poll<Reply> {
        let (header, data) = Header::parse(command);
        let room = room.saturating_sub(super::command::REPLY_HEADER);
        self.follow(group);
        self.dispatch(header, data, room, group).map(Reply::from)
    }

    /// Whether a command that is pending has perhaps changed something: the resume of a member that has stopped, to which
    /// parts were set, begins with a reset of it. All others change nothing before they are ready.
    pub(super) fn has_begun(command: &[u8], group: &dyn Group) -> bool {
        let (header, data) = Header::parse(command);
        let resumes = header.opcode == Opcode::DevModeSet.number() && data.u8(0) == 0;
        let number = u16::try_from(header.member).unwrap_or(0);
        let member = group.member(number).filter(|_| resumes);
        member.is_some_and(|member| member.mode() == Mode::Stopped)
    }

    /// Objects of members that are gone are gone too.
    fn follow(&mut self, group: &dyn Group) {
        let generation = Some(group.generation());
        if self.generation != generation {
            self.generation = generation;
            self.objects.forget();
        }
    }

    fn dispatch(
        &mut self,
        header: Header,
        data: Fields<'_>,
        room: usize,
        group: &dyn Group,
    ) -> Poll<Result<Vec<u8>, Refusal>> {
        let members = group.members();
        let used = match GroupType::from_number(header.group) {
            Some(GroupType::Itself) => self.itself,
            Some(GroupType::SrIov) if members.is_some() => self.sriov,
            _ => return Poll::Ready(Err(Refusal::GROUP)),
        };
        let opcode = Opcode::from_number(header.opcode).filter(|op| used & op.bit() != 0);
        let Some(opcode) = opcode else {
            return Poll::Ready(Err(Refusal::OPCODE));
        };
        if header.group == GroupType::Itself as u16 {
            return Poll::Ready(self.for_itself(opcode, header.member, data));
        }
        if opcode.bit() & AT_FIRST != 0 {
            return Poll::Ready(list(opcode, data, FOR_SRIOV, &mut self.sriov));
        }
        let last = members.unwrap_or(0);
        let number = u16::try_from(header.member).ok();
        let number = number.filter(|number| (1..=last).contains(number));
        let Some((number, member)) = number.and_then(|n| Some((n, group.member(n)?))) else {
            return Poll::Ready(Err(Refusal::MEMBER));
        };
        self.for_member(opcode, number, &*member, data, room)
    }

    /// A command for the owner itself.
    fn for_itself(
        &mut self,
        opcode: Opcode,
        member: u64,
        data: Fields<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        if opcode.bit() & AT_FIRST != 0 {
            return list(opcode, data, FOR_ITSELF, &mut self.itself);
        }
        if member != 0 {
            return Err(Refusal::MEMBER);
        }
        if opcode == Opcode::CapIdListQuery {
            return Ok((1_u64 << DEV_PARTS).to_le_bytes().to_vec());
        }
        if data.u16(0) != DEV_PARTS {
            return Err(Refusal::NO_ENTRY);
        }
        match opcode {
            Opcode::DeviceCapGet => Ok(vec![OBJECTS.get, OBJECTS.set]),
            Opcode::DriverCapSet => {
                let data = data.rest(8);
                let limits = Limits {
                    get: data.u8(0),
                    set: data.u8(1),
                };
                self.objects.set_limits(limits, OBJECTS)?;
                Ok(Vec::new())
            }
            _ => Err(Refusal::OPCODE),
        }
    }

    /// A command for a virtual function.
    fn for_member(
        &mut self,
        opcode: Opcode,
        number: u16,
        member: &dyn Member,
        data: Fields<'_>,
        room: usize,
    ) -> Poll<Result<Vec<u8>, Refusal>> {
        let objects = &mut self.objects;
        let done = |outcome: Result<(), Refusal>| Poll::Ready(outcome.map(|()| Vec::new()));
        match opcode {
            Opcode::ResourceObjCreate => done(objects.create(number, data)),
            Opcode::ResourceObjModify => done(objects.modify(number, data)),
            Opcode::ResourceObjQuery => Poll::Ready(objects.query(number, data)),
            Opcode::ResourceObjDestroy => done(objects.destroy(number, data)),
            Opcode::DevPartsMetadataGet | Opcode::DevPartsGet => {
                if let Err(refusal) = objects.check(number, data, Purpose::Get) {
                    return Poll::Ready(Err(refusal));
                }
                let typed = data.rest(OBJECT_HEADER).u8(0);
                let legal = if opcode == Opcode::DevPartsGet { 1 } else { 2 };
                if typed > legal {
                    return Poll::Ready(Err(Refusal::FIELD));
                }
                let parts = match member.parts() {
                    Poll::Ready(Ok(parts)) => parts,
                    Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refusal)),
                    Poll::Pending => return Poll::Pending,
                };
                Poll::Ready(match opcode {
                    Opcode::DevPartsGet => Ok(selected(parts, typed, data)),
                    _ => metadata(&parts, typed, room),
                })
            }
            Opcode::DevPartsSet => {
                if let Err(refusal) = objects.check(number, data, Purpose::Set) {
                    return Poll::Ready(Err(refusal));
                }
                if member.mode() != Mode::Stopped {
                    return Poll::Ready(Err(Refusal::BUSY));
                }
                // Before they are copied: they may be long, and this pending for long.
                let own = match member.parts() {
                    Poll::Ready(Ok(own)) => own,
                    Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refusal)),
                    Poll::Pending => return Poll::Pending,
                };
                match Part::parse_all(data.rest(OBJECT_HEADER).0) {
                    Some(parts) => set(member, &own, &parts),
                    None => Poll::Ready(Err(Refusal::FIELD)),
                }
            }
            Opcode::DevModeSet => {
                let mode = match data.u8(0) {
                    0 => Mode::Running,
                    // VIRTIO_ADMIN_CMD_DEV_MODE_F_STOPPED is a bit's number.
                    1 => Mode::Stopped,
                    _ => return Poll::Ready(Err(Refusal::FIELD)),
                };
                member.set_mode(mode).map_ok(|()| Vec::new())
            }
            _ => Poll::Ready(Err(Refusal::OPCODE)),
        }
    }
}

/// Which commands there are, or are used.
fn list(
    opcode: Opcode,
    data: Fields<'_>,
    supported: u64,
    used: &mut u64,
) -> Result<Vec<u8>, Refusal> {
    if opcode == Opcode::ListQuery {
        return Ok(supported.to_le_bytes().to_vec());
    }
    let asked = data.u64(0);
    // What is behind stands for opcodes that there are not. Zeroes are legal.
    let more = data.rest(8).0.iter().any(|byte| *byte != 0);
    if asked & !supported != 0 || more {
        return Err(Refusal::FIELD);
    }
    *used = asked;
    Ok(Vec::new())
}

/// The parts that are asked for: all of them, or those that are named. What is named and not there is left out.
fn selected(mut parts: Vec<Part>, typed: u8, data: Fields<'_>) -> Vec<u8> {
    if typed == 0 {
        let names = part::names(data.rest(TYPED).0);
        parts.retain(|part| names.contains(&part.name));
    }
    Part::all_to_bytes(&parts)
}

/// What is said of parts: their size, their number, or their headers.
fn metadata(parts: &[Part], typed: u8, room: usize) -> Result<Vec<u8>, Refusal> {
    let size = Part::all_to_bytes(parts).len();
    let number = if typed == 0 { size } else { parts.len() };
    let mut result = u32::try_from(number)
        .unwrap_or(u32::MAX)
        .to_le_bytes()
        .to_vec();
    // The zeroes behind the number may be missing.
    let mut least = result.len();
    result.extend([0; 4]);
    if typed == 2 {
        result.extend(parts.iter().flat_map(Part::header));
        least = result.len();
    }
    if room < least {
        return Err(Refusal::NO_ROOM);
    }
    Ok(result)
}

/// Sets parts that are like the member's own.
fn set(member: &dyn Member, own: &[Part], parts: &[Part]) -> Poll<Result<Vec<u8>, Refusal>> {
    let fits = |part: &&Part| {
        let own = own.iter().find(|own| own.name == part.name);
        own.is_some_and(|own| match part.name.kind {
            // Compared, and never set.
            PartType::DeviceFeatures => own.value == part.value,
            // As long as what the member has to remember.
            PartType::Simulated => true,
            _ => own.value.len() == part.value.len(),
        })
    };
    if parts.len() > own.len() || parts.iter().filter(fits).count() != parts.len() {
        return Poll::Ready(Err(Refusal::FIELD));
    }
    member.set_parts(parts).map_ok(|()| Vec::new())
}

#[cfg(test)]
mod tests;
