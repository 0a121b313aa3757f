//! Commands of any kind and layout on a network device's control queue.
//!
//! What is legal is written down again here, for all but steering and statistics. A command that is refused changes
//! nothing of the device's state; one that is legal is carried out; every command comes back, and nothing is written
//! outside of what it gave for its answer. What the commands made of the device can be saved and restored.

use std::cell::RefCell;
use std::sync::Arc;

use vdpa_core::bits::net;
use vdpa_core::config::Mac;
use vdpa_core::{Bell, Features, QueueIndex, Sleeper, bits};
use vdpa_mem::{Access, Iova};
use vdpa_ring::{Completion, Segment};
use vdpa_sim::class::{Class, Desk, QueueChange, Station, Stations, Unit};
use vdpa_sim::net::{Net, POSSIBLE, Settings};
use vdpa_sim::offload::RECEIVE;
use vdpa_sim::port::{Null, Presence};

use crate::Input;
use crate::guest::{self, BUFFERS, Guest, Line, READS, WRITES, role};

/// Pairs of the device.
const PAIRS: u16 = 4;
/// Commands of an input at most.
const COMMANDS: usize = 6;
/// Bytes of the longest command.
const LONGEST: u64 = 16 << 10;

const OK: u8 = 0;
const ERR: u8 = 1;

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

/// The target `control_queue`.
pub fn run(data: &[u8]) {
    BENCH.with_borrow_mut(|bench| bench.run(&mut Input::new(data)));
}

/// A card of whose units only the control queue is served, kept from one input to the next; and one that takes over
/// its state.
struct Bench {
    net: Net,
    other: Net,
    unit: Box<dyn Unit>,
    guest: Guest,
    desk: Desk,
    /// What was saved last.
    state: Vec<u8>,
}

/// A network device that is connected to nothing.
pub fn card() -> Net {
    let settings = Settings {
        mac: Mac::new([0x52, 0x54, 0, 0, 0, 1]),
        mtu: 1500,
        pairs: PAIRS,
        queue_size: guest::SLOTS,
        features: POSSIBLE,
        speed: Some(1000),
        link: true,
    };
    Net::new(settings, Presence::new(true), Arc::new(Null))
}

impl Bench {
    fn new() -> Self {
        let net = card();
        let sleeper = Sleeper::new().expect("an eventfd");
        let bells: Arc<[Arc<Bell>]> = (0..=PAIRS).map(|_| Bell::new(&sleeper)).collect();
        let unit = net.unit(PAIRS.into(), &bells);
        let guest = Guest::new();
        Self {
            desk: guest::desk(&guest),
            net,
            other: card(),
            unit,
            guest,
            state: Vec::new(),
        }
    }

    fn run(&mut self, input: &mut Input<'_>) {
        let (kind, queues) = (input.u16(), input.u8());
        let mut features = POSSIBLE.without(bits::RING_PACKED);
        for (bit, feature) in [
            net::CTRL_RX,
            net::CTRL_RX_EXTRA,
            net::CTRL_VLAN,
            net::CTRL_MAC_ADDR,
            net::MQ,
            net::GUEST_ANNOUNCE,
            net::CTRL_GUEST_OFFLOADS,
            net::GUEST_TSO6,
            net::RSS,
            net::HASH_REPORT,
            net::NOTF_COAL,
            net::VQ_NOTF_COAL,
            net::DEVICE_STATS,
            bits::INDIRECT_DESC,
        ]
        .into_iter()
        .enumerate()
        {
            if kind >> bit & 1 != 0 {
                features = features.without(feature);
            }
        }
        if kind >> 14 & 1 != 0 {
            features = features.with(bits::RING_PACKED);
        }
        self.guest.clear();
        self.net.reset();
        self.net.accept(features);
        for q in (0..PAIRS * 2).filter(|q| queues >> q & 1 == 0) {
            self.net
                .queue_changed(QueueIndex::new(q), QueueChange::Started);
        }
        self.state = self.net.save();
        let (mut line, station) = Line::new(0, PAIRS * 2, features, role(0, 16));
        let mut stations: Stations = [station, Station::Stopped];
        for _ in 0..COMMANDS {
            if input.is_empty() {
                break;
            }
            self.command(input, features, queues, &mut line, &mut stations);
        }
        self.moved(features);
        for q in 0..PAIRS * 2 {
            self.net
                .queue_changed(QueueIndex::new(q), QueueChange::Reset);
        }
    }

