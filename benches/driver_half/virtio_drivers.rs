//! The `virtio-drivers` crate: its `VirtQueue` over a transport that only remembers where the queue was put, and a
//! platform whose memory is one region, device address equal to process address.
#![allow(
    unsafe_code,
    reason = "the peer's platform trait and its queue are unsafe to implement and to call"
)]

use std::cell::Cell;
use std::ptr::NonNull;

use vdpa_mem::{DmaMemory as _, Region};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::rig::queue::{Place, SLOTS};
use crate::rig::wrong;
use crate::{DATA, Driver, HEADER, REQUESTS, status};

/// Bytes for the queue, in front of the requests.
const QUEUE_BYTES: usize = 1 << 20;
/// Bytes from one request to the next: header, status, data.
const PITCH: usize = 64 + DATA;

thread_local! {
    /// Where the next pages are taken from: the queue's part of the region.
    static NEXT: Cell<Option<NonNull<u8>>> = const { Cell::new(None) };
}

struct Platform;

// SAFETY: pages come from a zeroed region that outlives the queue, and are given out once; buffers are where they are.
unsafe impl Hal for Platform {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let at = NEXT.get().unwrap_or_else(|| wrong("no pages for the peer"));
        // SAFETY: the queue takes a few of the pages set aside for it.
        NEXT.set(Some(unsafe { at.add(pages * PAGE_SIZE) }));
        (at.as_ptr() as u64, at)
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::dangling()
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// Remembers what it is told about the queue.
#[derive(Default)]
struct Noted {
    descriptor: u64,
    driver: u64,
    device: u64,
}

impl Transport for Noted {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        0
    }
    fn write_driver_features(&mut self, _: u64) {}
    fn max_queue_size(&mut self, _: u16) -> u32 {
        SLOTS.into()
    }
    fn notify(&mut self, _: u16) {}
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::empty()
    }
    fn set_status(&mut self, _: DeviceStatus) {}
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(
        &mut self,
        _: u16,
        _: u32,
        descriptor: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        *self = Self {
            descriptor,
            driver,
            device,
        };
    }
    fn queue_unset(&mut self, _: u16) {}
    fn queue_used(&mut self, _: u16) -> bool {
        false
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T>(&self, _: usize) -> virtio_drivers::Result<T> {
        Err(virtio_drivers::Error::ConfigSpaceMissing)
    }
    fn write_config_space<T>(&mut self, _: usize, _: T) -> virtio_drivers::Result<()> {
        Err(virtio_drivers::Error::ConfigSpaceMissing)
    }
}

/// The peer.
pub(crate) struct Peer {
    queue: VirtQueue<Platform, { SLOTS as usize }>,
    place: Place,
    /// The token of each request on its way.
    tokens: [u16; REQUESTS],
    region: Region,
}

impl Peer {
    /// A queue with EVENT_IDX, as ours.
    pub(crate) fn new() -> Self {
        let region = Region::anonymous((QUEUE_BYTES + REQUESTS * PITCH) as u64);
        let region = region.unwrap_or_else(|e| wrong(&e.to_string()));
        NEXT.set(Some(region.hva()));
        let mut noted = Noted::default();
        let queue = VirtQueue::new(&mut noted, 0, false, true);
        let slots = u32::from(SLOTS);
        Self {
            queue: queue.unwrap_or_else(|e| wrong(&e.to_string())),
            place: Place {
                descriptor: (noted.descriptor, slots * 16),
                driver: (noted.driver, slots * 2 + 6),
                device: (noted.device, slots * 8 + 6),
            },
            tokens: [0; REQUESTS],
            region,
        }
    }

    /// Header, data and status of request `i`.
    fn parts(&mut self, i: usize) -> [NonNull<[u8]>; 3] {
        let part = |by: usize, len| {
            // SAFETY: inside the region, behind the queue.
            let at = unsafe { self.region.hva().add(QUEUE_BYTES + i * PITCH + by) };
            NonNull::slice_from_raw_parts(at, len)
        };
        [part(0, HEADER), part(64, DATA), part(HEADER, 1)]
    }
}

impl Driver for Peer {
    fn submit(&mut self, first: u64) {
        for i in 0..REQUESTS {
            let [mut header, data, mut answer] = self.parts(i);
            // SAFETY: nothing else refers to the header of a request that is not on its way.
            let header = unsafe { header.as_mut() };
            header[..8].copy_from_slice(&(first + i as u64).to_le_bytes());
            // SAFETY: as above.
            let data = unsafe { data.as_ref() };
            // SAFETY: as above.
            let answer = unsafe { answer.as_mut() };
            // SAFETY: the region outlives the request, and these references end here.
            let token = unsafe { self.queue.add(&[header, data], &mut [answer]) };
            self.tokens[i] = token.unwrap_or_else(|e| wrong(&e.to_string()));
        }
        std::hint::black_box(self.queue.should_notify());
    }

    fn complete(&mut self, first: u64) {
        for i in 0..REQUESTS {
            let [header, data, mut answer] = self.parts(i);
            // SAFETY: the device has given the request back.
            let header = unsafe { header.as_ref() };
            // SAFETY: as above.
            let data = unsafe { data.as_ref() };
            // SAFETY: as above.
            let answer = unsafe { answer.as_mut() };
            let token = self.tokens[i];
            // SAFETY: the buffers that were added under this token.
            let popped = unsafe { self.queue.pop_used(token, &[header, data], &mut [answer]) };
            popped.unwrap_or_else(|e| wrong(&e.to_string()));
            if answer[0] != status(first + i as u64) {
                wrong(&format!(
                    "request {} was answered {}",
                    first + i as u64,
                    answer[0]
                ));
            }
        }
    }

    fn place(&self) -> Place {
        self.place
    }

    fn memory(&self) -> &Region {
        &self.region
    }
}
