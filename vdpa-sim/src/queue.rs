//! A queue, from the device's side: a ring, where its areas are, and whom to call.
//!
//! ```text
//!   reader.enter() ─▶ Section ─▶ Queue::open ─▶ Areas of this batch        one section for a batch
//!                        take, read and write buffers, commit
//!                     section ends ─▶ Queue::call                           outside the section
//! ```

mod calls;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use vdpa_core::faults::Plan;
use vdpa_core::{Area, CallCell, Features, QueueConfig, QueueIndex, bits};
use vdpa_mem::{Access, Bytes, Fault, Hint, Iova, Section, Spots, Window};
use vdpa_ring::{
    Areas, Batch, ChainToken, DeviceMem, DeviceRing, Format, QueueState, Record, RecordError,
    RingError, RingFeatures, SetupError, Used, area_sizes,
};

use crate::faults::QueueFaults;
pub use calls::{BATCH_SIZES, Hold, Tally};

/// Why a queue does not go on: for good, that is before the device is reset, or for a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Halt {
    /// The driver broke the ring.
    #[error("{0}")]
    Ring(RingError),
    /// An area of the ring is not where it was any more.
    #[error("{area} at {at} is {fault}")]
    Area {
        /// Which area.
        area: Area,
        /// Where it begins.
        at: Iova,
        /// What is wrong.
        fault: Fault,
    },
    /// An area was mapped in one piece and is not any more, or not aligned in this process.
    #[error(
        "{area} at {at} is not one aligned piece of memory in this process: map it by one mapping"
    )]
    Scattered {
        /// Which area.
        area: Area,
        /// Where it begins.
        at: Iova,
    },
    /// It waits for an address that is not mapped yet. No fault of the driver's.
    #[error("an address is not mapped yet")]
    Waiting,
}

impl From<RingError> for Halt {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

/// One area: where it is, and what was found there last.
#[derive(Clone, Copy, Debug)]
struct Place {
    area: Area,
    at: Iova,
    len: u32,
    want: Access,
    near: Hint,
}

impl Place {
    /// Where the area is not mapped, if that is what is wrong with it.
    #[cold]
    fn missing(&mut self, section: &Section<'_>) -> Option<(Iova, Access)> {
        let at = missing(section, self.at, self.len, self.want, &mut self.near)?;
        Some((at, self.want))
    }

    #[inline]
    fn open<'s>(&mut self, section: &'s Section<'_>) -> Result<Bytes<'s>, Halt> {
        match section.translate(self.at, self.len, self.want, &mut self.near) {
            Ok(bytes) if bytes.len() == self.len as usize => Ok(bytes),
            Ok(_) => Err(Halt::Scattered {
                area: self.area,
                at: self.at,
            }),
            Err(fault) => Err(Halt::Area {
                area: self.area,
                at: self.at,
                fault,
            }),
        }
    }
}

/// The areas of a queue in one section, and the way to its indirect tables.
pub struct QueueMem<'s> {
    section: &'s Section<'s>,
    areas: Areas<Bytes<'s>>,
    tables: Cell<Hint>,
    misses: bool,
    /// The first address of an indirect table that is not mapped.
    gap: Cell<Option<Iova>>,
}

impl QueueMem<'_> {
    /// The section that it belongs to: for the buffers.
    #[inline]
    pub fn section(&self) -> &Section<'_> {
        self.section
    }
}

impl<'s> DeviceMem for QueueMem<'s> {
    type Ring = Bytes<'s>;

    #[inline]
    fn areas(&self) -> &Areas<Bytes<'s>> {
        &self.areas
    }

    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        let mut near = self.tables.get();
        let copied = copy_table(self.section, at, to, &mut near);
        self.tables.set(near);
        copied.map_err(|(at, fault)| {
            self.gap.set(Some(at));
            // Where nobody maps what is missing, the table cannot be waited for.
            if self.misses { fault } else { Fault::Denied }
        })
    }
}

