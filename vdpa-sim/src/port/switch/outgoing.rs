//! What a pair sends through a switch.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::lane::{Count, reader};
use super::table::{Id, Station};
use super::vlan::{self, Admitted, Membership, Rewrite, TAG_BYTES};
use super::{End, Inbox, Switch};
use crate::frames::{BATCH_FRAMES, FrameBatch};
use crate::offload::Header;
use crate::port::{EPOCHS, Room};
use crate::stats::Counters;

/// Empty batches.
type Spares = Vec<Box<FrameBatch>>;

/// How many empty batches a lane keeps.
const SPARES: usize = 4;

/// The sending half of a lane.
pub(super) struct Outgoing {
    switch: Arc<Switch>,
    own: Arc<End>,
    pair: u16,
    /// The version that `targets` is of.
    seen: u64,
    /// Who is on the switch, by place.
    targets: Vec<Target>,
    /// Places of targets that were looked up for the batch under way.
    touched: Vec<usize>,
    /// The epochs of all devices that were there when there was room are below this one.
    epoch: u64,
    spares: Spares,
    longest: usize,
    counters: Arc<Counters>,
}

/// Somebody on the switch, as a lane sees it.
struct Target {
    /// Weak: this lane may not be served for long, and a device that is gone keeps nothing open.
    end: Weak<End>,
    id: Id,
    membership: Membership,
    stage: Stage,
}

/// How far a target is with the batch under way.
enum Stage {
    /// Nothing was for it yet.
    Unknown,
    /// It is not there.
    Absent,
    /// It is there, and these are its frames.
    There {
        end: Arc<End>,
        epoch: u64,
        batch: Option<Box<FrameBatch>>,
    },
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Nowhere,
    /// To the device at this place.
    To(usize, Rewrite),
    All(Admitted),
}

impl Outgoing {
    pub(super) fn new(switch: &Arc<Switch>, own: &Arc<End>, pair: u16, longest: usize) -> Self {
        Self {
            switch: Arc::clone(switch),
            pair,
            seen: 0,
            targets: Vec::new(),
            touched: Vec::new(),
            epoch: 0,
            spares: Vec::with_capacity(SPARES),
            // What comes without a tag may go out with one.
            longest: longest.saturating_add(TAG_BYTES),
            counters: own.tally.row(pair),
            own: Arc::clone(own),
        }
    }

    /// Whether somebody else is on the switch.
    #[inline]
    pub(super) fn room(&mut self) -> Room {
        self.refresh();
        // Before what is sent is looked at: it is for the devices of this moment. One that is reset from here on has this
        // epoch or a later one; one of which the old epoch is still seen discards what carries it.
        self.epoch = EPOCHS.load(Ordering::Acquire);
        let own = usize::from(self.own.id.slot);
        let others = self.targets.iter().enumerate();
        let mut others = others.filter(|(place, target)| *place != own && target.id.turn != 0);
        if others.next().is_some() {
            Room::Yes
        } else {
            Room::Nowhere
        }
    }

    /// Sends a batch, and returns an empty one in its place.
    pub(super) fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch> {
        let mut ways = [Way::Nowhere; BATCH_FRAMES];
        self.plan(&batch, &mut ways);
        let ways = ways.get(..batch.len()).unwrap_or_default();
        let empty = if let Some((end, epoch)) = self.only(ways) {
            let empty = blank(inbox(&end, self.pair), &mut self.spares, self.longest);
            self.deliver(&end, epoch, batch);
            empty
        } else {
            self.spread(&batch, ways);
            let mut batch = batch;
            batch.clear();
            batch
        };
        while let Some(place) = self.touched.pop() {
            self.pass(place);
            if let Some(target) = self.targets.get_mut(place) {
                target.stage = Stage::Unknown;
            }
        }
        empty
    }

    fn count(&self, what: Count, more: usize) {
        self.counters.add(what as usize, more as u64);
    }

