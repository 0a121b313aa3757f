//! A driver that may do anything: a ring written by hand, in either format.
//!
//! ```text
//!   chain(pieces)   descriptors, and for split an entry of the available ring        nothing shows yet
//!   show()          split: avail.idx; packed: the flags of the first descriptor
//!   kick()          the doorbell, whether the device asked for it or not
//!   used()          what came back, as it stands there
//! ```
//! Every part can be left out or done wrong by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vdpa_core::{Doorbell, QueueConfig, QueueIndex};
use vdpa_mem::Iova;
use vdpa_ring::{Format, Placement, Pos, QueueState, area_sizes, layout};

use crate::guard::Arena;
use crate::until;

/// The chain goes on.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// A table.
pub const INDIRECT: u16 = 4;
/// Packed: the driver's lap.
pub const AVAIL: u16 = 1 << 7;
/// Packed: the device's lap.
pub const USED: u16 = 1 << 15;

/// A descriptor of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Where the device is to look.
    pub addr: u64,
    /// How many bytes.
    pub len: u32,
    /// Flags, NEXT and the laps aside.
    pub flags: u16,
    /// Instead of what would be right: NEXT or not.
    pub goes_on: Option<bool>,
    /// Instead of what would be right: `next`, or the packed id.
    pub link: Option<u16>,
}

impl Piece {
    /// What the device reads.
    pub const fn read(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            flags: 0,
            goes_on: None,
            link: None,
        }
    }

    /// What it writes.
    pub const fn write(addr: u64, len: u32) -> Self {
        Self::read(addr, len).with(WRITE)
    }

    /// An indirect table.
    pub const fn table(addr: u64, len: u32) -> Self {
        Self::read(addr, len).with(INDIRECT)
    }

    /// With more flags.
    pub const fn with(self, flags: u16) -> Self {
        Self {
            flags: self.flags | flags,
            ..self
        }
    }

    /// With NEXT, or without, whatever comes behind it.
    pub const fn goes_on(self, on: bool) -> Self {
        Self {
            goes_on: Some(on),
            ..self
        }
    }

    /// With this `next` (split) or id (packed).
    pub const fn link(self, to: u16) -> Self {
        Self {
            link: Some(to),
            ..self
        }
    }

    /// Whether the device writes it.
    pub const fn is_written(self) -> bool {
        self.flags & WRITE != 0
    }
}

/// A chain that was written.
#[derive(Clone, Debug)]
pub struct Head {
    /// Head (split) or id (packed).
    pub id: u16,
    /// Its descriptors in the ring.
    pub slots: u16,
    /// What they say.
    pub pieces: Vec<Piece>,
}

/// A used entry, as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Back {
    /// Id.
    pub id: u32,
    /// Length.
    pub len: u32,
}

/// A queue from the side of a driver that may do anything.
#[derive(Debug)]
pub struct RawQueue {
    /// Its number.
    pub index: QueueIndex,
    /// Ring format.
    pub format: Format,
    /// Queue size.
    pub size: u16,
    /// Where its areas are.
    pub arena: Arc<Arena>,
    /// Offset of the first area in it.
    pub base: usize,
    /// Where the areas are from there.
    pub placed: Placement,
    /// Rings it.
    pub doorbell: Doorbell,
    /// Next entry of the available ring (split).
    pub avail: u16,
    /// Next slot to make available (packed).
    pub avail_pos: Pos,
    /// Next entry of the used ring (split).
    pub used: u16,
    /// Next slot to be used (packed).
    pub used_pos: Pos,
    /// Heads that were shown, and not by a trick.
    pub shown: usize,
    /// Entries that came back.
    pub returned: usize,
    next: u16,
    pending: VecDeque<(u16, u64)>,
    /// Whether one used entry stands for all that were shown before it.
    pub in_order: bool,
    slots: VecDeque<(u16, u16)>,
    heads: HashMap<u16, Vec<Piece>>,
    unshown: usize,
}

impl RawQueue {
    /// A queue whose areas begin at `base` of `arena`; what the device writes of them is opened.
    ///
    /// * `from`: where the device starts, as in [`QueueConfig::state`]
    pub fn new(
        index: u16,
        format: Format,
        size: u16,
        (arena, base): (&Arc<Arena>, usize),
        from: Option<QueueState>,
    ) -> Self {
        let sizes = area_sizes(format, size, true);
        let placed = sizes.placed();
        arena.put(base, &vec![0; placed.bytes as usize]);
        arena.open(base + placed.device as usize, sizes.device.bytes as usize);
        if format == Format::Packed {
            arena.open(base, sizes.descriptor.bytes as usize);
        }
        let (avail, used, avail_pos, used_pos) = match from {
            Some(QueueState::Split { avail, used }) => {
                (avail, used.unwrap_or(avail), Pos::START, Pos::START)
            }
            Some(QueueState::Packed { avail, used }) => (0, 0, avail, used),
            None => (0, 0, Pos::START, Pos::START),
        };
        let queue = Self {
            index: QueueIndex::new(index),
            format,
            size,
            arena: Arc::clone(arena),
            base,
            placed,
            doorbell: Doorbell::NONE,
            avail,
            avail_pos,
            used,
            used_pos,
            shown: 0,
            returned: 0,
            next: 0,
            pending: VecDeque::new(),
            in_order: false,
            slots: VecDeque::new(),
            heads: HashMap::new(),
            unshown: 0,
        };
        if format == Format::Split {
            queue.set_avail_idx(avail);
            let idx = queue.device_at(layout::IDX);
            queue.arena.put_u16(idx, used);
        } else {
            // As a lap leaves them behind: used on this one up to where it stands, on the last one from there on.
            for slot in 0..size {
                let this = slot < used_pos.index;
                let ones = this == used_pos.wrap;
                let flags = if ones { AVAIL | USED } else { 0 };
                queue.set_descriptor(slot, 0, 0, flags, 0);
            }
        }
        queue
    }

