//! Requests of any device type: what a statement about rings sends through them.
//!
//! | traffic | queue | the device reads | the device writes |
//! |---|---|---|---|
//! | `Transmit` | net, transmit 1 | header and frame | nothing |
//! | `Receive` | net, receive 1, fed by its transmit queue | nothing | header and frame |
//! | `Disk` | block, the first | header (GET_ID) | 20 bytes and the status |
//! | `Entropy` | rng | nothing | as many bytes as it likes, at least one |

use std::cell::RefCell;

use vdpa_core::{DeviceType, QueueIndex};
use vdpa_mem::Iova;
use vdpa_ring::Completion;

use crate::checked::{ensure, skip};
use crate::rig::CANARY;
use crate::{Checked, Piece, Rig, Ring};

/// Bytes of a packet's header without HASH_REPORT, virtio 1.4 §5.1.9.
pub(crate) const NET_HEADER: u32 = 12;
/// Bytes of the frames that are sent.
const FRAME: u32 = 60;
/// Bytes of a buffer to receive into: a header, the largest frame of an MTU of 1500, and room.
const RECEIVE: u32 = 2048;
/// The request that asks for a disk's identity, virtio 1.4 §5.2.6.
const GET_ID: u32 = 8;
const ID_BYTES: u32 = 20;
const ENTROPY: u32 = 64;

/// What goes through a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// Frames that are sent.
    Transmit,
    /// Frames that come back from the device's port.
    Receive,
    /// Requests of a disk for its identity.
    Disk,
    /// Requests for entropy.
    Entropy,
}

/// One request: its buffers, and what is expected of them.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the device reads.
    pub readable: Vec<Piece>,
    /// What it writes.
    pub writable: Vec<Piece>,
    /// For what is received: the frame that has to be in it.
    frame: Vec<u8>,
}

/// What came for a request, so that it can be held against another run's: that one's frames may have other numbers.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Received {
    header: Vec<u8>,
    /// Whether the request's own frame is behind it, byte for byte.
    own: bool,
}

/// How a request's buffers are cut into descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// A descriptor a buffer.
    Whole,
    /// Descriptors of so many bytes, the last one shorter.
    Every(u32),
    /// The first descriptor has so many bytes, the second one the rest.
    After(u32),
    /// So many descriptors of one byte, then one with the rest.
    Bytes(u32),
}

/// A queue with requests for it. A network device has both queues of its first pair started.
pub struct Lane {
    /// What goes through it.
    pub traffic: Traffic,
    /// The queue.
    pub ring: Ring,
    /// The transmit queue that feeds a receive queue, and the receive queue beside a transmit queue.
    pub other: Option<Ring>,
    sent: u32,
    drains: bool,
    /// Where what was sent is received, with the chain that each buffer is in.
    sink: Vec<(u16, Piece)>,
    arrived: Vec<Vec<u8>>,
    /// What was sent to be received, and whether it came.
    fed: RefCell<Vec<(Vec<u8>, bool)>>,
}

impl Traffic {
    /// What a device of this type has.
    pub fn of(device: DeviceType) -> Checked<&'static [Traffic]> {
        match device {
            DeviceType::Net => Ok(&[Traffic::Transmit, Traffic::Receive]),
            DeviceType::Block => Ok(&[Traffic::Disk]),
            DeviceType::Entropy => Ok(&[Traffic::Entropy]),
            other => skip!("no requests are known for a device of type {other}"),
        }
    }

    /// Whether the device reads something.
    pub fn reads(self) -> bool {
        matches!(self, Self::Transmit | Self::Disk)
    }

    /// Whether the device writes something.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Transmit)
    }

    /// The number of its queue.
    pub fn queue(self) -> u16 {
        match self {
            Self::Transmit => 1,
            Self::Receive | Self::Disk | Self::Entropy => 0,
        }
    }
}

impl Cut {
    /// The pieces, cut.
    pub fn apply(self, pieces: &[Piece]) -> Vec<Piece> {
        let mut cut = Vec::new();
        for piece in pieces {
            let mut left = *piece;
            let mut number = 0;
            while left.len > 0 {
                let most = match self {
                    Self::Whole => left.len,
                    Self::Every(len) => len.max(1),
                    Self::After(len) if number == 0 => len.max(1),
                    Self::Bytes(count) if number < count => 1,
                    Self::After(_) | Self::Bytes(_) => left.len,
                };
                number += 1;
                let len = most.min(left.len);
                cut.push(Piece { at: left.at, len });
                left = Piece {
                    at: Iova::new(left.at.get().wrapping_add(len.into())),
                    len: left.len - len,
                };
            }
        }
        cut
    }
}

