//! What VMMs and guests do wrong: each a clear error, and nothing half-made.

use vdpa::core::{ErrorKind, Status};
use vdpa::vmm::{GuestQueue, InterruptKind, Interrupts, VmmError};
use vm_memory::GuestMemoryMmap;

use super::ring::{Ring, memory};
use super::{acked, eventfd, ignored, open, soon};

/// Why a source of entropy is not activated with these.
fn why(interrupts: Interrupts, queues: Vec<GuestQueue>) -> String {
    let memory = memory();
    let mut device = acked("sim:rng");
    let refused = device.activate(&memory, interrupts, queues, soon());
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    assert!(!device.is_activated());

    // It is fit for use, by the same guest or after a reset.
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    ring.offer(&[(0x8000, 64, true)]);
    device.kick(0);
    ring.wait(1);
    error.to_string()
}

#[test]
fn an_activation_before_features_is_refused() {
    let mut device = open("sim:rng");
    let refused = device.activate(&memory(), ignored(), Vec::new(), soon());
    let error = refused.unwrap_err();
    assert!(matches!(error, VmmError::NotAcked { .. }), "{error}");
    assert!(
        error.to_string().contains("call ack_features first"),
        "{error}"
    );
    assert_eq!(device.status().unwrap(), 0);
    let error = device.write_status(0x0b).unwrap_err().to_string();
    assert!(error.contains("call ack_features first"), "{error}");
}

#[test]
fn a_second_activation_is_refused() {
    let memory = memory();
    let mut device = acked("sim:rng");
    device
        .activate(&memory, ignored(), Vec::new(), soon())
        .unwrap();
    let again = device.activate(&memory, ignored(), Vec::new(), soon());
    assert!(matches!(again, Err(VmmError::Active { .. })));
}

#[test]
fn queues_that_are_not_legal_are_refused_with_their_numbers() {
    let areas = [0x1000, 0x2000, 0x3000];
    let one = |queue| why(ignored(), vec![queue]);
    let most = open("sim:rng").queue_max_sizes()[0];
    let large = one(GuestQueue::new(0, most * 2, areas));
    assert_eq!(
        large,
        format!(
            "queue 0: size {} is out of range: 1 to {most} is legal",
            most * 2
        )
    );
    let odd = one(GuestQueue::new(0, 3, areas));
    assert!(odd.contains("size 3 is no power of two"), "{odd}");
    let none = one(GuestQueue::new(0, 0, areas));
    assert!(none.contains("size 0"), "{none}");
    let absent = one(GuestQueue::new(9, 16, areas));
    assert!(absent.contains("queue 9 does not exist"), "{absent}");
    let odd = one(GuestQueue::new(0, 16, [0x1001, 0x2000, 0x3000]));
    assert!(odd.contains("0x1001"), "{odd}");
    let twice = vec![GuestQueue::new(0, 16, areas), GuestQueue::new(0, 16, areas)];
    assert_eq!(why(ignored(), twice), "queue 0 is given twice");
}

#[test]
fn memory_that_does_not_cover_a_ring_is_named_by_its_address() {
    let end = 2 << 20;
    let beyond = GuestQueue::new(0, 16, [0x1000, 0x2000, end - 0x10]);
    let beyond = why(ignored(), vec![beyond]);
    assert!(
        beyond.contains("device area at 0x200000 is not mapped"),
        "{beyond}"
    );
    let wraps = GuestQueue::new(0, 16, [0x1000, 0x2000, u64::MAX - 3]);
    let wraps = why(ignored(), vec![wraps]);
    assert!(wraps.contains("queue 0"), "{wraps}");

    // No memory at all.
    let empty = std::sync::Arc::new(GuestMemoryMmap::<()>::new());
    let mut device = acked("sim:rng");
    let queue = GuestQueue::new(0, 16, [0x1000, 0x2000, 0x3000]);
    let refused = device.activate(&empty, ignored(), vec![queue], soon());
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("0x1000 is not mapped"), "{error}");
}

