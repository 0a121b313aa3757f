//! The record of a packed queue.
//!
//! The ring does not keep what is in flight: used descriptors are written over it. So the record has an entry for each
//! descriptor in flight, in lists that begin at the entry of a chain's first one; the rest is a list of free entries.
//! Entries are taken from its front and given back to it, and the fields that say where it begins exist twice: as they
//! are about to be, and (`old`) as they were before the last batch.

use alloc::{boxed::Box, vec, vec::Vec};

use super::{Again, RecordError, Recovered, VERSION, WORD, Words, by_counter, flags, next_counter};
use crate::{
    chain::{Batch, ChainRef, Used},
    descriptor::{NEXT, WRITE, packed},
    error::RingError,
    layout,
    mem::{Areas, RingMem},
    packed::Noted,
    state::{Pos, QueueState},
};

pub(super) const HEAD: u32 = 32;
pub(super) const ENTRY: u32 = 32;

/// Offset of the word with the used positions.
const USED: u32 = 16;

// The words of an entry.
const MARKS: u32 = 0;
const COUNTER: u32 = 8;
/// Id, flags and length: the other way round than in the ring, where the length comes first.
const META: u32 = 16;
const ADDRESS: u32 = 24;

/// No entry.
const NONE: u16 = u16::MAX;

const fn entry(index: u16, word: u32) -> u32 {
    HEAD.wrapping_add((index as u32).wrapping_mul(ENTRY)) | word
}

#[derive(Debug)]
pub(super) struct PackedRecord {
    size: u16,
    counter: u64,
    /// The first free entry; `size` if there is none.
    free: u16,
    /// Next slot to take.
    avail: Pos,
    /// Next slot to mark used, before and after what is being given back.
    old_used: Pos,
    used: Pos,
    /// The first words of the entries: in flight, next, last, number.
    marks: Box<[Entry]>,
    /// The first entry of the chain with a buffer id.
    of_id: Box<[u16]>,
}

/// The first word of an entry.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    in_flight: bool,
    next: u16,
    last: u16,
    num: u16,
}

impl Entry {
    fn word(self) -> u64 {
        Words::new([self.in_flight.into(), self.next, self.last, self.num]).0
    }
}

impl From<u64> for Entry {
    fn from(cell: u64) -> Self {
        let words = Words(cell);
        Self {
            in_flight: words.get(0) & 0xff != 0,
            next: words.get(1),
            last: words.get(2),
            num: words.get(3),
        }
    }
}

impl PackedRecord {
    fn new(size: u16, used: Pos) -> Self {
        let chain = |index: u16| Entry {
            next: index.wrapping_add(1),
            ..Entry::default()
        };
        Self {
            size,
            counter: 0,
            free: 0,
            avail: used,
            old_used: used,
            used,
            marks: (0..size).map(chain).collect(),
            of_id: vec![NONE; usize::from(size)].into_boxed_slice(),
        }
    }

    /// Where the free list begins, and began: one store.
    fn store_free<R: RingMem>(&self, record: &R, old: u16) {
        let head = Words::new([VERSION, self.size, self.free, old]);
        record.store_u64(WORD, head.0);
    }

    /// The used positions: one store.
    fn store_used<R: RingMem>(&self, record: &R) {
        let wraps = u16::from(self.used.wrap) | u16::from(self.old_used.wrap) << 8;
        let words = Words::new([self.used.index, self.old_used.index, wraps, 0]);
        record.store_u64(USED, words.0);
    }

    fn store_marks<R: RingMem>(&self, record: &R, index: u16) {
        if let Some(marks) = self.marks.get(usize::from(index)) {
            record.store_u64(entry(index, MARKS), marks.word());
        }
    }

