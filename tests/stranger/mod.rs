//! What the `virtio-drivers` crate asks of a platform and of a transport, over a device of the contract.
//!
//! Its platform is static, so each test's thread has one region of its own, mapped for the device at the addresses of
//! this process. Its buffers are anywhere: they are copied into the region when they are shared, and back.
#![allow(
    unsafe_code,
    reason = "the stranger's platform trait is unsafe to implement, and hands out raw buffers"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vdpa::core::{
    Asid, Call, Doorbell, Event, Events, Features, Kick, QueueConfig, QueueIndex, Status, bits,
};
use vdpa::mem::{Access, DmaMemory, IovaRange};
use vdpa::{Deadline, Device, Iova, Mapping, Region};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Anything ends within this.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// Bytes of a thread's region.
const REGION: u64 = 16 << 20;

/// Memory of one thread's platform.
struct Pool {
    memory: Arc<dyn DmaMemory>,
    /// Free parts of it: offset and length, in units of 64 bytes.
    free: BTreeMap<usize, usize>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::new());
}

impl Pool {
    fn new() -> Self {
        let (memory, _) = Region::anonymous(REGION).unwrap().into_shared();
        Self {
            free: BTreeMap::from([(0, memory.len() as usize)]),
            memory,
        }
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < REGION as usize);
        // SAFETY: inside the region.
        unsafe { self.memory.hva().add(offset) }
    }

    fn offset(&self, address: PhysAddr) -> usize {
        (address - self.memory.hva().as_ptr() as u64) as usize
    }

    fn take(&mut self, len: usize, align: usize) -> usize {
        let len = len.next_multiple_of(64);
        let fits = |(&at, &size): (&usize, &usize)| {
            let begin = at.next_multiple_of(align);
            (begin + len <= at + size).then_some((at, size, begin))
        };
        let (at, size, begin) = self.free.iter().find_map(fits).expect("memory is left");
        self.free.remove(&at);
        for (at, end) in [(at, begin), (begin + len, at + size)] {
            if at < end {
                self.free.insert(at, end - at);
            }
        }
        begin
    }

    fn put(&mut self, at: usize, len: usize) {
        let mut len = len.next_multiple_of(64);
        if let Some(next) = self.free.remove(&(at + len)) {
            len += next;
        }
        match self.free.range_mut(..at).next_back() {
            Some((before, size)) if before + *size == at => *size += len,
            _ => {
                self.free.insert(at, len);
            }
        }
    }
}

/// The platform.
pub(crate) struct Platform;

// SAFETY: pages and shared buffers are disjoint parts of a region that lives as long as its thread.
unsafe impl Hal for Platform {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        POOL.with_borrow_mut(|pool| {
            let len = pages * PAGE_SIZE;
            let at = pool.take(len, PAGE_SIZE);
            let at = pool.at(at);
            // SAFETY: that part of the region is nobody else's.
            unsafe { at.write_bytes(0, len) };
            (at.as_ptr() as u64, at)
        })
    }

    unsafe fn dma_dealloc(at: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        POOL.with_borrow_mut(|pool| pool.put(pool.offset(at), pages * PAGE_SIZE));
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::dangling()
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        POOL.with_borrow_mut(|pool| {
            let at = pool.take(buffer.len(), 64);
            let at = pool.at(at);
            if direction != BufferDirection::DeviceToDriver {
                // SAFETY: the buffer is valid, as promised; the part of the region is as long, and nobody else's.
                unsafe { at.copy_from_nonoverlapping(buffer.cast(), buffer.len()) };
            }
            at.as_ptr() as u64
        })
    }

    unsafe fn unshare(at: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        POOL.with_borrow_mut(|pool| {
            let offset = pool.offset(at);
            if direction != BufferDirection::DriverToDevice {
                let from = pool.at(offset);
                // SAFETY: as when it was shared; the device is done with it.
                unsafe { from.copy_to_nonoverlapping(buffer.cast(), buffer.len()) };
            }
            pool.put(offset, buffer.len());
        });
    }
}

