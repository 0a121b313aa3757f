//! The port of a slice: its end of the uplink.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vdpa_core::Bell;
use vdpa_sim::frames::FrameBatch;
use vdpa_sim::port::{Lane, Port, Room};

use super::end::{CAME, COUNTERS, End, Parcel, reader};
use super::uplink::Uplink;

/// What a slice sends to, and receives from. The place at the uplink is free once it is dropped.
pub(super) struct SlicePort {
    pub(super) uplink: Arc<Uplink>,
    pub(super) end: Arc<End>,
    /// Bytes of the longest packet that the slice sends.
    pub(super) longest: usize,
}

impl Drop for SlicePort {
    fn drop(&mut self) {
        self.uplink.leave(&self.end);
    }
}

impl Port for SlicePort {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        Box::new(SliceLane {
            end: Arc::clone(&self.end),
            bell: Arc::clone(self.uplink.bell()),
            pair,
            open: VecDeque::with_capacity(1),
            longest: self.longest,
        })
    }

    fn changed(&self) {
        // The management side, or the end of a suspend, may have put a link up whose carrier was lost meanwhile.
        let presence = &self.end.presence;
        if presence.has_link() && !self.uplink.has_carrier() {
            presence.set_carrier(false);
        }
        // What waits may be another pair's to take now, and may be for nobody.
        presence.ring_all();
        self.uplink.bell().ring();
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        for (place, name) in COUNTERS.iter().enumerate() {
            to(&format!("port.{name}"), self.end.counters.value(place));
        }
        to("port.dropped.moved", self.end.moved.load(Ordering::Relaxed));
        self.uplink.stats(to);
    }
}

/// The way of a pair.
struct SliceLane {
    end: Arc<End>,
    bell: Arc<Bell>,
    pair: u16,
    /// Parcels that were begun with, with the inbox that each came from; behind it what came before a suspend.
    open: VecDeque<(usize, Parcel)>,
    longest: usize,
}

/// What to go on with after a parcel.
enum Go {
    /// The next one of the inbox.
    On,
    /// The next inbox.
    Next,
    Stop,
}

impl SliceLane {
    /// What has come, parcel by parcel: what was left first.
    fn each(&mut self, mut with: impl FnMut(&mut FrameBatch) -> Go) {
        let end = Arc::clone(&self.end);
        let (pair, active) = (self.pair, end.presence.active());
        if pair >= active {
            return self.hand_over(active);
        }
        let epoch = end.presence.epoch();
        let ways = end.ways.iter().enumerate();
        for (number, way) in ways.skip(pair.into()).step_by(active.into()) {
            // No more than what was there at first: for what comes meanwhile it is rung again.
            for _ in 0..=CAME {
                let next = self.open.pop_front();
                let next = next.or_else(|| way.came.take(&self.bell).map(|come| (number, come)));
                let Some((from, mut parcel)) = next else {
                    break;
                };
                let go = if parcel.epoch == epoch {
                    with(&mut parcel.batch)
                } else {
                    parcel.batch.clear();
                    Go::On
                };
                if !parcel.batch.is_empty() {
                    self.open.push_front((from, parcel));
                } else if let Some(way) = end.ways.get(from) {
                    way.came.give_back(parcel.batch);
                }
                match go {
                    Go::On => {}
                    Go::Next => break,
                    Go::Stop => return,
                }
            }
        }
    }

    /// This pair does not receive any more: what it began with is for the one that does.
    fn hand_over(&mut self, active: u16) {
        if self.open.is_empty() {
            return;
        }
        let number = reader(self.pair, active);
        while let Some((_, parcel)) = self.open.pop_front() {
            if let Some(way) = self.end.ways.get(usize::from(number)) {
                let lost = way.came.hand_over(parcel) as u64;
                self.end.moved.fetch_add(lost, Ordering::Relaxed);
            }
        }
        self.end.presence.ring(number);
    }

    fn outbox(&self) -> Option<&super::end::Outbox> {
        self.end
            .ways
            .get(usize::from(self.pair))
            .map(|way| &way.sent)
    }
}

impl Lane for SliceLane {
    fn room(&mut self) -> Room {
        match self.outbox() {
            Some(sent) if sent.has_room() => Room::Yes,
            Some(_) => Room::Full,
            None => Room::Nowhere,
        }
    }

    fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch> {
        let Some(sent) = self.outbox() else {
            return batch;
        };
        match sent.put(batch) {
            Ok(()) => {
                self.bell.ring();
                // Made on demand: in the steady state there are as many as are under way.
                sent.spare()
                    .unwrap_or_else(|| FrameBatch::new(self.longest))
            }
            // `room` was not asked.
            Err(mut batch) => {
                batch.clear();
                batch
            }
        }
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        self.each(|batch| {
            take(batch);
            if batch.is_empty() {
                Go::Next
            } else {
                // There are no more buffers.
                Go::Stop
            }
        });
        false
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn held(&mut self, to: &mut dyn FnMut(&FrameBatch)) {
        let (pair, active) = (self.pair, self.end.presence.active());
        if pair < active {
            let ways = self.end.ways.iter().enumerate();
            for (number, way) in ways.skip(pair.into()).step_by(active.into()) {
                // However often the device is suspended, no more than waits for it otherwise.
                while self.open.len() <= CAME
                    && let Some(parcel) = way.came.take(&self.bell)
                {
                    self.open.push_back((number, parcel));
                }
            }
        }
        let epoch = self.end.presence.epoch();
        for (_, parcel) in self.open.iter().filter(|(_, come)| come.epoch == epoch) {
            to(&parcel.batch);
        }
    }

    fn discard(&mut self) -> u64 {
        let mut frames = 0_u64;
        self.each(|batch| {
            frames = frames.saturating_add(batch.len() as u64);
            batch.clear();
            Go::On
        });
        frames
    }
}
