//! Packed rings: queues that nobody here wrote (the `virtio-driver` crate) over the registers of the example.
//!
//! The crate has a driver for disks alone, and over its own transports; its queue can be used with any. It wants a chain to
//! have two pieces at least, and to be filled whole where the device writes: what is received is of one length.
#![allow(
    unsafe_code,
    reason = "the stranger's queue wants memory shared with a device as a mutable slice"
)]

use std::sync::Arc;

use virtio_driver::virtqueue::Virtqueue;
use virtio_driver::{VirtioFeatureFlags, iovec};
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport as _};
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionMmap, MmapRegion,
};

use vdpa::core::{ErrorKind, Features, Pos, QueueState, bits};
use vdpa::vmm::{GuestDevice, GuestQueue, Options};

use super::driven::{CARD, frame};
use super::guest::Registers;
use super::mmio::{Mmio, at};
use super::ring::Ring;
use super::translator::translator;
use super::{ignored, open, soon, until};

/// Bytes of a queue with its slots, and of a place for data.
const QUEUE: u64 = 0x4000;
const PLACE: u64 = 0x1000;
/// Queues and places that there is room for.
const QUEUES: u64 = 2;
const PLACES: u64 = 16;

/// Bytes of each frame, behind its header.
const FRAME: usize = 300;

/// The queues of a network card.
const RX: usize = 0;
const TX: usize = 1;

/// The types of requests to a disk, virtio 1.4 §5.2.6.
const READ: u32 = 0;
const WRITE: u32 = 1;

/// What the stranger keeps beside its queue for each request: a header, and the status of a disk's.
#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    header: [u8; 16],
    status: u8,
}

/// A queue of the stranger's, and how far it has come.
struct Queue {
    ring: Virtqueue<'static, Slot>,
    /// Pieces of chains that came back.
    used: usize,
    size: u16,
}

impl Queue {
    /// Where the device stands that has used what came back, and nothing else.
    fn state(&self) -> QueueState {
        let size = usize::from(self.size);
        let index = (self.used % size) as u16;
        // Each time around turns it over, and it begins at 1.
        let wrap = (self.used / size).is_multiple_of(2);
        let here = Pos { index, wrap };
        QueueState::Packed {
            avail: here,
            used: here,
        }
    }

    fn areas(&self) -> [u64; 3] {
        let ring = &self.ring;
        let areas = [
            ring.desc_table_ptr(),
            ring.driver_area_ptr(),
            ring.device_area_ptr(),
        ];
        areas.map(|area| area.expose_provenance() as u64)
    }

    fn queue(&self, index: u16) -> GuestQueue {
        GuestQueue::new(index, self.size, self.areas())
    }
}

/// A guest with one device, whose addresses are those of this process.
struct Guest {
    queues: Vec<Queue>,
    registers: Registers,
    features: Features,
    sizes: Vec<u16>,
    /// After the queues, which refer to it.
    memory: Arc<GuestMemoryMmap>,
}

/// As the VMM of these guests has it: its registers carry any size.
fn device(spec: &str) -> GuestDevice {
    let options = Options::default().offer(bits::RING_PACKED | bits::RING_RESET);
    GuestDevice::with_options(vdpa::open(spec).unwrap(), options).unwrap()
}

/// With and without event indices; each with a ring that wraps anywhere, with one that is no power of two, and with one that
/// is full with each chain.
fn variants(least: u16) -> impl Iterator<Item = (Features, u16)> {
    let features = [Features::NONE, bits::EVENT_IDX.mask()];
    features
        .into_iter()
        .flat_map(move |features| [8, 7, 64, least].map(|size| (features, size)))
}

