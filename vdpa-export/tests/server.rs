//! Where front ends come from, and what becomes of the server when they, their memory or the device go.

mod rig;

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use rig::guest::{DATA, Guest, LEN};
use rig::less::Less;
use rig::{Served, open};
use vdpa_core::{Device, MgmtDevice as _, Relay};
use vdpa_export::vhost_user::{
    Admission, EndedBy, Listen, Notice, Options, Server, ServerError, Stop,
};
use vdpa_vhost_user::payload::{DeviceState, Direction, MemoryRegion, VringFd};
use vdpa_vhost_user::{Connection, Front, FrontMessage, FrontRequest, Header, ProtocolFeatures};

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
    let nowhere = home.path().join("nowhere/socket");
    for listen in [Listen::bind(&nowhere), Listen::connect(&nowhere)] {
        let why = refused(listen);
        assert!(matches!(why, ServerError::NoDirectory { .. }), "{why}");
    }
    let why = refused(Listen::bind(file.join("socket")));
    assert!(matches!(why, ServerError::NotADirectory { .. }), "{why}");
    let why = refused(Listen::bind("/"));
    assert!(matches!(why, ServerError::NoName { .. }), "{why}");
    let why = refused(Listen::connect(&file));
    assert!(matches!(why, ServerError::NotASocket { .. }), "{why}");
    let (one, _other) = UnixStream::pair().unwrap();
    let why = refused(Listen::Listener(one.into()));
    assert!(matches!(why, ServerError::Descriptor { .. }), "{why}");
    let network = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let why = refused(Listen::Listener(network.into()));
    assert!(matches!(why, ServerError::Descriptor { .. }), "{why}");

    // What the one of before left is replaced.
    let admission = Admission {
        mode: Some(0o640),
        ..Admission::default()
    };
    let (device, _) = open("sim:blk,size=1M");
    let server = Server::new(device, Options::default());
    let listen = Listen::Bind {
        path: path.clone(),
        admission,
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

/// A socket at `path` that is listened at by somebody who takes nobody in, and has no room for another to wait.
fn full(path: &std::path::Path) -> (OwnedFd, Vec<OwnedFd>) {
    let stream = || {
        socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK,
            None,
        )
    };
    let (listener, address) = (stream().unwrap(), UnixAddr::new(path).unwrap());
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut waiting = Vec::new();
    loop {
        let one = stream().unwrap();
        match connect(one.as_raw_fd(), &address) {
            Ok(()) => waiting.push(one),
            Err(nix::Error::EAGAIN) => return (listener, waiting),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_server_ends_also_while_the_front_end_that_listens_takes_nobody_in() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vmm");
    let _full = full(&path);
    let listen = Listen::connect(&path);
    let served = Served::at("sim:blk,size=1M", Options::default(), listen, path, home);
    served.hears("cannot reach the front end");
    assert_eq!(served.end().unwrap().by, EndedBy::Stop);
}

#[test]
fn who_listens_at_a_socket_already_is_not_disturbed_nor_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("taken");
    let taken = UnixListener::bind(&path).unwrap();
    taken.set_nonblocking(true).unwrap();
    let why = refused(Listen::bind(&path));
    assert!(matches!(why, ServerError::InUse { .. }), "{why}");
    let nobody = taken.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);

    let path = home.path().join("full");
    let _full = full(&path);
    let why = refused(Listen::bind(&path));
    assert!(matches!(why, ServerError::InUse { .. }), "{why}");
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
    let stop = Stop::new().unwrap();
    let thread = std::thread::spawn(move || serving.run(&stop));
    let mut front = Front::new(Connection::new(ours));
    assert!(answers(&mut front));
    drop(front);
    let ended = thread.join().unwrap().unwrap();
    assert_eq!(ended.by, EndedBy::FrontEnd);
    assert_eq!(ended.device.status().unwrap(), vdpa_core::Status::empty());
}

