//! A queue, from the device's side: a ring, where its areas are, and whom to call.
//!
//! ```text
//!   reader.enter() ─▶ Section ─▶ Queue::open ─▶ Areas of this batch        one section for a batch
//!                        take, read and write buffers, commit
//!                     section ends ─▶ Queue::call                           outside the section
//! ```

mod areas;
mod bent;
mod calls;
mod halt;
mod mem;
mod waits;

use std::sync::Arc;
use std::time::Instant;

use vdpa_core::{Area, CallCell, Features, QueueConfig, QueueIndex, bits};
use vdpa_mem::{Access, Hint, Spots, Window};
use vdpa_ring::{
    Batch, ChainToken, DeviceRing, Format, QueueState, Record, RingFeatures, SetupError, Used,
    area_sizes,
};

use crate::class::Role;
use crate::faults::QueueFaults;
pub use calls::{BATCH_SIZES, Hold, Tally};
pub use halt::{Halt, TrackError};
pub use mem::QueueMem;

use mem::Place;
use waits::Wait;

/// How much of the buffers given back was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completeness {
    /// All but the last were used completely, so that with IN_ORDER one entry stands for all of them.
    Whole,
    /// Each has a length of its own.
    Partial,
}

/// A record of what is in flight, and where it is.
struct Tracked {
    record: Record,
    cells: Window,
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
    /// The queue that `c` describes, in this role.
    ///
    /// # Errors
    /// When no ring can have this size or state.
    pub fn new(
        index: QueueIndex,
        c: &QueueConfig,
        features: Features,
        call: Arc<CallCell>,
        role: Role,
    ) -> Result<Self, SetupError> {
        let mut ring = RingFeatures::empty();
        ring.set(
            RingFeatures::INDIRECT_DESC,
            features.contains(bits::INDIRECT_DESC),
        );
        ring.set(RingFeatures::EVENT_IDX, features.contains(bits::EVENT_IDX));
        ring.set(RingFeatures::IN_ORDER, features.contains(bits::IN_ORDER));
        ring.set(RingFeatures::DEVICE_READS_ALL, role.reads_all);
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
        let chains = role.chains.clamp(1, usize::from(c.size).max(1));
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