impl Request {
    /// The same request in other memory: its buffers in pieces of these sizes and one with the rest, each piece before the
    /// last one's address.
    pub fn scattered(&self, rig: &Rig<'_>, sizes: &[u32]) -> Checked<Self> {
        let scatter = |pieces: &[Piece], copy: bool| {
            let mut lens = Vec::new();
            for piece in pieces {
                let mut left = piece.len;
                for size in sizes.iter().copied().chain([u32::MAX]) {
                    let len = size.min(left);
                    left -= len;
                    lens.extend((len > 0).then_some(len));
                }
            }
            let mut scattered = Vec::new();
            for len in lens.iter().rev() {
                scattered.push(rig.alloc(*len)?);
            }
            scattered.reverse();
            if copy {
                let bytes: Vec<u8> = pieces.iter().flat_map(|piece| rig.read(*piece)).collect();
                let mut rest = bytes.as_slice();
                for piece in &scattered {
                    let (now, later) = rest.split_at(piece.len as usize);
                    rig.write(*piece, now);
                    rest = later;
                }
            }
            Ok::<_, crate::Stop>(scattered)
        };
        Ok(Self {
            readable: scatter(&self.readable, true)?,
            writable: scatter(&self.writable, false)?,
            frame: self.frame.clone(),
        })
    }

    /// What the device wrote for it.
    pub(crate) fn received(&self, written: &[u8]) -> Received {
        let (header, frame) = written.split_at(written.len().min(NET_HEADER as usize));
        Received {
            header: header.to_vec(),
            own: frame == self.frame,
        }
    }

    /// Bytes that the device may write.
    pub fn room(&self) -> u32 {
        self.writable.iter().map(|piece| piece.len).sum()
    }
}

impl Lane {
    /// Starts the queues for this traffic, with sizes of at most `size`. Comes between negotiation and
    /// [`run`](Rig::run).
    pub fn start(rig: &Rig<'_>, traffic: Traffic, size: u16) -> Checked<Self> {
        let other = match traffic {
            Traffic::Transmit => Some(rig.queue(0, size)?),
            Traffic::Receive => Some(rig.queue(1, size)?),
            Traffic::Disk | Traffic::Entropy => None,
        };
        Ok(Self {
            traffic,
            ring: rig.queue(traffic.queue(), size)?,
            other,
            sent: 0,
            drains: false,
            sink: Vec::new(),
            arrived: Vec::new(),
            fed: RefCell::default(),
        })
    }

    /// Around queues that the caller started.
    pub fn with(traffic: Traffic, ring: Ring, other: Option<Ring>) -> Self {
        Self {
            traffic,
            ring,
            other,
            sent: 0,
            drains: false,
            sink: Vec::new(),
            arrived: Vec::new(),
            fed: RefCell::default(),
        }
    }

    /// Has what is sent received too, once the device is live: a port that loses nothing stops a sender whose frames
    /// nobody takes. The receive queue is then the lane's own.
    #[must_use]
    pub fn draining(mut self) -> Self {
        self.drains = self.traffic == Traffic::Transmit;
        self
    }

    /// Takes what was received, and gives the buffers back to the device. Returns the frames that came since the last
    /// time.
    pub fn arrivals(&mut self, rig: &Rig<'_>) -> Checked<Vec<Vec<u8>>> {
        self.drain(rig)?;
        Ok(std::mem::take(&mut self.arrived))
    }

    fn drain(&mut self, rig: &Rig<'_>) -> Checked {
        /// Enough for what is under way at a time.
        const BUFFERS: u16 = 16;
        let live = rig.status()?.contains(vdpa_core::Status::DRIVER_OK);
        let Some(receive) = self.other.as_mut().filter(|_| self.drains && live) else {
            return Ok(());
        };
        if self.sink.is_empty() {
            for _ in 0..BUFFERS.min(receive.size()) {
                let buffer = rig.alloc(RECEIVE)?;
                self.sink.push((receive.add(&[], &[buffer])?, buffer));
            }
        }
        // All are taken out before the first one goes back: its chain may get the number of another.
        let mut empty = Vec::new();
        for done in receive.poll()? {
            let Some(at) = self.sink.iter().position(|(id, _)| *id == done.id) else {
                crate::checked::fail!("a chain came back that was not given: {}", done.id);
            };
            let (_, buffer) = self.sink.swap_remove(at);
            let packet = rig.read(buffer);
            let frame = packet.get(NET_HEADER as usize..done.len as usize);
            let frame = frame.unwrap_or_default();
            rig.bench().came(frame);
            self.arrived.push(frame.to_vec());
            empty.push(buffer);
        }
        for buffer in empty {
            self.sink.push((receive.add(&[], &[buffer])?, buffer));
        }
        // What nobody asks for is not kept for ever.
        let old = self.arrived.len().saturating_sub(64);
        self.arrived.drain(..old);
        // Polled, and silent: where queues share a vector its calls would be taken for those of the other queue.
        receive.disarm();
        receive.publish();
        Ok(())
    }

