//! Wrong about the administration of members: owners that carry commands out wrongly or say something else, and members
//! that do not heed what their owner was told.
//!
//! ```text
//!   suite ─ ring ─▶ shadow with a Clerk: commands and answers changed on the way ─▶ VirtioPci ─▶ owner's function
//!   suite ─ registers, memory, vectors ─▶ what stands in front of a member ─▶ member's function
//! ```
//! Both know what the other saw, by their [`Kept`].

mod member;
mod owner;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vdpa_conformance::{Effort, Ids, Report, Selection, Target, run};
use vdpa_core::{DeviceSpec, Registry};
use vdpa_pci::{PciAccess, PciParent, VirtioPci};
use vdpa_sim::SimMgmt;

use super::shadow::{Chain, Memory, Twist, shadow};

/// A command, as it is asked.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Asked {
    pub opcode: u16,
    pub group: u16,
    pub member: u64,
    pub data: Vec<u8>,
    /// Whether all of its header is there.
    pub whole: bool,
}

/// Bytes of a command before its data.
const HEADER: usize = 24;

impl Asked {
    fn parse(bytes: &[u8]) -> Self {
        let mut header = bytes.to_vec();
        header.resize(HEADER.max(bytes.len()), 0);
        Self {
            opcode: u16::from_le_bytes([header[0], header[1]]),
            group: u16::from_le_bytes([header[2], header[3]]),
            member: u64::from_le_bytes(header[16..24].try_into().unwrap()),
            data: header[HEADER..].to_vec(),
            whole: bytes.len() >= HEADER,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..2].copy_from_slice(&self.opcode.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.group.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.member.to_le_bytes());
        bytes.extend(&self.data);
        bytes
    }

    /// In place of what has no effect.
    pub fn make_harmless(&mut self) {
        *self = Self {
            opcode: op::LIST_QUERY,
            group: 1,
            whole: true,
            ..Self::default()
        };
    }

    /// For members, with this opcode.
    pub fn is(&self, opcode: u16) -> bool {
        self.opcode == opcode && self.group == 1
    }

    /// What a DEV_MODE_SET asks for.
    pub fn mode(&self) -> Option<u8> {
        let mode = self.data.first().copied().unwrap_or(0);
        self.is(op::MODE_SET).then_some(mode)
    }

    /// The list of a LIST_USE.
    pub fn list(&self) -> u64 {
        let mut list = self.data.clone();
        list.resize(8, 0);
        u64::from_le_bytes(list[..8].try_into().unwrap())
    }
}

/// What is answered.
pub struct Answer<'b> {
    bytes: &'b mut [u8],
    len: &'b mut u32,
}

impl Answer<'_> {
    fn short(&self, at: usize) -> u16 {
        let two = self.bytes.get(at..at + 2);
        two.map_or(0, |two| u16::from_le_bytes([two[0], two[1]]))
    }
    pub fn status(&self) -> u16 {
        self.short(0)
    }
    pub fn qualifier(&self) -> u16 {
        self.short(2)
    }
    /// Says this instead, with no result.
    pub fn say(&mut self, status: u16, qualifier: u16) {
        let mut head = [0; 8];
        head[..2].copy_from_slice(&status.to_le_bytes());
        head[2..4].copy_from_slice(&qualifier.to_le_bytes());
        self.put(&head);
    }
    /// Status, qualifier and result, as far as there is room.
    pub fn put(&mut self, all: &[u8]) {
        let len = all.len().min(self.bytes.len());
        self.bytes[..len].copy_from_slice(&all[..len]);
        *self.len = len as u32;
    }
    pub fn all(&self) -> Vec<u8> {
        self.bytes[..*self.len as usize].to_vec()
    }
    pub fn result(&mut self) -> &mut [u8] {
        let len = (*self.len as usize).max(8);
        self.bytes.get_mut(8..len).unwrap_or_default()
    }
}