/// The first address that is not mapped of `len` bytes from `at` on.
fn missing(
    section: &Section<'_>,
    mut at: Iova,
    mut len: u32,
    want: Access,
    near: &mut Hint,
) -> Option<Iova> {
    while len != 0 {
        let bytes = match section.translate(at, len, want, near) {
            Ok(bytes) => bytes,
            Err(Fault::Miss) => return Some(at),
            Err(Fault::Denied) => return None,
        };
        len = len.saturating_sub(bytes.len() as u32);
        at = at.checked_add(bytes.len() as u64)?;
    }
    None
}

fn copy_table(
    section: &Section<'_>,
    mut at: Iova,
    to: &mut [[u64; 2]],
    near: &mut Hint,
) -> Result<(), (Iova, Fault)> {
    let mut raw = [0; 16];
    let mut have = 0_usize;
    let mut entries = to.iter_mut().peekable();
    while entries.peek().is_some() {
        // Up to a page at a time; a table may cross from one region to the next at any byte.
        let bytes = section
            .translate(at, 4096, Access::DeviceReads, near)
            .map_err(|fault| (at, fault))?;
        let mut used = 0_usize;
        while let Some(entry) = entries.peek_mut() {
            let Some(rest) = raw.get_mut(have..) else {
                break;
            };
            let read = bytes.read(used, rest);
            used = used.saturating_add(read);
            have = have.saturating_add(read);
            if have < raw.len() {
                break;
            }
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = raw;
            **entry = [
                u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                u64::from_le_bytes([i, j, k, l, m, n, o, p]),
            ];
            have = 0;
            entries.next();
        }
        if entries.peek().is_some() {
            // Nothing is ever mapped behind the last address.
            at = at.checked_add(used as u64).ok_or((at, Fault::Denied))?;
        }
    }
    Ok(())
}

/// How much of the buffers given back was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completeness {
    /// All but the last were used completely, so that with IN_ORDER one entry stands for all of them.
    Whole,
    /// Each has a length of its own.
    Partial,
}

/// An address that a queue waits for.
#[derive(Clone, Copy, Debug)]
struct Wait {
    at: Iova,
    want: Access,
    told: bool,
    /// How much had been unmapped when it was found missing.
    removals: u64,
}

/// A record of what is in flight, and where it is.
struct Tracked {
    record: Record,
    cells: Window,
}

/// Why a queue cannot keep a record of what it has in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TrackError {
    /// The record is none, or does not fit the ring.
    #[error(transparent)]
    Record(RecordError),
    /// An area of the ring is not mapped: it says what the record means.
    #[error(transparent)]
    Area(Halt),
    /// The state that the record and the ring give cannot be.
    #[error(transparent)]
    State(SetupError),
}

/// A device-side queue that runs.
pub struct Queue {
    index: QueueIndex,
    ring: DeviceRing,
    features: RingFeatures,
    tracked: Option<Box<Tracked>>,
    descriptor: Place,
    driver: Place,
    device: Place,
    /// The three together, as one batch after the other finds them.
    spots: Spots<3>,
    tables: Hint,
    call: Arc<CallCell>,
    call_due: bool,
    /// Chains given back since the last call, or since it would have been made.
    returned: usize,
    /// When a call that is held back is made at the latest.
    due: Option<Instant>,
    /// Kicks were asked for, and nothing has come since.
    armed: bool,
    tally: Tally,
    in_order: bool,
    /// Whether an address that is not mapped is waited for.
    misses: bool,
    /// What is waited for, and whether that was told.
    waits: Option<Wait>,
    near: Hint,
    /// What it does wrong on purpose.
    faults: Option<Box<QueueFaults>>,
    /// Whether it has effects: see [`QueueEnable`](vdpa_core::QueueEnable).
    pub enabled: bool,
    /// The chains of one take.
    pub batch: Batch,
    /// The chains to give back.
    pub used: Vec<Used>,
}