    /// The memory that the device may write for the other queue.
    pub fn beside(&self) -> Vec<Piece> {
        let areas = self.other.iter().flat_map(|other| {
            [
                vdpa_core::Area::Descriptor,
                vdpa_core::Area::Driver,
                vdpa_core::Area::Device,
            ]
            .map(|area| other.area(area))
        });
        let sink = self.sink.iter().map(|(_, buffer)| *buffer);
        areas.chain(sink).collect()
    }

    /// The next request, which nobody has seen yet.
    pub fn request(&mut self, rig: &Rig<'_>) -> Checked<Request> {
        self.drain(rig)?;
        let number = self.number(rig);
        Ok(match self.traffic {
            Traffic::Transmit => {
                let frame = frame(number);
                rig.bench().went(&frame);
                let packet = [vec![0; NET_HEADER as usize], frame].concat();
                Request {
                    readable: vec![rig.place(&packet)?],
                    writable: Vec::new(),
                    frame: Vec::new(),
                }
            }
            Traffic::Receive => Request {
                readable: Vec::new(),
                writable: vec![rig.alloc(RECEIVE)?],
                frame: frame(number),
            },
            Traffic::Disk => {
                let mut header = [0; 16];
                header[..4].copy_from_slice(&GET_ID.to_le_bytes());
                Request {
                    readable: vec![rig.place(&header)?],
                    writable: vec![rig.alloc(ID_BYTES + 1)?],
                    frame: Vec::new(),
                }
            }
            Traffic::Entropy => Request {
                readable: Vec::new(),
                writable: vec![rig.alloc(ENTROPY)?],
                frame: Vec::new(),
            },
        })
    }

    /// The next frame's. The simulated ones of each lane are the same, so that what they leave in memory can be compared.
    fn number(&mut self, rig: &Rig<'_>) -> u32 {
        let own = self.sent;
        self.sent = self.sent.wrapping_add(1);
        rig.bench().unique().unwrap_or(own)
    }

    /// Whether a request that is cut like this is no longer than the queue.
    pub fn fits(&self, request: &Request, cut: Cut) -> bool {
        let (readable, writable) = (cut.apply(&request.readable), cut.apply(&request.writable));
        readable.len() + writable.len() <= usize::from(self.ring.size())
    }

    /// Adds a request to the ring; uncut where the queue is too small for the pieces.
    pub fn add(&mut self, request: &Request, cut: Cut) -> Checked<u16> {
        let cut = match self.fits(request, cut) {
            true => cut,
            false => Cut::Whole,
        };
        let (readable, writable) = (cut.apply(&request.readable), cut.apply(&request.writable));
        self.ring.add(&readable, &writable)
    }

    /// Has the device complete requests that were published: for what is received, sends the frames. Nothing for the
    /// others, which complete by themselves.
    pub fn provoke(&mut self, rig: &Rig<'_>, requests: &[Request]) -> Checked {
        if self.traffic != Traffic::Receive {
            return Ok(());
        }
        let Some(transmit) = &mut self.other else {
            return Ok(());
        };
        for request in requests {
            let packet = [vec![0; NET_HEADER as usize], request.frame.clone()].concat();
            let piece = rig.place(&packet)?;
            self.fed.borrow_mut().push((request.frame.clone(), false));
            // Silent for the same reason as what is drained.
            transmit.disarm();
            rig.bench().went(&request.frame);
            transmit.add(&[piece], &[])?;
            transmit.publish();
            transmit.wait(rig, 1)?;
        }
        Ok(())
    }

    /// How many more requests with a descriptor a buffer find room in the ring.
    pub fn room(&self) -> u32 {
        self.room_for(Cut::Whole)
    }

    /// The same for requests that are cut.
    fn room_for(&self, cut: Cut) -> u32 {
        let pieces = |bytes| {
            let at = vdpa_mem::Iova::new(0);
            cut.apply(&[Piece { at, len: bytes }]).len()
        };
        let each = match self.traffic {
            // An indirect table makes one descriptor of all.
            _ if self.ring.variant().indirect => 1,
            Traffic::Disk => pieces(16) + pieces(ID_BYTES + 1),
            Traffic::Transmit => pieces(NET_HEADER + FRAME),
            Traffic::Receive => pieces(RECEIVE),
            Traffic::Entropy => pieces(ENTROPY),
        };
        u32::try_from(usize::from(self.ring.half().free()) / each.max(1)).unwrap_or(u32::MAX)
    }

