//! A queue pair: one queue to send with, one to receive with, and their buffers.

use std::os::fd::{AsFd, BorrowedFd};

use vdpa_core::session::{Completions, Done, Lease, Link, Part};
use vdpa_core::{Features, Queue, bits::net};
use vdpa_mem::Deadline;

use super::NetError;
use super::frame::{BUFFERS_AT, Frame};
use super::header::Header;

/// How a frame is laid out in buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Bytes of the header in front.
    pub(super) header: usize,
    /// What was negotiated.
    pub(super) features: Features,
}

impl Layout {
    /// With these features.
    pub(super) fn of(features: Features) -> Self {
        Self {
            header: Header::len(features),
            features,
        }
    }

    /// Whether a frame is in as many receive buffers as its header says, not in one, which every frame fits into.
    pub(super) fn is_merged(&self) -> bool {
        self.features.contains(net::MRG_RXBUF)
    }

    /// What the header of a received frame of `len` bytes says, which begins in `first`. It is read once, and then judged.
    #[inline]
    fn judge(&self, queue: &Queue, first: &Done, len: usize) -> Option<Header> {
        if !self.features.contains(net::GUEST_CSUM) {
            return Some(Header::NONE);
        }
        let mut bytes = [0; 10];
        queue.read(&first.lease, 0, &mut bytes);
        Header::decode(&bytes, self.features, len)
    }
}

pub(super) struct Pair {
    number: u16,
    layout: Layout,
    pub(super) receive: Queue,
    pub(super) transmit: Queue,
    received: Completions,
    sent: Completions,
    /// The buffers of a frame that is not all there yet.
    pub(super) parts: Vec<Done>,
    /// How many buffers that frame has.
    expected: u16,
    /// How many buffers there are to receive into.
    buffers: usize,
    /// Frames that were dropped for what their headers say.
    malformed: u64,
    /// A header other than zeros was written to a transmit buffer, so all are to be written from there on.
    headed: bool,
    /// The buffers of a frame that one buffer is too small for.
    links: Vec<Link>,
}

impl Pair {
    /// The pair of these queues, which run. The receive buffers are given to the device.
    pub(super) fn new(
        number: u16,
        layout: Layout,
        mut receive: Queue,
        transmit: Queue,
    ) -> Result<Self, NetError> {
        let size = |queue: &Queue| usize::from(queue.size());
        let mut buffers = 0;
        while let Some(lease) = receive.lease() {
            receive.receive(lease).map_err(|refused| refused.why)?;
            buffers += 1;
        }
        receive.publish();
        Ok(Self {
            number,
            layout,
            received: Completions::new(size(&receive)),
            sent: Completions::new(size(&transmit)),
            parts: Vec::with_capacity(size(&receive)),
            expected: 0,
            buffers,
            malformed: 0,
            headed: false,
            links: Vec::with_capacity(size(&transmit)),
            receive,
            transmit,
        })
    }

    /// How many frames of `len` bytes fit into the receive buffers.
    pub(super) fn capacity(&self, len: usize) -> usize {
        let buffer = self.receive.buffer_len() as usize;
        let buffers = (self.layout.header + len).div_ceil(buffer.max(1));
        (self.buffers / buffers.max(1)).max(1)
    }

    /// How many received frames were dropped for what their headers say.
    pub(super) fn malformed(&self) -> u64 {
        self.malformed
    }

    #[inline]
    pub(super) fn push(&mut self, header: Option<&Header>, frame: &[u8]) -> Result<bool, NetError> {
        // At most `Header::MOST`.
        let skip = self.layout.header.min(Header::MOST);
        let len = skip + frame.len();
        if len > self.transmit.buffer_len() as usize {
            return self.push_chain(header.unwrap_or(&Header::NONE), frame);
        }
        let Some(lease) = self.transmit_buffer()? else {
            return Ok(false);
        };
        // Headers are all zeros from when the memory was made, until one is not: the device only reads them.
        if header.is_some() || self.headed {
            self.headed = true;
            let bytes = header.unwrap_or(&Header::NONE).encode();
            self.transmit.write(&lease, 0, &bytes[..skip]);
        }
        self.transmit.write(&lease, skip, frame);
        // It fits a buffer, whose length has 32 bits.
        match self.transmit.send(lease, len as u32) {
            Ok(()) => Ok(true),
            Err(refused) => {
                self.transmit.put(refused.lease);
                match refused.why {
                    vdpa_core::Error::RingFull { .. } => Ok(false),
                    why => Err(why.into()),
                }
            }
        }
    }

