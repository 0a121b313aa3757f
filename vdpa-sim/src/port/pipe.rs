//! Pipes: how batches go from the pairs of one device to the pairs of another, or of the same.
//!
//! ```text
//!   sender's worker                        receiver's worker
//!     full batch  ──────── full ────────▶    taken, its frames given to the driver
//!     empty batch ◀─────── empty ────────    given back
//! ```
//! Each pair of a sender has a pipe: two rings with one producer and one consumer each, one atomic store for a batch.
//! The receiver reads pipe `i` with pair `i` modulo the pairs it uses; the receiving end is behind a lock that is tried
//! once a batch and is free but while that number changes.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use rtrb::{Consumer, Producer, RingBuffer};

use super::{Lane, Presence, Room};
use crate::frames::FrameBatch;

/// How many batches wait in a pipe at most.
const DEPTH: usize = 16;

/// A device's end: who it is, and the pipes that it sends into.
pub(super) struct End {
    pub(super) presence: Arc<Presence>,
    pipes: Box<[Pipe]>,
}

/// The receiver's side of a pipe.
struct Pipe {
    inbox: Mutex<Inbox>,
    /// The sender waits for room.
    blocked: AtomicBool,
}

struct Inbox {
    full: Consumer<Box<FrameBatch>>,
    empty: Producer<Box<FrameBatch>>,
    /// A batch of which something is left.
    open: Option<Box<FrameBatch>>,
}

/// The sender's side of a pipe.
pub(super) struct Mouth {
    full: Producer<Box<FrameBatch>>,
    empty: Consumer<Box<FrameBatch>>,
}

impl End {
    /// An end with a pipe for each of `pairs` pairs, and the mouths of these pipes.
    pub(super) fn new(presence: Arc<Presence>, pairs: u16) -> (Arc<Self>, Vec<Option<Mouth>>) {
        let mut mouths = Vec::new();
        let pipes = (0..pairs)
            .map(|_| {
                let (full_in, full_out) = RingBuffer::new(DEPTH);
                let (empty_in, empty_out) = RingBuffer::new(DEPTH);
                mouths.push(Some(Mouth {
                    full: full_in,
                    empty: empty_out,
                }));
                Pipe {
                    inbox: Mutex::new(Inbox {
                        full: full_out,
                        empty: empty_in,
                        open: None,
                    }),
                    blocked: AtomicBool::new(false),
                }
            })
            .collect();
        (Arc::new(Self { presence, pipes }), mouths)
    }

    /// Shows `show` what was sent into the pipes of this end to a device in this epoch, with the pair of it that reads
    /// each pipe. That device is not served meanwhile.
    pub(super) fn waiting(&self, to: &Presence, show: &mut dyn FnMut(u16, &FrameBatch)) {
        let (epoch, active) = (to.epoch(), to.active());
        for (pipe, number) in self.pipes.iter().zip(0_u16..) {
            let pair = number.checked_rem(active).unwrap_or(0);
            let mut inbox = pipe.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            let Inbox { full, open, .. } = &mut *inbox;
            let slots = full.slots();
            // Looked at, and not taken: the device may go on here.
            let chunk = full.read_chunk(slots).ok();
            let (first, second) = chunk
                .as_ref()
                .map(|chunk| chunk.as_slices())
                .unwrap_or_default();
            let batches = open.iter().chain(first).chain(second);
            for batch in batches.filter(|batch| batch.epoch == epoch) {
                show(pair, batch);
            }
        }
    }
}

/// Who is at the other end.
pub(super) trait Peer: Send {
    /// How the end is held while it is used: no longer than that, since a device that is gone lets go of everything.
    type Held<'a>: Deref<Target = End>
    where
        Self: 'a;

    /// The end of the moment; `None` if nobody is there.
    fn end(&mut self) -> Option<Self::Held<'_>>;
}

/// The lane of a pair through pipes.
pub(super) struct PipeLane<P> {
    own: Arc<End>,
    peer: P,
    pair: u16,
    mouth: Option<Mouth>,
    /// The epoch of the peer when there was room.
    epoch: u64,
    longest: usize,
}

impl<P: Peer> PipeLane<P> {
    /// The lane of `pair`. `longest`: bytes of the longest frame.
    pub(super) fn new(
        own: Arc<End>,
        peer: P,
        pair: u16,
        mouth: Option<Mouth>,
        longest: usize,
    ) -> Self {
        Self {
            own,
            peer,
            pair,
            mouth,
            epoch: 0,
            longest,
        }
    }