    /// Adds, publishes, provokes, waits and judges: the whole life of `count` requests that are under way together, as far
    /// as a small ring has room for them.
    pub fn exchange(&mut self, rig: &Rig<'_>, count: u32, cut: Cut) -> Checked {
        let mut left = count;
        while left > 0 {
            let together = left.min(self.room_for(cut).max(1));
            self.together(rig, together, cut)?;
            left -= together;
        }
        Ok(())
    }

    fn together(&mut self, rig: &Rig<'_>, count: u32, cut: Cut) -> Checked {
        let mut requests = Vec::new();
        for _ in 0..count {
            requests.push(self.request(rig)?);
        }
        self.complete(rig, &requests, cut)
    }

    /// The same for these requests.
    pub fn complete(&mut self, rig: &Rig<'_>, requests: &[Request], cut: Cut) -> Checked {
        let mut ids = Vec::new();
        for request in requests {
            ids.push(self.add(request, cut)?);
        }
        self.ring.publish();
        self.provoke(rig, requests)?;
        for done in self.ring.wait(rig, requests.len())? {
            let which = ids.iter().position(|id| *id == done.id);
            let Some(request) = which.and_then(|at| requests.get(at)) else {
                crate::checked::fail!("a chain came back that was not given: {}", done.id);
            };
            self.judge(rig, request, done)?;
        }
        Ok(())
    }

    /// Whether a request was answered as it has to be. What is beyond used.len the device may have written or not,
    /// virtio 1.4 §2.7.8.2.
    pub fn judge(&self, rig: &Rig<'_>, request: &Request, done: Completion) -> Checked {
        let room: u32 = request.writable.iter().map(|piece| piece.len).sum();
        let mut written = Vec::new();
        for piece in &request.writable {
            written.extend(rig.read(*piece));
        }
        let len = done.len;
        ensure!(
            len <= room,
            "used.len is {len} where {room} bytes are writable"
        );
        let said = written.get(..len as usize).unwrap_or_default();
        match self.traffic {
            Traffic::Transmit => {}
            Traffic::Receive => {
                let wanted = NET_HEADER + FRAME;
                ensure!(
                    len == wanted,
                    "used.len is {len} for a packet of {wanted} bytes"
                );
                let got = said.get(NET_HEADER as usize..).unwrap_or_default();
                self.came(rig, request, got)?;
            }
            Traffic::Disk => {
                // used.len may be less than what was written, and a disk need not know GET_ID: OK, IOERR and UNSUPP,
                // virtio 1.4 §5.2.6.
                let status = written.last().copied().unwrap_or(CANARY);
                ensure!(status <= 2, "GET_ID came back with status {status}");
            }
            Traffic::Entropy => {
                ensure!(len > 0, "not one byte of entropy came back");
                // That eight bytes come out like the canaries by chance happens once in 2^64.
                let canaries = [CANARY; 8];
                let at = said.windows(8).position(|window| window == canaries);
                ensure!(
                    at.is_none(),
                    "used.len is {len}, and from byte {at:?} on nothing was written"
                );
            }
        }
        Ok(())
    }

    /// Only IN_ORDER says which buffer a frame comes in: elsewhere it is one that was sent, and comes once. One that another
    /// queue of the device sent before may come first: a port may hold it until somebody takes it.
    fn came(&self, rig: &Rig<'_>, request: &Request, got: &[u8]) -> Checked {
        let first = rig.bench().came(got);
        let mut fed = self.fed.borrow_mut();
        let sent = fed.iter_mut().find(|(frame, _)| frame == got);
        let own = got == request.frame;
        let sent_by_others = sent.is_none();
        let Some((_, came)) = sent.filter(|_| own || !self.ring.variant().in_order) else {
            let late = first && sent_by_others;
            ensure!(own || late, "the frame is not the one that was sent");
            return Ok(());
        };
        ensure!(!*came, "a frame that was sent once came twice");
        *came = true;
        Ok(())
    }

    /// The queue's number.
    pub fn index(&self) -> QueueIndex {
        self.ring.index()
    }
}

/// A frame to everybody, with its number in it.
pub(crate) fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x88, 0xb5]);
    frame.extend(number.to_le_bytes());
    // No byte of it is a canary.
    frame.resize(FRAME as usize, (number % 128) as u8);
    frame
}

/// The same with the header of a packet that nothing is asked for.
pub(crate) fn packet(number: u32) -> Vec<u8> {
    [vec![0; NET_HEADER as usize], frame(number)].concat()
}
