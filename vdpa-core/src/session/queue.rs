//! One queue, driven fast: nothing is allocated, locked or asked of the system per packet.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vdpa_mem::{Bytes, Deadline};
use vdpa_ring::{AddError, DriverMem, DriverRing, QueueState, RingError, RingFeatures, Segment};

use super::cells::Cells;
use super::pool::{Completions, Lease, Link, Part, Pool};
use crate::{Doorbell, Error, QueueConfig, QueueIndex, Result, fd};

/// What a kick carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// The queue index.
    Index,
    /// The queue index and the position, with NOTIFICATION_DATA.
    Position,
}

/// What the device does with a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It has not seen it yet.
    New,
    /// It serves it.
    Started,
    /// It has stopped, and goes on from where it stood.
    Stopped,
    /// It has forgotten it.
    Reset,
}

/// The driver's half of a running queue, with its buffers. `Send`, so that it goes to the thread that uses it, and not
/// `Sync`, since there is one such thread.
///
/// ```text
///   lease ─▶ write ─▶ send / receive / submit ─▶ publish      (one publication and one kick for all of them)
///     ▲                                             │
///    put ◀── read ◀── Completions ◀── poll ◀── wait ┘
/// ```
pub struct Queue {
    index: QueueIndex,
    ring: DriverRing,
    mem: DriverMem<Cells>,
    pool: Pool,
    doorbell: Doorbell,
    notice: Notice,
    phase: Phase,
    call: Arc<OwnedFd>,
    config: QueueConfig,
    /// Segments of a chain that is being put together; as many as the ring holds.
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    not_sync: PhantomData<Cell<()>>,
}

/// A chain that could not be submitted, with its buffer.
#[derive(Debug)]
pub struct Refused {
    /// The buffer, which is the caller's again.
    pub lease: Lease,
    /// Why. With [`RingFull`](Error::RingFull) there is room after the next completion.
    pub why: Error,
}

impl Queue {
    pub(super) fn new(
        index: QueueIndex,
        config: QueueConfig,
        ring: DriverRing,
        mem: DriverMem<Cells>,
        pool: Pool,
        notice: Notice,
    ) -> Result<Self> {
        let most = usize::from(config.size);
        Ok(Self {
            index,
            ring,
            mem,
            pool,
            doorbell: Doorbell::NONE,
            notice,
            phase: Phase::New,
            call: Arc::new(fd::eventfd()?),
            config,
            readable: Vec::with_capacity(most),
            writable: Vec::with_capacity(most),
            not_sync: PhantomData,
        })
    }

    /// Its number.
    pub fn index(&self) -> QueueIndex {
        self.index
    }

    /// Its size in descriptors.
    pub fn size(&self) -> u16 {
        self.config.size
    }

    /// Bytes in a buffer.
    pub fn buffer_len(&self) -> u32 {
        self.pool.buffer_len()
    }

    /// Descriptors that are free.
    #[inline]
    pub fn free(&self) -> u16 {
        self.ring.free()
    }