    /// A command, posted, served, and looked at.
    fn command(
        &mut self,
        input: &mut Input<'_>,
        features: Features,
        queues: u8,
        line: &mut Line,
        stations: &mut Stations,
    ) {
        let bytes = bytes(input);
        let (readable, writable) = layout(input, &bytes);
        self.guest.spread(&readable, &bytes);
        let Some(id) = line.add(&self.guest, &readable, &writable) else {
            return;
        };
        line.publish(&self.guest);
        let command = self.gather(&readable);
        let room: u64 = writable.iter().map(|s| u64::from(s.len)).sum();
        guest::serve(&mut *self.unit, stations, &mut self.desk);
        let mut out = [Completion::default(); 2];
        assert_eq!(
            line.take_used(&self.guest, &mut out),
            1,
            "a command did not come back"
        );
        assert_eq!(out[0].id, id);
        let (runs, mapped) = Guest::runs(&writable, 0, room, Access::DeviceWrites);
        self.guest.look();
        self.guest.check_but(&runs);

        let command = command.unwrap_or_default();
        let legal = legal(&command, features, queues, room);
        let after = self.net.save();
        let before = std::mem::replace(&mut self.state, after);
        let same = self.state == before;
        assert!(
            same || legal != Some(false),
            "a command that is refused has an effect"
        );
        // Where parts of the answer lie on one another, the last one that was written is seen.
        if mapped == room && room != 0 && are_apart(&runs) {
            let kind = command.first_chunk().copied().unwrap_or([0; 2]);
            let place = match kind {
                [8, _] => 0,
                [6, 3] if room > 8 => 8,
                _ => room - 1,
            };
            let ack = self.answer(&writable, place);
            let expected = legal.map(|legal| if legal { OK } else { ERR });
            assert!(ack == OK || ack == ERR);
            assert_eq!(
                Some(ack),
                expected.or(Some(ack)),
                "{kind:?} of {} bytes",
                command.len()
            );
            assert!(same || ack == OK, "a command that is refused has an effect");
            // Past the first 4096 bytes of zeroes nothing is promised.
            assert!(
                u64::from(out[0].len) > place.min(4095),
                "the ack is not in the used length"
            );
        }
        assert!(u64::from(out[0].len) <= room);
        let mac = self.mac();
        if legal == Some(true) && command.starts_with(&[1, 1]) {
            assert_eq!(
                mac[..],
                command[2..],
                "the address is not the one that was set"
            );
        }
        self.guest.adopt_all();
    }

    fn mac(&self) -> [u8; 6] {
        let mut mac = [0; 6];
        self.net.read_config(0, &mut mac);
        mac
    }

    /// The last look's byte `i` of segments.
    fn answer(&self, writable: &[Segment], i: u64) -> u8 {
        let (runs, _) = Guest::runs(writable, i, 1, Access::DeviceWrites);
        let (place, _) = runs[0];
        self.guest.found()[place]
    }

    /// A command, if the device can read it.
    fn gather(&self, readable: &[Segment]) -> Option<Vec<u8>> {
        let len: u64 = readable.iter().map(|s| u64::from(s.len)).sum();
        if len > LONGEST {
            return None;
        }
        let (runs, found) = Guest::runs(readable, 0, len, Access::DeviceReads);
        (found == len).then(|| Guest::joined(&self.guest.copy, &runs))
    }

    /// Another device takes the state over, and has the same.
    fn moved(&mut self, features: Features) {
        let state = &self.state;
        self.other.reset();
        self.other.accept(features);
        let differs = self.other.restore(state).expect("a state of ours");
        assert!(!differs, "the link is up in both");
        assert_eq!(
            self.other.save(),
            *state,
            "a restored device saves another state"
        );
    }
}

/// Whether no byte is in two runs.
fn are_apart(runs: &[(usize, usize)]) -> bool {
    let meet =
        |(a, long): &(usize, usize), (b, wide): &(usize, usize)| *a < b + wide && *b < a + long;
    let later = |i: usize| runs.iter().skip(i + 1);
    let mut all = runs.iter().enumerate();
    !all.any(|(i, run)| later(i).any(|other| meet(run, other)))
}

/// A command, of a kind that there is more often than not.
fn bytes(input: &mut Input<'_>) -> Vec<u8> {
    let class = match input.u8() {
        class @ 0..=9 => class,
        any if any & 1 == 0 => any % 9,
        any => any,
    };
    let what = match input.u8() {
        what @ 0..=6 => what,
        any if any & 1 == 0 => any % 4,
        any => any,
    };
    let mut bytes = vec![class, what];
    let len = match (class, what) {
        (0, _) => 1,
        (1, 1) => 6,
        (2, _) | (4, 0) => 2,
        (5, _) | (6, 0 | 1) => 8,
        (6, 2) => 12,
        (6, 3) => 4,
        (4, 2) => 4 + 8 + 1 + input.below(41),
        (8, _) => 16 * input.below(4),
        _ => 0,
    };
    match (class, what) {
        (1, 0) => {
            for _ in 0..2 {
                let count = match input.u8() {
                    255 => input.u32(),
                    254 => 65 + u32::from(input.u8()),
                    small => u32::from(small & 3),
                };
                bytes.extend(count.to_le_bytes());
                let list = (0..count.min(400) * 6).map(|i| if i % 6 == 0 { 2 } else { i as u8 });
                bytes.extend(list);
            }
        }
        (4, 1) => {
            let (shape, key) = (input.u8(), input.below(42));
            let entries = 1_u16 << (shape & 7);
            bytes.extend([input.u8(), 0, 0, 0]);
            bytes.extend((entries - 1).to_le_bytes());
            bytes.extend(u16::from(shape >> 3 & 7).to_le_bytes());
            let seed = input.u8();
            bytes.extend((0..entries).flat_map(|i| [(i as u8 ^ seed) % 4, 0]));
            bytes.extend(u16::from(input.u8() % 6).to_le_bytes());
            bytes.push(key as u8);
            bytes.extend((0..key).map(|i| i as u8));
        }
        (5, 0) => {
            let wanted = RECEIVE.low_u64() & input.u64();
            bytes.extend(wanted.to_le_bytes());
        }
        (6, 2 | 3) => {
            bytes.extend([input.u8() % 10, 0, 0, 0]);
            bytes.extend(input.bytes(len - 4));
        }
        _ => bytes.extend(input.bytes(len)),
    }
    // Short, long, or damaged.
    match input.u8() {
        0..=3 => bytes.push(0),
        4..=7 => bytes.truncate(bytes.len() - 1),
        8..=11 => {
            let at = usize::from(input.u8()) % bytes.len();
            bytes[at] ^= input.u8();
        }
        12 => bytes.truncate(input.below(3)),
        _ => {}
    }
    bytes
}