impl Guest {
    /// * `more`: features beside packed rings
    /// * `sizes`: of its queues
    fn new(spec: &str, more: Features, sizes: &[u16]) -> Self {
        let region = MmapRegion::new((QUEUES * QUEUE + PLACES * PLACE) as usize).unwrap();
        let at = GuestAddress(region.as_ptr().expose_provenance() as u64);
        let region = GuestRegionMmap::new(region, at).unwrap();
        let memory = Arc::new(GuestMemoryMmap::from_regions(vec![region]).unwrap());
        let registers = Registers::new(Mmio::new(device(spec), Arc::clone(&memory)));
        let features = Features::of(&[bits::VERSION_1, bits::RING_PACKED]) | more;
        let sizes = sizes.to_vec();
        let queues = Vec::new();
        let mut guest = Self {
            queues,
            registers,
            features,
            sizes,
            memory,
        };
        guest.begin();
        guest
    }

    fn first(&self) -> u64 {
        self.memory.iter().next().unwrap().start_addr().0
    }

    /// A queue as a driver begins it, in memory that is set to zero.
    fn ring(&self, index: u64, size: u16) -> Queue {
        let at = GuestAddress(self.first() + index * QUEUE);
        let zeros = [0; QUEUE as usize];
        self.memory.write_slice(&zeros, at).unwrap();
        let host = self.memory.get_host_address(at).unwrap();
        // SAFETY: a part of a region that outlives the queue, and that nobody else here uses meanwhile.
        let own = unsafe { std::slice::from_raw_parts_mut(host, QUEUE as usize) };
        let mut flags = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_PACKED;
        let events = self.features.contains(bits::EVENT_IDX);
        flags.set(VirtioFeatureFlags::RING_EVENT_IDX, events);
        let mut ring = Virtqueue::new(translator(), own, size, flags).unwrap();
        ring.set_used_notif_enabled(true);
        Queue {
            ring,
            used: 0,
            size,
        }
    }

    /// Resets the device, and sets it up, as virtio 1.4 §3.1.1 has it.
    fn begin(&mut self) {
        let mut registers = self.registers.clone();
        registers.set_status(DeviceStatus::empty());
        assert_eq!(registers.get_status(), DeviceStatus::empty());
        let early = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        registers.set_status(early);
        let offered = Features::from_u64(registers.read_device_features());
        assert!(offered.contains(bits::RING_PACKED), "{offered:?}");
        registers.write_driver_features(self.features.low_u64());
        registers.set_status(early | DeviceStatus::FEATURES_OK);
        let agreed = registers.get_status();
        assert!(agreed.contains(DeviceStatus::FEATURES_OK), "{agreed:?}");
        self.queues.clear();
        for (index, size) in (0..).zip(self.sizes.clone()) {
            assert!(registers.max_queue_size(index) >= size.into());
            let queue = self.ring(index.into(), size);
            let [descriptor, driver, used] = queue.areas();
            registers.queue_set(index, size.into(), descriptor, driver, used);
            self.queues.push(queue);
        }
        registers.set_status(agreed | DeviceStatus::DRIVER_OK);
        let live = registers.get_status();
        assert_eq!(live, agreed | DeviceStatus::DRIVER_OK);
    }

    fn place(&self, place: u64) -> GuestAddress {
        GuestAddress(self.first() + QUEUES * QUEUE + place * PLACE)
    }

    fn read(&self, place: u64, bytes: usize) -> Vec<u8> {
        let mut to = vec![0; bytes];
        self.memory.read_slice(&mut to, self.place(place)).unwrap();
        to
    }

