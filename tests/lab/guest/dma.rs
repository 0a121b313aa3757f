//! A disk that is told to write where it may not: the IOMMU must stop it, and the memory stay as it was.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use serde_json::{Value, json};
use vdpa::core::{
    Asid, Call, Doorbell, Event, Events, Features, Kick, QueueConfig, QueueIndex, Status, bits,
};
use vdpa::mem::{Access, Bytes, DmaMemory, IovaRange, Window};
use vdpa::{Deadline, Device, Iova, Mapping, Region};

use crate::Done;

/// The ring, and the headers of requests.
pub(crate) const RING: u64 = 0x10_0000;
/// Memory that is mapped at first.
pub(crate) const TARGET: u64 = 0x4000_0000;
/// Where nothing ever is.
const OUTSIDE: u64 = 0x5000_0000;
pub(crate) const PAGE: u64 = 4096;

/// In the ring's memory: descriptors, the driver's area, the device's area, a header, a status.
const DRIVER_AREA: u32 = 0x1000;
const DEVICE_AREA: u32 = 0x2000;
const HEADER: u32 = 0x3000;
const STATUS: u32 = 0x3800;
const SIZE: u16 = 8;
/// What stands where nothing is to be written.
const UNTOUCHED: u8 = 0xa5;

/// How long a request may take; one that never comes back takes that long.
const PATIENCE: Duration = Duration::from_secs(5);

/// A split ring by hand: a driver that is told what to do with addresses that it has not mapped.
pub(crate) struct Hand {
    device: Device,
    events: Events,
    ring: Window,
    doorbell: Doorbell,
    made: u16,
}

/// Reads sectors into memory that is mapped, into the same when it is not any more, and where nothing ever was.
pub(crate) fn stray(device: &str) -> Done {
    let device = vdpa::open(device)?;
    let (ring, ring_window) = Region::memfd(4 * PAGE)?.into_shared();
    let (target, window) = Region::memfd(PAGE)?.into_shared();
    let dma = device.dma(Asid::new(0))?;
    dma.map(vec![mapping(RING, &ring)?, mapping(TARGET, &target)?])?;
    let mut hand = Hand::new(device, ring_window)?;

    hand.start()?;
    fill(window.bytes());
    let mapped =
        json!({ "answered": hand.read_into(TARGET)?, "untouched": is_untouched(window.bytes()) });

    dma.unmap(range(TARGET, PAGE)?, soon())?;
    let unmapped = hand.astray(TARGET, window.bytes())?;
    let outside = hand.astray(OUTSIDE, window.bytes())?;

    // It still works.
    hand.start()?;
    dma.map(vec![mapping(TARGET, &target)?])?;
    fill(window.bytes());
    let again =
        json!({ "answered": hand.read_into(TARGET)?, "untouched": is_untouched(window.bytes()) });
    hand.device.reset(soon())?;
    println!(
        "{}",
        json!({ "mapped": mapped, "unmapped": unmapped, "outside": outside, "again": again })
    );
    Ok(())
}

impl Hand {
    /// * `ring`: four pages, which the device finds at [`RING`]
    pub(crate) fn new(device: Device, ring: Window) -> vdpa::Result<Self> {
        Ok(Self {
            events: device.events()?,
            device,
            ring,
            doorbell: Doorbell::NONE,
            made: 0,
        })
    }