    pub(super) fn begin<R: RingMem>(
        size: u16,
        record: &R,
        state: Option<QueueState>,
    ) -> Result<(Self, Recovered), RecordError> {
        let (avail, used) = match state {
            None => (Pos::START, Pos::START),
            Some(QueueState::Packed { avail, used }) => (avail, used),
            Some(QueueState::Split { .. }) => return Err(RecordError::State { size }),
        };
        if avail.index >= size || used.index >= size {
            return Err(RecordError::State { size });
        }
        match avail.since(used, size) {
            Some(0) => {}
            Some(in_flight) => return Err(RecordError::Unrecorded { in_flight }),
            None => return Err(RecordError::State { size }),
        }
        let own = Self::new(size, used);
        for index in 0..size {
            own.store_marks(record, index);
            for word in [COUNTER, META, ADDRESS] {
                record.store_u64(entry(index, word), 0);
            }
        }
        record.store_u64(0, 0);
        record.store_u64(USED.wrapping_add(8), 0);
        own.store_used(record);
        // The version last: until then it is a fresh one.
        record.release();
        own.store_free(record, own.free);
        let state = QueueState::Packed { avail, used };
        let again = Again::default();
        Ok((own, Recovered { state, again }))
    }

    pub(super) fn recover<R: RingMem, M: RingMem>(
        size: u16,
        record: &R,
        head: Words,
        areas: &Areas<M>,
    ) -> Result<(Self, Recovered), RecordError> {
        let words = Words(record.load_u64(USED));
        let position = |index: u16, wrap: u16| Pos {
            index,
            wrap: wrap & 0xff != 0,
        };
        let new = position(words.get(0), words.get(2));
        let old = position(words.get(1), words.get(2) >> 8);
        let (new_free, old_free) = (head.get(2), head.get(3));
        let inside = new.index < size && old.index < size;
        if !inside || new.since(old, size).is_none() {
            let (old, new) = (old.bits(), new.bits());
            return Err(RecordError::Positions { old, new, size });
        }
        // A batch was said to be given back. It was, if its first descriptor is not available any more.
        let shown = new != old && {
            let meta = areas.descriptor.load_meta(layout::descriptor(old.index));
            !packed::is_avail(packed::flags(meta), old.wrap)
        };
        let (used, free) = if shown {
            (new, new_free)
        } else {
            (old, old_free)
        };

        let mut own = Self::new(size, used);
        own.free = free;
        let mut saved = Vec::new();
        for (marks, index) in own.marks.iter_mut().zip(0u16..) {
            *marks = Entry::from(record.load_u64(entry(index, MARKS)));
            let [counter, meta, addr] =
                [COUNTER, META, ADDRESS].map(|word| record.load_u64(entry(index, word)));
            saved.push((counter, [addr, meta.rotate_right(32)]));
        }
        let mut seen = own.free_entries()?;
        let cleared: Vec<u16> = (0..size)
            .filter(|&index| own.is_marked(index) && is_set(&seen, index))
            .collect();
        for &index in &cleared {
            own.set_marked(index, false);
        }

        // The chains: what is not free.
        let counter = |index: u16| saved.get(usize::from(index)).map_or(0, |(at, _)| *at);
        let heads = (0..size).filter(|&index| own.is_marked(index));
        let heads = by_counter(heads.map(|index| (counter(index), index)).collect())?;
        own.counter = next_counter(&heads)?;
        let mut chains = Vec::new();
        for &(_, head) in &heads {
            let descriptors = own.descriptors(head, &mut seen, &saved)?;
            let id = descriptors.last().map_or(0, |[_, meta]| packed::id(*meta));
            match own.of_id.get_mut(usize::from(id)) {
                Some(of_id) if *of_id == NONE => *of_id = head,
                _ => {
                    return Err(RecordError::Id {
                        entry: head,
                        id,
                        size,
                    });
                }
            }
            chains.push((id, descriptors));
        }
        let lost = seen.iter().filter(|seen| !**seen).count();
        if lost != 0 {
            let entries = lost as u16;
            return Err(RecordError::Lost { entries });
        }
        let again = Again::packed(chains.iter().map(|(id, own)| (*id, own.as_slice())));
        // No more than all entries, of which there are `size`.
        own.avail = used.advance(again.slots().min(u32::from(size)) as u16, size);

        if !shown {
            take_back(size, areas, old, new);
        }
        for index in cleared {
            own.store_marks(record, index);
        }
        // The positions last: until then all of this is done again.
        record.release();
        own.store_free(record, own.free);
        record.release();
        own.store_used(record);
        let avail = own.avail;
        let state = QueueState::Packed { avail, used };
        Ok((own, Recovered { state, again }))
    }

