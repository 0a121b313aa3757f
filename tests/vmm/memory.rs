//! Guest memory that comes and goes, and address spaces beside it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use vdpa::core::{Asid, Event, Features, GroupIndex, Status, bits};
use vdpa::mem::Access;
use vdpa::vmm::{GuestDevice, InterruptKind, Interrupts, Options};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::ring::{Ring, memory};
use super::{acked, ignored, open, soon, until};

#[test]
fn a_control_queue_is_served_in_the_address_space_that_it_was_assigned_to() {
    // The VMM's own memory has the same addresses as the guest's.
    let (guest, own) = (memory(), memory());
    let mut device = open("sim:net");
    device
        .assign_group(GroupIndex::new(1), Asid::new(1))
        .unwrap();
    device
        .dma(Asid::new(1))
        .unwrap()
        .map_guest(&own, Access::Both)
        .unwrap();
    // A device forgets the assignment with each reset.
    for round in 1..=3 {
        let untouched = vec![0xee_u8; 0xa000];
        guest.write_slice(&untouched, GuestAddress(0)).unwrap();
        let mut ring = Ring::new(&own, 0x1000, 16);
        // VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, on (virtio 1.4 §5.1.6.5.1); the answer is written.
        own.write_slice(&[0, 0, 1, 0xff], GuestAddress(0x8000))
            .unwrap();
        let features = bits::VERSION_1 | bits::net::CTRL_VQ | bits::net::CTRL_RX;
        device.ack_features(features.low_u64());
        let queues = vec![ring.queue(2)];
        device.activate(&guest, ignored(), queues, soon()).unwrap();
        ring.offer(&[(0x8000, 2, false), (0x8002, 1, false), (0x8003, 1, true)]);
        device.kick(2);
        ring.wait(1);
        let answer: u8 = own.read_obj(GuestAddress(0x8003)).unwrap();
        assert_eq!(answer, 0, "round {round}");
        let mut seen = vec![0; untouched.len()];
        guest.read_slice(&mut seen, GuestAddress(0)).unwrap();
        assert!(seen == untouched, "the guest's memory was written");
        device.reset(soon()).unwrap();
    }
}

#[test]
fn a_queue_whose_ring_is_in_another_address_space_is_refused() {
    let (guest, own) = (memory(), memory());
    let mut device = acked("sim:net");
    device
        .assign_group(GroupIndex::new(1), Asid::new(1))
        .unwrap();
    let queues = vec![Ring::new(&own, 0x1000, 16).queue(4)];
    // Nothing is mapped in the space of the control queue.
    let features = bits::VERSION_1 | bits::net::CTRL_VQ;
    device.set_acked_features(features.low_u64());
    let queues = queues
        .into_iter()
        .map(|_| Ring::new(&guest, 0x1000, 16).queue(2));
    let refused = device.activate(&guest, ignored(), queues.collect(), soon());
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("queue 2: descriptor area at 0x1000 is not mapped"),
        "{error}"
    );
}

#[test]
fn memory_that_is_plugged_is_used_and_what_is_unplugged_is_let_go_of() {
    let guest = memory();
    let told = Arc::new(Mutex::new(Vec::new()));
    let options = Options::default().observe({
        let told = Arc::clone(&told);
        move |event| told.lock().unwrap().push(event.clone())
    });
    let mut device = GuestDevice::with_options(vdpa::open("sim:rng").unwrap(), options).unwrap();
    device.ack_features(device.device_features());
    let mut ring = Ring::new(&guest, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&guest, ignored(), queues, soon()).unwrap();

    let plugged = 0x4000_0000;
    let region = GuestRegionMmap::<()>::from_range(GuestAddress(plugged), 0x1_0000, None).unwrap();
    let region = Arc::new(region);
    device.add_memory_region(&region).unwrap();
    let twice = device.add_memory_region(&region).unwrap_err().to_string();
    assert!(twice.contains("0x40000000"), "{twice}");
    ring.offer(&[(plugged, 64, true)]);
    device.kick(0);
    ring.wait(1);

    device
        .remove_memory_region(plugged, 0x1_0000, soon())
        .unwrap();
    let weak = Arc::downgrade(&region);
    drop(region);
    assert!(weak.upgrade().is_none(), "what is unplugged is let go of");
    ring.offer(&[(plugged, 64, true)]);
    device.kick(0);
    ring.wait(2);
    let is_fault = |event: &Event| matches!(event, Event::Fault { at, .. } if at.get() == plugged);
    until("the VMM is told", || {
        told.lock().unwrap().iter().any(is_fault)
    });
    device.reset(soon()).unwrap();
}

#[test]
fn a_need_for_a_reset_is_told_to_guest_and_vmm() {
    let guest = memory();
    let (told, interrupted) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let options = Options::default().observe({
        let told = Arc::clone(&told);
        move |event| told.store(matches!(event, Event::NeedsReset { .. }), SeqCst)
    });
    let mut device = GuestDevice::with_options(vdpa::open("sim:rng").unwrap(), options).unwrap();
    device.ack_features(device.device_features());
    let interrupts = Interrupts::from_fn({
        let interrupted = Arc::clone(&interrupted);
        move |kind| {
            interrupted.fetch_or(kind == InterruptKind::Config, SeqCst);
            Ok(())
        }
    });
    let mut ring = Ring::new(&guest, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&guest, interrupts, queues, soon()).unwrap();
    ring.offer_head(4000);
    device.kick(0);
    let needs_reset = Status::DEVICE_NEEDS_RESET.bits();
    until("it needs a reset", || {
        device.status().unwrap() & needs_reset != 0
    });
    until("the guest is interrupted", || interrupted.load(SeqCst));
    until("the VMM is told", || told.load(SeqCst));
    device.reset(soon()).unwrap();
    assert_eq!(device.status().unwrap(), 0);
}

#[test]
fn memory_is_made_what_the_guest_has_now() {
    let device = open("sim:rng");
    let small = memory();
    device.update_memory(&small, soon()).unwrap();
    let more = [(GuestAddress(0), 1 << 20), (GuestAddress(4 << 20), 1 << 20)];
    let large = Arc::new(GuestMemoryMmap::<()>::from_ranges(&more).unwrap());
    device.update_memory(&large, soon()).unwrap();
    device.update_memory(&large, soon()).unwrap();
    let mappings = device.dma(Asid::new(0)).unwrap().mappings();
    let firsts: Vec<_> = mappings.iter().map(|m| m.iova.first().get()).collect();
    assert_eq!(firsts, [0, 4 << 20]);
    assert_eq!(
        Arc::strong_count(&small),
        1,
        "what is not the guest's any more is let go of"
    );
}

#[test]
fn the_guest_is_not_offered_what_is_for_the_transport_to_carry_out() {
    let hidden = vdpa::vmm::OF_TRANSPORT;
    let card = vdpa::open("sim:net").unwrap();
    assert!(card.offered().intersects(hidden));
    let device = GuestDevice::new(card).unwrap();
    let shown = Features::from_u64(device.device_features());
    assert!(!shown.intersects(hidden) && shown.contains(bits::VERSION_1));
    let options = Options::default().offer(bits::RING_PACKED.mask());
    let device = GuestDevice::with_options(vdpa::open("sim:net").unwrap(), options).unwrap();
    let shown = Features::from_u64(device.device_features());
    assert!(shown.contains(bits::RING_PACKED) && !shown.contains(bits::NOTIFICATION_DATA));
}