    /// Runs `with` for the inbox of each pipe that this pair reads. Answers whether one was busy.
    fn inboxes(&mut self, mut with: impl FnMut(&mut Inbox, u64)) -> bool {
        let Self {
            own, peer, pair, ..
        } = self;
        let (pair, active) = (*pair, own.presence.active());
        let (Some(from), true) = (peer.end(), pair < active) else {
            return false;
        };
        let epoch = own.presence.epoch();
        let mut busy = false;
        let pipes = from.pipes.iter().enumerate();
        for (number, pipe) in pipes.skip(usize::from(pair)).step_by(usize::from(active)) {
            let mut inbox = match pipe.inbox.try_lock() {
                Ok(inbox) => inbox,
                Err(TryLockError::Poisoned(inbox)) => PoisonError::into_inner(inbox),
                Err(TryLockError::WouldBlock) => {
                    busy = true;
                    continue;
                }
            };
            with(&mut inbox, epoch);
            // A sender that waits is not told of room that there is not: in a loopback it would be this very pair, which
            // would look again, and find it so, for ever.
            let has_room = inbox.full.slots() < DEPTH;
            drop(inbox);
            // Between making room and looking whether the sender waits for it; pairs with the fence in `room`.
            fence(Ordering::SeqCst);
            if has_room
                && pipe.blocked.load(Ordering::Relaxed)
                && pipe.blocked.swap(false, Ordering::Relaxed)
            {
                // There are as many pipes as pairs, which are counted in 16 bits.
                from.presence.ring(number as u16);
            }
        }
        busy
    }
}

impl Inbox {
    /// The batch to go on with: one that is open, or the next that was sent since the last reset.
    #[inline]
    fn next(&mut self, epoch: u64) -> Option<&mut Box<FrameBatch>> {
        // No more than what was there at first: for what a fast sender adds meanwhile it rings again.
        for _ in 0..=DEPTH {
            if self.open.as_ref().is_some_and(|batch| batch.epoch != epoch) {
                self.recycle();
            }
            if self.open.is_some() {
                break;
            }
            self.open = Some(self.full.pop().ok()?);
        }
        self.open.as_mut().filter(|batch| batch.epoch == epoch)
    }

    /// Gives the open batch back.
    #[inline]
    fn recycle(&mut self) {
        if let Some(mut batch) = self.open.take() {
            batch.clear();
            // There is room for as many as were ever made in the steady state; the rest is freed.
            let _freed = self.empty.push(batch);
        }
    }
}

impl<P: Peer> Lane for PipeLane<P> {
    #[inline]
    fn room(&mut self) -> Room {
        let Some(to) = self.peer.end() else {
            return Room::Nowhere;
        };
        // Before `is_there`: what is sent to a device that was reset meanwhile does not arrive.
        self.epoch = to.presence.epoch();
        if !to.presence.is_there() {
            return Room::Nowhere;
        }
        let Some(mouth) = &self.mouth else {
            return Room::Nowhere;
        };
        if !mouth.full.is_full() {
            return Room::Yes;
        }
        let Some(pipe) = self.own.pipes.get(usize::from(self.pair)) else {
            return Room::Nowhere;
        };
        pipe.blocked.store(true, Ordering::Relaxed);
        // Between "I wait" and the second look; pairs with the fence in `inboxes`.
        fence(Ordering::SeqCst);
        if mouth.full.is_full() {
            Room::Full
        } else {
            pipe.blocked.store(false, Ordering::Relaxed);
            Room::Yes
        }
    }

    fn send(&mut self, mut batch: Box<FrameBatch>) -> Box<FrameBatch> {
        let longest = self.longest;
        let (Some(mouth), Some(to)) = (&mut self.mouth, self.peer.end()) else {
            batch.clear();
            return batch;
        };
        batch.epoch = self.epoch;
        if let Err(rtrb::PushError::Full(mut batch)) = mouth.full.push(batch) {
            // `room` was not asked.
            batch.clear();
            return batch;
        }
        let reader = |active: u16| self.pair.checked_rem(active).unwrap_or(0);
        let active = to.presence.active();
        to.presence.ring(reader(active));
        // The bell has a full fence: either we see that another pair reads this pipe by now, or that pair, which was
        // rung after the change, sees the batch.
        let now = to.presence.active();
        if now != active {
            to.presence.ring(reader(now));
        }
        // Made on demand: in the steady state there are as many as are under way.
        mouth
            .empty
            .pop()
            .unwrap_or_else(|_| FrameBatch::new(longest))
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        self.inboxes(|inbox, epoch| {
            if let Some(batch) = inbox.next(epoch) {
                take(batch);
                if batch.is_empty() {
                    inbox.recycle();
                }
            }
        })
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn discard(&mut self) -> u64 {
        let mut frames = 0_u64;
        self.inboxes(|inbox, epoch| {
            // As in `next`.
            for _ in 0..=DEPTH {
                let Some(batch) = inbox.next(epoch) else {
                    break;
                };
                frames = frames.saturating_add(batch.len() as u64);
                inbox.recycle();
            }
        });
        frames
    }
}
