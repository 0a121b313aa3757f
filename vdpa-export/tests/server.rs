//! Where front ends come from, and what becomes of the server when they, their memory or the device go.

mod rig;

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rig::guest::{DATA, GPA, Guest, LEN, USER};
use rig::{Served, open};
use vdpa_core::MgmtDevice as _;
use vdpa_export::vhost_user::{EndedBy, Listen, Options, Server, ServerError};
use vdpa_vhost_user::payload::{MemoryRegion, VringAddr, VringFd, VringFlags, VringState};
use vdpa_vhost_user::{Connection, Front, FrontMessage};

fn front(path: &std::path::Path) -> Front {
    Front::new(Connection::new(UnixStream::connect(path).unwrap()))
}

/// Whether the device's features can be asked for.
fn answers(front: &mut Front) -> bool {
    front.value(&FrontMessage::GetFeatures).is_ok()
}

fn refused(listen: Listen) -> ServerError {
    let (device, _) = open("sim:blk,size=1M");
    match Server::new(device, Options::default()).listen(listen) {
        Err(why) => why,
        Ok(_) => panic!("it listens"),
    }
}

#[test]
fn a_socket_that_cannot_be_had_is_refused_with_the_way_out() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("taken");
    let taken = UnixListener::bind(&path).unwrap();
    let why = refused(Listen::bind(&path));
    assert!(matches!(why, ServerError::InUse { .. }), "{why}");
    drop(taken);

    let file = home.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let why = refused(Listen::bind(&file));
    assert!(matches!(why, ServerError::NotASocket { .. }), "{why}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");

    let long = home.path().join("x".repeat(120));
    for listen in [Listen::bind(&long), Listen::connect(&long)] {
        let why = refused(listen);
        assert!(
            matches!(why, ServerError::TooLong { most: 107, .. }),
            "{why}"
        );
    }
    let why = refused(Listen::bind(home.path().join("nowhere/socket")));
    assert!(matches!(why, ServerError::Path { .. }), "{why}");
    let (one, _other) = UnixStream::pair().unwrap();
    let why = refused(Listen::Listener(one.into()));
    assert!(matches!(why, ServerError::Descriptor { .. }), "{why}");

    // What the one of before left is replaced.
    let mode = Some(0o640);
    let (device, _) = open("sim:blk,size=1M");
    let server = Server::new(device, Options::default());
    let listen = Listen::Bind {
        path: path.clone(),
        mode,
    };
    let serving = server.listen(listen).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
    drop(serving);
    assert!(!path.exists());
}

#[test]
fn a_front_end_that_listens_is_found_whenever_it_comes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vmm");
    let listen = Listen::Connect {
        path: path.clone(),
        every: Duration::from_millis(5),
    };
    let served = Served::at(
        "sim:blk,size=1M",
        Options::default(),
        listen,
        path.clone(),
        home,
    );
    served.hears("cannot reach the front end");
    for _ in 0..3 {
        let listener = UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        served.hears("connected");
        let mut front = Front::new(Connection::new(stream));
        assert!(answers(&mut front));
        std::fs::remove_file(&path).unwrap();
        drop((front, listener));
        served.hears("left");
    }
    served.end().unwrap();
}

#[test]
fn a_listener_that_is_handed_in_is_served_and_left_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("systemd");
    let listener = UnixListener::bind(&path).unwrap();
    let listen = Listen::Listener(OwnedFd::from(listener));
    let options = Options::default();
    let served = Served::at("sim:blk,size=1M", options, listen, path.clone(), home);
    assert!(answers(&mut front(&path)));
    served.hears("left");
    assert!(answers(&mut front(&path)));
    let stopped = served.end().unwrap();
    assert_eq!(stopped.by, EndedBy::Stop);
}

#[test]
fn a_connection_that_is_handed_in_is_the_only_one() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (device, _sim) = open("sim:blk,size=1M");
    let server = Server::new(device, Options::default());
    let serving = server.listen(Listen::Stream(theirs.into())).unwrap();
    let stop = vdpa_export::vhost_user::Stop::new().unwrap();
    let thread = std::thread::spawn(move || serving.run(&stop));
    let mut front = Front::new(Connection::new(ours));
    assert!(answers(&mut front));
    drop(front);
    let ended = thread.join().unwrap().unwrap();
    assert_eq!(ended.by, EndedBy::FrontEnd);
    assert_eq!(ended.device.status().unwrap(), vdpa_core::Status::empty());
}

/// Says all of a disk's queue; it runs by that.
fn set_up(front: &mut Front, guest: &Guest, file: OwnedFd) {
    let region = MemoryRegion {
        guest: GPA,
        size: LEN,
        user: USER,
        offset: 0,
    };
    let state = |num| VringState { index: 0, num };
    let none = || VringFd { index: 0, fd: None };
    let ring = guest.ring();
    for message in [
        FrontMessage::SetFeatures(1 << 32),
        FrontMessage::SetMemTable(vec![(region, file)]),
        FrontMessage::SetVringNum(state(rig::guest::SIZE.into())),
        FrontMessage::SetVringAddr(VringAddr {
            index: 0,
            flags: VringFlags::empty(),
            descriptor: ring.desc_table_addr,
            used: ring.used_ring_addr,
            available: ring.avail_ring_addr,
            log: 0,
        }),
        // It polls, and is polled.
        FrontMessage::SetVringCall(none()),
        FrontMessage::SetVringKick(none()),
    ] {
        front.ask(&message).unwrap();
    }
}

#[test]
fn a_queue_that_nobody_kicks_is_looked_at() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, mut guest) = (front(&served.path), Guest::new());
    let file = guest.file();
    set_up(&mut front, &guest, file);
    served.hears("running");
    guest.round(5, 0x42);
    guest.round(6, 0x43);
}

/// A guest whose memory can be cut.
fn guest_of(file: &OwnedFd) -> Guest {
    let mut guest = Guest::new();
    let shared = vdpa_mem::Region::shared(file.try_clone().unwrap(), 0, LEN);
    (guest.memory, guest.window) = shared.unwrap().into_shared();
    guest
}

fn cuttable() -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(LEN).unwrap();
    file.into()
}

#[test]
fn a_front_end_that_cuts_its_memory_is_cut_off_and_the_device_serves_the_next_one() {
    let served = Served::new("sim:blk,size=1M");
    for _ in 0..2 {
        let file = cuttable();
        let (mut front, mut guest) = (front(&served.path), guest_of(&file));
        set_up(&mut front, &guest, file.try_clone().unwrap());
        guest.round(5, 0x42);
        nix::unistd::ftruncate(&file, DATA as i64).unwrap();
        // Written to what is not there any more.
        guest.submit(0, 5);
        let said = served.hears("cut off");
        assert!(said.contains("was cut"), "{said}");
        drop(front);
    }
    assert!(answers(&mut front(&served.path)));
    served.end().unwrap();
}

#[test]
fn a_device_that_is_taken_away_ends_the_server() {
    let served = Served::new("sim:blk,size=1M");
    let mut front = front(&served.path);
    assert!(answers(&mut front));
    let name = served.sim.devices()[0].name.clone();
    served.sim.dev_del(&name).unwrap();
    served.hears("Gone");
    assert!(!answers(&mut front));
    assert!(served.end().is_err());
}