#[test]
fn a_queue_that_nobody_kicks_is_looked_at() {
    let served = Served::new("sim:blk,size=1M");
    let (mut front, mut guest) = (front(&served.path), Guest::new());
    let file = guest.file();
    rig::set_up(&mut front, &guest, file);
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
        rig::set_up(&mut front, &guest, file.try_clone().unwrap());
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

/// A request may come to it before its report does.
#[test]
fn a_device_that_is_gone_is_not_told_as_its_front_ends_fault() {
    let less = Less::new("sim:blk,size=1M");
    let gone = Arc::clone(&less.gone);
    let device = Device::new(Arc::new(less), Relay::new()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vdpa.sock");
    let (sim, listen) = (Arc::default(), Listen::bind(&path));
    let served = Served::of(device, sim, Options::default(), listen, path, home);
    let mut front = front(&served.path);
    assert!(answers(&mut front));
    gone.store(true, Ordering::Release);
    // A failure, which is a number here, or the end.
    let _neither = front.value(&FrontMessage::GetStatus);
    served.hears("connected");
    assert_eq!(served.next(), "device: Gone");
    let Err(ServerError::Device(why)) = served.end() else {
        panic!("the device is gone");
    };
    assert_eq!(why.kind(), vdpa_core::ErrorKind::Gone);
}

/// The front end shares the flags of what it gives, and can change them at any time.
#[test]
fn a_channel_for_the_state_that_blocks_holds_up_nobody() {
    let served = Served::new("sim:blk,size=1M");
    let mut front = front(&served.path);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let theirs = reader.try_clone().unwrap();
    let direction = DeviceState {
        direction: Direction::Load,
    };
    front
        .ask(&FrontMessage::SetDeviceStateFd(direction, theirs))
        .unwrap();
    nix::fcntl::fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    nix::unistd::write(&writer, b"half a state").unwrap();
    let mut nothing = nix::poll::PollFd::new(reader.as_fd(), PollFlags::POLLIN);
    rig::until("the end of the pipe", || {
        let ready = nix::poll::poll(std::slice::from_mut(&mut nothing), PollTimeout::ZERO);
        ready.unwrap() == 0
    });
    assert!(answers(&mut front));
    served.end().unwrap();
}

/// By memory that does not answer, say.
#[test]
fn a_device_that_a_front_end_keeps_from_coming_to_rest_is_replaced_for_the_next_one() {
    let options = Options::default()
        .patience(Duration::from_millis(200))
        .reopen(|| Ok(open("sim:blk,size=1M").0));
    let mut less = Less::new("sim:blk,size=1M");
    less.restless = true;
    let device = Device::new(Arc::new(less), Relay::new()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vdpa.sock");
    let (sim, listen) = (Arc::default(), Listen::bind(&path));
    let served = Served::of(device, sim, options, listen, path, home);
    for fill in [0x42, 0x43] {
        let (mut front, mut guest) = (front(&served.path), Guest::new());
        let file = guest.file();
        rig::set_up(&mut front, &guest, file);
        guest.round(5, fill);
        drop(front);
        served.hears("left");
    }
    served.end().unwrap();
}

#[test]
fn a_server_that_is_stopped_while_its_device_is_lost_makes_no_other_one() {
    let mut less = Less::new("sim:blk,size=1M");
    less.restless = true;
    let device = Device::new(Arc::new(less), Relay::new()).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stop = Stop::new().unwrap();
    let set = stop.clone();
    let options = Options::default()
        .patience(Duration::from_millis(200))
        .reopen(|| panic!("nobody comes any more"))
        .observe(move |notice| {
            if matches!(notice, Notice::Disconnected) {
                set.set();
            }
        });
    let server = Server::new(device, options);
    let serving = server.listen(Listen::Stream(theirs.into())).unwrap();
    let thread = std::thread::spawn(move || serving.run(&stop));
    let (mut front, mut guest) = (Front::new(Connection::new(ours)), Guest::new());
    let file = guest.file();
    rig::set_up(&mut front, &guest, file);
    guest.round(5, 0x42);
    drop(front);
    assert_eq!(thread.join().unwrap().unwrap().by, EndedBy::Stop);
}

#[test]
fn a_guest_is_announced_by_a_card_that_runs_and_by_nothing_else() {
    const RARP: ProtocolFeatures = ProtocolFeatures::RARP;
    let offered = |front: &mut Front| {
        let offered = front.value(&FrontMessage::GetProtocolFeatures).unwrap();
        ProtocolFeatures::from_bits_retain(offered)
    };
    let rarp = FrontMessage::SendRarp([0x52, 0x54, 0, 0, 0, 9]);
    let served = Served::new("sim:net");
    let (mut front, guest) = (front(&served.path), Guest::new());
    assert!(offered(&mut front).contains(RARP));
    let agreed = RARP | ProtocolFeatures::REPLY_ACK;
    front
        .ask(&FrontMessage::SetProtocolFeatures(agreed))
        .unwrap();
    // Nobody is cut off for that.
    assert!(front.ask(&rarp).is_err(), "it does not run");
    rig::set_up(&mut front, &guest, guest.file());
    served.hears("running");
    front.ask(&rarp).unwrap();
    let group = FrontMessage::SendRarp([0xff; 6]);
    assert!(front.ask(&group).is_err(), "nobody's address");
    assert!(answers(&mut front));
    served.end().unwrap();

    let served = Served::new("sim:blk,size=1M");
    let mut front = self::front(&served.path);
    assert!(!offered(&mut front).contains(RARP));
    let _unanswered = front.begin(&rarp).unwrap();
    assert!(served.hears("cut off").contains("VHOST_USER_SEND_RARP"));
    served.end().unwrap();
}

#[test]
fn what_a_front_end_asked_for_wrongly_is_named() {
    let served = Served::new("sim:blk,size=1M");
    let file = || std::fs::File::open("/dev/null").unwrap().into();
    let region = |size| MemoryRegion {
        guest: 0,
        size,
        user: 0,
        offset: 0,
    };
    let features = ProtocolFeatures::PAGEFAULT | ProtocolFeatures::from_bits_retain(1 << 40);
    let read_only = tempfile::NamedTempFile::new().unwrap();
    read_only.as_file().set_len(LEN).unwrap();
    let read_only = std::fs::File::open(read_only.path()).unwrap();
    for (message, words) in [
        (
            FrontMessage::SetProtocolFeatures(features),
            &["PAGEFAULT", "bit 40"][..],
        ),
        (
            FrontMessage::SetMemTable(vec![(region(LEN), read_only.into())]),
            &["cannot map 0x", "reading and writing"],
        ),
        (
            FrontMessage::SetVringErr(VringFd {
                index: 9,
                fd: Some(file()),
            }),
            &["VHOST_USER_SET_VRING_ERR", "no queue 9"],
        ),
    ] {
        let mut front = front(&served.path);
        let _cut = front.begin(&message).unwrap();
        let said = served.hears("cut off");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    // A table of one region, without its file.
    let mut stream = UnixStream::connect(&served.path).unwrap();
    let header = Header::request(FrontRequest::SetMemTable.form().number, false, 40);
    let table = [1, 0, LEN, 0, 0].map(u64::to_le_bytes);
    stream.write_all(&header.encode()).unwrap();
    stream.write_all(table.as_flattened()).unwrap();
    let said = served.hears("cut off");
    assert!(said.contains("share=on"), "{said}");
    served.end().unwrap();
}