    /// Bytes of such a queue's areas together, from an aligned place on.
    pub fn bytes(format: Format, size: u16) -> usize {
        area_sizes(format, size, true).placed().bytes as usize
    }

    /// How it is described to the device.
    pub fn config(&self, state: Option<QueueState>) -> QueueConfig {
        let at = |offset: u32| Iova::new(self.arena.at(self.base + offset as usize));
        let p = &self.placed;
        QueueConfig {
            state,
            ..QueueConfig::new(self.size, at(p.descriptor), at(p.driver), at(p.device))
        }
    }

    // Offsets in the arena.

    /// Of a byte of the descriptor area.
    pub fn descriptor_at(&self, offset: u32) -> usize {
        self.base + (self.placed.descriptor + offset) as usize
    }

    /// Of a byte of the driver area.
    pub fn driver_at(&self, offset: u32) -> usize {
        self.base + (self.placed.driver + offset) as usize
    }

    /// Of a byte of the device area.
    pub fn device_at(&self, offset: u32) -> usize {
        self.base + (self.placed.device + offset) as usize
    }

    // Words, one by one.

    /// Writes descriptor `slot`; for a packed ring `link` is the id, and `flags` have the laps in them.
    pub fn set_descriptor(&self, slot: u16, addr: u64, len: u32, flags: u16, link: u16) {
        let meta = self.meta(len, flags, link);
        let at = self.descriptor_at(layout::descriptor(slot));
        self.arena.put_u64(at, addr);
        self.arena.put_u64(at + 8, meta);
    }

    /// The second word of a descriptor.
    pub fn meta(&self, len: u32, flags: u16, link: u16) -> u64 {
        let (third, fourth) = match self.format {
            Format::Split => (flags, link),
            Format::Packed => (link, flags),
        };
        u64::from(len) | u64::from(third) << 32 | u64::from(fourth) << 48
    }

    /// Split: `avail.idx`.
    pub fn set_avail_idx(&self, idx: u16) {
        fence(Ordering::Release);
        self.arena.put_u16(self.driver_at(layout::IDX), idx);
    }

    /// Split: `avail.ring[at % size]`.
    pub fn set_avail_entry(&self, at: u16, head: u16) {
        let slot = at & (self.size - 1);
        self.arena
            .put_u16(self.driver_at(layout::avail_entry(slot)), head);
    }

    /// Split: `used_event`. Packed: the driver's event words, position and mode.
    pub fn set_event(&self, first: u16, second: u16) {
        match self.format {
            Format::Split => {
                let at = self.driver_at(layout::used_event(self.size));
                self.arena.put_u16(at, first);
            }
            Format::Packed => {
                self.arena.put_u16(self.driver_at(layout::EVENT_POS), first);
                self.arena
                    .put_u16(self.driver_at(layout::EVENT_MODE), second);
            }
        }
    }

    // A chain, as it should be but for what the pieces say.

    /// Writes a chain. Nothing shows before [`show`](Self::show).
    pub fn chain(&mut self, pieces: &[Piece]) -> Head {
        let room = usize::from(self.size) + 1;
        assert!(
            pieces.len() <= room,
            "it would overwrite itself: {} pieces",
            pieces.len()
        );
        let head = match self.format {
            Format::Split => self.chain_split(pieces),
            Format::Packed => self.chain_packed(pieces),
        };
        self.slots.push_back((head.id, head.slots));
        self.heads.insert(head.id, head.pieces.clone());
        self.unshown += 1;
        head
    }

    /// What was written last for this head or id.
    pub fn pieces(&self, id: u16) -> Option<&[Piece]> {
        self.heads.get(&id).map(Vec::as_slice)
    }

    /// The slot that the next chain begins in.
    pub fn next_slot(&self) -> u16 {
        match self.format {
            Format::Split => self.next,
            Format::Packed => self.avail_pos.index,
        }
    }

    fn chain_split(&mut self, pieces: &[Piece]) -> Head {
        let id = self.next;
        for (i, piece) in pieces.iter().enumerate() {
            let slot = self.next;
            self.next = (self.next + 1) % self.size;
            let goes_on = piece.goes_on.unwrap_or(i + 1 < pieces.len());
            let flags = piece.flags | if goes_on { NEXT } else { 0 };
            let link = piece.link.unwrap_or(self.next);
            self.set_descriptor(slot, piece.addr, piece.len, flags, link);
        }
        self.set_avail_entry(self.avail, id);
        self.avail = self.avail.wrapping_add(1);
        self.head(id, pieces)
    }