    /// The same for a frame that needs several buffers.
    #[cold]
    fn push_chain(&mut self, header: &Header, frame: &[u8]) -> Result<bool, NetError> {
        self.headed = true;
        // At most `Header::MOST`.
        let skip = self.layout.header.min(Header::MOST);
        let room = self.transmit.buffer_len() as usize;
        let mut at = 0;
        let mut free = true;
        while at < frame.len() {
            let Some(lease) = self.transmit_buffer()? else {
                free = false;
                break;
            };
            let first = if at == 0 { skip } else { 0 };
            if at == 0 {
                self.transmit.write(&lease, 0, &header.encode()[..skip]);
            }
            let len = (frame.len() - at).min(room - first);
            self.transmit.write(&lease, first, &frame[at..at + len]);
            at += len;
            let part = Part::Readable((first + len) as u32);
            self.links.push(Link { lease, part });
        }
        let submitted = match free {
            true => self.transmit.submit_chain(&mut self.links),
            false => Ok(()),
        };
        let sent = free && submitted.is_ok();
        for link in self.links.drain(..) {
            self.transmit.put(link.lease);
        }
        match submitted {
            Ok(()) | Err(vdpa_core::Error::RingFull { .. }) => Ok(sent),
            Err(why) => Err(why.into()),
        }
    }

    /// A free transmit buffer, if there is one or the device is done with one.
    #[inline]
    fn transmit_buffer(&mut self) -> Result<Option<Lease>, NetError> {
        if let Some(lease) = self.transmit.lease() {
            return Ok(Some(lease));
        }
        self.reclaim()?;
        Ok(self.transmit.lease())
    }

    #[inline]
    pub(super) fn publish(&mut self) -> Result<(), NetError> {
        self.transmit.publish();
        self.reclaim()
    }

    /// Takes back the buffers of frames that the device has sent.
    #[inline]
    fn reclaim(&mut self) -> Result<(), NetError> {
        self.transmit.poll(&mut self.sent)?;
        for done in self.sent.drain() {
            self.transmit.put(done.lease);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn receive(&mut self, mut each: impl FnMut(&Frame<'_>)) -> Result<usize, NetError> {
        if self.receive.poll(&mut self.received)? == 0 {
            return Ok(0);
        }
        let mut frames = 0;
        let mut came = self.received.drain();
        while let Some(done) = came.next() {
            if self.parts.is_empty() {
                match expected(self.number, &self.layout, &self.receive, &done) {
                    Ok(buffers) => self.expected = buffers,
                    Err(why) => return refuse(&mut self.receive, done, came, why),
                }
            }
            self.parts.push(done);
            if self.parts.len() < usize::from(self.expected) {
                continue;
            }
            let layout = self.layout;
            let judge = |queue: &Queue, first: &Done, len| layout.judge(queue, first, len);
            match Frame::new(&self.receive, &self.parts, layout.header, judge) {
                Some(frame) => {
                    each(&frame);
                    frames += 1;
                }
                None => self.malformed = self.malformed.wrapping_add(1),
            }
            for part in self.parts.drain(..) {
                self.receive
                    .receive(part.lease)
                    .map_err(|refused| refused.why)?;
            }
        }
        self.receive.publish();
        Ok(frames)
    }

    pub(super) fn kick(&self) {
        self.receive.kick();
        self.transmit.kick();
    }

    pub(super) fn wait(&mut self, by: Deadline) -> Result<bool, NetError> {
        Ok(self.receive.wait(by)?)
    }

    pub(super) fn arm(&mut self) -> bool {
        self.receive.arm()
    }

    pub(super) fn disarm(&mut self) {
        self.receive.disarm();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.receive.as_fd()
    }
}

/// Nobody knows where a frame begins from `first` on: the device gets these buffers back as they are.
#[cold]
fn refuse(
    queue: &mut Queue,
    first: Done,
    rest: impl Iterator<Item = Done>,
    why: NetError,
) -> Result<usize, NetError> {
    for done in std::iter::once(first).chain(rest) {
        queue.receive(done.lease).map_err(|refused| refused.why)?;
    }
    queue.publish();
    Err(why)
}

/// How many buffers the frame has that begins in this one. The device wrote the number: it is read once and checked.
#[inline]
fn expected(pair: u16, layout: &Layout, queue: &Queue, first: &Done) -> Result<u16, NetError> {
    if (first.len as usize) < layout.header {
        return Err(NetError::FrameShort {
            pair,
            len: first.len,
            header: layout.header,
        });
    }
    if !layout.is_merged() {
        return Ok(1);
    }
    let mut buffers = [0; 2];
    queue.read(&first.lease, BUFFERS_AT, &mut buffers);
    let buffers = u16::from_le_bytes(buffers);
    let size = queue.size();
    if buffers == 0 || buffers > size {
        return Err(NetError::FrameBuffers {
            pair,
            buffers,
            size,
        });
    }
    Ok(buffers)
}
