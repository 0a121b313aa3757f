//! A queue pair: one queue to send with, one to receive with, and their buffers.

use vdpa_core::Queue;
use vdpa_core::session::{Completions, Done};
use vdpa_mem::Deadline;

use super::NetError;
use super::frame::{BUFFERS_AT, Frame, HEADER_BYTES};

/// How a frame is laid out in receive buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// In one buffer, which every frame fits into.
    Single,
    /// In as many as its header says (MRG_RXBUF).
    Merged,
}

pub(super) struct Pair {
    number: u16,
    layout: Layout,
    receive: Queue,
    transmit: Queue,
    received: Completions,
    sent: Completions,
    /// The buffers of a frame that is not all there yet.
    parts: Vec<Done>,
    /// How many buffers that frame has.
    expected: u16,
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
        while let Some(lease) = receive.lease() {
            receive.receive(lease).map_err(|refused| refused.why)?;
        }
        receive.publish();
        Ok(Self {
            number,
            layout,
            received: Completions::new(size(&receive)),
            sent: Completions::new(size(&transmit)),
            parts: Vec::with_capacity(size(&receive)),
            expected: 0,
            receive,
            transmit,
        })
    }

    /// How many frames of `len` bytes fit into the receive buffers.
    pub(super) fn capacity(&self, len: usize) -> usize {
        let buffer = self.receive.buffer_len() as usize;
        let buffers = (HEADER_BYTES + len).div_ceil(buffer.max(1));
        (usize::from(self.receive.size()) / buffers.max(1)).max(1)
    }

    #[inline]
    pub(super) fn push(&mut self, frame: &[u8]) -> Result<bool, NetError> {
        let lease = match self.transmit.lease() {
            Some(lease) => lease,
            None => {
                self.reclaim()?;
                match self.transmit.lease() {
                    Some(lease) => lease,
                    None => return Ok(false),
                }
            }
        };
        // The header in front is all zeros: it was when the memory was made, and the device only reads it.
        let written = self.transmit.write(&lease, HEADER_BYTES, frame);
        // Buffers have room for the longest frame, which was checked.
        let len = (HEADER_BYTES + written) as u32;
        match self.transmit.send(lease, len) {
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
        for done in self.received.drain() {
            if self.parts.is_empty() {
                self.expected = expected(self.number, self.layout, &self.receive, &done)?;
            }
            self.parts.push(done);
            if self.parts.len() < usize::from(self.expected) {
                continue;
            }
            if let Some(frame) = Frame::new(&self.receive, &self.parts) {
                each(&frame);
                frames += 1;
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
}

/// How many buffers the frame has that begins in this one. The device wrote the number: it is read once and checked.
#[inline]
fn expected(pair: u16, layout: Layout, queue: &Queue, first: &Done) -> Result<u16, NetError> {
    if (first.len as usize) < HEADER_BYTES {
        return Err(NetError::FrameShort {
            pair,
            len: first.len,
        });
    }
    if layout == Layout::Single {
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