/// Where a command and its answer are.
fn layout(input: &mut Input<'_>, bytes: &[u8]) -> (Vec<Segment>, Vec<Segment>) {
    let shape = input.u8();
    let segment = |at: u64, len: usize| Segment {
        addr: Iova::new(at),
        len: len as u32,
    };
    let (readable, writable) = match shape & 7 {
        0..=3 => (vec![segment(READS, bytes.len())], vec![segment(WRITES, 1)]),
        4 => {
            let cut = input.below(bytes.len() + 1);
            let (first, second) = (segment(READS, cut), segment(BUFFERS, bytes.len() - cut));
            (
                vec![first, second],
                vec![segment(WRITES, 4), segment(BUFFERS + 4090, 9)],
            )
        }
        5 => {
            // A byte each, as far as the ring goes.
            let ones = bytes.len().min(10);
            let mut all: Vec<_> = (0..ones)
                .map(|i| segment(READS + i as u64 * 3, 1))
                .collect();
            all.push(segment(BUFFERS + 4000, bytes.len() - ones));
            (all, vec![segment(WRITES, 1), segment(WRITES + 9, 1)])
        }
        _ => {
            let mut list = |count: u8| (0..count).map(|_| guest::segment(input)).collect();
            (list(shape >> 3 & 3), list(shape >> 5 & 3))
        }
    };
    (readable, writable)
}

/// Whether a command is legal; `None` where this is not known here.
fn legal(command: &[u8], features: Features, queues: u8, room: u64) -> Option<bool> {
    let Some((&[class, what], data)) = command.split_first_chunk() else {
        return Some(false);
    };
    let has = |bit| features.contains(bit);
    let runs = |queue: &[u8]| {
        let queue = u16::from_le_bytes([queue[0], queue[1]]);
        let all = if has(net::MQ) || has(net::RSS) {
            PAIRS * 2
        } else {
            2
        };
        queue < all && queues >> queue & 1 == 0
    };
    Some(match (class, what) {
        (0, 0 | 1) => has(net::CTRL_RX) && data.len() == 1,
        (0, 2..=5) => has(net::CTRL_RX) && has(net::CTRL_RX_EXTRA) && data.len() == 1,
        (1, 0) => {
            let table = |data: &[u8]| {
                let (count, rest) = data.split_first_chunk::<4>()?;
                let bytes = u32::from_le_bytes(*count) as usize * 6;
                rest.get(bytes..).map(<[u8]>::to_vec)
            };
            let left = table(data).and_then(|rest| table(&rest));
            has(net::CTRL_RX) && left.is_some_and(|left| left.is_empty())
        }
        (1, 1) => {
            let unicast = data.len() == 6 && data[0] & 1 == 0 && data.iter().any(|b| *b != 0);
            has(net::CTRL_MAC_ADDR) && unicast
        }
        (2, 0 | 1) => {
            has(net::CTRL_VLAN) && data.len() == 2 && u16::from_le_bytes([data[0], data[1]]) < 4096
        }
        (3, 0) => has(net::GUEST_ANNOUNCE) && data.is_empty(),
        (4, 0) => {
            let count =
                data.len() == 2 && (1..=PAIRS).contains(&u16::from_le_bytes([data[0], data[1]]));
            has(net::MQ) && count
        }
        (4, 1) if has(net::RSS) => return None,
        (4, 2) if has(net::HASH_REPORT) => return None,
        (5, 0) => {
            let wanted = data.try_into().map(u64::from_le_bytes);
            let wanted = wanted.map(Features::from_u64);
            let fits = wanted.is_ok_and(|wanted| (features & RECEIVE).contains_all(wanted));
            has(net::CTRL_GUEST_OFFLOADS) && fits
        }
        (6, 0 | 1) => has(net::NOTF_COAL) && data.len() == 8,
        (6, 2) => has(net::VQ_NOTF_COAL) && data.len() == 12 && runs(data),
        (6, 3) => has(net::VQ_NOTF_COAL) && data.len() == 4 && room > 8 && runs(data),
        (8, _) if has(net::DEVICE_STATS) => return None,
        _ => false,
    })
}
