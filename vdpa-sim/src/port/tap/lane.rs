//! The way of a pair through its queue of a tap.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Lane, Tap};
use crate::frames::{FrameBatch, HEADER_BYTES};
use crate::offload::{self, Finish, Header, Segments};
use crate::port::Room;
use crate::stats::{Counters, counters};

/// The longest frame that a tap gives: the longest there is, in two tags.
const LONGEST: usize = offload::LONGEST.saturating_add(8);

/// The shortest frame: two addresses and a type.
const SHORTEST: usize = 14;

counters! {
    /// What a lane counts.
    enum Count;
    /// The names of these counters.
    pub(super) const TAP_COUNTERS {
        /// Frames given up when the interface turned out to be down or gone; the next ones find no peer.
        Down = "dropped.tx_down",
        /// Frames that the kernel did not take for another reason.
        Refused = "dropped.tx_refused",
        /// Packets of the kernel that are no whole frame.
        Malformed = "dropped.rx_malformed",
        /// Frames that a pair had read when the driver stopped using it.
        Unused = "dropped.rx_unused",
        /// How often the interface had no room.
        Waits = "tx_waits",
    }
}

/// A pair's queue.
pub(super) struct TapLane {
    tap: Arc<Tap>,
    pub(super) pair: u16,
    /// `None` for a pair that the port was not made for.
    file: Option<Arc<OwnedFd>>,
    /// What was read, and for whom.
    incoming: Box<FrameBatch>,
    /// What the kernel had no room for.
    unsent: Option<Box<FrameBatch>>,
    spare: Option<Box<FrameBatch>>,
    longest: usize,
    /// Where a segment is made, from the first one on.
    scratch: Vec<u8>,
    /// The interface was down when last seen.
    down: bool,
    counters: Arc<Counters>,
}

/// What became of a packet that was written.
enum Written {
    Yes,
    /// There is no room now.
    Full,
    /// Nothing more can be written now.
    Down,
}

impl TapLane {
    pub(super) fn new(tap: &Arc<Tap>, pair: u16, longest: usize) -> Self {
        Self {
            pair,
            file: tap.queues.get(usize::from(pair)).cloned(),
            incoming: FrameBatch::new(LONGEST),
            unsent: None,
            spare: None,
            scratch: Vec::new(),
            longest,
            down: false,
            counters: tap.tally.row(pair),
            tap: Arc::clone(tap),
        }
    }

    fn count(&self, what: Count, more: usize) {
        self.counters.add(what as usize, more as u64);
    }

    fn is_gone(&self) -> bool {
        self.tap.gone.load(Ordering::Acquire)
    }

    /// Writes what there is, and keeps what there is no room for. Answers with a batch that is empty, if one is left.
    fn flush(&mut self, mut batch: Box<FrameBatch>) -> Option<Box<FrameBatch>> {
        while let Some(packet) = batch.first() {
            let written = if self.tap.datagrams || Header::of(packet).gso() != Header::GSO_UDP_L4 {
                let file = self.file.as_deref();
                write(&self.tap, file, finish(packet), &self.counters)
            } else {
                self.write_segments(&mut batch)
            };
            match written {
                Written::Yes => batch.pop(),
                Written::Full => {
                    self.count(Count::Waits, 1);
                    self.unsent = Some(batch);
                    return None;
                }
                Written::Down => {
                    self.down = true;
                    self.count(Count::Down, batch.len());
                    break;
                }
            }
        }
        batch.clear();
        Some(batch)
    }

    /// Writes the first packet segment by segment, as far as there is room: for a kernel that refuses it whole.
    #[cold]
    fn write_segments(&mut self, batch: &mut FrameBatch) -> Written {
        let mut next = batch.cut().map_or(0, |(next, _)| next);
        let Some((header, frame)) = batch.packets().next() else {
            return Written::Yes;
        };
        let Some(segments) = Segments::new(header, frame) else {
            self.count(Count::Refused, 1);
            return Written::Yes;
        };
        let room = segments.longest().saturating_add(HEADER_BYTES);
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let count = segments.count();
        let mut written = Written::Yes;
        while next < count {
            let place = self.scratch.get_mut(HEADER_BYTES..).unwrap_or_default();
            // The kernel completes checksums.
            let len = segments.write(next, Finish::Partial, place).unwrap_or(0);
            let len = len.saturating_add(HEADER_BYTES);
            let packet = self.scratch.get_mut(..len).unwrap_or_default();
            segments.partial().put(packet);
            let file = self.file.as_deref();
            written = write(&self.tap, file, finish(packet), &self.counters);
            if !matches!(written, Written::Yes) {
                batch.set_cut(next, count);
                break;
            }
            next = next.saturating_add(1);
        }
        written
    }

