//! Split, packed and a naive model agree over any sequence of operations.

mod rig;

use std::collections::VecDeque;

use proptest::prelude::*;
use rig::Rig;
use vdpa_mem::{Fault, Iova};
use vdpa_ring::{
    AddError, Batch, ChainToken, Completion, DeviceRing, DriverRing, Format, Pos, QueueState,
    RingError, RingFeatures, Segment, Used,
};

/// One step of a driver or a device.
#[derive(Clone, Debug)]
enum Op {
    Add {
        readable: u16,
        writable: u16,
    },
    Publish,
    Take {
        limit: usize,
    },
    Rewind {
        n: usize,
    },
    /// `pick`: which of those taken; `fill`: how much of the writable length, in 255ths.
    Commit {
        n: usize,
        pick: u64,
        fill: u8,
    },
    CommitInOrder {
        n: usize,
        fill: u8,
    },
    TakeUsed {
        n: usize,
    },
    ArmDevice,
    DisarmDevice,
    ArmDriver,
    DisarmDriver,
    /// The device half is thrown away and made again from its state.
    RestoreDevice,
    /// The driver half likewise, where nothing is in flight.
    RestoreDriver,
    /// Indirect tables are not mapped, or mapped again.
    Miss(bool),
}

/// What a step answered.
#[derive(Clone, Debug, PartialEq)]
enum Out {
    Nothing,
    Added(Option<u64>),
    Notify(bool),
    /// Tags with their segments: readable, then writable.
    Chains(Vec<(u64, Vec<Segment>, Vec<Segment>)>),
    Back(Vec<(u64, u32)>),
    More(bool),
    Rewound(usize),
}

/// A chain, known by the address of its first segment.
#[derive(Clone, Debug)]
struct Chain {
    tag: u64,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    slots: u64,
    indirect: bool,
}

impl Chain {
    fn writable_len(&self) -> u32 {
        self.writable.iter().map(|s| s.len).sum()
    }
}

/// When a side is told, in the units of one format: chains (split) or slots (packed).
#[derive(Clone, Debug)]
struct Bell {
    event_idx: bool,
    /// Positions that look the same are this far apart.
    period: u64,
    armed: bool,
    event: u64,
}

impl Bell {
    fn rings(&self, old: u64, new: u64) -> bool {
        if new == old || !self.armed {
            return false;
        }
        if !self.event_idx {
            return true;
        }
        (0..)
            .map(|k| self.event + k * self.period)
            .take_while(|&e| e < new)
            .any(|e| e >= old)
    }
}

/// Four queues of chains and some counters.
struct Model {
    features: RingFeatures,
    tables: bool,
    size: u16,
    packed: bool,
    free: u64,
    next_tag: u64,
    hidden: VecDeque<Chain>,
    shown: VecDeque<Chain>,
    taken: Vec<Chain>,
    /// Length of the last take that may still be rewound.
    last_take: usize,
    used: VecDeque<(Chain, u32)>,
    /// Units published, taken, committed, taken back.
    at: [u64; 4],
    kick: Bell,
    call: Bell,
    miss: bool,
    /// The last take stopped at a chain whose table was not mapped.
    parked: bool,
}

impl Model {
    fn new(format: Format, size: u16, features: RingFeatures, tables: bool) -> Self {
        let packed = format == Format::Packed;
        let bell = Bell {
            event_idx: features.contains(RingFeatures::EVENT_IDX),
            period: if packed { u64::from(size) * 2 } else { 65536 },
            armed: true,
            event: 0,
        };
        Self {
            features,
            tables,
            size,
            packed,
            free: u64::from(size),
            next_tag: 1,
            hidden: VecDeque::new(),
            shown: VecDeque::new(),
            taken: Vec::new(),
            last_take: 0,
            used: VecDeque::new(),
            at: [0; 4],
            kick: bell.clone(),
            call: bell,
            miss: false,
            parked: false,
        }
    }

    fn units(&self, chain: &Chain) -> u64 {
        if self.packed { chain.slots } else { 1 }
    }

