//! A ring that is written and read by hand, word by word as the specification draws it: for what the driver half never
//! does, and for what it would not show.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use vdpa_core::Area;
use vdpa_mem::{Bytes, Window};
use vdpa_ring::{Completion, Pos, QueueState, layout};

use crate::checked::{ensure, fail, skip};
use crate::{Checked, Piece, Rig, Ring, Variant};

/// The chain goes on.
pub(crate) const NEXT: u16 = 1;
/// The device writes this buffer; in a used packed descriptor: has written.
pub(crate) const WRITE: u16 = 1 << 1;
/// The buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = 1 << 2;
/// Packed: the driver's lap.
pub(crate) const AVAIL: u16 = 1 << 7;
/// Packed: the device's lap.
pub(crate) const USED: u16 = 1 << 15;

/// A descriptor of a chain: its buffer, and its flags but for those that chain and show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) piece: Piece,
    pub(crate) flags: u16,
}

impl Link {
    /// One that the device reads.
    pub(crate) fn readable(piece: Piece) -> Self {
        Self { piece, flags: 0 }
    }

    /// One that the device writes.
    pub(crate) fn writable(piece: Piece) -> Self {
        let flags = WRITE;
        Self { piece, flags }
    }

    /// One that points to a table.
    pub(crate) fn table(piece: Piece) -> Self {
        let flags = INDIRECT;
        Self { piece, flags }
    }

    /// The same with more flags.
    pub(crate) fn with(self, flags: u16) -> Self {
        Self {
            flags: self.flags | flags,
            ..self
        }
    }

    /// Those of a request's pieces, in order.
    pub(crate) fn chain(readable: &[Piece], writable: &[Piece]) -> Vec<Self> {
        let readable = readable.iter().copied().map(Self::readable);
        readable
            .chain(writable.iter().copied().map(Self::writable))
            .collect()
    }
}

/// Written to the ring, and not shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Packed: the slot whose meta word shows it. Split: the head.
    first: u16,
    meta: u64,
    given: Given,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    id: u16,
    slots: u16,
}

/// The driver's side of a ring, by hand. Descriptors are taken in ring order, so that IN_ORDER allows them.
pub(crate) struct Hand {
    window: Window,
    offsets: [usize; 3],
    lens: [usize; 3],
    size: u16,
    variant: Variant,
    /// Next descriptor of a split ring.
    slot: u16,
    /// What is available and what came back: free-running in a split ring.
    avail: u16,
    used: u16,
    /// The same in a packed ring.
    avail_pos: Pos,
    used_pos: Pos,
    flight: VecDeque<Given>,
    /// Slots that are free.
    room: u16,
}

impl Hand {
    /// Where the ring's driver half stands, which is not to be used beside this one.
    pub(crate) fn of(rig: &Rig<'_>, ring: &Ring) -> Self {
        let areas = Area::ALL.map(|area| ring.area(area));
        let (avail, used, avail_pos, used_pos) = match ring.half().state() {
            QueueState::Split { avail, used } => {
                (avail, used.unwrap_or(avail), Pos::START, Pos::START)
            }
            QueueState::Packed { avail, used } => (0, 0, avail, used),
        };
        Self {
            window: rig.window().clone(),
            offsets: areas.map(|area| rig.offset(area.at)),
            lens: areas.map(|area| area.len as usize),
            size: ring.size(),
            variant: ring.variant(),
            slot: 0,
            avail,
            used,
            avail_pos,
            used_pos,
            flight: VecDeque::new(),
            room: ring.size(),
        }
    }