    /// Whether the interface is up again.
    fn probe(&mut self) {
        let Some(file) = &self.file else { return };
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO).is_err() {
            return;
        }
        let found = fds.first().and_then(PollFd::revents);
        let found = found.unwrap_or(PollFlags::empty());
        if found.contains(PollFlags::POLLERR) {
            self.tap.lose();
        } else if found.contains(PollFlags::POLLOUT) {
            self.down = false;
        }
    }

    /// Reads until there is nothing more, or the batch is full.
    fn fill(&mut self) {
        // Before reading: what is read while the device is reset is nobody's.
        let epoch = self.tap.presence.epoch();
        let Some(file) = &self.file else { return };
        self.incoming.clear();
        self.incoming.epoch = epoch;
        // A byte more than there can be, so that what is longer is told from what is not.
        let most = HEADER_BYTES.saturating_add(LONGEST).saturating_add(1);
        while let Some(room) = self.incoming.room(most) {
            match nix::unistd::read(&**file, room) {
                Ok(len) => {
                    let packet = room.get_mut(..len).unwrap_or_default();
                    if len < most && admit(packet) {
                        self.incoming.push(len);
                    } else {
                        self.counters.add(Count::Malformed as usize, 1);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.tap.lose();
                    return;
                }
            }
        }
    }
}

/// Makes of a packet of a transmit queue what the kernel takes: its header is a `virtio_net_hdr` that describes the
/// frame, and the number of buffers is not the kernel's business.
fn finish(packet: &mut [u8]) -> &[u8] {
    forget_buffers(packet);
    packet
}

/// Whether a packet of the kernel is one to go on with, and makes it one: its header says what is true of the frame.
fn admit(packet: &mut [u8]) -> bool {
    if packet.len() < HEADER_BYTES.saturating_add(SHORTEST) {
        return false;
    }
    forget_buffers(packet);
    if Header::is_none(packet) {
        return true;
    }
    let told = Header::of(packet);
    let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
    // The kernel's word is good; an `AF_PACKET` socket's, which it passes on, is not.
    let Ok(mut header) = offload::check(told, frame, offload::TRANSMIT) else {
        return false;
    };
    if header == Header::NONE {
        header.flags = told.flags & Header::DATA_VALID;
    }
    header.put(packet);
    true
}

fn forget_buffers(packet: &mut [u8]) {
    if let Some(buffers) = packet.get_mut(HEADER_BYTES.saturating_sub(2)..HEADER_BYTES) {
        buffers.fill(0);
    }
}

fn write(tap: &Tap, file: Option<&OwnedFd>, packet: &[u8], counters: &Counters) -> Written {
    let Some(file) = file else {
        return Written::Down;
    };
    loop {
        match nix::unistd::write(file, packet) {
            Ok(_) => return Written::Yes,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Written::Full,
            Err(Errno::EIO) => return Written::Down,
            Err(Errno::EBADFD) => {
                tap.lose();
                return Written::Down;
            }
            Err(_) => {
                counters.add(Count::Refused as usize, 1);
                return Written::Yes;
            }
        }
    }
}

impl Lane for TapLane {
    fn room(&mut self) -> Room {
        if self.is_gone() {
            return Room::Nowhere;
        }
        if let Some(batch) = self.unsent.take() {
            match self.flush(batch) {
                None => return Room::Full,
                // What was lent out came back.
                empty => self.spare = empty,
            }
        }
        if self.down {
            self.probe();
        }
        if self.down || self.is_gone() {
            Room::Nowhere
        } else {
            Room::Yes
        }
    }

    fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch> {
        let empty = self.flush(batch).or_else(|| self.spare.take());
        empty.unwrap_or_else(|| FrameBatch::new(self.longest))
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        // Acquire pairs with the release in `Tap::changed`.
        if !self.tap.open.load(Ordering::Acquire) {
            return false;
        }
        if self.pair >= self.tap.presence.active() {
            // virtio 1.4 §5.1.9.5.5: nothing is received there once the command is used. The kernel has thrown away what
            // waited in its queue.
            if self.incoming.epoch == self.tap.presence.epoch() {
                self.count(Count::Unused, self.incoming.len());
            }
            self.incoming.clear();
            return false;
        }
        if self.incoming.is_empty() || self.incoming.epoch != self.tap.presence.epoch() {
            self.fill();
        }
        if !self.incoming.is_empty() && self.incoming.epoch == self.tap.presence.epoch() {
            take(&mut self.incoming);
        }
        false
    }

    fn held(&mut self, to: &mut dyn FnMut(&FrameBatch)) {
        if self.incoming.epoch == self.tap.presence.epoch() {
            to(&self.incoming);
        }
    }

    fn discard(&mut self) -> u64 {
        if !self.tap.open.load(Ordering::Acquire) {
            return 0;
        }
        if self.incoming.is_empty() {
            self.fill();
        }
        let frames = self.incoming.len();
        self.incoming.clear();
        frames as u64
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        self.file.iter().cloned().collect()
    }
}
