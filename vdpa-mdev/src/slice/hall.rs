//! Who is at an uplink, and what is on its way to whom.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vdpa_sim::frames::FrameBatch;
use vdpa_sim::offload::Header;
use vdpa_sim::port::Membership;
use vdpa_sim::port::vlan::{self, Rewrite};

use super::LIMITS;
use super::end::{CAME, Count, End, Inbox, Parcel, reader};
use super::tags::Passage;
use super::uplink::{Core, Stray};

/// Who sends what comes from the wire: no slice has this number.
pub(super) const WIRE: u32 = u32::MAX;

/// How many queue pairs those slices have at most that have left, and whose last frames wait for the wire: as many as there
/// can be in use. So what waits is bounded while the wire takes nothing, however many come and go.
const LEAVING: usize = *LIMITS.end() as usize;

/// A slice at the uplink, or one that has left and whose last frames are not sent yet.
pub(super) struct Member {
    pub(super) end: Arc<End>,
    /// It has left: nothing is passed to it.
    pub(super) left: bool,
    /// Bytes that it may send in this round; below 0 where it sent more than its share.
    pub(super) credit: i64,
    /// Whether it was given its share of this round.
    pub(super) granted: bool,
    /// The pair whose turn it is.
    pub(super) pair: usize,
    /// By pair: a batch that was begun with.
    pub(super) open: Box<[Option<Open>]>,
    /// By pair: what is on its way to it.
    coming: Box<[Coming]>,
}

/// What is on its way to a pair of a slice.
#[derive(Default)]
struct Coming {
    /// Frames that are not passed yet, by who sent them.
    staged: VecDeque<Staged>,
    /// Who sent the parcels that wait in the inbox, in their order; perhaps of some that do not any more, before these.
    waiting: VecDeque<u32>,
}

/// Frames of one sender that are not passed yet.
struct Staged {
    from: u32,
    parcel: Parcel,
}

impl Coming {
    /// Passes a parcel on. One that has to wait comes back.
    ///
    /// A sender has no more parcels in an inbox than there is room left for others: one that floods it fills half of it,
    /// and two fill two thirds. So who sends little finds room, whoever else sends how much.
    fn pass(&mut self, came: &Inbox, Staged { from, parcel }: Staged) -> Result<(), Staged> {
        for asked in [false, true] {
            let there = came.len();
            while self.waiting.len() > there {
                self.waiting.pop_front();
            }
            let own = self.waiting.iter().filter(|other| **other == from).count();
            if own < CAME.saturating_sub(there) {
                return match came.put(parcel) {
                    Ok(()) => {
                        self.waiting.push_back(from);
                        Ok(())
                    }
                    // A change of pairs filled it just now.
                    Err(parcel) => Err(Staged { from, parcel }),
                };
            }
            if !asked {
                came.ask();
            }
        }
        Err(Staged { from, parcel })
    }
}

/// A batch that a slice sent, of which something is left.
pub(super) struct Open {
    pub(super) batch: Box<FrameBatch>,
    /// How many segments of the first packet were sent.
    pub(super) cut: u32,
}

impl Member {
    fn new(end: Arc<End>) -> Self {
        let pairs = || 0..end.pairs();
        Self {
            left: false,
            credit: 0,
            granted: false,
            pair: 0,
            open: pairs().map(|_| None).collect(),
            coming: pairs().map(|_| Coming::default()).collect(),
            end,
        }
    }

    /// Drops what it sent and nobody took.
    fn abandon(&mut self) {
        let mut lost = 0_u64;
        let ways = self.open.iter_mut().zip(&self.end.ways);
        for ((open, way), number) in ways.zip(0_u16..) {
            let begun = open.take().map(|open| open.batch);
            let waiting = std::iter::from_fn(|| way.sent.take(&self.end.presence, number));
            let lens = begun.into_iter().chain(waiting).map(|batch| batch.len());
            lost = lens.fold(lost, |lost, len| lost.saturating_add(len as u64));
        }
        self.end.count(Count::Unsent, lost);
    }

    /// Drops what these sent to it, and what there is no room for now: nobody is left who would wait for that.
    fn forget(&mut self, gone: &[u32]) {
        let pairs = self.coming.iter_mut().zip(&self.end.ways);
        for ((coming, way), number) in pairs.zip(0_u16..) {
            for _ in 0..coming.staged.len() {
                let Some(own) = coming.staged.pop_front() else {
                    break;
                };
                if !gone.contains(&own.from) {
                    coming.staged.push_back(own);
                    continue;
                }
                match coming.pass(&way.came, own) {
                    Ok(()) => ring(&self.end, number),
                    Err(own) => {
                        let lost = own.parcel.batch.len() as u64;
                        self.end.count(Count::Full, lost);
                        way.came.give_back(own.parcel.batch);
                    }
                }
            }
        }
    }