    /// Looks who is on the switch, if that has changed.
    #[inline]
    fn refresh(&mut self) {
        // Acquire pairs with the release in `Switch::change`.
        let version = self.switch.version.load(Ordering::Acquire);
        if version != self.seen {
            self.list(version);
        }
    }

    #[cold]
    fn list(&mut self, version: u64) {
        let ends = crate::shared::lock(&self.switch.ends);
        self.seen = version;
        self.targets.clear();
        self.targets.extend(ends.slots.iter().map(|end| {
            // A place that nobody has is one of a device that is not there.
            let end = end.as_ref();
            Target {
                end: end.map(Arc::downgrade).unwrap_or_default(),
                id: end.map_or(Id { slot: 0, turn: 0 }, |end| end.id),
                membership: end.map_or(Membership::Trunk, |end| end.membership),
                stage: Stage::Unknown,
            }
        }));
        self.touched.clear();
        self.touched.reserve(self.targets.len());
    }

    /// Whether the target at `place` is there for the batch under way; looked up once a batch.
    #[inline]
    fn reaches(&mut self, place: usize) -> bool {
        let own = usize::from(self.own.id.slot);
        let Some(target) = self.targets.get_mut(place).filter(|_| place != own) else {
            return false;
        };
        if matches!(target.stage, Stage::Unknown) {
            self.touched.push(place);
            target.stage = target.end.upgrade().map_or(Stage::Absent, |end| {
                // Before `is_there`: what is sent to a device that was reset meanwhile does not arrive.
                let epoch = end.presence.epoch();
                if epoch < self.epoch && end.presence.is_there() {
                    Stage::There {
                        end,
                        epoch,
                        batch: None,
                    }
                } else {
                    Stage::Absent
                }
            });
        }
        matches!(target.stage, Stage::There { .. })
    }

    /// Where a frame goes that was let in.
    #[inline]
    fn way(&mut self, admitted: Admitted, now: u32) -> Way {
        let Some(to) = admitted.to else {
            return Way::All(admitted);
        };
        let Some(id) = self.switch.table.look_up(to, now) else {
            self.count(Count::Flooded, 1);
            return Way::All(admitted);
        };
        if id == self.own.id {
            self.count(Count::Back, 1);
            return Way::Nowhere;
        }
        let place = usize::from(id.slot);
        let target = self.targets.get(place).filter(|target| target.id == id);
        match target.and_then(|target| admitted.leaves(target.membership)) {
            Some(rewrite) if self.reaches(place) => Way::To(place, rewrite),
            // It was there and is not any more: somebody else may know.
            _ => {
                self.count(Count::Flooded, 1);
                Way::All(admitted)
            }
        }
    }

    /// Learns where the frames of a batch come from, and decides where they go.
    fn plan(&mut self, batch: &FrameBatch, ways: &mut [Way; BATCH_FRAMES]) {
        let now = self.switch.now();
        let mut news = [Station::default(); BATCH_FRAMES];
        let mut learnt = 0_usize;
        let mut last = Station::default();
        for ((_, frame), way) in batch.packets().zip(ways.iter_mut()) {
            let admitted = match vlan::admit(frame, self.own.membership) {
                Ok(admitted) => admitted,
                Err(why) => {
                    self.count(why.into(), 1);
                    continue;
                }
            };
            if admitted.from != last {
                last = admitted.from;
                if self.switch.table.is_news(last, self.own.id, now)
                    && let Some(place) = news.get_mut(learnt)
                {
                    *place = last;
                    learnt = learnt.saturating_add(1);
                }
            }
            *way = self.way(admitted, now);
        }
        if let Some(news) = news.get(..learnt).filter(|news| !news.is_empty()) {
            self.switch.table.learn(news, self.own.id, now);
        }
    }