    fn commit(&mut self, which: Vec<usize>, lens: impl Fn(&Chain, bool) -> u32) -> Out {
        let old = self.at[2];
        let last = which.len();
        // In any order, those of the last take may be among them.
        self.last_take = match self.features.contains(RingFeatures::IN_ORDER) {
            true => self.last_take.saturating_sub(which.len()),
            false => 0,
        };
        for (i, &at) in which.iter().enumerate() {
            let chain = self.taken[at].clone();
            let len = lens(&chain, i + 1 == last);
            self.at[2] += self.units(&chain);
            self.used.push_back((chain, len));
        }
        let mut gone = which;
        gone.sort_unstable();
        for at in gone.into_iter().rev() {
            self.taken.remove(at);
        }
        Out::Notify(self.call.rings(old, self.at[2]))
    }

    fn step(&mut self, op: &Op) -> Out {
        match *op {
            Op::Add { readable, writable } => {
                let segments = u64::from(readable + writable);
                let indirect = segments > 1
                    && self.tables
                    && self.features.contains(RingFeatures::INDIRECT_DESC);
                let slots = if indirect { 1 } else { segments };
                if segments == 0 || segments > u64::from(self.size) || slots > self.free {
                    return Out::Added(None);
                }
                let (tag, readable, writable) = shape(self.next_tag, readable, writable);
                self.next_tag += 1;
                self.free -= slots;
                self.hidden.push_back(Chain {
                    tag,
                    readable,
                    writable,
                    slots,
                    indirect,
                });
                Out::Added(Some(tag))
            }
            Op::Publish => {
                let old = self.at[0];
                for chain in std::mem::take(&mut self.hidden) {
                    self.at[0] += self.units(&chain);
                    self.shown.push_back(chain);
                }
                Out::Notify(self.kick.rings(old, self.at[0]))
            }
            Op::Take { limit } => {
                let mut out = Vec::new();
                self.parked = false;
                while out.len() < limit {
                    match self.shown.front() {
                        Some(chain) if !(self.miss && chain.indirect) => {}
                        Some(_) => {
                            self.parked = true;
                            break;
                        }
                        None => break,
                    }
                    let chain = self.shown.pop_front().unwrap();
                    out.push((chain.tag, chain.readable.clone(), chain.writable.clone()));
                    self.at[1] += self.units(&chain);
                    self.taken.push(chain);
                }
                self.last_take = out.len();
                Out::Chains(out)
            }
            Op::Rewind { n } => {
                let n = n.min(self.last_take);
                self.parked &= n == 0;
                for _ in 0..n {
                    let chain = self.taken.pop().unwrap();
                    self.at[1] -= self.units(&chain);
                    self.last_take -= 1;
                    self.shown.push_front(chain);
                }
                Out::Rewound(n)
            }
            Op::Commit { n, pick, fill } => {
                let which = picked(self.taken.len(), n, pick, self.features);
                self.commit(which, |chain, _| portion(chain.writable_len(), fill))
            }
            Op::CommitInOrder { n, fill } => {
                if !self.features.contains(RingFeatures::IN_ORDER) {
                    return Out::Nothing;
                }
                let which = (0..n.min(self.taken.len())).collect();
                self.commit(which, |chain, last| match last {
                    true => portion(chain.writable_len(), fill),
                    false => chain.writable_len(),
                })
            }
            Op::TakeUsed { n } => {
                let n = n.min(self.used.len());
                let mut out = Vec::new();
                for (chain, len) in self.used.drain(..n) {
                    self.free += chain.slots;
                    self.at[3] += if self.packed { chain.slots } else { 1 };
                    out.push((chain.tag, len));
                }
                Out::Back(out)
            }
            Op::ArmDevice => {
                (self.kick.armed, self.kick.event) = (true, self.at[1]);
                Out::More(!self.shown.is_empty() && !self.parked)
            }
            Op::DisarmDevice => {
                self.kick.armed = false;
                Out::Nothing
            }
            Op::ArmDriver => {
                (self.call.armed, self.call.event) = (true, self.at[3]);
                Out::More(!self.used.is_empty())
            }
            Op::DisarmDriver => {
                self.call.armed = false;
                Out::Nothing
            }
            Op::RestoreDevice => {
                (self.last_take, self.parked) = (0, false);
                Out::Nothing
            }
            Op::RestoreDriver => Out::Nothing,
            Op::Miss(on) => {
                self.miss = on;
                Out::Nothing
            }
        }
    }
}

