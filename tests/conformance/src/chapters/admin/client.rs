//! A driver of an administration queue.
//!
//! ```text
//!  readable   opcode u16 | group type u16 | reserved u8[12] | member u64 | data
//!  writable   status u16 | qualifier u16 | reserved u8[4] | result
//! ```

use std::sync::Arc;
use std::time::Instant;

use vdpa_core::bits;
use vdpa_pci::{PciAccess, Width};

use crate::checked::{ensure, skip};
use crate::registers::{Registers, extended, reg};
use crate::{Bench, Checked, Piece, Rig, Ring, Variant};

/// Members that there are to be, where there are none yet.
const MEMBERS: u16 = 2;

/// Opcodes, virtio 1.4 §2.12.1; as the sections number them, not the table.
pub(super) mod op {
    pub(in super::super) const LIST_QUERY: u16 = 0;
    pub(in super::super) const LIST_USE: u16 = 1;
    pub(in super::super) const CAP_SET: u16 = 9;
    pub(in super::super) const CREATE: u16 = 0xa;
    pub(in super::super) const MODIFY: u16 = 0xb;
    pub(in super::super) const QUERY: u16 = 0xc;
    pub(in super::super) const DESTROY: u16 = 0xd;
    pub(in super::super) const METADATA_GET: u16 = 0xe;
    pub(in super::super) const PARTS_GET: u16 = 0xf;
    pub(in super::super) const PARTS_SET: u16 = 0x10;
    pub(in super::super) const MODE_SET: u16 = 0x11;
}

/// Statuses.
pub(super) const OK: u16 = 0;
pub(super) const EAGAIN: u16 = 11;
pub(super) const ENOMEM: u16 = 12;
pub(super) const EEXIST: u16 = 17;
pub(super) const EINVAL: u16 = 22;
/// Qualifiers.
pub(super) const BAD_OPCODE: u16 = 2;
pub(super) const BAD_GROUP: u16 = 4;
pub(super) const BAD_MEMBER: u16 = 5;
/// Group types.
pub(super) const ITSELF: u16 = 0;
pub(super) const SR_IOV: u16 = 1;

/// A command.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) opcode: u16,
    pub(super) group: u16,
    pub(super) member: u64,
    pub(super) data: Vec<u8>,
    /// Bytes of the answer's result.
    pub(super) room: u32,
}

/// What came of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) qualifier: u16,
    pub(super) result: Vec<u8>,
}

/// For a member.
pub(super) fn member(opcode: u16, member: u64, data: &[u8]) -> Command {
    Command {
        opcode,
        group: SR_IOV,
        member,
        data: data.to_vec(),
        room: 4096,
    }
}

/// For a group as a whole.
pub(super) fn group(opcode: u16, group: u16, data: &[u8]) -> Command {
    Command {
        opcode,
        group,
        member: 0,
        data: data.to_vec(),
        room: 8,
    }
}

/// An owner with members, and its administration queue.
pub(super) struct Owner<'b> {
    pub(super) rig: Rig<'b>,
    ring: Ring,
    /// Each command's, used again for the next.
    asked: Vec<Piece>,
    answers: Vec<Piece>,
    queue: u16,
    /// The name of its function.
    pub(super) name: String,
    /// How many members there are.
    pub(super) members: u16,
}

/// Commands at a time.
const BATCH: usize = 3;
const ASKED: u32 = 8192;
const ANSWERED: u32 = 8192;

impl<'b> Owner<'b> {
    /// One that was just initialised: no command is used yet.
    pub(super) fn of(bench: &'b Bench<'b>) -> Checked<Self> {
        let function = bench.function()?;
        let queue = queue(&function)?;
        let members = enable(&*function)?;
        let name = function.name().to_owned();
        let parent = bench.drive(function)?;
        let rig = bench.rig(parent)?;
        rig.reset()?;
        let (asked, answers) = pieces(&rig)?;
        let ring = start(&rig, queue)?;
        Ok(Self {
            rig,
            ring,
            asked,
            answers,
            queue,
            name,
            members,
        })
    }

    /// One that uses all commands that there are.
    pub(super) fn ready(bench: &'b Bench<'b>) -> Checked<Self> {
        let mut owner = Self::of(bench)?;
        owner.use_all()?;
        Ok(owner)
    }

    /// Uses all commands that there are, for each group.
    pub(super) fn use_all(&mut self) -> Checked {
        for of in [ITSELF, SR_IOV] {
            let list = self.ask(&group(op::LIST_QUERY, of, &[]))?;
            ensure!(list.status == OK, "LIST_QUERY of group {of}: {list:?}");
            let used = self.ask(&group(op::LIST_USE, of, &list.result))?;
            ensure!(used.status == OK, "LIST_USE of group {of}: {used:?}");
        }
        Ok(())
    }