    /// Which entries are free.
    fn free_entries(&self) -> Result<Box<[bool]>, RecordError> {
        let mut seen = flags(self.size);
        let (mut from, mut to) = (self.free, self.free);
        while to != self.size {
            match seen.get_mut(usize::from(to)) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return Err(RecordError::List {
                        list: "free entries",
                        from,
                        to,
                        size: self.size,
                    });
                }
            }
            from = to;
            to = self.marks.get(usize::from(to)).map_or(NONE, |e| e.next);
        }
        Ok(seen)
    }

    /// The descriptors of the chain at `head`, whose entries are nobody else's.
    fn descriptors(
        &self,
        head: u16,
        seen: &mut [bool],
        saved: &[(u64, [u64; 2])],
    ) -> Result<Vec<[u64; 2]>, RecordError> {
        let marks = self.marks.get(usize::from(head)).copied();
        let Entry { num, last, .. } = marks.unwrap_or_default();
        let bad = |from, to| RecordError::List {
            list: "a chain",
            from,
            to,
            size: self.size,
        };
        if num == 0 {
            return Err(bad(head, last));
        }
        let mut all = Vec::new();
        let (mut from, mut to) = (head, head);
        for _ in 0..num {
            match seen.get_mut(usize::from(to)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(bad(from, to)),
            }
            let own = saved.get(usize::from(to)).ok_or(bad(from, to))?;
            all.push(own.1);
            from = to;
            to = self.marks.get(usize::from(to)).map_or(NONE, |e| e.next);
        }
        // `from` is the last one now.
        if from != last {
            return Err(bad(from, last));
        }
        Ok(all)
    }

    fn is_marked(&self, index: u16) -> bool {
        self.marks
            .get(usize::from(index))
            .is_some_and(|e| e.in_flight)
    }

    fn set_marked(&mut self, index: u16, to: bool) {
        if let Some(marks) = self.marks.get_mut(usize::from(index)) {
            marks.in_flight = to;
        }
    }

    pub(super) fn taken<R: RingMem>(
        &mut self,
        record: &R,
        batch: &Batch,
        repeated: usize,
        noted: &[Noted],
    ) -> Result<(), RingError> {
        let mut tables = noted.iter().peekable();
        for (chain, place) in batch.iter().zip(0usize..).skip(repeated) {
            let id = chain.token().id();
            let head = self.free;
            let table = tables.next_if(|noted| noted.place == place);
            match self.of_id.get_mut(usize::from(id)) {
                Some(of_id) if *of_id == NONE => *of_id = head,
                _ => return Err(RingError::InFlightTwice { id }),
            }
            match table {
                Some(noted) => self.fill(record, head, [noted.descriptor].into_iter()),
                None => {
                    let descriptors = descriptors(chain, self.avail, self.size);
                    self.fill(record, head, descriptors);
                }
            }
            self.avail = self.avail.advance(chain.token().slots(), self.size);
        }
        Ok(())
    }

    /// Takes entries for the descriptors of a chain.
    fn fill<R: RingMem>(
        &mut self,
        record: &R,
        head: u16,
        descriptors: impl Iterator<Item = [u64; 2]>,
    ) {
        let (mut at, mut last, mut num) = (head, head, 0u16);
        for [addr, meta] in descriptors {
            let Some(marks) = self.marks.get(usize::from(at)) else {
                // There are as many entries as slots.
                break;
            };
            record.store_u64(entry(at, META), meta.rotate_left(32));
            record.store_u64(entry(at, ADDRESS), addr);
            num = num.wrapping_add(1);
            last = at;
            at = marks.next;
        }
        if let Some(marks) = self.marks.get_mut(usize::from(head)) {
            *marks = Entry {
                in_flight: true,
                next: marks.next,
                last,
                num,
            };
        }
        record.store_u64(entry(head, COUNTER), self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.store_marks(record, head);
        self.free = at;
        // The chain is in flight once its entries are not free any more.
        record.release();
        self.store_free(record, at);
    }

    /// Puts a chain's entries in front of the free ones.
    fn release_entries<R: RingMem>(&mut self, record: &R, head: u16) {
        let Some(Entry { last, .. }) = self.marks.get(usize::from(head)).copied() else {
            return;
        };
        if let Some(marks) = self.marks.get_mut(usize::from(last)) {
            marks.next = self.free;
        }
        self.store_marks(record, last);
        self.free = head;
    }

    pub(super) fn rewound<R: RingMem>(
        &mut self,
        record: &R,
        batch: &Batch,
        repeated: usize,
        n: usize,
    ) {
        let first = batch.len().saturating_sub(n).max(repeated);
        for place in (first..batch.len()).rev() {
            let Some(chain) = batch.chain(place) else {
                continue;
            };
            let of_id = self.of_id.get_mut(usize::from(chain.token().id()));
            let Some(head) = of_id.map(|of_id| core::mem::replace(of_id, NONE)) else {
                continue;
            };
            self.release_entries(record, head);
            // Free from here on, whatever its mark says.
            record.release();
            self.store_free(record, head);
            self.set_marked(head, false);
            self.store_marks(record, head);
            self.avail = self.avail.retreat(chain.token().slots(), self.size);
        }
    }

    pub(super) fn committing<R: RingMem>(
        &mut self,
        record: &R,
        used: &[Used],
    ) -> Result<(), RingError> {
        let old = self.free;
        for chain in used {
            let of_id = self.of_id.get(usize::from(chain.token.id()));
            let Some(&head) = of_id.filter(|head| **head != NONE) else {
                return Err(RingError::NotTaken {
                    asked: used.len(),
                    in_flight: 0,
                });
            };
            self.release_entries(record, head);
            self.used = self.used.advance(chain.token.slots(), self.size);
        }
        record.release();
        self.store_free(record, old);
        record.release();
        self.store_used(record);
        // The commit's release stands between this and the descriptor that makes it count.
        Ok(())
    }

    pub(super) fn committed<R: RingMem>(&mut self, record: &R, used: &[Used]) {
        // The commit ended with a full fence: what is unmarked here was shown before.
        for chain in used {
            let of_id = self.of_id.get_mut(usize::from(chain.token.id()));
            if let Some(head) = of_id.map(|of_id| core::mem::replace(of_id, NONE)) {
                self.set_marked(head, false);
                self.store_marks(record, head);
            }
        }
        record.release();
        self.store_free(record, self.free);
        // Last: while the two positions differ, the batch is found to be shown.
        record.release();
        self.old_used = self.used;
        self.store_used(record);
    }
}