#[test]
fn eventfds_that_do_not_fit_the_queues_are_counted() {
    let queue = || vec![GuestQueue::new(0, 16, [0x1000, 0x2000, 0x3000])];
    let few = Interrupts::from_eventfds(eventfd(), Vec::<vmm_sys_util::eventfd::EventFd>::new());
    let few = why(few, queue());
    assert!(few.starts_with("queue 0 has no interrupt"), "{few}");
    let many = Interrupts::from_eventfds(eventfd(), [eventfd(), eventfd()]);
    let many = why(many, queue());
    assert!(
        many.contains("given for queue 1") && many.contains("1 queues"),
        "{many}"
    );
    // An eventfd for some, and the closure for the others.
    let both = ignored().with_eventfd(InterruptKind::Config, eventfd());
    let memory = memory();
    acked("sim:rng")
        .activate(&memory, both, queue(), soon())
        .unwrap();
}

#[test]
fn a_failed_activation_shows_the_guest_that_a_reset_is_needed() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let _due = device.write_status(0x0f).unwrap();
    let bad = GuestQueue::new(0, 3, [0x1000, 0x2000, 0x3000]);
    device
        .activate(&memory, ignored(), vec![bad], soon())
        .unwrap_err();
    let status = Status::from_bits_retain(device.status().unwrap());
    assert!(status.contains(Status::DEVICE_NEEDS_RESET) && !status.contains(Status::DRIVER_OK));
    // Only a reset moves it.
    let _nothing = device.write_status(0x0f).unwrap();
    assert_eq!(device.status().unwrap(), status.bits());
    let _reset = device.write_status(0).unwrap();
    super::until("the reset is complete", || device.status().unwrap() == 0);
}

#[test]
fn features_that_are_not_offered_are_refused_by_name() {
    let mut device = acked("sim:rng");
    device.ack_features(1 << 40);
    let refused = device.write_status(0x0b).unwrap_err().to_string();
    assert!(refused.contains("RING_RESET"), "{refused}");
    assert_eq!(device.status().unwrap() & Status::FEATURES_OK.bits(), 0);
    device
        .activate(&memory(), ignored(), Vec::new(), soon())
        .unwrap_err();
    device.set_acked_features(device.device_features());
    device
        .activate(&memory(), ignored(), Vec::new(), soon())
        .unwrap();
}

#[test]
fn configuration_is_read_to_its_very_end_and_not_beyond() {
    let mut device = open("sim:blk,size=1M");
    let size = u64::from(device.device().info().config_size);
    let mut bytes = vec![0xaa; size as usize];
    device.read_config(0, &mut bytes).unwrap();
    assert_eq!(bytes[..8], 2048_u64.to_le_bytes());
    device.read_config(size - 1, &mut bytes[..1]).unwrap();
    for at in [size - 1, size, u64::from(u32::MAX), u64::MAX] {
        let mut bytes = [0xaa; 4];
        device.read_config(at, &mut bytes).unwrap_err();
        assert_eq!(
            bytes, [0; 4],
            "nothing stale comes out of a read at {at:#x}"
        );
        device.write_config(at, &bytes).unwrap_err();
    }
    device.close(soon()).map_err(|(_, e)| e).unwrap();
}

#[test]
fn calls_of_an_active_device_are_refused_before() {
    let mut device = acked("sim:rng");
    let early = device.stop_queue(0, soon()).unwrap_err().to_string();
    assert!(early.contains("activate it first"), "{early}");
    let queue = GuestQueue::new(0, 16, [0x1000, 0x2000, 0x3000]);
    assert!(matches!(
        device.start_queue(queue),
        Err(VmmError::NotActive { .. })
    ));
    assert!(matches!(
        device.replace_interrupts(ignored()),
        Err(VmmError::NotActive { .. })
    ));
    assert!(device.reset(soon()).unwrap().is_none());
}