/// Which of `len` chains to commit: any, or the first ones with IN_ORDER.
fn picked(len: usize, n: usize, pick: u64, features: RingFeatures) -> Vec<usize> {
    let mut all: Vec<usize> = (0..len).collect();
    if !features.contains(RingFeatures::IN_ORDER) && len > 0 {
        all.rotate_left(pick as usize % len);
        if pick & 1 == 1 {
            all.reverse();
        }
    }
    all.truncate(n);
    all
}

fn portion(len: u32, fill: u8) -> u32 {
    (u64::from(len) * u64::from(fill) / 255) as u32
}

/// The segments of a chain: the tag is the first address.
fn shape(tag: u64, readable: u16, writable: u16) -> (u64, Vec<Segment>, Vec<Segment>) {
    let tag = tag << 16;
    let segment = |i: u16| Segment {
        addr: Iova::new(tag + u64::from(i)),
        len: (u32::from(i) * 37 + tag as u32 / 65536 * 11) % 1500,
    };
    let readable: Vec<_> = (0..readable).map(segment).collect();
    let first = readable.len() as u16;
    let writable = (first..first + writable).map(segment).collect();
    (tag, readable, writable)
}

/// One format's rings over one rig.
struct Pair<'r> {
    rig: &'r Rig,
    features: RingFeatures,
    tables: bool,
    driver: DriverRing,
    device: DeviceRing,
    batch: Batch,
    taken: Vec<(ChainToken, u32)>,
    /// Tag by id.
    tags: Vec<u64>,
    next_tag: u64,
}

impl<'r> Pair<'r> {
    fn new(rig: &'r Rig, features: RingFeatures, tables: bool, start: u16) -> Self {
        let (format, size) = (rig.format, rig.size);
        let state = match format {
            Format::Split => QueueState::Split {
                avail: start,
                used: None,
            },
            Format::Packed => {
                let at = Pos {
                    index: start % size,
                    wrap: start & 1 == 0,
                };
                if !at.wrap {
                    // As if a first lap had been made and used.
                    for slot in 0..size {
                        rig.packed(slot, 0, 0, 0, rig::AVAIL | rig::USED);
                    }
                } else {
                    for slot in 0..at.index {
                        rig.packed(slot, 0, 0, 0, rig::AVAIL | rig::USED);
                    }
                }
                QueueState::Packed {
                    avail: at,
                    used: at,
                }
            }
        };
        rig.avail_idx_if_split(start);
        let driver = DriverRing::new(format, size, features, Some(state)).unwrap();
        let device = DeviceRing::new(format, size, features, Some(state)).unwrap();
        Self {
            rig,
            features,
            tables,
            driver,
            device,
            batch: Batch::new(usize::from(size), usize::from(size) * usize::from(size) * 2),
            taken: Vec::new(),
            tags: vec![0; usize::from(size)],
            next_tag: 1,
        }
    }

