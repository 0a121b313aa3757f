//! Buffers of one size, leased to whoever fills or reads them.

use std::sync::atomic::{AtomicU32, Ordering};

use vdpa_mem::{Bytes, Iova, Window};
use vdpa_ring::{Completion, Segment};

use super::setup::QueueSetup;
use crate::{Error, QueueIndex, Result};

/// The right to one buffer of one queue. There is one lease a buffer at a time, so it is not `Clone`: it goes to the
/// device with `submit` and comes back with a completion. One that is dropped takes its buffer out of use until the
/// session ends; [`Queue::put`](super::Queue::put) gives it back.
#[must_use = "a lease that is dropped takes its buffer out of use: put it back"]
#[derive(PartialEq, Eq, Debug)]
pub struct Lease {
    pub(super) buffer: u32,
    /// Which pool it is of: queues of other sessions have the same numbers.
    pool: u32,
}

impl Lease {
    /// The number of the buffer in its queue, from 0; for a table of the caller's own beside the buffers.
    pub fn buffer(&self) -> u32 {
        self.buffer
    }
}

/// A piece of a buffer, from where the piece before it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// This many bytes that the device reads.
    Readable(u32),
    /// This many bytes that the device writes.
    Writable(u32),
}

impl Part {
    /// Its length in bytes.
    pub const fn len(self) -> u32 {
        match self {
            Part::Readable(len) | Part::Writable(len) => len,
        }
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One buffer of a chain over several: `part` of it, from its beginning.
#[derive(PartialEq, Eq, Debug)]
pub struct Link {
    /// The buffer.
    pub lease: Lease,
    /// What the device does with it.
    pub part: Part,
}

/// A buffer that the device is done with.
#[derive(PartialEq, Eq, Debug)]
pub struct Done {
    /// The buffer.
    pub lease: Lease,
    /// How many bytes the device wrote to it.
    pub len: u32,
    /// Whether it is the last buffer of its chain. `true` always, but for chains over several.
    pub last: bool,
}

/// Room for completions, made once and used again.
#[derive(Debug)]
pub struct Completions {
    pub(super) raw: Box<[Completion]>,
    pub(super) done: Vec<Done>,
}

impl Completions {
    /// Room for `chains` of one buffer each. Chains over several buffers make it grow, once.
    pub fn new(chains: usize) -> Self {
        Self {
            raw: vec![Completion { id: 0, len: 0 }; chains].into_boxed_slice(),
            done: Vec::with_capacity(chains),
        }
    }

    /// How many buffers are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// What is in it, in the order the device was done.
    #[inline]
    pub fn iter(&self) -> std::slice::Iter<'_, Done> {
        self.done.iter()
    }

    /// Takes everything out, in the order the device was done.
    #[inline]
    pub fn drain(&mut self) -> impl DoubleEndedIterator<Item = Done> + '_ {
        self.done.drain(..)
    }

    /// Takes the last one out.
    #[inline]
    pub fn pop(&mut self) -> Option<Done> {
        self.done.pop()
    }
}

/// Marks the end of a chain of buffers. No buffer has this number, nor one with [`CHAINED`] set.
const END: u32 = u32::MAX;
/// Marks the first buffer of a chain over several, beside its number.
const CHAINED: u32 = 1 << 31;
/// The most buffers there can be.
pub(super) const MOST: u32 = CHAINED - 1;

/// Numbers pools. Nobody keeps a lease while four billion more are made.
static POOLS: AtomicU32 = AtomicU32::new(0);

/// The buffers of a queue, which of them are free, and which are chained in flight. All of it is private: nothing here
/// is read back from memory that the device can write.
pub(super) struct Pool {
    queue: QueueIndex,
    /// Told apart from every other pool of the process.
    id: u32,
    window: Window,
    base: Iova,
    stride: u32,
    len: u32,
    /// Free buffers; the one freed last is used first, since it is still in the cache.
    free: Vec<u32>,
    /// By buffer, for chains over several: the next one of its chain, and how much of it the device may write.
    flight: Box<[Flight]>,
    /// By ring id: the first buffer of the chain in flight, perhaps [`CHAINED`]; [`END`] where none is.
    heads: Box<[u32]>,
}

#[derive(Clone, Copy)]
struct Flight {
    next: u32,
    writable: u32,
}

impl Pool {
    pub(super) fn new(
        queue: QueueIndex,
        window: Window,
        base: Iova,
        stride: u32,
        setup: &QueueSetup,
    ) -> Self {
        let idle = Flight {
            next: END,
            writable: 0,
        };
        Self {
            queue,
            // Relaxed: only the number counts.
            id: POOLS.fetch_add(1, Ordering::Relaxed),
            window,
            base,
            stride,
            len: setup.buffer_len,
            free: (0..setup.buffers).rev().collect(),
            flight: (0..setup.buffers).map(|_| idle).collect(),
            heads: (0..setup.size).map(|_| END).collect(),
        }
    }

