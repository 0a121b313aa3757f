//! Requests and answers, changed on their way.

use std::sync::Arc;

use vdpa_core::VdpaDevice;
use vdpa_ring::Used;

use crate::shadow::{Chain, Memory, Twist, shadow};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;
pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

/// Bytes of a header, and of a segment of a discard.
const HEADER: usize = 16;
const SEGMENT: usize = 16;

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub queue: u16,
    pub kind: u32,
    pub sector: u64,
    pub data: Vec<u8>,
    /// Bytes of each of its descriptors, those that the device reads and those that it writes.
    pub readable: Vec<u32>,
    pub writable: Vec<u32>,
}

impl Ask {
    /// `None`: it has no header.
    fn read(chain: &Chain, bytes: &[u8]) -> Option<Self> {
        let (header, data) = bytes.split_at_checked(HEADER)?;
        Some(Self {
            queue: chain.queue,
            kind: u32::from_le_bytes(header[..4].try_into().ok()?),
            sector: u64::from_le_bytes(header[8..].try_into().ok()?),
            data: data.to_vec(),
            readable: chain.readable.iter().map(|s| s.len).collect(),
            writable: chain.writable.iter().map(|s| s.len).collect(),
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(self.sector.to_le_bytes());
        bytes.extend(&self.data);
        bytes
    }

    /// Whether it is a discard or one of its like.
    pub fn is_about_extents(&self) -> bool {
        matches!(self.kind, 11 | 13 | 14)
    }

    /// Bytes that it wants to read or write.
    pub fn len(&self) -> u64 {
        match self.kind {
            IN => u64::from(self.writable.iter().sum::<u32>()) - 1,
            _ => self.data.len() as u64,
        }
    }

    /// Where its data end, in bytes; `None`: beyond all numbers.
    pub fn end(&self) -> Option<u64> {
        self.sector.checked_mul(512)?.checked_add(self.len())
    }

    /// The segments of a discard: sector, sectors, flags.
    pub fn extents(&self) -> Vec<(u64, u32, u32)> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let segments = self.data.chunks_exact(SEGMENT);
        segments
            .map(|s| {
                let sector = u64::from_le_bytes(s[..8].try_into().unwrap());
                (sector, word(&s[8..12]), word(&s[12..]))
            })
            .collect()
    }

    /// Changes each segment of a discard, with its place among them.
    pub fn each_extent(&mut self, change: impl Fn(usize, &mut u64, &mut u32, &mut u32)) {
        let mut data = Vec::new();
        for (at, (mut sector, mut sectors, mut flags)) in self.extents().into_iter().enumerate() {
            change(at, &mut sector, &mut sectors, &mut flags);
            data.extend(sector.to_le_bytes());
            data.extend(sectors.to_le_bytes());
            data.extend(flags.to_le_bytes());
        }
        // What is no whole segment stays.
        let whole = data.len();
        data.extend(&self.data[whole..]);
        self.data = data;
    }
}

struct Asks(fn(&mut Ask));

impl Twist for Asks {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, _: &Memory<'_>) {
        if let Some(mut ask) = Ask::read(chain, readable) {
            (self.0)(&mut ask);
            *readable = ask.bytes();
        }
    }
}

/// The device is asked something else.
pub fn asks(inner: Arc<dyn VdpaDevice>, change: fn(&mut Ask)) -> Arc<dyn VdpaDevice> {
    shadow(inner, Asks(change))
}

/// What was asked, of what is still in the driver's memory.
pub fn asked(chain: &Chain, memory: &Memory<'_>) -> Option<Ask> {
    let mut bytes = Vec::new();
    for segment in &chain.readable {
        bytes.extend(memory.read(segment.addr, segment.len as usize));
    }
    Ask::read(chain, &bytes)
}

struct Answers(fn(&Ask, &mut Vec<u8>));

impl Twist for Answers {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, memory: &Memory<'_>) {
        if let Some(ask) = asked(chain, memory) {
            (self.0)(&ask, bytes);
        }
    }
}

/// The driver is answered something else: all that is written, the last byte the status.
pub fn answers(inner: Arc<dyn VdpaDevice>, change: fn(&Ask, &mut Vec<u8>)) -> Arc<dyn VdpaDevice> {
    shadow(inner, Answers(change))
}

/// A status in place of another one, for some requests.
pub fn status(bytes: &mut [u8], if_it_is: u8, then: u8) {
    if let Some(last) = bytes.last_mut().filter(|last| **last == if_it_is) {
        *last = then;
    }
}

struct Loses {
    which: fn(&Ask) -> bool,
    lost: std::sync::Mutex<Vec<vdpa_ring::ChainToken>>,
}

impl Twist for Loses {
    fn written(&self, chain: &Chain, _: &mut Vec<u8>, _: &mut u32, memory: &Memory<'_>) {
        if asked(chain, memory).is_some_and(|ask| (self.which)(&ask)) {
            self.lost.lock().unwrap().push(chain.token);
        }
    }

    fn used(&self, _: u16, used: &mut Vec<Used>) {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap());
        used.retain(|one| !lost.contains(&one.token));
    }
}

/// Some requests never come back.
pub fn loses(inner: Arc<dyn VdpaDevice>, which: fn(&Ask) -> bool) -> Arc<dyn VdpaDevice> {
    let lost = Default::default();
    shadow(inner, Loses { which, lost })
}
