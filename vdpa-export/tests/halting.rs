//! A queue is stopped as well as the device can, and says where it stands.

mod rig;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use nix::sys::eventfd::EventFd;
use rig::guest::{DESCRIPTORS, GPA, Guest, LEN, SIZE, USER};
use rig::less::Less;
use rig::open;
use vdpa_core::{Caps, Device, Features, Relay, bits};
use vdpa_export::vhost_user::{Listen, Options, Server, Stop};
use vdpa_mem::AddressSpace;
use vdpa_vhost_user::payload::{MemoryRegion, VringAddr, VringFd, VringFlags, VringState};
use vdpa_vhost_user::{Connection, Error, Front, FrontMessage, ProtocolFeatures, Reply};

/// A front end of such a device, and the server's thread.
struct Scene {
    space: Arc<OnceLock<AddressSpace>>,
    front: Front,
    guest: Guest,
    thread: std::thread::JoinHandle<()>,
    stop: Stop,
    features: u64,
}

impl Scene {
    fn new(without: fn(Caps<'_>) -> Caps<'_>, features: Features) -> Self {
        let mut less = Less::new("sim:blk,size=1M");
        less.without = without;
        let space = Arc::clone(&less.space);
        let device = Device::new(Arc::new(less), Relay::new()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listen = Listen::Stream(theirs.into());
        let serving = Server::new(device, Options::default())
            .listen(listen)
            .unwrap();
        let stop = Stop::new().unwrap();
        let set = stop.clone();
        let thread = std::thread::spawn(move || drop(serving.run(&set).unwrap()));
        let mut scene = Self {
            space,
            front: Front::new(Connection::new(ours)),
            guest: Guest::new(),
            thread,
            stop,
            features: (bits::VERSION_1 | features).low_u64(),
        };
        let region = MemoryRegion {
            guest: GPA,
            size: LEN,
            user: USER,
            offset: 0,
        };
        let table = vec![(region, scene.guest.file())];
        scene.tell(&FrontMessage::SetFeatures(scene.features));
        scene.tell(&FrontMessage::SetMemTable(table));
        scene
    }

    fn tell(&mut self, message: &FrontMessage) {
        self.front.ask(message).unwrap();
    }

    fn start(&mut self, base: u32) {
        self.start_by(base, None);
    }

    /// * `kick`: an eventfd, or nothing: then the queue is looked at
    fn start_by(&mut self, base: u32, kick: Option<OwnedFd>) {
        let state = |num| VringState { index: 0, num };
        let ring = self.guest.ring();
        self.tell(&FrontMessage::SetVringNum(state(SIZE.into())));
        self.tell(&FrontMessage::SetVringBase(state(base)));
        self.tell(&FrontMessage::SetVringAddr(VringAddr {
            index: 0,
            flags: VringFlags::empty(),
            descriptor: ring.desc_table_addr,
            used: ring.used_ring_addr,
            available: ring.avail_ring_addr,
            log: 0,
        }));
        self.tell(&FrontMessage::SetVringKick(VringFd { index: 0, fd: kick }));
    }

    fn end(self) {
        self.stop.set();
        self.thread.join().unwrap();
    }
}

/// Goes on from where it was stopped, twice.
fn goes_on(mut scene: Scene) {
    scene.start(0);
    scene.guest.round(5, 0x41);
    for (round, fill) in [(1, 0x42), (2, 0x43)] {
        assert_eq!(scene.front.vring_base(0).unwrap(), round * 2);
        // Nothing is taken, and the answer is the same.
        assert_eq!(scene.front.vring_base(0).unwrap(), round * 2);
        scene.start(round * 2);
        scene.guest.round(5, fill);
    }
    scene.end();
}

fn no_pause(caps: Caps<'_>) -> Caps<'_> {
    Caps {
        queue_pause: None,
        queue_reset: None,
        ..caps
    }
}

fn no_stop(caps: Caps<'_>) -> Caps<'_> {
    Caps {
        suspend: None,
        ..no_pause(caps)
    }
}

#[test]
fn a_device_that_pauses_queues_goes_on_where_it_stood() {
    goes_on(Scene::new(|caps| caps, Features::NONE));
}

#[test]
fn a_device_that_can_be_suspended_alone_goes_on_where_it_stood() {
    goes_on(Scene::new(no_pause, Features::NONE));
}

#[test]
fn a_device_that_can_only_be_reset_goes_on_from_its_used_index() {
    goes_on(Scene::new(no_stop, Features::NONE));
}

#[test]
fn a_device_that_cannot_switch_queues_goes_on_where_it_stood() {
    fn without(caps: Caps<'_>) -> Caps<'_> {
        Caps {
            queue_enable: None,
            ..no_stop(caps)
        }
    }
    goes_on(Scene::new(without, Features::NONE));
}

/// 0 would be a place that it does not stand at.
#[test]
fn a_queue_whose_used_ring_is_gone_is_not_said_to_stand_anywhere() {
    let mut scene = Scene::new(no_stop, Features::NONE);
    scene.guest.submit(1, 5);
    // Nobody kicks, so that the device finds out nothing by itself.
    let kick = EventFd::new().unwrap();
    scene.start_by(0, Some(kick.into()));
    assert_eq!(scene.guest.finish(), 0);
    let elsewhere = MemoryRegion {
        guest: GPA + LEN,
        size: LEN,
        user: USER + LEN,
        offset: 0,
    };
    let table = vec![(elsewhere, scene.guest.file())];
    scene.tell(&FrontMessage::SetMemTable(table));
    let refused = scene.front.vring_base(0);
    assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");
    scene.end();
}

#[test]
fn a_packed_ring_of_a_device_that_can_only_be_reset_is_not_stopped() {
    let mut scene = Scene::new(no_stop, bits::RING_PACKED.mask());
    scene.start(0x8000_8000);
    // It is cut off.
    let refused = scene.front.vring_base(0);
    assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");
    scene.end();
}

#[test]
fn a_packed_ring_that_was_never_used_stands_where_it_began() {
    let mut scene = Scene::new(|caps| caps, bits::RING_PACKED.mask());
    for base in [0x8000_8000, 0, 0x8000] {
        scene.start(base);
        assert_eq!(scene.front.vring_base(0).unwrap(), 0x8000_8000, "{base:#x}");
    }
    scene.end();
}

/// The first lap is over, and of the second one three slots were used.
fn used_up_to_the_second_lap() -> Scene {
    let scene = Scene::new(|caps| caps, bits::RING_PACKED.mask());
    let ring = scene.guest.window.bytes();
    for slot in 3..u64::from(SIZE) {
        let flags = (DESCRIPTORS + slot * 16 + 14) as usize;
        assert_eq!(ring.write(flags, &0x8080_u16.to_le_bytes()), 2);
    }
    scene
}

#[test]
fn a_packed_ring_goes_on_in_its_second_lap() {
    let mut scene = used_up_to_the_second_lap();
    for _ in 0..2 {
        scene.start(0x0003_0003);
        assert_eq!(scene.front.vring_base(0).unwrap(), 0x0003_0003);
    }
    scene.end();
}

/// QEMU's network cards are given the place of their last start when what served them was killed.
#[test]
fn a_packed_ring_whose_place_is_lost_goes_on_where_its_descriptors_show() {
    for told in [0x8000_8000, 0x0005_0005, 0x8002_8002] {
        let mut scene = used_up_to_the_second_lap();
        scene.start(told);
        assert_eq!(scene.front.vring_base(0).unwrap(), 0x0003_0003, "{told:#x}");
        scene.end();
    }
}

#[test]
fn capabilities_have_the_names_that_the_end_looks_for() {
    let (net, _sim) = open("sim:net");
    assert!(net.cap_names().contains(&"announce"));
    let (device, _sim) = open("sim:blk,size=1M,page_requests=on");
    assert!(!device.cap_names().contains(&"announce"));
    for name in [
        "queue-pause",
        "suspend",
        "queue-enable",
        "in-flight",
        "class-state",
        "stats",
        "dma-software",
        "page-requests",
    ] {
        assert!(device.cap_names().contains(&name), "{name}");
    }
}

/// A guest uses it once that is answered, and a worker in the midst of its queues would fail what it finds there.
#[test]
fn a_region_is_not_answered_for_before_every_worker_sees_it() {
    let mut scene = Scene::new(|caps| caps, Features::NONE);
    let wanted = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    scene.tell(&FrontMessage::SetProtocolFeatures(wanted));
    // What went before is done.
    scene.front.value(&FrontMessage::GetFeatures).unwrap();
    let space = scene.space.get().unwrap();
    let mut reader = space.reader();
    let section = reader.enter();
    let more = MemoryRegion {
        guest: GPA + LEN,
        size: LEN,
        user: USER + LEN,
        offset: 0,
    };
    let message = FrontMessage::AddMemReg(more, Guest::new().file());
    let pending = scene.front.begin(&message).unwrap();
    rig::until("the mapping", || space.mappings().len() == 2);
    for _ in 0..100 {
        assert!(scene.front.poll_finish(&pending).unwrap().is_none());
        std::thread::yield_now();
    }
    drop(section);
    let answered = scene.front.finish(&pending, None).unwrap();
    assert!(matches!(answered, Reply::Done));
    drop(reader);
    scene.end();
}
