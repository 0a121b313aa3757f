//! Queues and buffers in one guest memory, and the two ring formats behind one trait for each half.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vdpa_mem::{Access, AddressSpace, Bytes, GuestRegion, Iova, Spots, Window};
use vdpa_ring::{
    AddError, Areas, Batch, Completion, DeviceMem, DriverMem, Format, PackedDevice, PackedDriver,
    RingError, RingFeatures, RingMem, Segment, SplitDevice, SplitDriver, Used, area_sizes,
};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::wrong;

/// Slots of every queue.
pub const SLOTS: u16 = 256;

/// Chains taken, and given back, at a time.
pub const BATCH: usize = 32;

/// Bytes from one buffer to the next: a packet of 1500 and some, and no power of two, so that the buffers' first
/// lines spread over all sets of a cache (as the pools of packet frameworks see to).
pub const STRIDE: usize = 2112;

/// A ring format, and whether IN_ORDER is negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The format.
    pub format: Format,
    /// Whether chains are given back with one used entry a batch.
    pub in_order: bool,
}

impl Shape {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self::new(Format::Split, false),
        Self::new(Format::Packed, false),
        Self::new(Format::Split, true),
        Self::new(Format::Packed, true),
    ];

    /// One of them.
    pub const fn new(format: Format, in_order: bool) -> Self {
        Self { format, in_order }
    }

    /// As tables call it.
    pub fn name(self) -> String {
        let order = if self.in_order { " in-order" } else { "" };
        format!("{}{order}", self.format)
    }

    /// What is negotiated. EVENT_IDX as drivers have it, so that each batch reads an event word.
    pub fn features(self) -> RingFeatures {
        match self.in_order {
            true => RingFeatures::EVENT_IDX | RingFeatures::IN_ORDER,
            false => RingFeatures::EVENT_IDX,
        }
    }
}

/// The driver half of either format.
pub trait DriverHalf {
    /// A fresh ring.
    fn fresh(slots: u16, features: RingFeatures) -> Self;
    /// See [`SplitDriver::add`].
    fn add<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        readable: &[Segment],
        writable: &[Segment],
    ) -> Result<u16, AddError>;
    /// See [`SplitDriver::publish`].
    fn publish<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool;
    /// See [`SplitDriver::take_used`].
    fn take_used<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        out: &mut [Completion],
    ) -> Result<usize, RingError>;
    /// See [`SplitDriver::disarm`].
    fn disarm<M: RingMem>(&mut self, mem: &DriverMem<M>);
}

/// The device half of either format.
pub trait DeviceHalf {
    /// A fresh ring.
    fn fresh(slots: u16, features: RingFeatures) -> Self;
    /// See [`SplitDevice::take`].
    fn take<D: DeviceMem>(&mut self, mem: &D, batch: &mut Batch) -> Result<usize, RingError>;
    /// See [`SplitDevice::commit`], or `commit_in_order`.
    fn commit<D: DeviceMem>(
        &mut self,
        mem: &D,
        used: &[Used],
        in_order: bool,
    ) -> Result<bool, RingError>;
    /// See [`SplitDevice::disarm`].
    fn disarm<D: DeviceMem>(&mut self, mem: &D);
}

macro_rules! halves {
    ($driver:ident, $device:ident) => {
        impl DriverHalf for $driver {
            fn fresh(slots: u16, features: RingFeatures) -> Self {
                Self::new(slots, features, None).unwrap_or_else(|e| wrong(&e.to_string()))
            }
            #[inline(always)]
            fn add<M: RingMem>(
                &mut self,
                mem: &DriverMem<M>,
                readable: &[Segment],
                writable: &[Segment],
            ) -> Result<u16, AddError> {
                self.add(mem, readable, writable)
            }
            #[inline(always)]
            fn publish<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool {
                self.publish(mem)
            }
            #[inline(always)]
            fn take_used<M: RingMem>(
                &mut self,
                mem: &DriverMem<M>,
                out: &mut [Completion],
            ) -> Result<usize, RingError> {
                self.take_used(mem, out)
            }
            fn disarm<M: RingMem>(&mut self, mem: &DriverMem<M>) {
                self.disarm(mem);
            }
        }

        impl DeviceHalf for $device {
            fn fresh(slots: u16, features: RingFeatures) -> Self {
                Self::new(slots, features, None).unwrap_or_else(|e| wrong(&e.to_string()))
            }
            #[inline(always)]
            fn take<D: DeviceMem>(
                &mut self,
                mem: &D,
                batch: &mut Batch,
            ) -> Result<usize, RingError> {
                self.take(mem, batch, BATCH)
            }
            #[inline(always)]
            fn commit<D: DeviceMem>(
                &mut self,
                mem: &D,
                used: &[Used],
                in_order: bool,
            ) -> Result<bool, RingError> {
                match in_order {
                    true => self.commit_in_order(mem, used),
                    false => self.commit(mem, used),
                }
            }
            fn disarm<D: DeviceMem>(&mut self, mem: &D) {
                self.disarm(mem);
            }
        }
    };
}

