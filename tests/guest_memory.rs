//! A VMM's way in: guest memory of `vm-memory`, mapped in one call; rings written by `virtio-queue`'s mock driver;
//! status bytes and eventfds as a guest and its VMM give them.
#![cfg(all(feature = "sim", feature = "vm-memory"))]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vdpa::core::{Asid, Call, Kick, QueueConfig, QueueIndex, Status, bits};
use vdpa::mem::{Access, Deadline, DirtyPages, Iova};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::{Descriptor, VirtqUsedElem};
use virtio_queue::mock::{AvailRing, DescriptorTable, UsedRing};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// `VRING_DESC_F_WRITE`, virtio 1.4 §2.7.5.
const WRITE: u16 = 2;
/// `struct virtio_net_hdr` with `num_buffers`, virtio 1.4 §5.1.9.
const HEADER: usize = 12;

fn eventfd() -> Arc<OwnedFd> {
    Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap().into())
}

/// A queue as a driver sees it, its areas a page apart. (`MockSplitQueue` would lay them over one another.)
struct Guest<'m> {
    first: u64,
    descriptors: DescriptorTable<'m, GuestMemoryMmap>,
    avail: AvailRing<'m, GuestMemoryMmap>,
    used: UsedRing<'m, GuestMemoryMmap>,
}

impl<'m> Guest<'m> {
    const SIZE: u16 = 16;

    fn new(memory: &'m GuestMemoryMmap, first: u64) -> Self {
        let page = |n: u64| GuestAddress(first + n * 0x1000);
        Self {
            first,
            descriptors: DescriptorTable::new(memory, page(0), Self::SIZE),
            avail: AvailRing::new(memory, page(1), Self::SIZE),
            used: UsedRing::new(memory, page(2), Self::SIZE),
        }
    }

    fn config(&self) -> QueueConfig {
        let page = |n: u64| Iova::new(self.first + n * 0x1000);
        QueueConfig::new(Self::SIZE, page(0), page(1), page(2))
    }

    /// Makes the first descriptor available.
    fn offer(&self, at: GuestAddress, len: u32, flags: u16) {
        let descriptor = Descriptor::new(at.0, len, flags, 0);
        let stored = self.descriptors.store(0, RawDescriptor::from(descriptor));
        stored.unwrap();
        self.avail.ring().ref_at(0).unwrap().store(0);
        // Pairs with the device's acquire of the index.
        fence(Ordering::Release);
        self.avail.idx().store(1u16.to_le());
    }
}

#[test]
fn a_guest_in_vm_memory_sends_to_itself() {
    // Two regions with a hole; rings in the first, buffers in the second.
    let regions = [
        (GuestAddress(0), 0x10_0000),
        (GuestAddress(0x100_0000), 0x10_0000),
    ];
    let memory = Arc::new(GuestMemoryMmap::<()>::from_ranges(&regions).unwrap());
    let device = vdpa::open("sim:net,port=loopback").unwrap();
    let dma = device.dma(Asid::new(0)).unwrap();
    dma.map_guest(&memory, Access::Both).unwrap();
    let by = Deadline::after(Duration::from_secs(20));
    let log = Arc::new(DirtyPages::new(12, 0x2000));
    dma.set_dirty_log(Some(log.clone()), by).unwrap();

    // The guest's bytes, as they come.
    for bits in [0, 1, 1 | 2] {
        device.write_status(bits).unwrap();
    }
    let features = bits::VERSION_1 | bits::ACCESS_PLATFORM;
    device.accept(features).unwrap();
    device.write_status(1 | 2 | 8).unwrap();
    let status = device.status().unwrap();
    assert!(status.contains(Status::FEATURES_OK));

    let receive = Guest::new(&memory, 0x1000);
    let transmit = Guest::new(&memory, 0x8000);
    let (kick, call) = (eventfd(), eventfd());
    let of_receive = (Kick::Taken, Call::EventFd(Arc::clone(&call)));
    let of_transmit = (Kick::Given(Arc::clone(&kick)), Call::None);
    for (index, guest, (kick, call)) in [(0, &receive, of_receive), (1, &transmit, of_transmit)] {
        let queue = QueueIndex::new(index);
        device
            .start_queue(queue, guest.config(), kick, call)
            .unwrap();
    }
    let (room, packet) = (GuestAddress(0x100_0000), GuestAddress(0x100_8000));
    receive.offer(room, 2048, WRITE);
    device.write_status(1 | 2 | 8 | 4).unwrap();

    let frame: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
    let behind_header = |at: GuestAddress| GuestAddress(at.0 + HEADER as u64);
    memory.write_slice(&frame, behind_header(packet)).unwrap();
    transmit.offer(packet, (HEADER + frame.len()) as u32, 0);
    nix::unistd::write(&kick, &1u64.to_ne_bytes()).unwrap();

    let mut called = [PollFd::new(call.as_fd(), PollFlags::POLLIN)];
    let events = poll(&mut called, PollTimeout::from(20_000u16)).unwrap();
    assert_eq!(events, 1, "the guest was not called");
    assert_eq!(u16::from_le(receive.used.idx().load()), 1);
    let used: VirtqUsedElem = receive.used.ring().ref_at(0).unwrap().load();
    assert_eq!((used.id(), used.len() as usize), (0, HEADER + frame.len()));
    let mut back = vec![0; frame.len()];
    memory.read_slice(&mut back, behind_header(room)).unwrap();
    assert_eq!(back, frame);

    // What the device wrote, and nothing else: two used rings, and the buffer that it filled.
    while u16::from_le(transmit.used.idx().load()) == 0 {
        assert!(!by.expired(), "the sent buffer never came back");
    }
    let pages = [receive.first + 0x2000, transmit.first + 0x2000, room.0];
    assert_eq!(log.take(), pages.map(|at| at >> 12));

    device.close(by).map_err(|(_, e)| e).unwrap();
}