/// A device of the contract as the stranger's drivers see it.
pub(crate) struct Contract {
    device: Device,
    events: Events,
    doorbells: BTreeMap<u16, Doorbell>,
    called: Arc<AtomicBool>,
    /// What is kept from the driver.
    hidden: Features,
}

impl Contract {
    /// Maps this thread's region, and shows the device without the features `hidden`.
    pub(crate) fn new(device: Device, hidden: Features) -> Self {
        let mapping = POOL.with_borrow(|pool| {
            let first = Iova::new(pool.memory.hva().as_ptr() as u64);
            Mapping {
                iova: IovaRange::new(first, REGION).unwrap(),
                memory: pool.memory.clone(),
                offset: 0,
                access: Access::Both,
                dirty: None,
            }
        });
        let dma = device.dma(Asid::new(0)).unwrap();
        dma.map(vec![mapping]).unwrap();
        Self {
            events: device.events().unwrap(),
            device,
            doorbells: BTreeMap::new(),
            called: Arc::default(),
            hidden,
        }
    }
}

impl Transport for Contract {
    fn device_type(&self) -> DeviceType {
        let number = self.device.info().device_type.id();
        DeviceType::try_from(number).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        (self.device.offered() - self.hidden).low_u64()
    }

    fn write_driver_features(&mut self, features: u64) {
        self.device.accept(Features::from_u64(features)).unwrap();
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        let limits = self.device.queue_limits(QueueIndex::new(queue));
        limits.map_or(0, |limits| limits.max_size.into())
    }

    fn notify(&mut self, queue: u16) {
        if let Some(doorbell) = self.doorbells.get(&queue) {
            doorbell.ring(queue.into());
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let status = self.device.status().unwrap();
        DeviceStatus::from_bits_retain(status.bits().into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        if status.is_empty() {
            return self.device.reset(soon()).unwrap();
        }
        self.device.write_status(status.bits() as u8).unwrap();
        // It does not read FEATURES_OK back itself.
        let wanted = Status::from_bits_retain(status.bits() as u8);
        assert!(self.device.status().unwrap().contains(wanted));
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptor: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        let [descriptor, driver, device] = [descriptor, driver, device].map(Iova::new);
        let config = QueueConfig::new(size.try_into().unwrap(), descriptor, driver, device);
        let called = self.called.clone();
        let call = Call::from_fn(move || called.store(true, Ordering::SeqCst));
        let started = self
            .device
            .start_queue(QueueIndex::new(queue), config, Kick::Taken, call);
        self.doorbells.insert(queue, started.unwrap());
    }

    fn queue_unset(&mut self, queue: u16) {
        self.doorbells.remove(&queue);
        self.device
            .stop_queue(QueueIndex::new(queue), soon())
            .unwrap();
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.doorbells.contains_key(&queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let mut status = InterruptStatus::empty();
        status.set(
            InterruptStatus::QUEUE_INTERRUPT,
            self.called.swap(false, Ordering::SeqCst),
        );
        let config = std::iter::from_fn(|| self.events.try_next());
        status.set(
            InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT,
            config.filter(|event| *event == Event::Config).count() != 0,
        );
        status
    }

    fn read_config_generation(&self) -> u32 {
        self.device.config_generation().unwrap().unwrap_or(0)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<T> {
        let mut bytes = vec![0; size_of::<T>()];
        self.device
            .read_config(offset as u32, &mut bytes)
            .map_err(|_| virtio_drivers::Error::ConfigSpaceTooSmall)?;
        Ok(T::read_from_bytes(&bytes).unwrap())
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> virtio_drivers::Result<()> {
        self.device
            .write_config(offset as u32, value.as_bytes())
            .map_err(|_| virtio_drivers::Error::ConfigSpaceTooSmall)
    }
}

/// What the stranger may be shown or not: its queue code differs with each.
pub(crate) fn variants() -> [Features; 4] {
    [
        Features::NONE,
        Features::of(&[bits::EVENT_IDX]),
        Features::of(&[bits::INDIRECT_DESC]),
        Features::of(&[bits::EVENT_IDX, bits::INDIRECT_DESC]),
    ]
}