    /// What the device has and has not given back: chains, or slots of a packed ring.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.ring.in_flight()
    }

    /// Where the driver stands.
    pub fn state(&self) -> QueueState {
        self.ring.state()
    }

    /// Takes a free buffer, the one used last first. `None` while all are leased or in flight.
    #[inline]
    pub fn lease(&mut self) -> Option<Lease> {
        self.pool.lease()
    }

    /// Gives a buffer back.
    #[inline]
    pub fn put(&mut self, lease: Lease) {
        self.pool.put(lease);
    }

    /// Copies `from` into a buffer from `at` on; returns how many bytes there was room for.
    #[inline]
    pub fn write(&mut self, lease: &Lease, at: usize, from: &[u8]) -> usize {
        self.pool.write(lease, at, from)
    }

    /// Copies from a buffer, from `at` on, into `to`; returns how many bytes there were.
    #[inline]
    pub fn read(&self, lease: &Lease, at: usize, to: &mut [u8]) -> usize {
        self.pool.read(lease, at, to)
    }

    /// The bytes of a buffer. `None` for a lease of another queue.
    #[inline]
    pub fn bytes(&self, lease: &Lease) -> Option<Bytes<'_>> {
        self.pool.bytes(lease)
    }

    /// Submits the first `len` bytes of a buffer for the device to read. Shown with [`publish`](Self::publish).
    ///
    /// # Errors
    /// When `len` is 0 or more than the buffer has, or the ring is full.
    #[inline]
    pub fn send(&mut self, lease: Lease, len: u32) -> Result<(), Refused> {
        let segment = match self.pool.segment(&lease, 0, len) {
            Ok(segment) => segment,
            Err(why) => return Err(Refused { lease, why }),
        };
        match self.ring.add(&self.mem, &[segment], &[]) {
            Ok(id) => {
                self.pool.depart(id, lease.buffer);
                Ok(())
            }
            Err(e) => Err(self.refused(lease, e)),
        }
    }

    /// Submits a whole buffer for the device to write. Shown with [`publish`](Self::publish).
    ///
    /// # Errors
    /// When the ring is full.
    #[inline]
    pub fn receive(&mut self, lease: Lease) -> Result<(), Refused> {
        let len = self.pool.buffer_len();
        let segment = match self.pool.segment(&lease, 0, len) {
            Ok(segment) => segment,
            Err(why) => return Err(Refused { lease, why }),
        };
        match self.ring.add(&self.mem, &[], &[segment]) {
            Ok(id) => {
                self.pool.depart(id, lease.buffer);
                Ok(())
            }
            Err(e) => Err(self.refused(lease, e)),
        }
    }

    /// Submits one buffer in pieces: what the device reads, then what it writes. Shown with [`publish`](Self::publish).
    ///
    /// * `parts`: consecutive pieces from the beginning of the buffer on, readable ones first
    ///
    /// # Errors
    /// When the pieces are out of order, empty, or more than the buffer has; when the ring is full.
    pub fn submit(&mut self, lease: Lease, parts: &[Part]) -> Result<(), Refused> {
        match self.add(&lease, parts) {
            Ok(()) => Ok(()),
            Err(why) => Err(Refused { lease, why }),
        }
    }

    /// Submits a chain over several buffers. On success `links` is empty; its buffers come back one by one, in this
    /// order, each with what was written to it.
    ///
    /// * `links`: those that the device reads first
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); `links` is then untouched.
    pub fn submit_chain(&mut self, links: &mut Vec<Link>) -> Result<()> {
        self.begin_chain();
        for link in links.iter() {
            self.extend_chain(&link.lease, 0, link.part)?;
        }
        let id = self.add_chain()?;
        let mut next = None;
        for Link { lease, part } in links.drain(..).rev() {
            let writable = match part {
                Part::Readable(_) => 0,
                Part::Writable(len) => len,
            };
            self.pool.link(lease.buffer, writable, next);
            next = Some(lease.buffer);
        }
        if let Some(first) = next {
            self.pool.depart_chained(id, first);
        }
        Ok(())
    }

    /// Shows the device what was submitted since the last time: one publication, and one kick if it wants one. Returns
    /// whether it was kicked.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let kick = self.ring.publish(&self.mem);
        if kick {
            self.kick();
        }
        kick
    }

    /// Kicks the device whether it asks for it or not.
    pub fn kick(&self) {
        let index = self.index.get();
        let data = match self.notice {
            Notice::Index => u32::from(index),
            Notice::Position => self.ring.notification_data(index),
        };
        self.doorbell.ring(data);
    }

    /// Takes back what the device is done with, as far as `done` has room; returns how many buffers that were.
    ///
    /// # Errors
    /// What the device did wrong, once, after what came before it was returned; the queue is then of no use until the
    /// device is reset.
    #[inline]
    pub fn poll(&mut self, done: &mut Completions) -> Result<usize> {
        let before = done.done.len();
        let room = done.raw.len().saturating_sub(before);
        let Some(raw) = done.raw.get_mut(..room) else {
            return Ok(0);
        };
        let taken = self.ring.take_used(&self.mem, raw);
        let taken = taken.map_err(|source| ring_error(self.index, source))?;
        for completion in raw.iter().take(taken) {
            self.pool.arrive(*completion, &mut done.done);
        }
        Ok(done.done.len().wrapping_sub(before))
    }

    /// Waits until the device is done with something. `false` when the deadline passes first.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn wait(&mut self, by: Deadline) -> Result<bool> {
        // A call of earlier times must not end this wait.
        fd::drain(self.call.as_fd());
        let there = self.ring.arm(&self.mem) || fd::wait_readable(self.call.as_fd(), by)?;
        self.ring.disarm(&self.mem);
        Ok(there)
    }

    /// Asks the device for calls, for whoever waits on [`AsFd`] instead of [`wait`](Self::wait). `true` if there is
    /// something to poll for already.
    pub fn arm(&mut self) -> bool {
        fd::drain(self.call.as_fd());
        self.ring.arm(&self.mem)
    }

    /// Asks for silence again.
    pub fn disarm(&mut self) {
        self.ring.disarm(&self.mem);
    }

    pub(super) fn config(&self) -> &QueueConfig {
        &self.config
    }

    pub(super) fn call_fd(&self) -> &Arc<OwnedFd> {
        &self.call
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn started(&mut self, doorbell: Doorbell) {
        self.doorbell = doorbell;
        self.phase = Phase::Started;
    }

    /// The device stands still here, and goes on from there.
    pub(super) fn stopped(&mut self, at: QueueState) {
        self.config.state = Some(at);
        self.phase = Phase::Stopped;
    }

    /// The device has forgotten the queue.
    pub(super) fn was_reset(&mut self) {
        self.config.state = None;
        self.phase = Phase::Reset;
    }

    /// Begins afresh, as at first: an empty ring in memory that is all zeros. Returns the buffers that were in flight.
    pub(super) fn renew(&mut self, features: RingFeatures) -> Result<Vec<Lease>> {
        let (format, size) = (self.ring.format(), self.config.size);
        let ring = DriverRing::new(format, size, features, None);
        // It was legal once.
        self.ring = ring.map_err(|_| Error::QueueAbsent { queue: self.index })?;
        let areas = &self.mem.areas;
        for cells in [&areas.descriptor, &areas.driver, &areas.device] {
            let bytes = cells.0.bytes();
            bytes.zero(0, bytes.len());
        }
        Ok(self.pool.recall())
    }

    /// Calls off, before the device looks for the first time.
    pub(super) fn silence(&mut self) {
        self.ring.disarm(&self.mem);
    }

    fn add(&mut self, lease: &Lease, parts: &[Part]) -> Result<()> {
        self.begin_chain();
        let mut at = 0u32;
        for part in parts {
            self.extend_chain(lease, at, *part)?;
            // Cannot wrap: the part was found inside the buffer.
            at = at.wrapping_add(part.len());
        }
        let id = self.add_chain()?;
        self.pool.depart(id, lease.buffer);
        Ok(())
    }

    fn begin_chain(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }

    fn extend_chain(&mut self, lease: &Lease, at: u32, part: Part) -> Result<()> {
        let segment = self.pool.segment(lease, at, part.len())?;
        let segments = self.readable.len().wrapping_add(self.writable.len());
        let why = if segments >= usize::from(self.config.size) {
            "a chain has more parts than the queue has descriptors"
        } else {
            match part {
                Part::Writable(_) => {
                    self.writable.push(segment);
                    return Ok(());
                }
                Part::Readable(_) if self.writable.is_empty() => {
                    self.readable.push(segment);
                    return Ok(());
                }
                Part::Readable(_) => "a readable part comes after a writable one",
            }
        };
        Err(Error::Buffer {
            queue: self.index,
            why,
        })
    }

    fn add_chain(&mut self) -> Result<u16> {
        let added = self.ring.add(&self.mem, &self.readable, &self.writable);
        added.map_err(|e| self.add_error(e))
    }

    #[cold]
    fn refused(&self, lease: Lease, error: AddError) -> Refused {
        let why = self.add_error(error);
        Refused { lease, why }
    }

    fn add_error(&self, error: AddError) -> Error {
        let queue = self.index;
        match error {
            AddError::Full { needed, free } => Error::RingFull {
                queue,
                needed,
                free,
            },
            AddError::Latched => ring_error(queue, RingError::Latched),
            source => Error::Chain { queue, source },
        }
    }
}

#[cold]
fn ring_error(queue: QueueIndex, source: RingError) -> Error {
    Error::Ring { queue, source }
}

/// Readable when the device has called. Ask for calls with [`Queue::arm`].
impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("index", &self.index)
            .field("size", &self.config.size)
            .field("free", &self.ring.free())
            .finish_non_exhaustive()
    }
}