    /// From whatever state the device is in to one that runs.
    pub(crate) fn start(&mut self) -> Done {
        let device = &self.device;
        device.reset(soon())?;
        self.ring.bytes().zero(0, 4 * PAGE as usize);
        self.made = 0;
        let wanted = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM]);
        let mut status = Status::ACKNOWLEDGE | Status::DRIVER;
        device.write_status(Status::ACKNOWLEDGE.bits())?;
        device.write_status(status.bits())?;
        device.accept(wanted.intersection(device.offered()))?;
        status |= Status::FEATURES_OK;
        device.write_status(status.bits())?;
        let at = |offset: u32| Iova::new(RING + u64::from(offset));
        let config = QueueConfig::new(SIZE, at(0), at(DRIVER_AREA), at(DEVICE_AREA));
        let first = QueueIndex::new(0);
        self.doorbell = device.start_queue(first, config, Kick::Taken, Call::None)?;
        status |= Status::DRIVER_OK;
        device.write_status(status.bits())?;
        Ok(())
    }

    /// Asks for a page of the disk at this address. Whether the device has answered in time, and with which status.
    pub(crate) fn read_into(&mut self, at: u64) -> Result<Option<u8>, Box<dyn std::error::Error>> {
        let ring = self.ring.bytes();
        // VIRTIO_BLK_T_IN, sector 0: a header of zeroes.
        ring.zero(HEADER as usize, 16);
        ring.write(STATUS as usize, &[0xff]);
        let [next, writes] = [1, 2];
        let page = PAGE as u32;
        for (place, at, len, flags) in [
            (0, RING + u64::from(HEADER), 16, next),
            (1, at, page, next | writes),
            (2, RING + u64::from(STATUS), 1, writes),
        ] {
            let descriptor = place * 16;
            ring.store_u64(descriptor, at);
            ring.store_u32(descriptor + 8, len);
            ring.store_u16(descriptor + 12, flags);
            ring.store_u16(descriptor + 14, place as u16 + 1);
        }
        let slot = u32::from(self.made % SIZE);
        ring.store_u16(DRIVER_AREA + 4 + 2 * slot, 0);
        self.made = self.made.wrapping_add(1);
        // The device sees the entry before the index.
        fence(Ordering::SeqCst);
        ring.store_u16(DRIVER_AREA + 2, self.made);
        fence(Ordering::SeqCst);
        self.doorbell.ring(0);

        let by = Deadline::after(PATIENCE);
        while ring.load_u16(DEVICE_AREA + 2) != self.made {
            let broken = self.device.status()?.contains(Status::DEVICE_NEEDS_RESET);
            if broken || by.expired() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        fence(Ordering::SeqCst);
        let mut status = [0];
        ring.read(STATUS as usize, &mut status);
        Ok(Some(status[0]))
    }

    /// The same where the device must not write, from a fresh start.
    fn astray(&mut self, at: u64, memory: Bytes<'_>) -> Result<Value, Box<dyn std::error::Error>> {
        self.start()?;
        while self.events.try_next().is_some() {}
        fill(memory);
        let answered = self.read_into(at)?;
        let needs_reset = self.device.status()?.contains(Status::DEVICE_NEEDS_RESET);
        let told = needs_reset && self.is_told()?;
        // What was on its way is there after a reset.
        self.device.reset(soon())?;
        let untouched = is_untouched(memory);
        Ok(json!({
            "at": format!("{at:#x}"), "answered": answered, "untouched": untouched,
            "needs_reset": needs_reset, "told": told,
        }))
    }

    /// Whether an event says that the device needs a reset, within the time that a request may take.
    fn is_told(&self) -> Result<bool, Box<dyn std::error::Error>> {
        let by = soon();
        while !by.expired() {
            match self.events.try_next() {
                Some(Event::NeedsReset { .. }) => return Ok(true),
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(false)
    }
}

fn range(at: u64, len: u64) -> Result<IovaRange, Box<dyn std::error::Error>> {
    Ok(IovaRange::new(Iova::new(at), len)?)
}

pub(crate) fn mapping(
    at: u64,
    memory: &std::sync::Arc<dyn DmaMemory>,
) -> Result<Mapping, Box<dyn std::error::Error>> {
    Ok(Mapping {
        iova: range(at, memory.len())?,
        memory: memory.clone(),
        offset: 0,
        access: Access::Both,
        dirty: None,
    })
}

pub(crate) fn fill(memory: Bytes<'_>) {
    memory.write(0, &[UNTOUCHED; PAGE as usize]);
}

pub(crate) fn is_untouched(memory: Bytes<'_>) -> bool {
    let mut bytes = [0; PAGE as usize];
    memory.read(0, &mut bytes);
    bytes.iter().all(|byte| *byte == UNTOUCHED)
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}