    fn step(&mut self, op: &Op) -> Out {
        let driver = self.rig.driver(self.tables);
        let device = self.rig.device();
        match *op {
            Op::Add { readable, writable } => {
                let (tag, readable, writable) = shape(self.next_tag, readable, writable);
                match self.driver.add(&driver, &readable, &writable) {
                    Ok(id) => {
                        self.next_tag += 1;
                        self.tags[usize::from(id)] = tag;
                        Out::Added(Some(tag))
                    }
                    Err(AddError::Empty | AddError::TooLong { .. } | AddError::Full { .. }) => {
                        Out::Added(None)
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Op::Publish => Out::Notify(self.driver.publish(&driver)),
            Op::Take { limit } => {
                let n = self.device.take(&device, &mut self.batch, limit).unwrap();
                assert_eq!(n, self.batch.len());
                let mut out = Vec::new();
                for chain in self.batch.iter() {
                    let (readable, writable) = (chain.readable(), chain.writable());
                    let first = readable.first().or(writable.first()).unwrap();
                    out.push((first.addr.get(), readable.to_vec(), writable.to_vec()));
                    self.taken
                        .push((chain.token(), chain.writable_len() as u32));
                }
                Out::Chains(out)
            }
            Op::Rewind { n } => {
                // As many as can be, where it is fewer.
                let n = match self.device.rewind(&mut self.batch, n) {
                    Ok(()) => n,
                    Err(RingError::NotRewindable { asked, rewindable }) => {
                        assert!(asked == n && rewindable < n);
                        self.device.rewind(&mut self.batch, rewindable).unwrap();
                        rewindable
                    }
                    Err(other) => panic!("{other}"),
                };
                self.taken.truncate(self.taken.len() - n);
                Out::Rewound(n)
            }
            Op::Commit { n, pick, fill } => {
                let which = picked(self.taken.len(), n, pick, self.features);
                let used = self.remove(which, |len, _| portion(len, fill));
                Out::Notify(self.device.commit(&device, &used).unwrap())
            }
            Op::CommitInOrder { n, fill } => {
                if !self.features.contains(RingFeatures::IN_ORDER) {
                    assert!(self.device.commit_in_order(&device, &[]).is_err());
                    return Out::Nothing;
                }
                let which = (0..n.min(self.taken.len())).collect();
                let used = self.remove(
                    which,
                    |len, last| if last { portion(len, fill) } else { len },
                );
                Out::Notify(self.device.commit_in_order(&device, &used).unwrap())
            }
            Op::TakeUsed { n } => {
                let mut out = vec![Completion::default(); n];
                let n = self.driver.take_used(&driver, &mut out).unwrap();
                let back = out[..n]
                    .iter()
                    .map(|c| (self.tags[usize::from(c.id)], c.len));
                Out::Back(back.collect())
            }
            Op::ArmDevice => Out::More(self.device.arm(&device).unwrap()),
            Op::DisarmDevice => {
                self.device.disarm(&device);
                Out::Nothing
            }
            Op::ArmDriver => Out::More(self.driver.arm(&driver)),
            Op::DisarmDriver => {
                self.driver.disarm(&driver);
                Out::Nothing
            }
            Op::RestoreDevice => {
                let state = self.device.state();
                let (format, size) = (self.rig.format, self.rig.size);
                self.device = DeviceRing::new(format, size, self.features, Some(state)).unwrap();
                assert_eq!(self.device.state(), state);
                Out::Nothing
            }
            Op::RestoreDriver => {
                if self.driver.in_flight() == 0 {
                    let state = self.driver.state();
                    let (format, size) = (self.rig.format, self.rig.size);
                    self.driver =
                        DriverRing::new(format, size, self.features, Some(state)).unwrap();
                }
                Out::Nothing
            }
            Op::Miss(on) => {
                self.rig.fault.set(on.then_some(Fault::Miss));
                Out::Nothing
            }
        }
    }

    fn remove(&mut self, which: Vec<usize>, len: impl Fn(u32, bool) -> u32) -> Vec<Used> {
        let last = which.len();
        let used = which.iter().enumerate().map(|(i, &at)| {
            let (token, writable) = self.taken[at];
            Used {
                token,
                len: len(writable, i + 1 == last),
            }
        });
        let used = used.collect();
        let mut gone = which;
        gone.sort_unstable();
        for at in gone.into_iter().rev() {
            self.taken.remove(at);
        }
        if !self.features.contains(RingFeatures::IN_ORDER) {
            self.batch.clear();
        }
        used
    }
}

impl Rig {
    fn avail_idx_if_split(&self, start: u16) {
        if self.format == Format::Split {
            self.avail_idx(start);
            self.u16(self.at.device, 2, start);
        }
    }
}

fn op(size: u16) -> impl Strategy<Value = Op> {
    let n = 0..usize::from(size) + 2;
    prop_oneof![
        6 => (0..4u16, 0..4u16).prop_map(|(readable, writable)| Op::Add { readable, writable }),
        2 => (0..=size, 0..=1u16).prop_map(|(readable, writable)| Op::Add { readable, writable }),
        4 => Just(Op::Publish),
        4 => n.clone().prop_map(|limit| Op::Take { limit }),
        1 => n.clone().prop_map(|n| Op::Rewind { n }),
        3 => (n.clone(), any::<u64>(), any::<u8>()).prop_map(|(n, pick, fill)| Op::Commit { n, pick, fill }),
        3 => (n.clone(), any::<u8>()).prop_map(|(n, fill)| Op::CommitInOrder { n, fill }),
        4 => n.prop_map(|n| Op::TakeUsed { n }),
        1 => Just(Op::ArmDevice),
        1 => Just(Op::DisarmDevice),
        1 => Just(Op::ArmDriver),
        1 => Just(Op::DisarmDriver),
        1 => Just(Op::RestoreDevice),
        1 => Just(Op::RestoreDriver),
        1 => any::<bool>().prop_map(Op::Miss),
    ]
}

fn case() -> impl Strategy<Value = (u16, u8, bool, u16, Vec<Op>)> {
    let size = prop_oneof![
        Just(1u16),
        Just(2),
        Just(3),
        Just(4),
        Just(7),
        Just(8),
        Just(16)
    ];
    let start = prop_oneof![Just(0u16), 65520..=65535u16, any::<u16>()];
    let steps = if cfg!(miri) { 25 } else { 300 };
    (size, 0..8u8, any::<bool>(), start).prop_flat_map(move |(size, features, tables, start)| {
        let ops = proptest::collection::vec(op(size), 1..steps);
        (Just(size), Just(features), Just(tables), Just(start), ops)
    })
}

fn run(size: u16, bits: u8, tables: bool, start: u16, ops: &[Op]) -> Result<(), TestCaseError> {
    let features = RingFeatures::from_bits_truncate(bits);
    let formats = match size.is_power_of_two() {
        true => &[Format::Split, Format::Packed][..],
        false => &[Format::Packed],
    };
    let rigs: Vec<Rig> = formats
        .iter()
        .map(|&format| Rig::new(format, size))
        .collect();
    for rig in &rigs {
        let mut model = Model::new(rig.format, size, features, tables);
        let mut pair = Pair::new(rig, features, tables, start);
        // Both sides say what they want before the first step.
        for op in [Op::ArmDevice, Op::ArmDriver].iter().chain(ops) {
            let (expected, found) = (model.step(op), pair.step(op));
            prop_assert_eq!(&expected, &found, "{:?} on {}", op, rig.format);
            prop_assert_eq!(u64::from(pair.driver.free()), model.free);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn split_and_packed_do_what_the_model_does((size, bits, tables, start, ops) in case()) {
        run(size, bits, tables, start, &ops)?;
    }
}

/// Many laps, so that indices wrap at 65535 and positions at every slot.
#[test]
fn rings_go_on_across_every_wrap() {
    let laps = if cfg!(miri) { 8 } else { 1200 };
    for (format, size) in [
        (Format::Split, 4),
        (Format::Split, 1),
        (Format::Packed, 7),
        (Format::Packed, 1),
    ] {
        for bits in 0..8 {
            if cfg!(miri) && bits % 3 != 0 {
                continue;
            }
            let features = RingFeatures::from_bits_truncate(bits);
            let rig = Rig::new(format, size);
            let mut model = Model::new(format, size, features, true);
            let mut pair = Pair::new(&rig, features, true, 0u16.wrapping_sub(laps / 2) & !1);
            let lap = [
                Op::ArmDevice,
                Op::Add {
                    readable: 1,
                    writable: 0,
                },
                Op::Publish,
                Op::ArmDriver,
                Op::Take { limit: 3 },
                Op::Commit {
                    n: 3,
                    pick: 0,
                    fill: 255,
                },
                Op::TakeUsed { n: 3 },
            ];
            for _ in 0..laps {
                for op in &lap {
                    let (expected, found) = (model.step(op), pair.step(op));
                    assert_eq!(expected, found, "{op:?} {format} {size} {features:?}");
                }
                rig.driver_log.clear();
                rig.device_log.clear();
            }
        }
    }
}