    fn write(&self, place: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, self.place(place)).unwrap();
    }

    /// Adds a chain of a header, the data at `place`, and a status where the device is a disk.
    fn add(&mut self, queue: usize, header: &Header, place: u64, bytes: usize) {
        let data = self.place(place).0 as usize;
        let own = &mut self.queues[queue];
        let added = own.ring.add_request(|slot, add| {
            let part = |base: usize, len| iovec {
                iov_base: std::ptr::with_exposed_provenance_mut(base),
                iov_len: len,
            };
            slot.header = [0; 16];
            slot.header[..header.bytes.len()].copy_from_slice(&header.bytes);
            slot.status = 0xee;
            let first = (&raw mut slot.header).expose_provenance();
            add(part(first, header.bytes.len()), header.is_written)?;
            add(part(data, bytes), header.data_is_written)?;
            if header.has_status {
                let last = (&raw mut slot.status).expose_provenance();
                add(part(last, 1), true)?;
            }
            Ok(())
        });
        added.unwrap();
    }

    /// Kicks where the device asks for it.
    fn kick(&mut self, queue: usize) {
        if self.queues[queue].ring.avail_notif_needed() {
            self.registers.write(at::QUEUE_NOTIFY, queue as u32);
        }
    }

    /// Takes a chain of as many pieces that came back, if one did.
    fn take(&mut self, queue: usize, pieces: usize) -> Option<Slot> {
        let own = &mut self.queues[queue];
        let done = own.ring.completions().next()?;
        own.used += pieces;
        Some(done.req)
    }

    /// Waits for chains of as many pieces, one for each of `queues`, and looks only when it was interrupted.
    fn wait(&mut self, queues: &[usize], pieces: usize) -> Vec<Slot> {
        let mut left = queues.to_vec();
        let mut done = Vec::new();
        while !left.is_empty() {
            until("the guest is interrupted", || {
                let told = self.registers.ack_interrupt();
                told.contains(InterruptStatus::QUEUE_INTERRUPT)
            });
            left.retain(|queue| {
                let came = self.take(*queue, pieces);
                done.extend(came);
                came.is_none()
            });
        }
        done
    }

    /// Has room for one frame.
    fn make_room(&mut self) {
        self.write(0, &[0; FRAME]);
        self.add(RX, &Header::of_room(), 0, FRAME);
        self.kick(RX);
    }

    fn send(&mut self, frame: &[u8]) {
        self.write(1, frame);
        self.add(TX, &Header::of_frame(), 1, FRAME);
        self.kick(TX);
    }

    /// The frame that was sent, once both queues have given their chains back.
    fn receive(&mut self) -> Vec<u8> {
        self.wait(&[RX, TX], 2);
        self.read(0, FRAME)
    }

    /// A frame there and back.
    fn exchange(&mut self, number: u32) {
        let sent = frame(number, FRAME);
        self.make_room();
        self.send(&sent);
        assert_eq!(self.receive(), sent);
    }

    /// Asks a disk for a sector, or to write it, from or to a place.
    fn ask(&mut self, kind: u32, sector: u64, place: u64) {
        self.add(0, &Header::of_request(kind, sector), place, 512);
        self.kick(0);
    }

    /// Waits for as many answers.
    fn answered(&mut self, count: u64) {
        let done = self.wait(&vec![0; count as usize], 3);
        assert!(done.iter().all(|slot| slot.status == 0));
    }

    /// Where the device says that its queues stand, paused for it.
    fn states(&self) -> Vec<QueueState> {
        let mut vmm = self.registers.vmm();
        vmm.device.pause(soon()).unwrap();
        let states = vmm.device.queue_states().unwrap();
        vmm.device.resume().unwrap();
        states.into_iter().map(|(_, state)| state).collect()
    }

    /// Where they stand by what came back.
    fn expected(&self) -> Vec<QueueState> {
        self.queues.iter().map(Queue::state).collect()
    }
}

/// The first piece of a chain, and who writes what.
struct Header {
    bytes: Vec<u8>,
    is_written: bool,
    data_is_written: bool,
    has_status: bool,
}

impl Header {
    fn of_frame() -> Self {
        Self {
            bytes: vec![0; 12],
            is_written: false,
            data_is_written: false,
            has_status: false,
        }
    }

    fn of_room() -> Self {
        Self {
            is_written: true,
            data_is_written: true,
            ..Self::of_frame()
        }
    }

    fn of_request(kind: u32, sector: u64) -> Self {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        Self {
            bytes,
            is_written: false,
            data_is_written: kind == READ,
            has_status: true,
        }
    }
}

fn card(more: Features, size: u16) -> Guest {
    Guest::new(CARD, more, &[size, size])
}

#[test]
fn frames_come_back_through_packed_rings() {
    for (more, size) in variants(2) {
        let mut guest = card(more, size);
        for number in 0..150 {
            guest.exchange(number);
        }
        assert_eq!(guest.states(), guest.expected());
        guest.exchange(150);
    }
}