halves!(SplitDriver, SplitDevice);
halves!(PackedDriver, PackedDevice);

/// Where a queue's three areas are: guest addresses and sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Descriptor area.
    pub descriptor: (u64, u32),
    /// Driver area.
    pub driver: (u64, u32),
    /// Device area.
    pub device: (u64, u32),
}

impl Place {
    /// The areas as `span` finds them.
    pub fn areas<M>(&self, mut span: impl FnMut(Iova, u32) -> M) -> Areas<M> {
        let mut area = |(at, bytes): (u64, u32)| span(Iova::new(at), bytes);
        Areas {
            descriptor: area(self.descriptor),
            driver: area(self.driver),
            device: area(self.device),
        }
    }

    /// The areas as a device finds them again and again.
    pub fn spots(&self) -> Spots<3> {
        let spot = |(at, bytes)| (Iova::new(at), bytes, Access::Both);
        Spots::new([self.descriptor, self.driver, self.device].map(spot))
    }
}

/// A guest's memory: one region at guest address 0, given out piece by piece.
pub struct Arena {
    /// As a VMM holds it.
    pub guest: Arc<GuestMemoryMmap<()>>,
    /// As a driver of ours sees it.
    pub window: Window,
    /// As a device of ours sees it.
    pub space: AddressSpace,
    next: AtomicU64,
}

impl Arena {
    /// `bytes` of guest memory, mapped one to one.
    pub fn new(bytes: usize) -> Self {
        let guest = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), bytes)]);
        let guest = Arc::new(guest.unwrap_or_else(|e| wrong(&e.to_string())));
        let mappings = GuestRegion::mappings(&guest, Access::Both);
        let mut mappings = mappings.unwrap_or_else(|e| wrong(&e.to_string()));
        for mapping in &mut mappings {
            mapping.dirty = None;
        }
        let window = match mappings.first() {
            Some(only) => Window::new(Arc::clone(&only.memory), 0, bytes as u64),
            None => wrong("guest memory without a region"),
        };
        let space = AddressSpace::new();
        space
            .map(mappings)
            .unwrap_or_else(|e| wrong(&e.to_string()));
        Self {
            guest,
            window: window.unwrap_or_else(|e| wrong(&e.to_string())),
            space,
            // Nothing at address 0, which some take to mean "not set".
            next: AtomicU64::new(4096),
        }
    }

    /// Guest address of `bytes` bytes, on a page of their own.
    pub fn piece(&self, bytes: u64) -> u64 {
        let bytes = bytes.next_multiple_of(4096);
        let at = self.next.fetch_add(bytes, Ordering::Relaxed);
        if at + bytes > self.window.bytes().len() as u64 {
            wrong("the arena is too small");
        }
        at
    }

    /// Room for a queue of [`SLOTS`] slots.
    pub fn queue(&self, format: Format) -> Place {
        let sizes = area_sizes(format, SLOTS, true);
        let placed = sizes.placed();
        let base = self.piece(placed.bytes.into());
        Place {
            descriptor: (base + u64::from(placed.descriptor), sizes.descriptor.bytes),
            driver: (base + u64::from(placed.driver), sizes.driver.bytes),
            device: (base + u64::from(placed.device), sizes.device.bytes),
        }
    }

    /// A buffer for each slot of a queue: guest address, and offset in [`window`](Self::window).
    pub fn buffers(&self) -> Vec<(Iova, usize)> {
        let base = self.piece(u64::from(SLOTS) * STRIDE as u64) as usize;
        let at = (0..usize::from(SLOTS)).map(|i| base + i * STRIDE);
        at.map(|at| (Iova::new(at as u64), at)).collect()
    }

    /// The span at guest address `at`.
    pub fn span(&self, at: Iova, bytes: u32) -> Bytes<'_> {
        let span = self.window.bytes().slice(at.get() as usize, bytes as usize);
        span.unwrap_or_else(|| wrong("a span outside the arena"))
    }
}
