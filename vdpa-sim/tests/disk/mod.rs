//! A block driver for tests, on the rig's queues: it cuts requests as it likes, and may do what no driver should.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use vdpa_core::bits::{self, block};
use vdpa_core::config::BlockConfig;
use vdpa_core::*;

use crate::rig::*;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;
pub const SECURE_ERASE: u32 = 14;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;
/// A status that no device wrote.
pub const NONE: u8 = 0xee;

/// Bytes of a header.
pub const HEADER: usize = 16;

/// A request as it is put into the ring.
pub struct Shape {
    /// All that the device reads.
    pub readable: Vec<u8>,
    /// How many bytes it may write.
    pub writable: usize,
    /// The longest piece of either.
    pub piece: usize,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub id: u16,
    at: u64,
    writable: usize,
    to: u64,
}

/// What came back.
#[derive(PartialEq, Eq, Debug)]
pub struct Reply {
    /// The last writable byte, [`NONE`] if there is none or nobody wrote there.
    pub status: u8,
    /// What is before it.
    pub data: Vec<u8>,
    /// The used length.
    pub len: u32,
}

pub struct Disk {
    pub rig: Rig,
    pub q: Q,
    /// Buffers, by turns.
    buffers: Vec<u64>,
    next: usize,
}

/// Bytes of a buffer for either side of a request.
const BUFFER: usize = 256 << 10;

/// Which features a disk is driven with, by the four that change rings.
pub fn features(
    rig: &Rig,
    packed: bool,
    indirect: bool,
    event_idx: bool,
    in_order: bool,
) -> Features {
    let rings = bits::RING_PACKED | bits::INDIRECT_DESC | bits::EVENT_IDX | bits::IN_ORDER;
    let mut features = rig.device.offered() - rings;
    for (bit, on) in [
        (bits::RING_PACKED, packed),
        (bits::INDIRECT_DESC, indirect),
        (bits::EVENT_IDX, event_idx),
        (bits::IN_ORDER, in_order),
    ] {
        if on {
            features = features.with(bit);
        }
    }
    features
}

impl Disk {
    /// A disk whose first queue runs, with everything but what `features` takes out.
    pub fn with(rig: Rig, features: Features) -> Self {
        rig.negotiate(features);
        let q = rig.queue(0, 64);
        rig.run();
        Self::running(rig, q)
    }

    /// The same once its queue is there.
    pub fn running(rig: Rig, q: Q) -> Self {
        let buffers = (0..16).map(|_| rig.alloc(BUFFER)).collect();
        Self {
            rig,
            q,
            buffers,
            next: 0,
        }
    }

    pub fn open(spec: &str) -> Self {
        let rig = Lab::new().open(spec);
        let features = features(&rig, false, true, true, false);
        Self::with(rig, features)
    }

    pub fn packed(spec: &str, packed: bool) -> Self {
        let rig = Lab::new().open(spec);
        let features = features(&rig, packed, packed, true, false);
        Self::with(rig, features)
    }

    /// The same without some features.
    pub fn without(spec: &str, without: Features) -> Self {
        let rig = Lab::new().open(spec);
        let features = features(&rig, false, true, true, false) - without;
        Self::with(rig, features)
    }

    /// Puts a request into the ring, cut into pieces.
    pub fn send(&mut self, shape: &Shape) -> Sent {
        let turn = |disk: &mut Self| {
            disk.next += 1;
            disk.buffers[disk.next % disk.buffers.len()]
        };
        let (at, to) = (turn(self), turn(self));
        let bytes = self.rig.bytes();
        bytes.write(at as usize, &shape.readable);
        let blank = vec![NONE; shape.writable];
        bytes.write(to as usize, &blank);
        let cut = |at: u64, len: usize| -> Vec<(u64, u32)> {
            (0..len)
                .step_by(shape.piece.max(1))
                .map(|begin| {
                    let piece = shape.piece.min(len - begin);
                    (at + begin as u64, piece as u32)
                })
                .collect()
        };
        let id = self
            .q
            .add(&cut(at, shape.readable.len()), &cut(to, shape.writable))
            .expect("the ring has room");
        Sent {
            id,
            at,
            writable: shape.writable,
            to,
        }
    }

    /// Where the status of a request goes, as an offset in the region.
    pub fn status_at(&self, sent: Sent) -> u64 {
        sent.to + sent.writable as u64 - 1
    }

    /// What came back for a request, with this used length.
    pub fn reply(&self, sent: Sent, len: u32) -> Reply {
        let mut data = vec![0; sent.writable];
        self.rig.bytes().read(sent.to as usize, &mut data);
        Reply {
            status: data.pop().unwrap_or(NONE),
            data,
            len,
        }
    }

    /// Sends a request and waits for it.
    pub fn ask(&mut self, shape: &Shape) -> Reply {
        let sent = self.send(shape);
        self.q.publish();
        let done = self.q.wait_used(1);
        assert_eq!(done[0].id, sent.id);
        self.reply(sent, done[0].len)
    }

    /// A request of this type, in one piece of each kind.
    pub fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> Reply {
        self.ask(&Shape {
            readable: [&header(kind, sector), data].concat(),
            writable: room + 1,
            piece: usize::MAX,
        })
    }

    pub fn read(&mut self, sector: u64, len: usize) -> Vec<u8> {
        let reply = self.request(IN, sector, &[], len);
        assert_eq!((reply.status, reply.len), (OK, len as u32 + 1));
        reply.data
    }

    pub fn write(&mut self, sector: u64, data: &[u8]) {
        let reply = self.request(OUT, sector, data, 0);
        assert_eq!((reply.status, reply.len), (OK, 1));
    }

    /// Writes `len` bytes from `sector` on and reads them back, in pieces of at most `piece` bytes. Answers with them.
    pub fn there_and_back(&mut self, sector: u64, len: usize, piece: usize) -> Vec<u8> {
        let data = pattern(sector, len);
        let wrote = self.ask(&Shape {
            readable: [&header(OUT, sector), data.as_slice()].concat(),
            writable: 1,
            piece,
        });
        assert_eq!((wrote.status, wrote.len), (OK, 1));
        let read = self.ask(&Shape {
            readable: header(IN, sector).to_vec(),
            writable: len + 1,
            piece,
        });
        assert_eq!((read.status, read.len), (OK, len as u32 + 1));
        assert!(read.data == data, "{len} bytes in pieces of {piece}");
        data
    }

    pub fn status(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let reply = self.request(kind, sector, data, 0);
        assert_eq!(reply.len, 1);
        reply.status
    }

    pub fn config(&self) -> BlockConfig {
        let mut bytes = [0; BlockConfig::SIZE];
        self.rig.device.read_config(0, &mut bytes).unwrap();
        BlockConfig::from_bytes(&bytes)
    }
}

pub fn header(kind: u32, sector: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    // Reserved: to be ignored.
    header[4..8].copy_from_slice(&0x5555_5555_u32.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// A segment of a discard and its like.
pub fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// Bytes that say where they belong.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

/// What changes a disk.
pub const CHANGES: [FeatureBit; 3] = [block::DISCARD, block::WRITE_ZEROES, block::SECURE_ERASE];