    /// Copies a frame to a target that is there. What does not fit goes on first.
    fn stage(&mut self, place: usize, header: Header, frame: &[u8], rewrite: Rewrite) {
        // Once into what there is, once into an empty batch.
        for _ in 0..2 {
            let Some(Target {
                stage: Stage::There { end, batch, .. },
                ..
            }) = self.targets.get_mut(place)
            else {
                return;
            };
            let mut filled = match batch.take() {
                Some(batch) => batch,
                None => blank(inbox(end, self.pair), &mut self.spares, self.longest),
            };
            let copied = vlan::copy(header, frame, rewrite, &mut filled);
            *batch = Some(filled);
            if copied {
                return;
            }
            self.pass(place);
        }
    }

    /// Sends on what was staged for a target.
    fn pass(&mut self, place: usize) {
        let Some(Target {
            stage: Stage::There { end, epoch, batch },
            ..
        }) = self.targets.get_mut(place)
        else {
            return;
        };
        let Some(batch) = batch.take().filter(|batch| !batch.is_empty()) else {
            return;
        };
        let (end, epoch) = (Arc::clone(end), *epoch);
        self.deliver(&end, epoch, batch);
    }

    /// Puts a batch into the queue of a device's pair, or drops it.
    fn deliver(&mut self, end: &End, epoch: u64, mut batch: Box<FrameBatch>) {
        batch.epoch = epoch;
        let active = end.presence.active();
        let number = reader(self.pair, active);
        let pushed = match end.inboxes.get(usize::from(number)) {
            Some(inbox) => inbox.full.push(batch),
            None => Err(batch),
        };
        if let Err(mut batch) = pushed {
            self.count(Count::Full, batch.len());
            batch.clear();
            self.keep(batch);
            return;
        }
        end.presence.ring(number);
        // The bell has a full fence: either we see that another pair reads this inbox by now, or that pair, which was
        // rung after the change, sees the batch.
        let now = end.presence.active();
        if now != active {
            end.presence.ring(reader(number, now));
        }
    }

    fn keep(&mut self, batch: Box<FrameBatch>) {
        if self.spares.len() < SPARES {
            self.spares.push(batch);
        }
    }

    /// The only target of all frames of a batch, if it has them as they are.
    fn only(&self, ways: &[Way]) -> Option<(Arc<End>, u64)> {
        let first = *ways.first()?;
        let Way::To(place, Rewrite::Keep) = first else {
            return None;
        };
        match &self.targets.get(place)?.stage {
            Stage::There { end, epoch, .. } if ways.iter().all(|way| *way == first) => {
                Some((Arc::clone(end), *epoch))
            }
            _ => None,
        }
    }

    /// Copies frames to whom they are for.
    fn spread(&mut self, batch: &FrameBatch, ways: &[Way]) {
        for ((header, frame), way) in batch.packets().zip(ways) {
            match *way {
                Way::Nowhere => {}
                Way::To(place, rewrite) => self.stage(place, header, frame, rewrite),
                Way::All(admitted) => {
                    let mut reached = false;
                    for place in 0..self.targets.len() {
                        let at = self.targets.get(place).map(|target| target.membership);
                        if let Some(rewrite) = at.and_then(|at| admitted.leaves(at))
                            && self.reaches(place)
                        {
                            reached = true;
                            self.stage(place, header, frame, rewrite);
                        }
                    }
                    if !reached {
                        self.count(Count::Nobody, 1);
                    }
                }
            }
        }
    }
}

/// The inbox into which pair `pair` sends.
fn inbox(end: &End, pair: u16) -> Option<&Inbox> {
    let number = reader(pair, end.presence.active());
    end.inboxes.get(usize::from(number))
}

/// An empty batch with room for a frame of `longest` bytes: one that came back, or else one that is made. In the steady
/// state there are as many as are under way.
fn blank(inbox: Option<&Inbox>, spares: &mut Spares, longest: usize) -> Box<FrameBatch> {
    spares
        .pop()
        .or_else(|| inbox.and_then(|inbox| inbox.empty.pop()))
        // Of a device with shorter frames.
        .filter(|batch| batch.holds(longest))
        .unwrap_or_else(|| FrameBatch::new(longest))
}
