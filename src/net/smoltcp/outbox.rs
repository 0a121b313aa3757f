//! What the stack sends, on its way to the device.

use std::collections::VecDeque;
use std::time::Duration;

use vdpa_core::bits::net;
use vdpa_mem::Deadline;

use super::Traffic;
use super::merge::Merge;
use super::packet::{Protocol, Transport, Version};
use crate::net::{Checksum, Header, NetDriver, NetError};

/// Frames that are given to the device before it is told.
const BATCH: u32 = 32;
/// How long to wait before a full queue is looked at again.
const SOON: Duration = Duration::from_millis(1);

pub(super) struct Outbox {
    pub(super) driver: NetDriver,
    merge: Merge,
    /// The pair of what is in the merge.
    merging: u16,
    /// What the stack writes a frame to.
    scratch: Vec<u8>,
    /// Frames that there was no room for in the device's queue: no more than one that was merged and the one that ended
    /// it, since the stack sends nothing meanwhile.
    behind: VecDeque<Behind>,
    traffic: Vec<Traffic>,
    unseen: u32,
    /// The stack has sent something since the last question.
    grown: bool,
    completes: bool,
    segments_v4: bool,
    segments_v6: bool,
}

struct Behind {
    pair: u16,
    header: Header,
    frame: Vec<u8>,
}

/// When to look at a full queue again.
pub(super) fn soon() -> Deadline {
    Deadline::after(SOON)
}

impl Outbox {
    pub(super) fn new(driver: NetDriver) -> Self {
        let features = driver.features();
        Self {
            merge: Merge::new(),
            merging: 0,
            scratch: Vec::new(),
            behind: VecDeque::new(),
            traffic: vec![Traffic::default(); usize::from(driver.pairs())],
            unseen: 0,
            grown: false,
            completes: features.contains(net::CSUM),
            segments_v4: features.contains(net::HOST_TSO4),
            segments_v6: features.contains(net::HOST_TSO6),
            driver,
        }
    }

    /// Whether the device has to send something before more can be taken.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Whether the stack has sent something since this was asked last.
    pub(super) fn grows(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    pub(super) fn sent(&self, pair: u16) -> Traffic {
        let traffic = self.traffic.get(usize::from(pair));
        traffic.copied().unwrap_or_default()
    }

    /// Has `f` write a frame of `len` bytes, and sends it.
    pub(super) fn write<R>(
        &mut self,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> (R, Result<(), NetError>) {
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        frame.resize(len, 0);
        let result = f(&mut frame);
        self.grown = true;
        let sent = self.send(&mut frame);
        self.scratch = frame;
        (result, sent)
    }

    /// Everything that can be seen by the device is.
    pub(super) fn flush(&mut self) -> Result<(), NetError> {
        self.close()?;
        while let Some(first) = self.behind.pop_front() {
            if !self
                .driver
                .push_with(first.pair, &first.header, &first.frame)?
            {
                self.behind.push_front(first);
                break;
            }
            self.count(first.pair, first.frame.len(), &first.header);
        }
        if self.unseen > 0 {
            self.publish()?;
        }
        Ok(())
    }

    fn send(&mut self, frame: &mut [u8]) -> Result<(), NetError> {
        let Some(transport) = Transport::find(frame) else {
            // Order matters within a flow only, and this is none.
            return self.push(0, Header::NONE, frame);
        };
        // Of 16 bits, by the number of pairs.
        let pair = (transport.flow(frame) % u32::from(self.driver.pairs().max(1))) as u16;
        if !self.completes {
            return self.push(pair, Header::NONE, frame);
        }
        let merges = transport.protocol == Protocol::Tcp
            && match transport.version {
                Version::V4 => self.segments_v4,
                Version::V6 => self.segments_v6,
            };
        let extended = merges && self.merge.extend(frame, &transport);
        if !extended {
            self.close()?;
        }
        if extended || (merges && self.merge.begin(frame, transport)) {
            self.merging = pair;
            return match self.merge.is_full() {
                true => self.close(),
                false => Ok(()),
            };
        }
        transport.begin_checksum(frame);
        let checksum = Checksum::Partial {
            // Behind Ethernet and IP headers: at most 74.
            start: transport.at as u16,
            offset: transport.checksum_offset(),
        };
        let segments = None;
        self.push(pair, Header { checksum, segments }, frame)
    }

    /// Sends what was merged.
    fn close(&mut self) -> Result<(), NetError> {
        if self.merge.is_empty() {
            return Ok(());
        }
        let mut merge = std::mem::take(&mut self.merge);
        let sent = match merge.close() {
            Some((header, frame)) => self.push(self.merging, header, frame),
            None => Ok(()),
        };
        self.merge = merge;
        sent
    }

    fn push(&mut self, pair: u16, header: Header, frame: &[u8]) -> Result<(), NetError> {
        if self.is_behind() || !self.driver.push_with(pair, &header, frame)? {
            // Perhaps the device was not told of what is in the queue.
            self.publish()?;
            let frame = frame.to_vec();
            self.behind.push_back(Behind {
                pair,
                header,
                frame,
            });
            return Ok(());
        }
        self.count(pair, frame.len(), &header);
        if self.unseen >= BATCH {
            self.publish()?;
        }
        Ok(())
    }

    fn count(&mut self, pair: u16, len: usize, header: &Header) {
        self.unseen = self.unseen.wrapping_add(1);
        if let Some(traffic) = self.traffic.get_mut(usize::from(pair)) {
            traffic.count(len, header);
        }
    }

    fn publish(&mut self) -> Result<(), NetError> {
        self.unseen = 0;
        (0..self.driver.pairs()).try_for_each(|pair| self.driver.publish(pair))
    }
}