impl Queue {
    /// The queue that `c` describes, with room for `chains` chains in a batch.
    ///
    /// # Errors
    /// When no ring can have this size or state.
    pub fn new(
        index: QueueIndex,
        c: &QueueConfig,
        features: Features,
        call: Arc<CallCell>,
        chains: usize,
    ) -> Result<Self, SetupError> {
        let mut ring = RingFeatures::empty();
        ring.set(
            RingFeatures::INDIRECT_DESC,
            features.contains(bits::INDIRECT_DESC),
        );
        ring.set(RingFeatures::EVENT_IDX, features.contains(bits::EVENT_IDX));
        ring.set(RingFeatures::IN_ORDER, features.contains(bits::IN_ORDER));
        let packed = features.contains(bits::RING_PACKED);
        let format = if packed {
            Format::Packed
        } else {
            Format::Split
        };
        let sizes = area_sizes(format, c.size, ring.contains(RingFeatures::EVENT_IDX));
        let place = |area, len, want| Place {
            area,
            at: c.area(area),
            len,
            want,
            near: Hint::default(),
        };
        // A packed device writes descriptors, to mark them used; a split one never does.
        let descriptors = if packed {
            Access::Both
        } else {
            Access::DeviceReads
        };
        let segments = usize::from(c.size).saturating_mul(2);
        // There are no more than that.
        let chains = chains.clamp(1, usize::from(c.size).max(1));
        let descriptor = place(Area::Descriptor, sizes.descriptor.bytes, descriptors);
        let driver = place(Area::Driver, sizes.driver.bytes, Access::DeviceReads);
        let device = place(Area::Device, sizes.device.bytes, Access::DeviceWrites);
        Ok(Self {
            index,
            ring: DeviceRing::new(format, c.size, ring, c.state)?,
            features: ring,
            tracked: None,
            descriptor,
            driver,
            device,
            spots: Spots::new([descriptor, driver, device].map(|p| (p.at, p.len, p.want))),
            tables: Hint::default(),
            call,
            call_due: false,
            returned: 0,
            due: None,
            armed: false,
            tally: Tally::default(),
            in_order: ring.contains(RingFeatures::IN_ORDER),
            misses: false,
            waits: None,
            near: Hint::default(),
            faults: None,
            enabled: c.enabled,
            batch: Batch::new(chains, segments),
            used: Vec::with_capacity(chains),
        })
    }

    /// The same queue, which waits for what is not mapped: [`take`](Self::take) returns chains that are mapped
    /// completely, and no others.
    pub fn with_page_requests(self) -> Self {
        Self {
            misses: true,
            ..self
        }
    }

    /// The same queue, which makes the faults of `plan`.
    pub(crate) fn with_faults(mut self, plan: Option<&Plan>) -> Self {
        self.faults = plan.map(|plan| QueueFaults::new(plan, self.index, self.size()));
        self
    }

    /// What it does wrong on purpose.
    pub(crate) fn faults(&mut self) -> Option<&mut QueueFaults> {
        self.faults.as_deref_mut()
    }

    /// Keeps a record of what is in flight in these bytes, and goes on by what is in them.
    ///
    /// # Errors
    /// When they are no record of this queue, or an area is not mapped.
    pub fn track(&mut self, cells: Window, section: &Section<'_>) -> Result<(), TrackError> {
        let areas = Areas {
            descriptor: self.descriptor.open(section).map_err(TrackError::Area)?,
            driver: self.driver.open(section).map_err(TrackError::Area)?,
            device: self.device.open(section).map_err(TrackError::Area)?,
        };
        let (format, size, state) = (self.ring.format(), self.ring.size(), self.ring.state());
        let opened = Record::open(format, size, &cells.bytes(), &areas, Some(state));
        let (record, recovered) = opened.map_err(TrackError::Record)?;
        let state = Some(recovered.state);
        self.ring =
            DeviceRing::new(format, size, self.features, state).map_err(TrackError::State)?;
        self.ring.note(self.batch.capacity());
        self.ring.resubmit(recovered.again);
        self.tracked = Some(Box::new(Tracked { record, cells }));
        Ok(())
    }