#[test]
fn a_function_that_is_told_of_memory_has_packed_rings_too() {
    for (more, size) in variants(2) {
        let mut guest = Guest::new(&format!("{CARD},as=pci"), more, &[size, size]);
        for _ in 0..3 {
            for number in 0..31 {
                guest.exchange(number);
            }
            guest.begin();
        }
    }
}

#[test]
fn a_disk_reads_back_what_was_written_through_packed_rings() {
    for (more, size) in variants(3) {
        let mut guest = Guest::new("sim:blk,size=1M", more, &[size]);
        for round in 0..60_u8 {
            let sector = u64::from(round) * 3;
            let together = u64::from(size / 3).min(4);
            for place in 0..together {
                guest.write(place, &[round ^ place as u8; 512]);
                guest.ask(WRITE, sector + place, place);
            }
            guest.answered(together);
            for place in 0..together {
                guest.write(place, &[0xff; 512]);
                guest.ask(READ, sector + place, place);
            }
            guest.answered(together);
            for place in 0..together {
                assert_eq!(guest.read(place, 512), [round ^ place as u8; 512]);
            }
        }
        assert_eq!(guest.states(), guest.expected());
    }
}

#[test]
fn packed_rings_that_are_paused_go_on_where_they_stood() {
    for (more, size) in variants(2) {
        let mut guest = card(more, size);
        for number in 0..40 {
            let sent = frame(number, FRAME);
            guest.make_room();
            guest.registers.vmm().device.pause(soon()).unwrap();
            let standing = guest.registers.vmm().device.queue_states().unwrap();
            // There is room, and it stands in front of that.
            let states: Vec<_> = standing.iter().map(|(_, state)| *state).collect();
            assert_eq!(states, guest.expected());
            guest.send(&sent);
            let paused = guest.registers.vmm().device.queue_states().unwrap();
            assert_eq!(paused, standing);
            assert!(guest.take(RX, 2).is_none() && guest.take(TX, 2).is_none());
            guest.registers.vmm().device.resume().unwrap();
            assert_eq!(guest.receive(), sent);
        }
    }
}

#[test]
fn packed_rings_go_on_in_another_card_wherever_they_stood() {
    for (more, size) in variants(2) {
        let mut guest = card(more, size);
        for number in 0..40 {
            // What is on its way in the card's port is part of it.
            let sent = frame(number, FRAME);
            guest.make_room();
            guest.send(&sent);
            guest.registers.vmm().move_to(device(CARD)).unwrap();
            assert_eq!(guest.receive(), sent);
            assert_eq!(guest.states(), guest.expected());
        }
    }
}

#[test]
fn requests_that_were_not_taken_are_carried_out_by_another_disk() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.img");
    let image: Vec<u8> = (0..1 << 20).map(|at| (at >> 9) as u8).collect();
    std::fs::write(&path, image).unwrap();
    // Both are open for a moment, which an image is for reading only.
    let spec = format!("sim:blk,file={},ro=on", path.display());
    for (more, size) in variants(3) {
        let mut guest = Guest::new(&spec, more, &[size]);
        for round in 0..20_u8 {
            guest.registers.vmm().device.pause(soon()).unwrap();
            let together = u64::from(size / 3).min(3);
            for place in 0..together {
                guest.write(place, &[0xff; 512]);
                guest.ask(READ, u64::from(round) + place, place);
            }
            let standing = guest.registers.vmm().device.queue_states().unwrap();
            assert_eq!(standing, [(0, guest.queues[0].state())]);
            guest.registers.vmm().move_to(device(&spec)).unwrap();
            guest.answered(together);
            for place in 0..together {
                assert_eq!(guest.read(place, 512), [round + place as u8; 512]);
            }
            assert_eq!(guest.states(), guest.expected());
        }
    }
}

