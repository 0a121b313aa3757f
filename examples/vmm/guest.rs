//! The guest: drivers of the `virtio-drivers` crate, which nobody here wrote. They reach memory by guest-physical
//! addresses, and the device by reads and writes of 32-bit registers.
#![allow(
    unsafe_code,
    reason = "the crate's platform trait is unsafe to implement, and hands out raw buffers"
)]

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::mmio::{Mmio, at};

/// Where the memory that the drivers use begins. What is below is a region of its own.
const HIGH: u64 = 0x1_0000_0000;
const PAGES: usize = 1024;

/// The machine's memory, and which pages of it are free.
struct Machine {
    memory: Arc<GuestMemoryMmap>,
    taken: Vec<bool>,
}

std::thread_local! {
    // The crate's platform is static: each thread is a machine.
    static MACHINE: std::cell::RefCell<Machine> = std::cell::RefCell::new(Machine {
        memory: Arc::new(
            GuestMemoryMmap::from_ranges(&[
                (GuestAddress(0), 1 << 20),
                (GuestAddress(HIGH), PAGES * PAGE_SIZE),
            ])
            .expect("memory for a guest"),
        ),
        taken: vec![false; PAGES],
    });
}

/// The memory of this thread's machine.
pub(crate) fn memory() -> Arc<GuestMemoryMmap> {
    MACHINE.with_borrow(|machine| machine.memory.clone())
}

/// The platform of the drivers. What they share with the device is copied into pages of the machine's, and back.
pub(crate) struct Platform;

impl Platform {
    fn take(bytes: usize) -> PhysAddr {
        let pages = bytes.div_ceil(PAGE_SIZE);
        MACHINE.with_borrow_mut(|machine| {
            let free = |window: &[bool]| !window.contains(&true);
            let first = machine.taken.windows(pages).position(free);
            let first = first.expect("pages are left");
            machine.taken[first..first + pages].fill(true);
            HIGH + (first * PAGE_SIZE) as u64
        })
    }

    fn give_back(address: PhysAddr, bytes: usize) {
        let first = (address - HIGH) as usize / PAGE_SIZE;
        let pages = bytes.div_ceil(PAGE_SIZE);
        MACHINE.with_borrow_mut(|machine| machine.taken[first..first + pages].fill(false));
    }
}

// SAFETY: what is handed out are disjoint pages of memory that lives as long as its thread.
unsafe impl Hal for Platform {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let address = Self::take(pages * PAGE_SIZE);
        let at = GuestAddress(address);
        let memory = memory();
        let zeros = vec![0; pages * PAGE_SIZE];
        memory.write_slice(&zeros, at).expect("it is memory");
        let host = memory.get_host_address(at).expect("it is mapped");
        (address, NonNull::new(host).expect("it is somewhere"))
    }

    unsafe fn dma_dealloc(address: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        Self::give_back(address, pages * PAGE_SIZE);
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::dangling()
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let address = Self::take(buffer.len());
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the buffer is valid, as promised, and nobody writes to it while it is shared.
            let bytes = unsafe { buffer.as_ref() };
            let written = memory().write_slice(bytes, GuestAddress(address));
            written.expect("it is memory");
        }
        address
    }

    unsafe fn unshare(address: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: as above; the device is done with it.
            let bytes = unsafe { buffer.as_mut() };
            let read = memory().read_slice(bytes, GuestAddress(address));
            read.expect("it is memory");
        }
        Self::give_back(address, buffer.len());
    }
}

/// A device as the guest reaches it: all by its registers.
#[derive(Clone)]
pub(crate) struct Registers(Arc<Mutex<Mmio>>);

impl Registers {
    pub(crate) fn new(mmio: Mmio) -> Self {
        Self(Arc::new(Mutex::new(mmio)))
    }

    /// The other side of the registers, the VMM's.
    pub(crate) fn vmm(&self) -> MutexGuard<'_, Mmio> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self, register: u64) -> u32 {
        self.vmm().read(register)
    }

    /// A guest has no error to read: it looks at what is in the registers afterwards. The VMM's log has it.
    pub(crate) fn write(&self, register: u64, value: u32) {
        if let Err(e) = self.vmm().write(register, value) {
            eprintln!("vmm: register {register:#x} written {value:#x}: {e}");
        }
    }

    fn select(&self, queue: u16) {
        self.write(at::QUEUE_SEL, queue.into());
    }
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        assert_eq!(self.read(at::MAGIC), 0x7472_6976);
        assert_eq!(self.read(at::VERSION), 2);
        DeviceType::try_from(self.read(at::DEVICE_ID)).expect("a type that the drivers know")
    }

    fn read_device_features(&mut self) -> u64 {
        let page = |page| {
            self.write(at::DEVICE_FEATURES_SEL, page);
            u64::from(self.read(at::DEVICE_FEATURES))
        };
        page(0) | page(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for page in [0, 1] {
            self.write(at::DRIVER_FEATURES_SEL, page);
            self.write(at::DRIVER_FEATURES, (features >> (32 * page)) as u32);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.read(at::QUEUE_SIZE_MAX)
    }

    fn notify(&mut self, queue: u16) {
        self.write(at::QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.read(at::STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(at::STATUS, status.bits());
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
        self.select(queue);
        self.write(at::QUEUE_SIZE, size);
        for (area, first) in [descriptor, driver, device].into_iter().zip([0, 16, 32]) {
            self.write(at::QUEUE_AREAS + first, area as u32);
            self.write(at::QUEUE_AREAS + first + 4, (area >> 32) as u32);
        }
        self.write(at::QUEUE_READY, 1);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.select(queue);
        self.write(at::QUEUE_READY, 0);
        assert_eq!(self.read(at::QUEUE_READY), 0, "the device keeps the queue");
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.read(at::QUEUE_READY) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.read(at::INTERRUPT_STATUS);
        self.write(at::INTERRUPT_ACK, status);
        InterruptStatus::from_bits_retain(status)
    }

    fn read_config_generation(&self) -> u32 {
        self.read(at::CONFIG_GENERATION)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<T> {
        let mut bytes = vec![0; size_of::<T>()];
        let read = self
            .vmm()
            .read_config(at::CONFIG + offset as u64, &mut bytes);
        read.map_err(|_| virtio_drivers::Error::ConfigSpaceTooSmall)?;
        T::read_from_bytes(&bytes).map_err(|_| virtio_drivers::Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> virtio_drivers::Result<()> {
        let written = self
            .vmm()
            .write_config(at::CONFIG + offset as u64, value.as_bytes());
        written.map_err(|_| virtio_drivers::Error::ConfigSpaceTooSmall)
    }
}