    /// What the queue waits for since it was last asked.
    pub(crate) fn new_wait(&mut self) -> Option<(Iova, Access)> {
        let wait = self.waits.as_mut().filter(|wait| !wait.told)?;
        wait.told = true;
        Some((wait.at, wait.want))
    }

    /// Its number.
    pub fn index(&self) -> QueueIndex {
        self.index
    }

    /// Its size in descriptors.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Where it stands. Between batches nothing is in flight but what a record says is to be taken again.
    pub fn state(&self) -> QueueState {
        self.ring.state()
    }

    /// Checks that each area is one aligned piece of memory in this process. What is not mapped yet is no fault of a
    /// queue with page requests.
    ///
    /// # Errors
    /// [`Halt`] with the first area that is not.
    pub fn check(&mut self, section: &Section<'_>) -> Result<(), Halt> {
        let misses = self.misses;
        for (place, align) in [
            (&mut self.descriptor, 16),
            (&mut self.driver, 4),
            (&mut self.device, 4),
        ] {
            if misses && place.missing(section).is_some() {
                continue;
            }
            let bytes = place.open(section)?;
            // A split driver area is made of 16-bit cells alone.
            let align = if place.area == Area::Driver && place.len > 4 {
                2
            } else {
                align
            };
            if !bytes.hva().is_aligned(align) {
                let (area, at) = (place.area, place.at);
                return Err(Halt::Scattered { area, at });
            }
        }
        Ok(())
    }

    /// Finds the areas, for one batch.
    ///
    /// # Errors
    /// [`Halt`] when one is not there any more; [`Halt::Waiting`] while what the queue waits for is not mapped.
    #[inline]
    pub fn open<'s>(&mut self, section: &'s Section<'s>) -> Result<QueueMem<'s>, Halt> {
        if self.misses {
            self.check_waits(section)?;
        }
        self.areas(section)
    }

    /// The same for giving chains back alone: what the next one in the ring waits for holds up none that is done.
    ///
    /// # Errors
    /// [`Halt`] when an area is not there any more, or not yet.
    pub fn open_to_return<'s>(&mut self, section: &'s Section<'s>) -> Result<QueueMem<'s>, Halt> {
        if self.misses {
            self.check_areas(section)?;
        }
        self.areas(section)
    }

    #[inline]
    fn areas<'s>(&mut self, section: &'s Section<'s>) -> Result<QueueMem<'s>, Halt> {
        let areas = match self.spots.find(section) {
            Ok([descriptor, driver, device]) => Areas {
                descriptor,
                driver,
                device,
            },
            Err(_) => self.open_each(section)?,
        };
        Ok(QueueMem {
            section,
            areas,
            tables: Cell::new(self.tables),
            misses: self.misses,
            gap: Cell::new(None),
        })
    }

    /// Finds the areas one by one, or says which is not there.
    #[cold]
    fn open_each<'s>(&mut self, section: &'s Section<'s>) -> Result<Areas<Bytes<'s>>, Halt> {
        Ok(Areas {
            descriptor: self.descriptor.open(section)?,
            driver: self.driver.open(section)?,
            device: self.device.open(section)?,
        })
    }

    /// Whether everything that the queue needs to go on is mapped.
    #[cold]
    fn check_waits(&mut self, section: &Section<'_>) -> Result<(), Halt> {
        if let Some(wait) = &mut self.waits
            && missing(section, wait.at, 1, wait.want, &mut self.near).is_some()
        {
            // What was asked for may have come, and gone before the queue was looked at: it is asked for again.
            wait.told &= wait.removals == section.removals();
            wait.removals = section.removals();
            return Err(Halt::Waiting);
        }
        self.waits = None;
        self.check_areas(section)
    }

