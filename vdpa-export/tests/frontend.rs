//! A front end that nobody here wrote (the `vhost` crate's) sets a served disk up, uses it, moves it, and misbehaves.

mod rig;

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rig::guest::{DATA, GPA, Guest, LEN, SIZE, STATUS, USED};
use rig::{Served, until};
use vdpa_mem::Region;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags,
    VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo};

const VERSION_1: u64 = 1 << 32;
const LOG_ALL: u64 = 1 << 26;
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// The front end, as far as protocol features, with every acknowledgement asked for.
fn connect(served: &Served) -> Frontend {
    let mut front = Frontend::connect(served.path(), 4).unwrap();
    front.set_owner().unwrap();
    let features = front.get_features().unwrap();
    assert_ne!(features & PROTOCOL_FEATURES, 0);
    let offered = front.get_protocol_features().unwrap();
    let mut wanted = VhostUserProtocolFeatures::all();
    // That crate says the status of nothing, and so would never start the device.
    wanted.remove(VhostUserProtocolFeatures::STATUS);
    front.set_protocol_features(offered & wanted).unwrap();
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    front
}

/// Says all of a queue. It runs by that.
fn start(front: &mut Frontend, guest: &Guest, base: u16) {
    start_off(front, guest, base);
    front.set_vring_enable(0, true).unwrap();
}

/// The same, of one that is off.
fn start_off(front: &mut Frontend, guest: &Guest, base: u16) {
    front.set_vring_num(0, SIZE).unwrap();
    front.set_vring_base(0, base).unwrap();
    front.set_vring_addr(0, &guest.ring()).unwrap();
    front.set_vring_call(0, &guest.call).unwrap();
    front.set_vring_kick(0, &guest.kick).unwrap();
}

fn running(served: &Served) -> (Frontend, Guest) {
    let (mut front, guest) = (connect(served), Guest::new());
    front.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    front.set_mem_table(&[guest.region()]).unwrap();
    start(&mut front, &guest, 0);
    served.hears("running with 1 queues");
    (front, guest)
}

#[test]
fn a_disk_is_set_up_used_stopped_and_goes_on_where_it_stood() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, mut guest) = running(&served);
    let (_, capacity) = front
        .get_config(0, 8, VhostUserConfigFlags::WRITABLE, &[0; 8])
        .unwrap();
    assert_eq!(capacity, 2048_u64.to_le_bytes());
    assert_eq!(front.get_queue_num().unwrap(), 1);
    guest.round(3, 0x5a);
    until("a call", || guest.call.read().is_ok());

    assert_eq!(front.get_vring_base(0).unwrap(), 2);
    served.hears("stopped");
    // It does not run: nothing is taken.
    guest.submit(0, 3);
    start(&mut front, &guest, 2);
    served.hears("running");
    assert_eq!(guest.finish(), 0);
    guest.round(9, 0x11);

    // From the start, as after a reset of the guest.
    front.reset_device().unwrap();
    guest.clear();
    start(&mut front, &guest, 0);
    guest.round(2047, 0x77);
    drop(front);
    served.hears("left");
    served.end().unwrap();
}

#[test]
fn a_queue_is_told_of_once_it_is_on_and_its_end_only_then() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, guest) = (connect(&served), Guest::new());
    served.hears("connected");
    front.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    front.set_mem_table(&[guest.region()]).unwrap();
    start_off(&mut front, &guest, 0);
    front.get_vring_base(0).unwrap();
    start_off(&mut front, &guest, 0);
    front.set_vring_enable(0, true).unwrap();
    assert_eq!(served.next(), "running with 1 queues");
    front.set_vring_enable(0, false).unwrap();
    front.get_vring_base(0).unwrap();
    assert_eq!(served.next(), "stopped by the front end");
    served.end().unwrap();
}