    pub(super) fn buffer_len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(super) fn lease(&mut self) -> Option<Lease> {
        let buffer = self.free.pop()?;
        Some(Lease {
            buffer,
            pool: self.id,
        })
    }

    /// Gives a buffer back. A lease of another queue is not ours to give back.
    #[inline]
    pub(super) fn put(&mut self, lease: Lease) {
        // There is one lease a buffer, so this never grows beyond its capacity.
        if self.owns(&lease) {
            self.free.push(lease.buffer);
        }
    }

    #[inline]
    pub(super) fn owns(&self, lease: &Lease) -> bool {
        lease.pool == self.id && (lease.buffer as usize) < self.flight.len()
    }

    /// Where a buffer begins in the window. Inside it for every lease of this queue.
    #[inline]
    fn offset(&self, lease: &Lease) -> usize {
        (lease.buffer as usize).wrapping_mul(self.stride as usize)
    }

    #[inline]
    pub(super) fn bytes(&self, lease: &Lease) -> Option<Bytes<'_>> {
        if lease.pool != self.id {
            return None;
        }
        let bytes = self.window.bytes();
        bytes.slice(self.offset(lease), self.len as usize)
    }

    #[inline]
    pub(super) fn write(&self, lease: &Lease, at: usize, from: &[u8]) -> usize {
        self.bytes(lease).map_or(0, |bytes| bytes.write(at, from))
    }

    #[inline]
    pub(super) fn read(&self, lease: &Lease, at: usize, to: &mut [u8]) -> usize {
        self.bytes(lease).map_or(0, |bytes| bytes.read(at, to))
    }

    /// `len` bytes of a buffer from `at` on, as the device sees them.
    #[inline]
    pub(super) fn segment(&self, lease: &Lease, at: u32, len: u32) -> Result<Segment> {
        let why = if !self.owns(lease) {
            "the lease is of another queue"
        } else if len == 0 {
            "a part of a chain has no bytes"
        } else if at.checked_add(len).is_none_or(|end| end > self.len) {
            "a part reaches past the end of its buffer"
        } else {
            // Cannot wrap: the whole pool is mapped there.
            let offset = self.offset(lease) as u64 + u64::from(at);
            let addr = Iova::new(self.base.get().wrapping_add(offset));
            return Ok(Segment { addr, len });
        };
        Err(Error::Buffer {
            queue: self.queue,
            why,
        })
    }

    /// A chain of one buffer is in flight under `id`.
    #[inline]
    pub(super) fn depart(&mut self, id: u16, buffer: u32) {
        if let Some(head) = self.heads.get_mut(usize::from(id)) {
            *head = buffer;
        }
    }

    /// A chain that begins with `buffer` is in flight under `id`; each of its buffers is told by `link`.
    pub(super) fn depart_chained(&mut self, id: u16, buffer: u32) {
        self.depart(id, buffer | CHAINED);
    }

    /// `buffer` is in flight as a part of a chain, followed by `next`.
    pub(super) fn link(&mut self, buffer: u32, writable: u32, next: Option<u32>) {
        if let Some(flight) = self.flight.get_mut(buffer as usize) {
            *flight = Flight {
                next: next.unwrap_or(END),
                writable,
            };
        }
    }

    /// A chain comes back: its buffers with what was written to each. The ring has checked that `id` was in flight, and
    /// that no more was written than could be.
    #[inline]
    pub(super) fn arrive(&mut self, completion: Completion, done: &mut Vec<Done>) {
        let head = self.heads.get_mut(usize::from(completion.id));
        let buffer = head.map_or(END, |head| std::mem::replace(head, END));
        if buffer & CHAINED != 0 {
            return self.arrive_chained(buffer, completion.len, done);
        }
        done.push(Done {
            lease: Lease {
                buffer,
                pool: self.id,
            },
            len: completion.len,
            last: true,
        });
    }

    fn arrive_chained(&mut self, head: u32, len: u32, done: &mut Vec<Done>) {
        let mut buffer = head & !CHAINED;
        let mut left = len;
        while let Some(flight) = self.flight.get(buffer as usize) {
            let len = left.min(flight.writable);
            left -= len;
            done.push(Done {
                lease: Lease {
                    buffer,
                    pool: self.id,
                },
                len,
                last: flight.next == END,
            });
            buffer = flight.next;
        }
    }

    /// Every buffer that is in flight, chain by chain: the device has let go of the ring.
    pub(super) fn recall(&mut self) -> Vec<Lease> {
        let mut leases = Vec::new();
        for head in &mut self.heads {
            let head = std::mem::replace(head, END);
            let mut buffer = head & !CHAINED;
            while let Some(flight) = self.flight.get(buffer as usize) {
                let pool = self.id;
                leases.push(Lease { buffer, pool });
                buffer = match head & CHAINED {
                    0 => END,
                    _ => flight.next,
                };
            }
        }
        leases
    }
}