    /// Whether the areas are mapped.
    #[cold]
    fn check_areas(&mut self, section: &Section<'_>) -> Result<(), Halt> {
        let areas = [&mut self.descriptor, &mut self.driver, &mut self.device];
        let gap = areas.into_iter().find_map(|area| area.missing(section));
        match gap {
            Some(gap) => Err(self.wait_for(section, gap)),
            None => Ok(()),
        }
    }

    fn wait_for(&mut self, section: &Section<'_>, (at, want): (Iova, Access)) -> Halt {
        self.waits = Some(Wait {
            at,
            want,
            told: false,
            removals: section.removals(),
        });
        Halt::Waiting
    }

    /// Gives back, untouched, what follows the first chain that is not mapped completely, and waits for that. Answers
    /// how many are left.
    #[cold]
    fn take_mapped(&mut self, mem: &QueueMem<'_>, taken: usize) -> Result<usize, Halt> {
        let (near, section) = (&mut self.near, mem.section);
        // Not where the table begins: that may be mapped.
        let parked = self.ring.parked().map(|at| mem.gap.take().unwrap_or(at));
        let mut gap = parked.map(|at| (at, Access::DeviceReads));
        let mut whole = 0_usize;
        for chain in self.batch.iter() {
            let parts = [
                (chain.readable(), Access::DeviceReads),
                (chain.writable(), Access::DeviceWrites),
            ];
            let mut segments = parts
                .into_iter()
                .flat_map(|(part, want)| part.iter().map(move |segment| (segment, want)));
            let hole = segments.find_map(|(segment, want)| {
                missing(section, segment.addr, segment.len, want, near).map(|at| (at, want))
            });
            if hole.is_some() {
                gap = hole;
                break;
            }
            whole = whole.saturating_add(1);
        }
        self.rewind_ring(taken.saturating_sub(whole))?;
        match gap.map(|gap| self.wait_for(section, gap)) {
            Some(waiting) if whole == 0 => Err(waiting),
            _ => Ok(whole),
        }
    }

    /// Takes up to `limit` chains into [`batch`](Self::batch).
    ///
    /// # Errors
    /// [`Halt`] when the ring is malformed, or its next chain is not mapped yet.
    #[inline]
    pub fn take(&mut self, mem: &QueueMem<'_>, limit: usize) -> Result<usize, Halt> {
        let mut taken = self.ring.take(mem, &mut self.batch, limit)?;
        self.tables = mem.tables.get();
        if self.armed && taken != 0 {
            self.armed = false;
            self.tally.kicks = self.tally.kicks.wrapping_add(1);
        }
        if let Some(tracked) = &mut self.tracked {
            let cells = tracked.cells.bytes();
            tracked.record.taken(&cells, &self.ring, &self.batch)?;
        }
        if self.misses {
            taken = self.take_mapped(mem, taken)?;
        }
        if self.faults.is_some() && taken != 0 {
            self.bend(mem.section, taken)?;
        }
        Ok(taken)
    }

    /// Makes faults of the chains that were taken.
    #[cold]
    fn bend(&mut self, section: &Section<'_>, taken: usize) -> Result<(), Halt> {
        let Some(faults) = &mut self.faults else {
            return Ok(());
        };
        if !faults.lose_area() {
            faults.bend(&mut self.batch, section);
            return Ok(());
        }
        // So that the queue's state says that they were not taken.
        self.rewind_ring(taken)?;
        let Place { area, at, .. } = self.device;
        let fault = Fault::Miss;
        Err(Halt::Area { area, at, fault })
    }

    /// Gives the last `n` chains of the batch back untouched.
    ///
    /// # Errors
    /// Never with a batch that was just taken.
    #[inline]
    pub fn rewind(&mut self, n: usize) -> Result<(), Halt> {
        if n != 0 {
            self.rewind_ring(n)?;
            if let Some(faults) = &mut self.faults {
                faults.rewind(n);
            }
        }
        Ok(())
    }