    /// Whether nothing that it sent waits.
    fn is_quiet(&self) -> bool {
        self.open.iter().all(Option::is_none) && self.end.ways.iter().all(|way| way.sent.is_empty())
    }
}

/// An address and whose it is.
struct Known {
    mac: [u8; 6],
    member: usize,
    place: Membership,
}

/// The slices, as the worker sees them.
pub(super) struct Hall {
    core: Arc<Core>,
    /// The version of the roster that this is of.
    seen: u64,
    pub(super) members: Vec<Member>,
    /// In the order of addresses.
    known: Vec<Known>,
    /// Bytes of the longest packet that there can be.
    longest: usize,
}

impl Hall {
    pub(super) fn new(core: Arc<Core>, longest: usize) -> Self {
        Self {
            core,
            seen: 0,
            members: Vec::new(),
            known: Vec::new(),
            longest,
        }
    }

    /// Looks who is there, if that has changed.
    #[inline]
    pub(super) fn refresh(&mut self) {
        // Acquire pairs with the release in `Core::change`.
        let version = self.core.version.load(Ordering::Acquire);
        if version != self.seen {
            self.seen = version;
            self.list();
        }
    }

    #[cold]
    fn list(&mut self) {
        let ends = self.core.ends();
        for member in &mut self.members {
            member.left = !ends.iter().any(|end| Arc::ptr_eq(end, &member.end));
        }
        for end in ends {
            if !self
                .members
                .iter()
                .any(|member| Arc::ptr_eq(&end, &member.end))
            {
                self.members.push(Member::new(end));
            }
        }
        self.index();
    }

    fn index(&mut self) {
        self.known.clear();
        let there = self.members.iter().enumerate();
        let there = there.filter(|(_, member)| !member.left);
        self.known.extend(there.map(|(place, member)| Known {
            mac: member.end.mac().octets(),
            member: place,
            place: member.end.place,
        }));
        self.known.sort_unstable_by_key(|known| known.mac);
    }

    /// Forgets those that have left and whose frames are sent, and the oldest of those whose frames are not, where they
    /// are too many.
    pub(super) fn tidy(&mut self) {
        if !self.members.iter().any(|member| member.left) {
            return;
        }
        let (mut gone, mut pairs) = (Vec::new(), 0_usize);
        for member in self.members.iter_mut().rev().filter(|member| member.left) {
            let quiet = member.is_quiet();
            if !quiet {
                pairs = pairs.saturating_add(member.open.len());
            }
            if quiet || pairs > LEAVING {
                member.abandon();
                gone.push(member.end.number);
            }
        }
        if gone.is_empty() {
            return;
        }
        self.members
            .retain(|member| !gone.contains(&member.end.number));
        for member in &mut self.members {
            member.forget(&gone);
        }
        self.index();
    }

    /// Counts for the slice at `place`.
    #[inline]
    pub(super) fn count(&self, place: usize, what: Count, more: u64) {
        if let Some(member) = self.members.get(place) {
            member.end.count(what, more);
        }
    }

    /// The slice with this address that may have a frame, and what is done to its tag.
    #[inline]
    pub(super) fn find(&self, mac: [u8; 6], passage: Passage) -> Option<(usize, Rewrite)> {
        let first = self.known.partition_point(|known| known.mac < mac);
        let same = self.known.get(first..)?.iter();
        let mut same = same.take_while(|known| known.mac == mac);
        // No two that meet have one address: the first one that may have it is the only one.
        same.find_map(|known| Some((known.member, passage.leaves(known.place)?)))
    }

    /// Copies a frame for everybody of its VLAN but who sent it. Answers with how many copies were made.
    ///
    /// * `pair`: which of the sender's
    pub(super) fn spread(
        &mut self,
        from: u32,
        pair: u16,
        header: Header,
        frame: &[u8],
        passage: Passage,
    ) -> u64 {
        let mut copies = 0_u64;
        for place in 0..self.members.len() {
            let member = self.members.get(place).filter(|member| !member.left);
            let end = member.map(|member| &member.end);
            if let Some(end) = end.filter(|end| end.number != from)
                && let Some(rewrite) = passage.leaves(end.place)
                && self.stage(place, from, pair, header, frame, rewrite)
            {
                copies = copies.saturating_add(1);
            }
        }
        copies
    }