/// Opcodes.
pub mod op {
    pub const LIST_QUERY: u16 = 0;
    pub const LIST_USE: u16 = 1;
    pub const CREATE: u16 = 0xa;
    pub const MODIFY: u16 = 0xb;
    pub const QUERY: u16 = 0xc;
    pub const DESTROY: u16 = 0xd;
    pub const METADATA_GET: u16 = 0xe;
    pub const PARTS_GET: u16 = 0xf;
    pub const PARTS_SET: u16 = 0x10;
    pub const MODE_SET: u16 = 0x11;
}

/// Statuses.
pub mod status {
    pub const OK: u16 = 0;
    pub const ENXIO: u16 = 6;
    pub const EAGAIN: u16 = 11;
    pub const ENOMEM: u16 = 12;
    pub const EBUSY: u16 = 16;
    pub const EEXIST: u16 = 17;
    pub const EINVAL: u16 = 22;
}

/// What is remembered, of an owner and its members together.
#[derive(Default)]
pub struct Kept {
    /// Whatever something wrong counts.
    pub count: AtomicU32,
    /// The list that is used.
    pub used: Mutex<u64>,
    /// The first member was told to stop, and said that it has.
    pub stopped: AtomicBool,
    /// It was reset after the last time that its parts were got.
    pub reset: AtomicBool,
    /// How often something was to be tried again.
    pub waited: AtomicU32,
    /// Bytes of an answer, or of a command.
    pub bytes: Mutex<Vec<u8>>,
}

impl Kept {
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }
    /// How often this was counted before.
    pub fn again(&self) -> u32 {
        self.count.fetch_add(1, Ordering::SeqCst)
    }
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
    pub fn keep(&self, bytes: &[u8]) {
        *self.bytes.lock().unwrap() = bytes.to_vec();
    }
}

/// Changes commands before they are carried out, and answers before they are given back.
struct Clerk {
    kept: Arc<Kept>,
    ask: Ask,
    say: Say,
    /// By the number of their chain, as they were asked.
    under_way: Mutex<BTreeMap<u64, Asked>>,
}

pub type Ask = fn(&Kept, &mut Asked);
pub type Say = fn(&Kept, &Asked, &mut Answer<'_>);

impl Twist for Clerk {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        let asked = Asked::parse(readable);
        let mut wrong = asked.clone();
        (self.ask)(&self.kept, &mut wrong);
        if wrong != asked {
            *readable = wrong.to_bytes();
        }
        self.under_way.lock().unwrap().insert(chain.number, asked);
    }

    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, len: &mut u32, _: &Memory<'_>) {
        let asked = self.under_way.lock().unwrap().remove(&chain.number);
        let asked = asked.unwrap_or_default();
        let mut answer = Answer { bytes, len };
        (self.say)(&self.kept, &asked, &mut answer);
        let well = answer.status() == status::OK;
        if let Some(mode) = asked.mode().filter(|_| well && asked.member == 1) {
            self.kept.stopped.store(mode == 1, Ordering::SeqCst);
        }
        if asked.is(op::LIST_USE) && well {
            *self.kept.used.lock().unwrap() = asked.list();
        }
        if asked.is(op::PARTS_GET) && well {
            self.kept.reset.store(false, Ordering::SeqCst);
        }
    }
}

/// An owner with members that is wrong in one way.
pub struct Wrong {
    pub name: &'static str,
    pub caught_by: u16,
    pub ask: Ask,
    pub say: Say,
    pub member: Front,
}

/// Puts something in front of a member.
pub type Front = fn(Arc<dyn PciAccess>, Arc<Kept>) -> Arc<dyn PciAccess>;