    /// The same for chains in which no faults were made.
    #[inline]
    fn rewind_ring(&mut self, n: usize) -> Result<(), Halt> {
        if n != 0 {
            if let Some(tracked) = &mut self.tracked {
                let cells = tracked.cells.bytes();
                tracked.record.rewound(&cells, &self.ring, &self.batch, n);
            }
            self.ring.rewind(&mut self.batch, n)?;
        }
        Ok(())
    }

    /// Gives the chains in [`used`](Self::used) back, all at once.
    ///
    /// # Errors
    /// [`Halt`] when the ring cannot take them.
    #[inline]
    pub fn commit(&mut self, mem: &QueueMem<'_>, how: Completeness) -> Result<(), Halt> {
        if self.used.is_empty() {
            return Ok(());
        }
        if self.faults.is_some() {
            return self.commit_bent(mem, how);
        }
        self.commit_used(mem, how)
    }

    #[inline(always)]
    fn commit_used(&mut self, mem: &QueueMem<'_>, how: Completeness) -> Result<(), Halt> {
        if let Some(Tracked { record, cells }) = self.tracked.as_deref_mut() {
            record.committing(&cells.bytes(), &self.used)?;
        }
        let call = if self.in_order && how == Completeness::Whole {
            self.ring.commit_in_order(mem, &self.used)
        } else {
            self.ring.commit(mem, &self.used)
        };
        self.tally.batch(self.used.len());
        self.returned = self.returned.saturating_add(self.used.len());
        if let (Some(tracked), Ok(_)) = (&mut self.tracked, &call) {
            let cells = tracked.cells.bytes();
            tracked.record.committed(&cells, &self.used);
        }
        self.used.clear();
        if call? {
            self.call_due = true;
        } else {
            self.tally.suppressed = self.tally.suppressed.wrapping_add(1);
        }
        Ok(())
    }

    /// Gives them back with faults.
    #[cold]
    fn commit_bent(&mut self, mem: &QueueMem<'_>, how: Completeness) -> Result<(), Halt> {
        let size = self.ring.size();
        if let Some(faults) = &mut self.faults {
            faults.bend_used(&mut self.used, size, mem.section);
        }
        self.commit_used(mem, how)?;
        if let Some(faults) = &mut self.faults {
            self.call_due |= faults.bend_ring(&mem.areas, self.ring.state(), size);
        }
        Ok(())
    }

    /// How many descriptors of the ring a chain of the batch takes. The driver may have rewritten them by now, to its
    /// own loss: nothing but an estimate is made of them.
    #[cold]
    pub(crate) fn descriptors(&self, mem: &QueueMem<'_>, token: ChainToken) -> usize {
        if matches!(self.ring, DeviceRing::Packed(_)) {
            return usize::from(token.slots());
        }
        let (mut index, mut count) = (token.id(), 0_u16);
        while count < self.size() {
            count = count.saturating_add(1);
            // virtio 1.4 §2.7.5: address, length, flags, next.
            let at = u32::from(index).wrapping_mul(16).wrapping_add(8);
            let word = mem.areas.descriptor.load_u64(at);
            // NEXT
            if word >> 32 & 1 == 0 {
                break;
            }
            index = (word >> 48) as u16;
        }
        usize::from(count)
    }

    /// Asks for kicks. `true`: there is work already.
    ///
    /// # Errors
    /// [`Halt`] when the ring is malformed.
    pub fn arm(&mut self, mem: &QueueMem<'_>) -> Result<bool, Halt> {
        let more = self.ring.arm(mem)?;
        self.armed = !more;
        Ok(more)
    }

    /// Asks for silence: the worker looks at the ring by itself.
    #[inline]
    pub fn disarm(&mut self, mem: &QueueMem<'_>) {
        self.ring.disarm(mem);
    }
}