/// Takes back the used descriptors of a batch that was not shown. They stand behind its first one, in the slots of what
/// is in flight, and would seem to be shown with whatever is given back there next.
fn take_back<M: RingMem>(size: u16, areas: &Areas<M>, old: Pos, new: Pos) {
    let slots = new.since(old, size).unwrap_or(0);
    for by in 1..slots {
        let at = old.advance(by, size);
        let meta = areas.descriptor.load_meta(layout::descriptor(at.index));
        if packed::is_used(packed::flags(meta), at.wrap) {
            // As it was: nobody takes it again from there.
            let meta = packed::meta(0, 0, packed::avail(at.wrap));
            let cell = layout::descriptor(at.index);
            areas.descriptor.store_meta(cell, meta);
        }
    }
}

fn is_set(flags: &[bool], index: u16) -> bool {
    flags.get(usize::from(index)) == Some(&true)
}

/// The descriptors of a chain that has no table, as they stand in the ring from `at` on.
fn descriptors(chain: ChainRef<'_>, at: Pos, size: u16) -> impl Iterator<Item = [u64; 2]> {
    let slots = chain.token().slots();
    let readable = chain.readable().iter().map(|segment| (segment, 0));
    let writable = chain.writable().iter().map(|segment| (segment, WRITE));
    let id = chain.token().id();
    readable
        .chain(writable)
        .zip(1u16..)
        .map(move |((segment, write), number)| {
            let wrap = at.advance(number.wrapping_sub(1), size).wrap;
            let next = if number < slots { NEXT } else { 0 };
            let flags = packed::avail(wrap) | write | next;
            [segment.addr.get(), packed::meta(segment.len, id, flags)]
        })
}