    /// Which commands there are for members.
    pub(super) fn list(&mut self) -> Checked<u64> {
        let list = self.ask(&group(op::LIST_QUERY, SR_IOV, &[]))?;
        ensure!(list.status == OK, "LIST_QUERY: {list:?}");
        let first = list.result.first_chunk::<8>();
        Ok(first.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// Skips unless this command is there.
    pub(super) fn require(&mut self, opcode: u16, name: &str) -> Checked {
        if self.list()? & 1 << opcode == 0 {
            skip!("the command {name} is not supported");
        }
        Ok(())
    }

    /// Resets the owner, and initialises it again.
    pub(super) fn again(&mut self) -> Checked {
        self.rig.reset()?;
        self.ring = start(&self.rig, self.queue)?;
        self.use_all()
    }

    /// One command, and its answer. One that is to be tried again is, as a driver should.
    pub(super) fn ask(&mut self, command: &Command) -> Checked<Answer> {
        let (begun, patience) = (Instant::now(), self.rig.bench().patience());
        loop {
            let answer = self.ask_once(command)?;
            if answer.status != EAGAIN || begun.elapsed() >= patience {
                return Ok(answer);
            }
        }
    }

    /// One command, and whatever its answer is.
    pub(super) fn ask_once(&mut self, command: &Command) -> Checked<Answer> {
        let bytes = whole(command);
        let answers = self.ask_bytes(&[(bytes, command.room)])?;
        Ok(answers.into_iter().next().unwrap_or(Answer {
            status: u16::MAX,
            qualifier: 0,
            result: Vec::new(),
        }))
    }

    /// Several that are shown at once.
    pub(super) fn ask_all(&mut self, commands: &[Command]) -> Checked<Vec<Answer>> {
        let all: Vec<_> = commands.iter().map(|c| (whole(c), c.room)).collect();
        self.ask_bytes(&all)
    }

    /// Bytes, and how many the result may have.
    pub(super) fn ask_bytes(&mut self, all: &[(Vec<u8>, u32)]) -> Checked<Vec<Answer>> {
        let mut ids = Vec::new();
        for ((bytes, room), (asked, answer)) in all.iter().zip(self.asked.iter().zip(&self.answers))
        {
            let readable = Piece {
                len: bytes.len() as u32,
                ..*asked
            };
            let writable = Piece {
                len: (8 + room).min(ANSWERED),
                ..*answer
            };
            self.rig.fill(*answer, 0);
            self.rig.write(readable, bytes);
            ids.push((self.ring.add(&[readable], &[writable])?, writable));
        }
        self.ring.publish();
        let done = self.ring.wait(&self.rig, ids.len())?;
        let mut answers = Vec::new();
        for (id, writable) in ids {
            let len = done.iter().find(|d| d.id == id).map_or(0, |d| d.len);
            let bytes = self.rig.read(writable);
            let short = |at: usize| {
                let two = bytes.get(at..at + 2).and_then(|b| b.first_chunk::<2>());
                two.map_or(u16::MAX, |two| u16::from_le_bytes(*two))
            };
            answers.push(Answer {
                status: short(0),
                qualifier: short(2),
                result: bytes
                    .get(8..len.max(8) as usize)
                    .unwrap_or_default()
                    .to_vec(),
            });
        }
        Ok(answers)
    }
}

fn pieces(rig: &Rig<'_>) -> Checked<(Vec<Piece>, Vec<Piece>)> {
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..BATCH {
        asked.push(rig.alloc(ASKED)?);
        answers.push(rig.alloc(ANSWERED)?);
    }
    Ok((asked, answers))
}

/// A command's bytes.
pub(super) fn whole(command: &Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(command.opcode.to_le_bytes());
    bytes.extend(command.group.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(command.member.to_le_bytes());
    bytes.extend(&command.data);
    bytes
}

fn start(rig: &Rig<'_>, queue: u16) -> Checked<Ring> {
    let features = rig.plain(Variant::SPLIT).with(bits::ADMIN_VQ);
    rig.negotiate(features)?;
    let ring = rig.queue(queue, 8)?;
    rig.run()?;
    Ok(ring)
}

/// The number of the first administration queue; skips where there is none.
fn queue(function: &Arc<dyn PciAccess>) -> Checked<u16> {
    let registers = Registers::of(Arc::clone(function))?;
    require(&registers)?;
    Ok(registers.get(reg::ADMIN_QUEUE_INDEX)? as u16)
}

pub(super) fn require(registers: &Registers) -> Checked {
    if !registers.offered()?.contains(bits::ADMIN_VQ) {
        skip!("VIRTIO_F_ADMIN_VQ is not offered");
    }
    Ok(())
}

/// Has members come, as a host does, unless there are some; skips where that cannot be. How many there are.
fn enable(function: &dyn PciAccess) -> Checked<u16> {
    const NUM_VFS: u16 = 0x10;
    const CONTROL: u16 = 0x08;
    const VF_ENABLE: u32 = 1;
    let Some(at) = extended(function, 0x10)?.flatten() else {
        skip!("the owner has no SR-IOV capability, and so no members");
    };
    let is_on = || -> Checked<bool> {
        Ok(function.read_config(at + CONTROL, Width::U16)? & VF_ENABLE != 0)
    };
    if !is_on()? {
        function.write_config(at + NUM_VFS, Width::U16, MEMBERS.into())?;
        function.write_config(at + CONTROL, Width::U16, VF_ENABLE)?;
    }
    let count = function.read_config(at + NUM_VFS, Width::U16)? as u16;
    if !is_on()? || count == 0 {
        skip!("virtual functions cannot be switched on from here");
    }
    Ok(count)
}
