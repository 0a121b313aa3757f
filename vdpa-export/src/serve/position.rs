//! Where a packed ring stands, by what is in it.
//!
//! A split ring has an index that outlives its device. Of a packed one the device alone knows how far it is: when a back end
//! is killed, its front end hands the next one the position of the last start (QEMU's network cards), at which the driver
//! waits for nothing. Where each buffer has one descriptor, as with indirect tables, the ring tells the place itself: the
//! device turns USED over in each slot, and the driver leaves it as it finds it.
//!
//! ```text
//!   slot    0 1 2 3 4 5 6 7       lap 1: used is AVAIL and USED set, available AVAIL alone; in lap 2 the other way round
//!   AVAIL   1 1 1 1 1 0 0 0
//!   USED    1 1 1 0 0 0 0 0       the device goes on at slot 3, in lap 1; 3 and 4 wait for it
//! ```

use vdpa_core::Pos;

/// Flags of a descriptor: virtio 1.4 §2.7.5, §2.8.1.
const NEXT: u16 = 1;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// What a slot of a packed ring tells of its last descriptor: virtio 1.4 §2.8.13.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Seen {
    pub(super) id: u16,
    pub(super) flags: u16,
}

/// Where the device goes on, if that is certainly not where its front end says.
///
/// What was taken and not given back is taken once more.
///
/// * `ring`: each of its slots
/// * `told`: the next slot to be used, as the front end has it
/// * `single`: the driver has indirect tables, and so hardly ever makes a chain
pub(super) fn corrected(ring: &[Seen], told: Pos, single: bool) -> Option<Pos> {
    let found = found(ring)?;
    if found == told {
        return None;
    }
    // Rests of chains may look like a position. So the front end's word counts, unless nothing that is in the ring allows
    // it; or unless every slot is available, which somebody who makes chains has no use for.
    let full = single && laps(ring, found).all(|(seen, wrap)| seen.is_available(wrap));
    (full || !is_possible(ring, told, single)).then_some(found)
}

/// Where a device stands that gives back single descriptors: where USED turns over, if all else agrees with that.
fn found(ring: &[Seen]) -> Option<Pos> {
    let first = ring.first()?.flags & USED;
    let turn = ring.iter().position(|seen| seen.flags & USED != first);
    let pos = match turn {
        Some(slot) => Pos {
            index: u16::try_from(slot).ok()?,
            wrap: first != 0,
        },
        None => Pos {
            index: 0,
            wrap: first == 0,
        },
    };
    let mut slots = laps(ring, pos).peekable();
    while let Some((seen, _)) = slots.next_if(|(seen, wrap)| seen.is_available(*wrap)) {
        if seen.flags & NEXT != 0 {
            return None;
        }
    }
    let rest_is_used = slots.all(|(seen, wrap)| seen.is_used(!wrap));
    rest_is_used.then_some(pos)
}

/// Whether a ring can be like this while its device stands there: what is available, and then what the lap before has left.
///
/// Of a chain that was used, its first descriptor tells so, and the others are as the driver has made them: the last one
/// with the chain's id. Where buffers come back in another order than they came, that holds of single ones alone.
fn is_possible(ring: &[Seen], pos: Pos, single: bool) -> bool {
    if usize::from(pos.index) >= ring.len() {
        return false;
    }
    let mut slots = laps(ring, pos).peekable();
    while slots
        .next_if(|(seen, wrap)| seen.is_available(*wrap))
        .is_some()
    {}
    // The chain that the rest of one may belong to. The first one's head may have been made available again.
    let mut chain = Chain::Some;
    slots.all(|(seen, wrap)| {
        if seen.is_used(!wrap) {
            chain = Chain::Id(seen.id);
            return true;
        }
        let goes_on = seen.flags & NEXT != 0;
        let belongs = match chain {
            Chain::None => false,
            Chain::Some => true,
            Chain::Id(id) => goes_on || seen.id == id,
        };
        if !goes_on {
            chain = Chain::None;
        }
        seen.is_available(!wrap) && (belongs || !single)
    })
}

/// Which chain a descriptor may be the rest of.
enum Chain {
    None,
    Some,
    Id(u16),
}

/// All slots from this one on, each with the wrap counter that the device has there.
fn laps(ring: &[Seen], from: Pos) -> impl Iterator<Item = (Seen, bool)> {
    let (before, behind) = ring.split_at_checked(from.index.into()).unwrap_or_default();
    let now = behind.iter().map(move |seen| (*seen, from.wrap));
    let next = before.iter().map(move |seen| (*seen, !from.wrap));
    now.chain(next)
}

impl Seen {
    fn is_available(self, wrap: bool) -> bool {
        (self.flags & AVAIL != 0) == wrap && (self.flags & USED != 0) != wrap
    }

