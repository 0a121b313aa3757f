//! Paused, resumed, saved, and gone on with elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use virtio_drivers::device::blk::VirtIOBlk;

use vdpa::core::QueueState;
use vdpa::vmm::{Due, InterruptKind, Interrupts};

use super::driven::{CARD, Card, frame, plug, receive, send};
use super::guest::Platform;
use super::ring::{Ring, memory};
use super::{acked, ignored, open, soon};

#[test]
fn a_device_that_is_paused_in_traffic_goes_on_where_it_stood() {
    let registers = plug(open(CARD));
    let mut card = Card::new(registers.clone(), 2048).unwrap();
    for number in 0..50 {
        let (before, after) = (frame(number, 200), frame(number + 1000, 300));
        send(&mut card, &before);
        registers.vmm().device.pause(soon()).unwrap();
        registers.vmm().device.pause(soon()).unwrap();
        assert!(registers.vmm().device.is_paused());
        registers.vmm().device.resume().unwrap();
        registers.vmm().device.resume().unwrap();
        send(&mut card, &after);
        assert_eq!(receive(&mut card), before);
        assert_eq!(receive(&mut card), after);
    }
}

#[test]
fn a_paused_device_touches_nothing() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    ring.offer(&[(0x8000, 64, true)]);
    device.kick(0);
    ring.wait(1);
    device.pause(soon()).unwrap();
    let (avail, used) = (1, Some(1));
    let state = QueueState::Split { avail, used };
    assert_eq!(device.queue_states().unwrap(), [(0, state)]);
    ring.offer(&[(0x8000, 64, true)]);
    device.kick(0);
    assert_eq!(device.queue_states().unwrap(), [(0, state)]);
    assert_eq!(ring.used(), 1);
    device.resume().unwrap();
    ring.wait(2);
}

#[test]
fn a_device_that_does_not_run_can_be_paused_and_resumed() {
    // A VMM does so with all that it has, also before the guest has looked at them.
    let mut device = open("sim:net");
    device.resume().unwrap();
    device.pause(soon()).unwrap();
    device.resume().unwrap();
    assert!(!device.is_paused());
}

#[test]
fn a_guest_goes_on_with_another_card() {
    let registers = plug(open(CARD));
    let mut card = Card::new(registers.clone(), 2048).unwrap();
    for number in 0..10 {
        // What is on its way in the card's port is part of it.
        let sent = frame(number, 400);
        send(&mut card, &sent);
        registers.vmm().move_to(open(CARD)).unwrap();
        assert_eq!(receive(&mut card), sent);
    }
}

#[test]
fn a_guest_goes_on_with_another_disk() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.img");
    let image: Vec<u8> = (0..1 << 20).map(|at| (at >> 9) as u8).collect();
    std::fs::write(&path, image).unwrap();
    // Both are open for a moment, which an image is for reading only.
    let spec = format!("sim:blk,file={},ro=on", path.display());
    let registers = plug(open(&spec));
    let mut disk = VirtIOBlk::<Platform, _>::new(registers.clone()).unwrap();
    for round in 0..10_u8 {
        registers.vmm().move_to(open(&spec)).unwrap();
        let mut back = [0xff; 512];
        disk.read_blocks(round.into(), &mut back).unwrap();
        assert_eq!(back, [round; 512]);
    }
}

#[test]
fn an_interrupt_that_was_on_its_way_is_raised_again_where_the_device_goes_on() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    ring.offer(&[(0x8000, 64, true)]);
    device.kick(0);
    ring.wait(1);
    device.pause(soon()).unwrap();
    let snapshot = device.snapshot().unwrap();
    device.close(soon()).map_err(|(_, e)| e).unwrap();

    let raised = Arc::new(AtomicU32::new(0));
    let interrupts = Interrupts::from_fn({
        let raised = Arc::clone(&raised);
        move |kind| {
            assert_eq!(kind, InterruptKind::Queue(0));
            raised.fetch_add(1, SeqCst);
            Ok(())
        }
    });
    let mut other = open("sim:rng");
    other
        .restore(&snapshot, &memory, interrupts, |_| None, soon())
        .unwrap();
    assert!(other.is_activated() && other.is_paused());
    assert_eq!(raised.load(SeqCst), 0, "it stands still");
    other.resume().unwrap();
    assert!(raised.load(SeqCst) >= 1);
    ring.offer(&[(0x8000, 64, true)]);
    other.kick(0);
    ring.wait(2);
    // A guest's reset is one of any device's.
    assert_eq!(other.reset(soon()).unwrap().unwrap().queues.len(), 1);
}

#[test]
fn what_a_driver_acknowledged_is_saved_before_it_is_negotiated() {
    let memory = memory();
    let mut device = open("sim:net");
    assert!(matches!(device.write_status(3).unwrap(), Due::Nothing));
    device.ack_features_page(0, 0x20);
    device.ack_features_page(1, 1);
    device.pause(soon()).unwrap();
    let snapshot = device.snapshot().unwrap();
    let mut other = open("sim:net");
    other
        .restore(&snapshot, &memory, ignored(), |_| None, soon())
        .unwrap();
    assert!(!other.is_activated() && !other.is_paused());
    assert_eq!(other.acked_features(), 1 << 32 | 0x20);
    assert_eq!(other.status().unwrap(), 3);
    assert!(matches!(other.write_status(0x0f).unwrap(), Due::Activate));
}

#[test]
fn snapshots_that_cannot_be_are_refused_by_name() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let ring = Ring::new(&memory, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    let running = device.snapshot().unwrap_err().to_string();
    assert!(running.contains("pause it first"), "{running}");
    device.pause(soon()).unwrap();
    let snapshot = device.snapshot().unwrap();

    let refused = |spec: &str, bytes: &[u8]| {
        let mut other = open(spec);
        let refused = other.restore(bytes, &memory, ignored(), |_| None, soon());
        assert!(!other.is_activated());
        let error = refused.unwrap_err().to_string();
        // Nothing half-made: it is fit for use.
        other.reset(soon()).unwrap();
        other.ack_features(other.device_features());
        other.negotiate().unwrap();
        error
    };
    let other_type = refused("sim:net", &snapshot);
    assert!(
        other_type.contains("the image is of a device of type"),
        "{other_type}"
    );
    let cut = refused("sim:rng", &snapshot[..snapshot.len() - 1]);
    assert!(cut.contains("bytes"), "{cut}");
    let none = refused("sim:rng", b"");
    assert!(none.contains("no snapshot of a device"), "{none}");
    let mut damaged = snapshot.clone();
    damaged[40] ^= 1;
    refused("sim:rng", &damaged);

    let back = device.restore(&snapshot, &memory, ignored(), |_| None, soon());
    let active = back.unwrap_err().to_string();
    assert!(active.contains("reset it first"), "{active}");
}