/// DPDK's virtio-user says 0 of every ring, also to a back end that takes the place of one that died.
#[test]
fn a_split_ring_in_its_midst_goes_on_from_its_used_index_where_the_front_end_says_0() {
    let served = Served::new("sim:blk,size=1M");
    let mut guest = Guest::new();
    for fill in 1..=3 {
        let mut front = connect(&served);
        front.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
        front.set_mem_table(&[guest.region()]).unwrap();
        start(&mut front, &guest, 0);
        // What was left for this one; its descriptors are used again.
        guest.finish();
        // More than there are entries.
        for sector in 0..u64::from(SIZE) {
            guest.round(sector, fill);
        }
        drop(front);
        served.hears("left");
        // Nobody is there to take it; the next one does.
        guest.submit(0, 1);
    }
    served.end().unwrap();
}

#[test]
fn memory_comes_and_goes_while_the_disk_runs() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, mut guest) = running(&served);
    let more = Guest::new();
    let second = VhostUserMemoryRegionInfo {
        guest_phys_addr: GPA + LEN,
        userspace_addr: 0x6f00_0000_0000,
        ..more.region()
    };
    front.set_mem_table(&[guest.region(), second]).unwrap();
    guest.round(1, 1);
    front.remove_mem_region(&second).unwrap();
    guest.round(1, 2);
    front.add_mem_region(&second).unwrap();
    guest.round(1, 3);
    // Over the one that is there.
    assert!(front.add_mem_region(&second).is_err());
    assert!(served.hears("cut off").contains("overlaps"));
    served.end().unwrap();
}

#[test]
fn what_a_disk_writes_is_logged_while_that_is_asked_for_and_no_longer() {
    let served = Served::new("sim:blk,size=1M");
    let (front, mut guest) = running(&served);
    guest.round(0, 1);
    let (log, bytes) = Region::memfd(4096).unwrap().into_shared();
    let region = VhostUserDirtyLogRegion {
        mmap_size: 4096,
        mmap_offset: 0,
        mmap_handle: log.file().unwrap().0.as_raw_fd(),
    };
    front.set_log_base(0, Some(region)).unwrap();
    let dirty = || {
        let mut all = [0; 4096];
        bytes.bytes().read(0, &mut all);
        bytes.bytes().zero(0, 4096);
        let bit = |page: &u64| all[(page / 8) as usize] >> (page % 8) & 1 == 1;
        (0..4096 * 8).filter(bit).collect::<Vec<_>>()
    };
    guest.submit(0, 0);
    assert_eq!(guest.finish(), 0);
    assert!(dirty().is_empty(), "nobody asked");

    front
        .set_features(VERSION_1 | PROTOCOL_FEATURES | LOG_ALL)
        .unwrap();
    let mut ring = guest.ring();
    ring.flags = 1;
    ring.log_addr = Some(GPA + USED);
    front.set_vring_addr(0, &ring).unwrap();
    guest.submit(0, 0);
    assert_eq!(guest.finish(), 0);
    let page = |at: u64| (GPA + at) >> 12;
    until("the log of the used ring", || {
        bytes.bytes().load_u64((page(USED) / 64 * 8) as u32) >> (page(USED) % 64) & 1 == 1
    });
    assert_eq!(dirty(), [page(USED), page(STATUS), page(DATA)]);

    front.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    front.set_vring_addr(0, &guest.ring()).unwrap();
    // Before it went to sleep the device may have asked for kicks, in the used ring.
    let _late = dirty();
    guest.submit(0, 0);
    assert_eq!(guest.finish(), 0);
    assert!(dirty().is_empty());
    served.end().unwrap();
}

#[test]
fn a_log_that_the_memory_does_not_fit_is_refused() {
    let served = Served::new("sim:blk,size=1M");
    let (front, _guest) = running(&served);
    let (log, _) = Region::memfd(4096).unwrap().into_shared();
    let region = VhostUserDirtyLogRegion {
        mmap_size: 8,
        mmap_offset: 0,
        mmap_handle: log.file().unwrap().0.as_raw_fd(),
    };
    // What comes back is the end of the connection, or the refusal.
    let _refused = front.set_log_base(0, Some(region));
    assert!(served.hears("cut off").contains("dirty log has 0x8 bytes"));
}