    fn is_used(self, wrap: bool) -> bool {
        (self.flags & AVAIL != 0) == wrap && (self.flags & USED != 0) == wrap
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const SIZE: u16 = 8;

    /// A ring with its driver and its device.
    struct Ring {
        slots: [Seen; SIZE as usize],
        /// Next to be made available, and next to be used.
        avail: Pos,
        used: Pos,
        /// What the device has not given back: ids and lengths.
        chains: VecDeque<(u16, u16)>,
        /// Ids that are nobody's; the last one to come back is the next one to be taken, as in Linux.
        free: Vec<u16>,
    }

    impl Ring {
        fn new() -> Self {
            Self {
                slots: Default::default(),
                avail: Pos::START,
                used: Pos::START,
                chains: VecDeque::new(),
                free: (0..SIZE).rev().collect(),
            }
        }

        fn adds(&mut self, len: u16) {
            let out: u16 = self.chains.iter().map(|(_, len)| len).sum();
            if out + len > SIZE {
                return;
            }
            let id = self.free.pop().unwrap();
            for left in (0..len).rev() {
                let next = if left > 0 { NEXT } else { 0 };
                let mark = if self.avail.wrap { AVAIL } else { USED };
                let flags = mark | next;
                self.slots[usize::from(self.avail.index)] = Seen { id, flags };
                self.avail = on(self.avail, 1);
            }
            self.chains.push_back((id, len));
        }

        /// Gives back any of them: it is written where the next one is due.
        fn uses(&mut self, which: usize) {
            if self.chains.is_empty() {
                return;
            }
            let (id, len) = self.chains.remove(which % self.chains.len()).unwrap();
            let flags = if self.used.wrap { AVAIL | USED } else { 0 };
            self.slots[usize::from(self.used.index)] = Seen { id, flags };
            self.used = on(self.used, len);
            self.free.push(id);
        }

        fn corrected(&self, told: Pos, single: bool) -> Option<Pos> {
            corrected(&self.slots, told, single)
        }

        /// A front end that knows of the start alone is put right.
        fn tells(&self) {
            let expected = (self.used != Pos::START).then_some(self.used);
            let got = self.corrected(Pos::START, true);
            assert_eq!(got, expected, "{:x?}", self.slots);
        }
    }

    fn on(pos: Pos, by: u16) -> Pos {
        let index = pos.index + by;
        Pos {
            index: index % SIZE,
            wrap: pos.wrap ^ (index >= SIZE),
        }
    }

    #[test]
    fn a_ring_that_is_kept_full_tells_where_it_stands() {
        let mut ring = Ring::new();
        (0..SIZE).for_each(|_| ring.adds(1));
        for _ in 1..4 * SIZE {
            ring.uses(0);
            ring.adds(1);
            ring.tells();
        }
    }

    #[test]
    fn a_ring_that_is_filled_again_from_time_to_time_tells_where_it_stands() {
        for times in 1..SIZE {
            let mut ring = Ring::new();
            for _ in 0..4 * SIZE {
                (0..SIZE).for_each(|_| ring.adds(1));
                for _ in 0..times {
                    ring.uses(0);
                    ring.tells();
                }
            }
        }
    }

    #[test]
    fn a_ring_whose_buffers_are_used_at_once_tells_where_it_stands() {
        let mut ring = Ring::new();
        for _ in 1..4 * SIZE {
            ring.adds(1);
            ring.uses(0);
            ring.tells();
        }
    }

    #[test]
    fn a_position_outside_of_the_ring_is_corrected() {
        let told = Pos {
            index: SIZE,
            wrap: true,
        };
        assert_eq!(Ring::new().corrected(told, false), Some(Pos::START));
        assert_eq!(corrected(&[], told, false), None);
    }

    /// What a driver and a device do: chains of up to `longest`, of which the device gives back any of the first `among`.
    fn deeds(longest: u16, among: usize) -> impl Strategy<Value = Vec<(bool, u16, usize)>> {
        let most = if cfg!(miri) { 12 } else { 60 };
        prop::collection::vec((any::<bool>(), 1..=longest, 0..among), 0..most)
    }

    fn after(deeds: &[(bool, u16, usize)], mut each: impl FnMut(&Ring)) {
        let mut ring = Ring::new();
        for (adds, len, which) in deeds {
            match adds {
                true => ring.adds(*len),
                false => ring.uses(*which),
            }
            each(&ring);
        }
    }

    proptest! {
        #[test]
        fn a_front_end_that_is_right_is_believed(deeds in deeds(4, 8)) {
            after(&deeds, |ring| {
                assert_eq!(ring.corrected(ring.used, false), None, "{:x?}", ring.slots);
            });
        }

        #[test]
        fn it_is_believed_where_chains_are_rare_too(deeds in deeds(4, 1)) {
            after(&deeds, |ring| {
                let full = ring.slots.iter().all(|seen| seen.is_available(true) || seen.is_available(false));
                let got = ring.corrected(ring.used, true);
                assert!(full || got.is_none(), "{:x?}", ring.slots);
            });
        }

        #[test]
        fn single_descriptors_are_never_taken_to_be_elsewhere(deeds in deeds(1, 8), index in 0..SIZE, wrap: bool) {
            after(&deeds, |ring| {
                let got = ring.corrected(Pos { index, wrap }, true);
                assert!(got.is_none_or(|got| got == ring.used), "{got:?} of {:x?}", ring.slots);
            });
        }
    }
}