    /// Copies a frame for one slice. Answers whether that was there; it counts what it had no room for.
    ///
    /// * `from`, `pair`: who sent it
    pub(super) fn stage(
        &mut self,
        place: usize,
        from: u32,
        pair: u16,
        header: Header,
        frame: &[u8],
        rewrite: Rewrite,
    ) -> bool {
        let longest = self.longest;
        let Some(member) = self.members.get_mut(place) else {
            return false;
        };
        let end = &member.end;
        // Before `is_there`: what is sent to a device that was reset meanwhile does not arrive.
        let epoch = end.presence.epoch();
        if !end.presence.is_there() {
            end.count(Count::Absent, 1);
            return false;
        }
        let number = reader(pair, end.presence.active());
        let place = usize::from(number);
        let (Some(coming), Some(way)) = (member.coming.get_mut(place), end.ways.get(place)) else {
            return false;
        };
        let known = coming.staged.iter().position(|staged| staged.from == from);
        let mut staged = known.and_then(|known| coming.staged.swap_remove_back(known));
        // Once into what there is, once into an empty batch.
        for _ in 0..2 {
            let mut own = staged.take().unwrap_or_else(|| {
                let spare = way.came.spare();
                let batch = spare.unwrap_or_else(|| FrameBatch::new(longest));
                let parcel = Parcel { epoch, batch };
                Staged { from, parcel }
            });
            if own.parcel.epoch != epoch {
                own.parcel.batch.clear();
                own.parcel.epoch = epoch;
            }
            if vlan::copy(header, frame, rewrite, &mut own.parcel.batch) {
                end.count(Count::Received, 1);
                coming.staged.push_back(own);
                return true;
            }
            if let Err(own) = coming.pass(&way.came, own) {
                coming.staged.push_back(own);
                break;
            }
            ring(end, number);
        }
        end.count(Count::Full, 1);
        // It was there, and cost what it costs.
        true
    }

    /// Passes what was copied to whom it is for. What has to wait stays, until there is room.
    pub(super) fn flush(&mut self) {
        for member in &mut self.members {
            let pairs = member.coming.iter_mut().zip(&member.end.ways);
            for ((coming, way), number) in pairs.zip(0_u16..) {
                for _ in 0..coming.staged.len() {
                    // Each of them once: what has to wait goes behind the others.
                    let Some(own) = coming.staged.pop_front() else {
                        break;
                    };
                    match coming.pass(&way.came, own) {
                        Ok(()) => ring(&member.end, number),
                        Err(own) => coming.staged.push_back(own),
                    }
                }
            }
        }
    }

    /// A frame from the wire.
    pub(super) fn arrive(&mut self, frame: &[u8]) {
        let passage = match Passage::of(frame, Membership::Trunk) {
            Ok(passage) => passage,
            Err(_) => return self.core.count(Stray::Refused),
        };
        let Some((to, from)) = addresses(frame) else {
            return self.core.count(Stray::Refused);
        };
        // What a slice sent, and the wire gives back: nobody else is to have it, for those that are here had it already,
        // and to the sender it is what it would be if it had the wire to itself.
        if let Some((place, rewrite)) = self.find(from, passage) {
            self.core.count(Stray::Reflected);
            self.stage(place, WIRE, 0, Header::NONE, frame, rewrite);
        } else if passage.is_for_a_group() {
            self.spread(WIRE, 0, Header::NONE, frame, passage);
        } else if let Some((place, rewrite)) = self.find(to, passage) {
            self.stage(place, WIRE, 0, Header::NONE, frame, rewrite);
        } else {
            self.core.count(Stray::Unknown);
        }
    }
}

/// Destination and source.
#[inline]
pub(super) fn addresses(frame: &[u8]) -> Option<([u8; 6], [u8; 6])> {
    let to = frame.first_chunk()?;
    let from = frame.get(6..)?.first_chunk()?;
    Some((*to, *from))
}

/// Has the pair that reads this inbox look.
fn ring(end: &End, number: u16) {
    let active = end.presence.active();
    end.presence.ring(reader(number, active));
    // The bell has a full fence: either we see that another pair reads this inbox by now, or that pair, which was rung
    // after the change, sees the parcel.
    let now = end.presence.active();
    if now != active {
        end.presence.ring(reader(number, now));
    }
}

#[cfg(test)]
mod tests;