#[test]
fn memory_that_grows_beyond_the_log_in_use_is_refused_and_after_a_longer_log_it_is_not() {
    // 2 MiB of addresses need 64 bytes, and 3 MiB 96.
    let log_of = |mmap_size| {
        let (log, _) = Region::memfd(4096).unwrap().into_shared();
        let mmap_handle = log.file().unwrap().0.as_raw_fd();
        let region = VhostUserDirtyLogRegion {
            mmap_size,
            mmap_offset: 0,
            mmap_handle,
        };
        (log, region)
    };
    let more = Guest::new();
    let second = VhostUserMemoryRegionInfo {
        guest_phys_addr: GPA + LEN,
        userspace_addr: 0x6f00_0000_0000,
        ..more.region()
    };
    let served = Served::new("sim:blk,size=1M");
    for longer in [false, true] {
        let (mut front, mut guest) = running(&served);
        let (_log, region) = log_of(64);
        front.set_log_base(0, Some(region)).unwrap();
        let logged = VERSION_1 | PROTOCOL_FEATURES | LOG_ALL;
        front.set_features(logged).unwrap();
        guest.round(1, 1);
        if longer {
            // As QEMU does it.
            let (_log, region) = log_of(96);
            front.set_log_base(0, Some(region)).unwrap();
            front.add_mem_region(&second).unwrap();
            guest.round(1, 2);
        } else {
            assert!(front.add_mem_region(&second).is_err());
            let said = served.hears("cut off");
            assert!(
                said.contains("0x40 bytes, and the memory needs 0x60"),
                "{said}"
            );
        }
    }
    served.end().unwrap();
}

#[test]
fn a_split_ring_of_a_size_that_is_none_is_refused_and_another_one_can_be_named() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, mut guest) = (connect(&served), Guest::new());
    front.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    front.set_mem_table(&[guest.region()]).unwrap();
    assert!(front.set_vring_num(0, 6).is_err());
    start(&mut front, &guest, 0);
    guest.round(1, 1);
    served.end().unwrap();
}

#[test]
fn a_record_of_what_is_in_flight_is_made_and_kept() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, mut guest) = (connect(&served), Guest::new());
    front.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    let asked = VhostUserInflight::new(0, 0, 1, SIZE);
    let (made, file) = front.get_inflight_fd(&asked).unwrap();
    assert_eq!((made.num_queues, made.queue_size), (1, SIZE));
    front.set_inflight_fd(&made, file.as_raw_fd()).unwrap();
    front.set_mem_table(&[guest.region()]).unwrap();
    start(&mut front, &guest, 0);
    guest.round(5, 0x42);
    // The record is in use: its version, and the size of the queue.
    let record = Region::shared(OwnedFd::from(file), 0, made.mmap_size).unwrap();
    assert_eq!(record.bytes().load_u16(8), 1);
    assert_eq!(record.bytes().load_u16(10), SIZE);
    assert_eq!(front.get_vring_base(0).unwrap(), 2);
    start(&mut front, &guest, 2);
    guest.round(5, 0x43);
    served.end().unwrap();
}

#[test]
fn what_a_device_alone_knows_is_moved_to_another() {
    let (here, there) = (
        Served::new("sim:blk,size=1M"),
        Served::new("sim:blk,size=1M"),
    );
    let (front, mut guest) = running(&here);
    guest.round(5, 0x42);
    front.get_vring_base(0).unwrap();
    let stopped = VhostTransferStatePhase::STOPPED;
    let (mut reading, writing) = std::io::pipe().unwrap();
    let save = VhostTransferStateDirection::SAVE;
    let other = front.set_device_state_fd(save, stopped, writing.into());
    assert!(other.unwrap().is_none());
    let mut state = Vec::new();
    reading.read_to_end(&mut state).unwrap();
    front.check_device_state().unwrap();
    assert!(!state.is_empty());

    let mut after = connect(&there);
    let (reading, mut writing) = std::io::pipe().unwrap();
    let load = VhostTransferStateDirection::LOAD;
    after
        .set_device_state_fd(load, stopped, reading.into())
        .unwrap();
    writing.write_all(&state).unwrap();
    drop(writing);
    after.check_device_state().unwrap();
    after.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    after.set_mem_table(&[guest.region()]).unwrap();
    start(&mut after, &guest, 2);
    guest.round(6, 0x43);
}

