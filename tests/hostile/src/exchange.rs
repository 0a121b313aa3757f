//! What is known to be good: a packet there and back, a sector written and read, a command; everything is looked at.

use std::sync::Arc;

use crate::guard::Arena;
use crate::raw::{Back, Head, Piece, RawQueue};
use crate::wait;

/// Bytes of a packet's header.
pub const NET_HEADER: usize = 12;
/// Bytes of a frame.
const FRAME: usize = 64;
/// Bytes of a receive buffer.
const ROOM: usize = 256;
/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Type of a request: read.
pub const IN: u32 = 0;
/// Type of a request: write.
pub const OUT: u32 = 1;

/// Bytes of arena that an exchange needs for its buffers.
pub const BUFFERS: usize = 4096;

/// A frame that says which it is.
pub fn frame(seed: u32, len: usize) -> Vec<u8> {
    let mut bytes = pattern(seed, len);
    bytes[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    bytes[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 2]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}

/// Bytes that say where they belong.
pub fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

/// A disk request's header.
pub fn block_header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

enum Kind {
    /// A pair whose port is a loopback.
    Net {
        rx: Box<RawQueue>,
        tx: Box<RawQueue>,
    },
    /// A request queue, and a sector of its own.
    Blk {
        q: Box<RawQueue>,
        sector: u64,
        writes: bool,
    },
    /// A control queue.
    Ctrl { q: Box<RawQueue> },
}

/// Queues of a well-behaved driver, and their buffers.
pub struct Exchange {
    kind: Kind,
    arena: Arc<Arena>,
    /// Offset of [`BUFFERS`] bytes in the arena.
    at: usize,
    seed: u32,
}

impl Exchange {
    fn new(kind: Kind, arena: &Arc<Arena>, at: usize) -> Self {
        // What the device writes is in the upper half.
        arena.open(at + BUFFERS / 2, BUFFERS / 2);
        Self {
            kind,
            arena: Arc::clone(arena),
            at,
            seed: 0,
        }
    }

    /// Packets through a pair.
    pub fn net(rx: RawQueue, tx: RawQueue, arena: &Arc<Arena>, at: usize) -> Self {
        let (rx, tx) = (Box::new(rx), Box::new(tx));
        Self::new(Kind::Net { rx, tx }, arena, at)
    }

    /// A sector, written and read; of a disk for reading it is zeroes.
    pub fn block(q: RawQueue, sector: u64, writes: bool, arena: &Arc<Arena>, at: usize) -> Self {
        let q = Box::new(q);
        Self::new(Kind::Blk { q, sector, writes }, arena, at)
    }

    /// Commands that change nothing.
    pub fn control(q: RawQueue, arena: &Arc<Arena>, at: usize) -> Self {
        let q = Box::new(q);
        Self::new(Kind::Ctrl { q }, arena, at)
    }

    /// Shows the device a request, and does not look at what comes of it.
    pub fn post(&mut self) {
        let to = self.arena.at(self.at + BUFFERS / 2);
        self.post_to(to, SECTOR as u32 + 1);
    }

    /// The same, of which the device is to write `len` bytes from `to` on.
    pub fn post_to(&mut self, to: u64, len: u32) {
        let (arena, from) = (&self.arena, self.at);
        match &mut self.kind {
            Kind::Net { rx, tx } => {
                rx.send(&[Piece::write(to, len)]);
                tx.send(&[Piece::read(arena.at(from), (NET_HEADER + FRAME) as u32)]);
            }
            Kind::Blk { q, .. } => {
                q.send(&[Piece::read(arena.at(from), 16), Piece::write(to, len)]);
            }
            Kind::Ctrl { q } => {
                q.send(&[Piece::read(arena.at(from), 3), Piece::write(to, len)]);
            }
        }
    }

    /// One, from its beginning to its end.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn once(&mut self) -> Result<(), String> {
        self.seed = self.seed.wrapping_add(1);
        let (arena, at, seed) = (&self.arena, self.at, self.seed);
        let (from, to) = (at, at + BUFFERS / 2);
        match &mut self.kind {
            Kind::Net { rx, tx } => {
                let sent = frame(seed, FRAME);
                arena.put(from, &[0; NET_HEADER]);
                arena.put(from + NET_HEADER, &sent);
                let post = rx.send(&[Piece::write(arena.at(to), ROOM as u32)]);
                let head = tx.send(&[Piece::read(arena.at(from), (NET_HEADER + FRAME) as u32)]);
                back(tx, &head, 0)?;
                back(rx, &post, (NET_HEADER + FRAME) as u32)?;
                let came = arena.get(to, NET_HEADER + FRAME);
                let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
                same("header", &came[..NET_HEADER], &header)?;
                same("frame", &came[NET_HEADER..], &sent)
            }
            Kind::Blk { q, sector, writes } => {
                let data = match writes {
                    true => pattern(seed, SECTOR),
                    false => vec![0; SECTOR],
                };
                let ask = |q: &mut RawQueue, kind, data: &[u8], room: usize| {
                    arena.put(from, &block_header(kind, *sector));
                    arena.put(from + 16, data);
                    arena.bytes().write(to + room, &[0xee]);
                    let head = q.send(&[
                        Piece::read(arena.at(from), 16 + data.len() as u32),
                        Piece::write(arena.at(to), room as u32 + 1),
                    ]);
                    back(q, &head, room as u32 + 1)?;
                    same("status", &arena.get(to + room, 1), &[0])
                };
                if *writes {
                    ask(q, OUT, &data, 0)?;
                }
                ask(q, IN, &[], SECTOR)?;
                same("sector", &arena.get(to, SECTOR), &data)
            }
            Kind::Ctrl { q } => {
                // Promiscuous, as it is.
                arena.put(from, &[0, 0, 1]);
                arena.bytes().write(to, &[0xee]);
                let head = q.send(&[
                    Piece::read(arena.at(from), 3),
                    Piece::write(arena.at(to), 1),
                ]);
                back(q, &head, 1)?;
                same("acknowledgement", &arena.get(to, 1), &[0])
            }
        }
    }
}

fn same(what: &str, found: &[u8], right: &[u8]) -> Result<(), String> {
    let pairs = found.iter().zip(right);
    match pairs.enumerate().find(|(_, (found, right))| found != right) {
        None if found.len() == right.len() => Ok(()),
        None => Err(format!(
            "{what}: {} bytes instead of {}",
            found.len(),
            right.len()
        )),
        Some((at, (found, right))) => Err(format!(
            "{what}: byte {at} is {found:#04x} instead of {right:#04x}"
        )),
    }
}

/// Waits for a chain that is alone in its queue.
fn back(q: &mut RawQueue, head: &Head, len: u32) -> Result<(), String> {
    let mut found = None;
    let index = q.index;
    wait(&format!("queue {index}: completion"), || {
        found = q.used();
        found.is_some()
    })?;
    let right = Back {
        id: head.id.into(),
        len,
    };
    match found {
        Some(back) if back == right => Ok(()),
        other => Err(format!("queue {index}: {other:?} instead of {right:?}")),
    }
}
