//! One request queue: requests go in with a tag, and come back with it.
//!
//! ```text
//!   buffer:  header │ data to write, or a segment │ ... data to read │ status
//!            readable                              writable
//! ```

use vdpa_core::Queue;
use vdpa_core::session::{Completions, Lease, Part};
use vdpa_mem::Deadline;

use super::error::Refusal;
use super::request::{HEADER, Request, SEGMENT};
use super::{BlkError, Op};

/// What is in the place of the status until the device writes there: none that there is.
const NONE: u8 = 0xff;

/// A request that the device is done with.
pub struct Completion<'q> {
    queue: &'q Queue,
    lease: &'q Lease,
    sent: Sent,
    len: u32,
    /// Read once: the device may write there still.
    status: u8,
}

/// What is known of a request under way, by its buffer.
#[derive(Clone, Copy)]
struct Sent {
    tag: u64,
    op: Op,
    sector: u64,
    /// Where the device writes, and how many bytes before the status.
    at: usize,
    answer: usize,
}

impl Completion<'_> {
    /// The tag that it was submitted with.
    pub fn tag(&self) -> u64 {
        self.sent.tag
    }

    /// What it was to do.
    pub fn op(&self) -> Op {
        self.sent.op
    }

    /// Whether the device did it.
    ///
    /// # Errors
    /// [`BlkError::Refused`] with its answer, [`BlkError::Short`] where it says that it wrote less than it had to.
    pub fn result(&self) -> Result<(), BlkError> {
        let Sent {
            op, sector, answer, ..
        } = self.sent;
        if let Some(refusal) = Refusal::of(self.status) {
            return Err(BlkError::Refused {
                op,
                sector,
                refusal,
            });
        }
        // Below 2^32, as the buffer is.
        let wanted = answer as u32 + 1;
        if self.len < wanted {
            let len = self.len;
            return Err(BlkError::Short { len, wanted });
        }
        Ok(())
    }

    /// Copies what was read to `to`. Returns how many bytes that were: none unless the device did it.
    pub fn read(&self, to: &mut [u8]) -> usize {
        if self.result().is_err() {
            return 0;
        }
        let len = to.len().min(self.sent.answer);
        self.queue.read(self.lease, self.sent.at, &mut to[..len])
    }
}

/// A queue with a buffer for each request.
pub(super) struct Lane {
    queue: Queue,
    done: Completions,
    /// By buffer.
    sent: Box<[Sent]>,
    under_way: usize,
}

/// Bytes of a buffer with room for `data` bytes of data.
pub(super) const fn buffer_bytes(data: u32) -> u32 {
    // An identity and a segment fit as well.
    let data = if data < 512 { 512 } else { data };
    data + HEADER as u32 + 1
}

impl Lane {
    pub(super) fn new(queue: Queue, buffers: u16) -> Self {
        let none = Sent {
            tag: 0,
            op: Op::Flush,
            sector: 0,
            at: 0,
            answer: 0,
        };
        Self {
            done: Completions::new(buffers.into()),
            sent: (0..buffers).map(|_| none).collect(),
            under_way: 0,
            queue,
        }
    }

    /// How many requests are with the device.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Puts a checked request into the queue. `false`: there is no room.
    pub(super) fn submit(&mut self, tag: u64, request: &Request<'_>) -> Result<bool, BlkError> {
        let Some(lease) = self.queue.lease() else {
            return Ok(false);
        };
        self.queue.write(&lease, 0, &request.header());
        let mut at = HEADER;
        if let Request::Write { data, .. } = request {
            at += self.queue.write(&lease, HEADER, data);
        }
        if let Some(segment) = request.segment() {
            at += self.queue.write(&lease, HEADER, &segment);
            debug_assert_eq!(at, HEADER + SEGMENT, "it fits every buffer");
        }
        let answer = request.answer();
        self.queue.write(&lease, at + answer, &[NONE]);
        let parts = [Part::Readable(at as u32), Part::Writable(answer as u32 + 1)];
        let buffer = lease.buffer() as usize;
        if let Err(refused) = self.queue.submit(lease, &parts) {
            self.queue.put(refused.lease);
            return match refused.why {
                vdpa_core::Error::RingFull { .. } => Ok(false),
                why => Err(why.into()),
            };
        }
        if let Some(sent) = self.sent.get_mut(buffer) {
            *sent = Sent {
                tag,
                op: request.op(),
                sector: request.sector(),
                at,
                answer,
            };
        }
        self.under_way += 1;
        Ok(true)
    }

    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// The queue was started again after a reset, and these buffers were in it. Calls `lost` for each request.
    pub(super) fn begin_again(&mut self, back: Vec<Lease>, lost: &mut dyn FnMut(u64)) {
        for lease in back {
            // A request is one buffer.
            if let Some(sent) = self.sent.get(lease.buffer() as usize) {
                lost(sent.tag);
            }
            self.under_way = self.under_way.saturating_sub(1);
            self.queue.put(lease);
        }
    }

    pub(super) fn publish(&mut self) {
        self.queue.publish();
    }

    /// Calls `each` for what is done. Returns how many requests that were.
    pub(super) fn complete(
        &mut self,
        mut each: impl FnMut(&Completion<'_>),
    ) -> Result<usize, BlkError> {
        let count = self.queue.poll(&mut self.done)?;
        for done in self.done.drain() {
            if let Some(sent) = self.sent.get(done.lease.buffer() as usize) {
                let mut status = [NONE];
                let at = sent.at + sent.answer;
                self.queue.read(&done.lease, at, &mut status);
                each(&Completion {
                    status: status[0],
                    queue: &self.queue,
                    lease: &done.lease,
                    sent: *sent,
                    len: done.len,
                });
            }
            self.under_way = self.under_way.saturating_sub(1);
            self.queue.put(done.lease);
        }
        Ok(count)
    }

    pub(super) fn wait(&mut self, by: Deadline) -> Result<bool, BlkError> {
        Ok(self.queue.wait(by)?)
    }
}