    fn chain_packed(&mut self, pieces: &[Piece]) -> Head {
        let mut id = self.avail_pos.index;
        for (i, piece) in pieces.iter().enumerate() {
            let at = self.avail_pos;
            self.avail_pos = at.advance(1, self.size);
            let goes_on = piece.goes_on.unwrap_or(i + 1 < pieces.len());
            let lap = if at.wrap { AVAIL } else { USED };
            let flags = piece.flags | lap | if goes_on { NEXT } else { 0 };
            let link = piece.link.unwrap_or(id);
            if i + 1 == pieces.len() {
                id = link;
            }
            let place = self.descriptor_at(layout::descriptor(at.index));
            self.arena.put_u64(place, piece.addr);
            let meta = self.meta(piece.len, flags, link);
            if i == 0 {
                self.pending.push_back((at.index, meta));
            } else {
                self.arena.put_u64(place + 8, meta);
            }
        }
        self.head(id, pieces)
    }

    fn head(&self, id: u16, pieces: &[Piece]) -> Head {
        Head {
            id,
            slots: pieces.len() as u16,
            pieces: pieces.to_vec(),
        }
    }

    /// Shows what was written, all at once.
    pub fn show(&mut self) {
        self.shown += std::mem::take(&mut self.unshown);
        match self.format {
            Format::Split => self.set_avail_idx(self.avail),
            Format::Packed => {
                // The first one last: virtio 1.4 §2.8.17.
                while let Some((slot, meta)) = self.pending.pop_back() {
                    fence(Ordering::Release);
                    let at = self.descriptor_at(layout::descriptor(slot)) + 8;
                    self.arena.put_u64(at, meta);
                }
            }
        }
    }

    /// Rings the doorbell.
    pub fn kick(&self) {
        fence(Ordering::SeqCst);
        self.doorbell.ring(self.index.get().into());
    }

    /// Writes a chain, shows it, and kicks.
    pub fn send(&mut self, pieces: &[Piece]) -> Head {
        let head = self.chain(pieces);
        self.show();
        self.kick();
        head
    }

    /// Split: `used.idx`, as it stands there.
    pub fn used_idx(&self) -> u16 {
        let at = self.device_at(layout::IDX);
        self.arena.bytes().load_u16(at as u32)
    }

    /// The next used entry, if there is one.
    pub fn used(&mut self) -> Option<Back> {
        match self.format {
            Format::Split => self.used_split(),
            Format::Packed => self.used_packed(),
        }
    }

    fn used_split(&mut self) -> Option<Back> {
        if self.used_idx() == self.used {
            return None;
        }
        fence(Ordering::Acquire);
        let entry = layout::used_entry(self.used & (self.size - 1));
        let at = self.device_at(entry) as u32;
        let bytes = self.arena.bytes();
        let back = Back {
            id: bytes.load_u32(at),
            len: bytes.load_u32(at + 4),
        };
        let (chains, _) = self.settle(back.id as u16);
        self.used = self.used.wrapping_add(chains);
        Some(back)
    }

    fn used_packed(&mut self) -> Option<Back> {
        let at = self.descriptor_at(layout::descriptor(self.used_pos.index)) + 8;
        let meta = self.arena.bytes().load_u64(at as u32);
        let flags = (meta >> 48) as u16;
        let lap = if self.used_pos.wrap { AVAIL | USED } else { 0 };
        if flags & (AVAIL | USED) != lap {
            return None;
        }
        fence(Ordering::Acquire);
        let id = (meta >> 32) as u16;
        let (_, slots) = self.settle(id);
        self.used_pos = self.used_pos.advance(slots.min(self.size), self.size);
        // virtio 1.4 §2.8.4: the length counts with WRITE alone.
        let len = if flags & WRITE == 0 { 0 } else { meta as u32 };
        Some(Back { id: id.into(), len })
    }

    /// Chains and slots that an entry with this id stands for. Of one that was not shown nothing is known: the case will
    /// say so.
    fn settle(&mut self, id: u16) -> (u16, u16) {
        let at = self.slots.iter().position(|(shown, _)| *shown == id);
        let (chains, slots) = match at {
            None => (1, 1),
            Some(at) if self.in_order => {
                let all = self.slots.drain(..=at).map(|(_, slots)| slots);
                (at as u16 + 1, all.fold(0, u16::saturating_add))
            }
            Some(at) => (1, self.slots.remove(at).map_or(1, |(_, slots)| slots)),
        };
        self.returned += usize::from(chains);
        (chains, slots)
    }

    /// Waits for the next used entry.
    pub fn wait_used(&mut self, what: &str) -> Back {
        let mut back = None;
        until(what, || {
            back = self.used();
            back.is_some()
        });
        back.unwrap_or(Back { id: 0, len: 0 })
    }
}