pub fn asks_well(_: &Kept, _: &mut Asked) {}
pub fn says_well(_: &Kept, _: &Asked, _: &mut Answer<'_>) {}
pub fn as_it_is(member: Arc<dyn PciAccess>, _: Arc<Kept>) -> Arc<dyn PciAccess> {
    member
}

fn judge(wrong: &Wrong, spec: &str, selection: &Selection) -> (Report, Arc<Kept>) {
    let parent = Arc::new(SimMgmt::new());
    let mut registry = Registry::new();
    registry.add(parent.clone());
    let parsed = DeviceSpec::parse(spec).unwrap();
    let what = parsed.what().to_owned();
    let kept = Arc::new(Kept::default());
    let (ask, say, front) = (wrong.ask, wrong.say, wrong.member);
    let (members, theirs, owners) = (parent.clone(), kept.clone(), kept.clone());
    let target = Target::named(&registry, spec).unwrap();
    let target = target
        .with_function(move || parent.function(&parsed))
        .with_members(move |owner, number| {
            let spec = format!("sim:{what},as=vf,of={owner},number={number}");
            let member = members.function(&DeviceSpec::parse(&spec)?)?;
            Ok(front(member, theirs.clone()))
        })
        .driven_by(move |function| {
            let clerk = Clerk {
                kept: owners.clone(),
                ask,
                say,
                under_way: Mutex::default(),
            };
            Ok(shadow(Arc::new(VirtioPci::open(function)?), clerk))
        });
    (run(&target, selection), kept)
}

fn all() -> impl Iterator<Item = &'static Wrong> {
    owner::WRONG.iter().chain(member::WRONG)
}

const SPEC: &str = "sim:net,as=pf,vfs=2";

/// What the wrong ones are caught by; 139 is about registers.
fn statements() -> Ids {
    all().map(|wrong| wrong.caught_by).collect()
}

#[test]
fn each_is_caught() {
    let mut free = Vec::new();
    for wrong in all() {
        let selection = Selection {
            patience: Some(Duration::from_secs(1)),
            fail_fast: true,
            ..Selection::only(Ids::one(wrong.caught_by))
        };
        let (report, _) = judge(wrong, SPEC, &selection);
        if report.failed() == 0 {
            free.push((wrong.name, wrong.caught_by, format!("{:?}", report.rows)));
        }
        for row in report.failures() {
            println!("{}: {row}", wrong.name);
        }
    }
    assert!(free.is_empty(), "not caught: {free:#?}");
}

#[test]
fn every_statement_about_administration_has_one() {
    let statements: Vec<_> = (132..=145).filter(|id| *id != 139).collect();
    let with: std::collections::BTreeSet<_> = all().map(|wrong| wrong.caught_by).collect();
    assert_eq!(with.into_iter().collect::<Vec<_>>(), statements);
    let names: std::collections::BTreeSet<_> = all().map(|wrong| wrong.name).collect();
    assert_eq!(names.len(), all().count(), "two have the same name");
}

/// What is changed in nothing keeps what the others are caught by; and so does an owner that has things tried again, as
/// long as it does nothing until then.
#[test]
fn what_only_looks_wrong_breaks_nothing() {
    let nothing = Wrong {
        name: "nothing",
        caught_by: 0,
        ask: asks_well,
        say: says_well,
        member: member::around_nothing,
    };
    let again = Wrong {
        name: "has objects made and destroyed at the second try",
        ask: |kept, asked| {
            if asked.whole && kept.again().is_multiple_of(3) && owner::may_wait(asked) {
                kept.keep(&asked.to_bytes());
                asked.make_harmless();
            }
        },
        say: |kept, asked, answer| {
            if !kept.bytes().is_empty() && kept.bytes() == asked.to_bytes() {
                kept.keep(&[]);
                kept.waited.fetch_add(1, Ordering::SeqCst);
                answer.say(status::EAGAIN, 7);
            }
        },
        ..nothing
    };
    for wrong in [&nothing, &again] {
        for spec in [SPEC, "sim:blk,as=pf,vfs=1"] {
            let selection = Selection {
                effort: Effort::Full,
                ..Selection::only(statements())
            };
            let (report, kept) = judge(wrong, spec, &selection);
            assert_eq!(
                report.failed() + report.skipped(),
                0,
                "{} {report}",
                wrong.name
            );
            let waited = kept.waited.load(Ordering::SeqCst) > 0;
            assert_eq!(waited, wrong.name == again.name);
        }
    }
}