#[test]
fn a_state_that_is_none_cuts_the_front_end_off_when_the_device_starts() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, guest) = (connect(&served), Guest::new());
    let (reading, mut writing) = std::io::pipe().unwrap();
    let (load, stopped) = (
        VhostTransferStateDirection::LOAD,
        VhostTransferStatePhase::STOPPED,
    );
    front
        .set_device_state_fd(load, stopped, reading.into())
        .unwrap();
    writing.write_all(b"no state").unwrap();
    drop(writing);
    front.check_device_state().unwrap();
    front.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    front.set_mem_table(&[guest.region()]).unwrap();
    front.set_vring_num(0, SIZE).unwrap();
    front.set_vring_addr(0, &guest.ring()).unwrap();
    front.set_vring_enable(0, true).unwrap();
    assert!(front.set_vring_kick(0, &guest.kick).is_err());
    assert!(
        served
            .hears("cut off")
            .contains("saved state is not acceptable")
    );
    drop(front);
    let (_front, mut guest) = running(&served);
    guest.round(5, 0x42);
}

#[test]
fn a_front_end_that_asks_for_what_cannot_be_is_cut_off_and_the_next_one_is_served() {
    let served = Served::new("sim:blk,size=1M");
    let cut = |what: &str, does: &dyn Fn(&mut Frontend, &Guest) -> vhost::Result<()>| {
        let (mut front, guest) = (connect(&served), Guest::new());
        assert!(does(&mut front, &guest).is_err(), "{what}");
        let said = served.hears("cut off");
        assert!(said.contains(what), "{said}");
    };
    cut("no queue 1: the device has 1", &|front, _| {
        front.set_vring_num(1, SIZE)
    });
    cut("features that were not offered: SUSPEND", &|front, _| {
        front.set_features(VERSION_1 | PROTOCOL_FEATURES | 1 << 43)
    });
    cut(
        "the memory region at 0x100000 of 0x1000000 bytes cannot be used",
        &|front, guest| {
            let memory_size = 16 << 20;
            let region = VhostUserMemoryRegionInfo {
                memory_size,
                ..guest.region()
            };
            front.set_mem_table(&[region]).map(drop)
        },
    );
    cut(
        "descriptor area at 0x7f0000001000 is in no memory region",
        &|front, guest| {
            front.set_features(VERSION_1 | PROTOCOL_FEATURES)?;
            front.set_vring_num(0, SIZE)?;
            front.set_vring_addr(0, &guest.ring())?;
            front.set_vring_enable(0, true)?;
            front.set_vring_kick(0, &guest.kick)
        },
    );
    cut("VERSION_1", &|front, guest| {
        front.set_features(PROTOCOL_FEATURES)?;
        front.set_mem_table(&[guest.region()])?;
        front.set_vring_num(0, SIZE)?;
        front.set_vring_addr(0, &guest.ring())?;
        front.set_vring_enable(0, true)?;
        front.set_vring_kick(0, &guest.kick)
    });
    cut("its size cannot change while it runs", &|front, guest| {
        front.set_features(VERSION_1 | PROTOCOL_FEATURES)?;
        front.set_mem_table(&[guest.region()])?;
        start(front, guest, 0);
        front.set_vring_num(0, SIZE * 2)
    });
    cut(
        "features cannot change while queues run",
        &|front, guest| {
            front.set_features(VERSION_1 | PROTOCOL_FEATURES)?;
            front.set_mem_table(&[guest.region()])?;
            start(front, guest, 0);
            front.set_features(VERSION_1 | PROTOCOL_FEATURES | 1 << 29)
        },
    );
    let (_front, mut guest) = running(&served);
    guest.round(5, 0x42);
    served.end().unwrap();
}
