//! What copies what passes a lane.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{Record, Tape};
use crate::frames::FrameBatch;
use crate::offload::Header;
use crate::pcap::Timestamp;
use crate::port::{Lane, Room};
use crate::shared::lock;

/// A lane of which all that passes is recorded.
pub(super) struct MirrorLane {
    lane: Box<dyn Lane>,
    recorder: Recorder,
}

impl MirrorLane {
    /// What passes `lane` goes to `tape`. `longest`: bytes of the longest frame.
    pub(super) fn new(lane: Box<dyn Lane>, tape: &Arc<Tape>, longest: usize) -> Self {
        Self {
            lane,
            recorder: Recorder {
                tape: Arc::clone(tape),
                backlog: VecDeque::new(),
                longest,
            },
        }
    }
}

impl Lane for MirrorLane {
    fn room(&mut self) -> Room {
        if self.recorder.flush() {
            self.lane.room()
        } else {
            Room::Full
        }
    }

    fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch> {
        self.recorder.record(batch.packets());
        self.lane.send(batch)
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        let Self { lane, recorder } = self;
        if !recorder.flush() {
            return false;
        }
        lane.receive(&mut |frames| {
            let before = frames.taken();
            frames.watch(true);
            take(frames);
            frames.watch(false);
            recorder.record(frames.taken_since(before));
        })
    }

    fn held(&mut self, to: &mut dyn FnMut(&FrameBatch)) {
        self.lane.held(to);
    }

    fn discard(&mut self) -> u64 {
        self.lane.discard()
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        self.lane.sources()
    }
}

/// The copier of a lane.
struct Recorder {
    tape: Arc<Tape>,
    /// What the writer had no room for.
    backlog: VecDeque<Record>,
    longest: usize,
}

impl Recorder {
    /// Gives the writer what waits. `false`: not all of it; the device is rung when there is room.
    fn flush(&mut self) -> bool {
        while let Some(record) = self.backlog.pop_front() {
            if let Err(record) = self.offer(record) {
                self.backlog.push_front(record);
                return false;
            }
        }
        true
    }

    fn offer(&self, record: Record) -> Result<(), Record> {
        let reel = &self.tape.reel;
        let mut record = record;
        for last in [false, true] {
            match reel.records.push(record) {
                Ok(()) => {
                    reel.bell.ring();
                    return Ok(());
                }
                Err(back) if last => return Err(back),
                Err(back) => record = back,
            }
            reel.blocked.store(true, Ordering::Relaxed);
            // Between "I wait" and the second try; pairs with the fence in `Writer::drain`.
            fence(Ordering::SeqCst);
        }
        Err(record)
    }

    /// Copies packets that pass now.
    fn record<'a>(&mut self, packets: impl Iterator<Item = (Header, &'a [u8])>) {
        let mut time = None;
        let mut filling: Option<Box<FrameBatch>> = None;
        for (header, frame) in packets {
            let time = *time.get_or_insert_with(Timestamp::now);
            let longest = self.longest.max(frame.len());
            let mut batch = filling.take().unwrap_or_else(|| self.blank(longest));
            if !batch.push_packet(header, frame) {
                self.backlog.push_back(Record { time, batch });
                batch = self.blank(longest);
                // There is room for the longest.
                let _fits = batch.push_packet(header, frame);
            }
            filling = Some(batch);
        }
        if let (Some(batch), Some(time)) = (filling, time) {
            self.backlog.push_back(Record { time, batch });
            self.flush();
        }
    }

    /// An empty batch: one that came back, or else one that is made. In the steady state there are as many as wait.
    fn blank(&self, longest: usize) -> Box<FrameBatch> {
        let empty = self.tape.reel.empty.pop();
        empty
            .filter(|batch| batch.holds(longest))
            .unwrap_or_else(|| FrameBatch::new(longest))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The device is closed: there is nobody to hold back, and a worker of other devices is not to wait here.
        if !self.flush() {
            lock(&self.tape.reel.rest).append(&mut self.backlog);
        }
    }
}