    /// An area.
    #[expect(
        clippy::expect_used,
        reason = "areas are handed out of this window, and are not made up"
    )]
    pub(crate) fn area(&self, area: Area) -> Bytes<'_> {
        let at = match area {
            Area::Descriptor => 0,
            Area::Driver => 1,
            Area::Device => 2,
        };
        let bytes = self.window.bytes();
        let found = bytes.slice(self.offsets[at], self.lens[at]);
        found.expect("an area of the rig")
    }

    /// Where the next chain stands in a packed ring.
    pub(crate) fn avail_pos(&self) -> Pos {
        self.avail_pos
    }

    /// Where the next used descriptor is looked for in a packed ring.
    pub(crate) fn used_pos(&self) -> Pos {
        self.used_pos
    }

    /// Split: the index of the next available entry.
    pub(crate) fn avail(&self) -> u16 {
        self.avail
    }

    /// Descriptors that find room.
    pub(crate) fn room(&self) -> usize {
        self.room.into()
    }

    /// Writes a chain with this id where it is packed, and does not show it. `NEXT` comes of itself. Skips where the queue
    /// is too small for it.
    pub(crate) fn place_as(
        &mut self,
        chain: &[Link],
        ids: impl Fn(usize) -> u16,
    ) -> Checked<Placed> {
        let last = chain.len().saturating_sub(1);
        if chain.len() > self.room() {
            let (size, least) = (self.size, self.size - self.room);
            let least = usize::from(least) + chain.len();
            skip!("a queue of {size} is too small: it takes {least}");
        }
        let slots = chain.len() as u16;
        self.room -= slots;
        let descriptors = self.area(Area::Descriptor);
        if self.variant.is_packed() {
            let first = self.avail_pos;
            let (mut at, mut first_meta) = (first, 0);
            for (number, link) in chain.iter().enumerate() {
                let next = if number < last { NEXT } else { 0 };
                let lap = if at.wrap { AVAIL } else { USED };
                let flags = link.flags | next | lap;
                let meta = meta(link.piece.len, ids(number), flags);
                descriptors.store_u64(layout::descriptor(at.index), link.piece.at.get());
                match number {
                    0 => first_meta = meta,
                    _ => descriptors.store_u64(layout::descriptor_meta(at.index), meta),
                }
                at = at.advance(1, self.size);
            }
            self.avail_pos = at;
            let id = ids(last);
            return Ok(Placed {
                first: first.index,
                meta: first_meta,
                given: Given { id, slots },
            });
        }
        let head = self.slot;
        let mut at = head;
        for (number, link) in chain.iter().enumerate() {
            let next = at.wrapping_add(1) % self.size;
            let (more, next_slot) = if number < last { (NEXT, next) } else { (0, 0) };
            let meta = meta(link.piece.len, link.flags | more, next_slot);
            descriptors.store_u64(layout::descriptor(at), link.piece.at.get());
            descriptors.store_u64(layout::descriptor_meta(at), meta);
            at = next;
        }
        self.slot = at;
        Ok(Placed {
            first: head,
            meta: 0,
            given: Given { id: head, slots },
        })
    }

    /// Writes a chain, with its first slot as its id.
    pub(crate) fn place(&mut self, chain: &[Link]) -> Checked<Placed> {
        let id = self.avail_pos.index;
        self.place_as(chain, |_| id)
    }

    /// Shows the device a chain. Returns its id.
    pub(crate) fn show(&mut self, placed: Placed) -> u16 {
        fence(Ordering::SeqCst);
        if self.variant.is_packed() {
            let at = layout::descriptor_meta(placed.first);
            self.area(Area::Descriptor).store_u64(at, placed.meta);
        } else {
            self.enter(placed.first);
        }
        fence(Ordering::SeqCst);
        self.flight.push_back(placed.given);
        placed.given.id
    }

    /// The same for a chain that stands before all that was shown.
    pub(crate) fn show_before(&mut self, placed: Placed) -> u16 {
        let id = self.show(placed);
        self.flight.rotate_right(1);
        id
    }

    /// Split: makes a head available, whatever it is.
    pub(crate) fn enter(&mut self, head: u16) {
        let driver = self.area(Area::Driver);
        driver.store_u16(layout::avail_entry(self.avail % self.size), head);
        fence(Ordering::SeqCst);
        driver.store_u16(layout::IDX, self.avail.wrapping_add(1));
        self.avail = self.avail.wrapping_add(1);
    }

    /// Writes and shows.
    pub(crate) fn give(&mut self, chain: &[Link]) -> Checked<u16> {
        let placed = self.place(chain)?;
        Ok(self.show(placed))
    }

    /// The meta word of a packed slot: length, id, flags.
    pub(crate) fn meta(&self, slot: u16) -> (u32, u16, u16) {
        let at = layout::descriptor_meta(slot);
        let meta = self.area(Area::Descriptor).load_u64(at);
        (meta as u32, (meta >> 32) as u16, (meta >> 48) as u16)
    }

    /// Split: the index of the used ring.
    pub(crate) fn used_idx(&self) -> u16 {
        self.area(Area::Device).load_u16(layout::IDX)
    }

    /// Packed: whether the slot's flags say used on this lap.
    pub(crate) fn is_used(&self, at: Pos) -> bool {
        let lap = if at.wrap { AVAIL | USED } else { 0 };
        self.meta(at.index).2 & (AVAIL | USED) == lap
    }

    /// The next used entry, once: what it names and says. One that is not complete is seen as it is.
    pub(crate) fn entry(&self) -> Option<(u32, u32)> {
        let found = match self.variant.is_packed() {
            true => self.is_used(self.used_pos).then(|| {
                let (len, id, _) = self.meta(self.used_pos.index);
                (id.into(), len)
            }),
            false => (self.used_idx() != self.used).then(|| {
                let at = layout::used_entry(self.used % self.size);
                let [id, len] = self.area(Area::Device).load_u32_pair(at);
                (id, len)
            }),
        };
        fence(Ordering::SeqCst);
        found
    }

    /// Takes the next used entry: the chains that it stands for, which are several only with IN_ORDER. The length is the
    /// last one's; the others have `None`.
    pub(crate) fn take(&mut self) -> Checked<Vec<(u16, Option<u32>)>> {
        let Some((id, len)) = self.entry() else {
            return Ok(Vec::new());
        };
        let at = self.flight.iter().position(|g| u32::from(g.id) == id);
        let Some(at) = at else {
            fail!("a used entry names {id}, which is not in flight");
        };
        if !self.variant.in_order {
            let given = self.flight.remove(at);
            let slots = given.map_or(1, |given| given.slots);
            self.pass(1, slots);
            return Ok(vec![(id as u16, Some(len))]);
        }
        let count = at as u16 + 1;
        if !self.variant.is_packed() {
            let shown = self.used_idx().wrapping_sub(self.used);
            ensure!(
                count <= shown,
                "used.idx went on by {shown}, and the entry names the chain {count} places on"
            );
        }
        let taken: Vec<Given> = self.flight.drain(..=at).collect();
        self.pass(count, taken.iter().map(|given| given.slots).sum());
        let len = |number: usize| (number == at).then_some(len);
        let chains = taken.iter().enumerate();
        Ok(chains.map(|(n, given)| (given.id, len(n))).collect())
    }

    fn pass(&mut self, chains: u16, slots: u16) {
        self.room = self.room.saturating_add(slots).min(self.size);
        self.used = self.used.wrapping_add(chains);
        self.used_pos = self.used_pos.advance(slots, self.size);
    }

    /// Waits for `count` chains. Those without a length were used completely: `room` says how much that is.
    pub(crate) fn wait(
        &mut self,
        rig: &Rig<'_>,
        count: usize,
        room: u32,
    ) -> Checked<Vec<Completion>> {
        let mut all = Vec::new();
        rig.bench()
            .until(&format!("the return of {count} chains"), || {
                for (id, len) in self.take()? {
                    let len = len.unwrap_or(room);
                    all.push(Completion { id, len });
                }
                Ok(all.len() >= count)
            })?;
        Ok(all)
    }
}

/// Split: length, flags, next. Packed: length, id, flags.
fn meta(len: u32, low: u16, high: u16) -> u64 {
    u64::from(len) | u64::from(low) << 32 | u64::from(high) << 48
}

/// A table in the rig's memory. Split: entries that follow each other; packed: entries that carry their flags alone.
pub(crate) fn table(rig: &Rig<'_>, variant: Variant, links: &[Link]) -> Checked<Piece> {
    let mut bytes = Vec::new();
    for (link, number) in links.iter().zip(0_u16..) {
        let more = usize::from(number) + 1 < links.len();
        let (low, high) = match variant.is_packed() {
            true => (0, link.flags),
            false if more => (link.flags | NEXT, number + 1),
            false => (link.flags, 0),
        };
        bytes.extend(link.piece.at.get().to_le_bytes());
        bytes.extend(meta(link.piece.len, low, high).to_le_bytes());
    }
    rig.place(&bytes)
}
