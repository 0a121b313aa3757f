//! Who is at an uplink, and what is on its way to whom.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vdpa_sim::frames::FrameBatch;
use vdpa_sim::offload::Header;
use vdpa_sim::port::Membership;
use vdpa_sim::port::vlan::{self, Admitted, Rewrite};

use super::end::{Count, End, Parcel, reader};
use super::uplink::{Core, Stray};

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
    /// By pair: frames for it that are not passed yet.
    staged: Box<[Option<Parcel>]>,
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
            staged: pairs().map(|_| None).collect(),
            end,
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

    /// Forgets those that have left and whose frames are sent.
    pub(super) fn tidy(&mut self) {
        let gone = |member: &Member| member.left && member.is_quiet();
        if self.members.iter().any(gone) {
            self.members.retain(|member| !gone(member));
            self.index();
        }
    }

    /// The slice with this address that may have a frame, and what is done to its tag.
    #[inline]
    pub(super) fn find(&self, mac: [u8; 6], admitted: Admitted) -> Option<(usize, Rewrite)> {
        let first = self.known.partition_point(|known| known.mac < mac);
        let same = self.known.get(first..)?.iter();
        let mut same = same.take_while(|known| known.mac == mac);
        // No two that meet have one address: the first one that may have it is the only one.
        same.find_map(|known| Some((known.member, admitted.leaves(known.place)?)))
    }

    /// Copies a frame for everybody of its VLAN but `from`. Answers with how many copies were made.
    ///
    /// * `pair`: which one sent it
    pub(super) fn spread(
        &mut self,
        from: Option<usize>,
        pair: u16,
        header: Header,
        frame: &[u8],
        admitted: Admitted,
    ) -> u64 {
        let mut copies = 0_u64;
        for place in 0..self.members.len() {
            let member = self.members.get(place).filter(|member| !member.left);
            let at = member.map(|member| member.end.place);
            if from != Some(place)
                && let Some(rewrite) = at.and_then(|at| admitted.leaves(at))
                && self.stage(place, pair, header, frame, rewrite)
            {
                copies = copies.saturating_add(1);
            }
        }
        copies
    }

    /// Copies a frame for one slice. Answers whether that was there; it counts what it had no room for.
    pub(super) fn stage(
        &mut self,
        place: usize,
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
        let number = usize::from(reader(pair, end.presence.active()));
        let (Some(staged), Some(way)) = (member.staged.get_mut(number), end.ways.get(number))
        else {
            return false;
        };
        // Once into what there is, once into an empty batch.
        for _ in 0..2 {
            let mut parcel = match staged.take() {
                Some(parcel) if parcel.epoch == epoch => parcel,
                Some(Parcel { mut batch, .. }) => {
                    batch.clear();
                    Parcel { epoch, batch }
                }
                None => Parcel {
                    epoch,
                    batch: way.came.spare().unwrap_or_else(|| FrameBatch::new(longest)),
                },
            };
            let copied = vlan::copy(header, frame, rewrite, &mut parcel.batch);
            if copied {
                end.count(Count::Received, 1);
                *staged = Some(parcel);
                return true;
            }
            if !pass(end, number, staged, parcel) {
                break;
            }
        }
        end.count(Count::Full, 1);
        // It was there, and cost what it costs.
        true
    }

    /// Passes what was copied to whom it is for. What there is no room for stays, until there is.
    pub(super) fn flush(&mut self) {
        for member in &mut self.members {
            for (number, staged) in member.staged.iter_mut().enumerate() {
                if let Some(parcel) = staged.take() {
                    pass(&member.end, number, staged, parcel);
                }
            }
        }
    }

    /// A frame from the wire.
    pub(super) fn arrive(&mut self, frame: &[u8]) {
        let admitted = match vlan::admit(frame, Membership::Trunk) {
            Ok(admitted) => admitted,
            Err(_) => return self.core.count(Stray::Refused),
        };
        let Some((to, from)) = addresses(frame) else {
            return self.core.count(Stray::Refused);
        };
        // What a slice sent, and the wire gives back: nobody else is to have it, for those that are here had it already,
        // and to the sender it is what it would be if it had the wire to itself.
        if let Some((place, rewrite)) = self.find(from, admitted) {
            self.core.count(Stray::Reflected);
            self.stage(place, 0, Header::NONE, frame, rewrite);
        } else if admitted.to.is_none() {
            self.spread(None, 0, Header::NONE, frame, admitted);
        } else if let Some((place, rewrite)) = self.find(to, admitted) {
            self.stage(place, 0, Header::NONE, frame, rewrite);
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

/// Gives a parcel to the pair. Answers whether it had room; without, the parcel stays.
fn pass(end: &End, number: usize, staged: &mut Option<Parcel>, parcel: Parcel) -> bool {
    let Some(way) = end.ways.get(number) else {
        return false;
    };
    if parcel.batch.is_empty() {
        way.came.give_back(parcel.batch);
        return true;
    }
    if let Err(parcel) = way.came.put(parcel) {
        *staged = Some(parcel);
        return false;
    }
    // Pairs are counted in 16 bits.
    let number = number as u16;
    let active = end.presence.active();
    end.presence.ring(reader(number, active));
    // The bell has a full fence: either we see that another pair reads this inbox by now, or that pair, which was rung
    // after the change, sees the parcel.
    let now = end.presence.active();
    if now != active {
        end.presence.ring(reader(number, now));
    }
    true
}