#[test]
fn packed_rings_begin_anew_after_each_reset() {
    // Frames enough to leave a ring anywhere, and with either wrap counter.
    for (more, size) in variants(2) {
        let mut guest = card(more, size);
        for frames in 1..12 {
            for number in 0..frames {
                guest.exchange(number);
            }
            assert_eq!(guest.states(), guest.expected());
            // A buffer is left behind.
            guest.make_room();
            guest.begin();
            assert_eq!(guest.states(), guest.expected());
        }
    }
}

#[test]
fn a_packed_ring_is_stopped_alone_and_goes_on_where_it_stood() {
    for (more, size) in variants(2) {
        let mut guest = card(more, size);
        for frames in 1..12 {
            for number in 0..frames {
                guest.exchange(number);
            }
            let mut vmm = guest.registers.vmm();
            let state = vmm.device.stop_queue(TX as u16, soon()).unwrap();
            assert_eq!(state, guest.queues[TX].state());
            let queue = guest.queues[TX].queue(TX as u16).resume_at(state);
            vmm.device.start_queue(queue).unwrap();
            drop(vmm);
            // It has no eventfd by now.
            let sent = frame(frames + 100, FRAME);
            guest.make_room();
            guest.send(&sent);
            guest.registers.vmm().device.kick(TX as u16);
            assert_eq!(guest.receive(), sent);
            guest.begin();
        }
    }
}

#[test]
fn a_packed_ring_is_reset_alone() {
    for (more, size) in variants(2) {
        let mut guest = card(more | bits::RING_RESET.mask(), size);
        for frames in 1..12 {
            for number in 0..frames {
                guest.exchange(number);
            }
            let mut vmm = guest.registers.vmm();
            vmm.device.reset_queue(TX as u16, soon()).unwrap();
            drop(vmm);
            let fresh = guest.ring(TX as u64, size);
            let queue = fresh.queue(TX as u16);
            guest.queues[TX] = fresh;
            guest.registers.vmm().device.start_queue(queue).unwrap();
            let sent = frame(frames, FRAME);
            guest.make_room();
            guest.send(&sent);
            guest.registers.vmm().device.kick(TX as u16);
            assert_eq!(guest.receive(), sent);
            assert_eq!(guest.states(), guest.expected());
            guest.begin();
        }
    }
}

#[test]
fn a_state_of_the_other_kind_of_ring_is_refused() {
    let refused = |features: Features, state| {
        let memory = super::ring::memory();
        let mut device = device("sim:rng");
        device.ack_features(features.low_u64());
        let queue = Ring::new(&memory, 0x1000, 16).queue(0).resume_at(state);
        let refused = device.activate(&memory, ignored(), vec![queue], soon());
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
        error.to_string()
    };
    let split = bits::VERSION_1.mask();
    let packed = bits::VERSION_1 | bits::RING_PACKED;
    let (avail, used) = (Pos::START, Pos::START);
    let of_packed = refused(split, QueueState::Packed { avail, used });
    assert!(of_packed.starts_with("queue 0"), "{of_packed}");
    let (avail, used) = (0, Some(0));
    let of_split = refused(packed, QueueState::Split { avail, used });
    assert!(of_split.starts_with("queue 0"), "{of_split}");
    let (avail, used) = (Pos::from_bits(16), Pos::from_bits(16));
    let beyond = refused(packed, QueueState::Packed { avail, used });
    assert!(beyond.starts_with("queue 0"), "{beyond}");
}

#[test]
fn a_snapshot_with_packed_rings_is_refused_where_they_are_not_offered() {
    let mut guest = card(Features::NONE, 8);
    guest.exchange(0);
    guest.registers.vmm().device.pause(soon()).unwrap();
    let snapshot = guest.registers.vmm().device.snapshot().unwrap();

    let mut other = open(CARD);
    let refused = other.restore(&snapshot, &guest.memory, ignored(), |_| None, soon());
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("RING_PACKED"), "{error}");
    // Nothing half-made: it is fit for use.
    assert!(!other.is_activated());
    assert_eq!(other.status().unwrap(), 0);
    other.ack_features(other.device_features());
    other.negotiate().unwrap();
    guest.registers.vmm().device.resume().unwrap();
    guest.exchange(1);
}
