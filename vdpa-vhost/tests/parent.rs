//! What the parent makes of back ends that leave, keep silent, refuse, or come to it.

mod back;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use back::{Back, mirror, soon};
use vdpa_core::session::{Backing, Completions, Part, QueueSetup};
use vdpa_core::{
    Attr, Device, Error, ErrorKind, Event, LinkState, MgmtDevice as _, QueueIndex, Session, Status,
    bits,
};
use vdpa_vhost::VhostUserMgmt;

fn q(number: u16) -> QueueIndex {
    QueueIndex::new(number)
}

/// A disk's driver, with one queue.
fn disk(device: Device) -> (vdpa_core::Control, vdpa_core::Queue) {
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let wanted = bits::VERSION_1.mask();
    let mut session = session.negotiate(wanted).map_err(|(_, e)| e).unwrap();
    let setup = QueueSetup {
        size: 16,
        buffers: 16,
        ..QueueSetup::default()
    };
    session.queue(q(0), setup).unwrap();
    let (control, mut queues) = session.run().map_err(|(_, e)| e).unwrap().split();
    (control, queues.remove(0))
}

/// Waits for this event.
fn event(events: &vdpa_core::Events, wanted: impl Fn(&Event) -> bool) {
    loop {
        match events.wait(soon()).unwrap() {
            Some(event) if wanted(&event) => return,
            Some(_) => {}
            None => panic!("it did not happen"),
        }
    }
}

#[test]
fn a_back_end_that_leaves_is_gone_for_its_driver_and_says_so() {
    let mut back = Back::new("sim:blk,size=1M");
    let device = back.open("type=blk");
    let events = device.events().unwrap();
    let (control, queue) = disk(device);
    assert!(control.status().is_ok());
    back.end();
    event(&events, |event| *event == Event::Gone);
    assert_eq!(control.status().unwrap_err().kind(), ErrorKind::Gone);
    // Its memory can be had back all the same.
    drop(queue);
    drop(control);
}

#[test]
fn a_back_end_that_does_not_answer_is_given_up_by_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("silent.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    let spec = format!("vhost-user:{},type=blk,timeout=1", path.display());
    let error = mirror().open(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
    let text = error.to_string();
    assert!(text.contains("VHOST_USER_GET_FEATURES"), "{text}");
    assert!(text.contains("within 1 s"), "{text}");
    assert!(text.contains("another front end may have it"), "{text}");
}

#[test]
fn a_server_meets_a_back_end_that_comes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("door.sock");
    let spec = format!(
        "vhost-user:{},type=blk,server=on,timeout=20",
        path.display()
    );
    let meets = {
        let spec = spec.clone();
        std::thread::spawn(move || mirror().open(&spec))
    };
    let to = path.clone();
    let back = Back::with(
        "sim:blk,size=1M",
        move |_| vdpa_export::vhost_user::Listen::connect(&to),
        vdpa_export::vhost_user::Options::default(),
    );
    let device = meets.join().unwrap().unwrap();
    assert_eq!(device.info().queues, 1);
    assert!(!path.exists(), "nobody else is let in");
    drop((device, back));

    let nobody = spec.replace("timeout=20", "timeout=1");
    let error = mirror().open(&nobody).unwrap_err();
    assert!(error.to_string().contains("client mode"), "{error}");
    assert!(!path.exists());
}

#[test]
fn sockets_that_are_none_are_told_with_what_mends_them() {
    let home = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path, rest: &str| {
        let spec = format!("vhost-user:{},type=net{rest}", path.display());
        mirror().open(&spec).unwrap_err().to_string()
    };
    let missing = open(&home.path().join("none"), "");
    assert!(missing.contains("no such socket"), "{missing}");
    let left = home.path().join("left.sock");
    drop(UnixListener::bind(&left).unwrap());
    let refused = open(&left, "");
    assert!(refused.contains("nobody listens"), "{refused}");
    let taken = open(&left, ",server=on");
    assert!(taken.contains("something of that name"), "{taken}");
    assert!(left.exists(), "what was there is not touched");
    let file = home.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    for (there, is) in [
        (file.as_path(), "a regular file"),
        (home.path(), "a directory"),
    ] {
        let none = open(there, "");
        assert!(none.contains(is) && !none.contains("remove"), "{none}");
    }
    let nowhere = open(&home.path().join("nowhere/back.sock"), ",server=on");
    assert!(nowhere.contains("mkdir -p"), "{nowhere}");
    let long = open(&home.path().join("x".repeat(120)), "");
    assert!(long.contains("too long"), "{long}");
}

#[test]
fn memory_without_a_file_is_refused_with_the_way_out() {
    let back = Back::new("sim:rng");
    let device = back.open("type=rng");
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let wanted = bits::VERSION_1.mask();
    let mut session = session.negotiate(wanted).map_err(|(_, e)| e).unwrap();
    let setup = QueueSetup {
        backing: Backing::Anonymous,
        ..QueueSetup::default()
    };
    let error = session.queue(q(0), setup).unwrap_err();
    assert!(matches!(error, Error::DmaNoFile { .. }), "{error}");
    session.queue(q(0), QueueSetup::default()).unwrap();
}

#[test]
fn a_back_end_is_open_once_and_is_taken_away_by_its_management() {
    let back = Back::new("sim:rng");
    let mgmt = Arc::new(VhostUserMgmt::new());
    let mut registry = vdpa_core::Registry::new();
    registry.add(mgmt.clone());
    let spec = back.spec("type=rng");
    let device = registry.open(&spec).unwrap();
    let error = registry.open(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    let entry = mgmt.devices().remove(0);
    assert_eq!(entry.spec, spec);
    let up = Attr::Link(LinkState::Up);
    let refused = mgmt.dev_set(&entry.name, up).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let events = device.events().unwrap();
    mgmt.dev_del(&entry.name).unwrap();
    event(&events, |event| *event == Event::Gone);
    drop(device);
    assert!(mgmt.devices().is_empty());
    assert!(mgmt.dev_del(&entry.name).is_err());
    // And it can be had again.
    registry.open(&spec).unwrap();
}

#[test]
fn a_change_of_the_configuration_behind_is_told_in_front() {
    let back = Back::new("sim:net");
    let device = back.open("type=net");
    let events = device.events().unwrap();
    let before = device.config_generation().unwrap();
    back.set(Attr::Link(LinkState::Down));
    event(&events, |event| *event == Event::Config);
    assert_ne!(device.config_generation().unwrap(), before);
    let mut status = [0; 2];
    device.read_config(6, &mut status).unwrap();
    assert_eq!(status, [0, 0], "the link is down");
}

/// What leaves the port of a card when the one in front of it is told to announce this address.
fn announced(mac: [u8; 6]) -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    let capture = home.path().join("out.pcap");
    let spec = format!("sim:net,port=null,mirror={}", capture.display());
    let mut back = Back::new(&spec);
    let device = back.open("type=net");
    assert!(device.cap_names().contains(&"announce"));
    assert!(device.announce(mac.into()).is_err(), "it does not run");
    let mut status = Status::ACKNOWLEDGE | Status::DRIVER;
    device.write_status(status.bits()).unwrap();
    device.accept(bits::VERSION_1.mask()).unwrap();
    for more in [Status::FEATURES_OK, Status::DRIVER_OK] {
        status |= more;
        device.write_status(status.bits()).unwrap();
    }
    device.announce(mac.into()).unwrap();
    drop(device);
    // The capture is there once nobody writes to it any more.
    back.end();
    std::fs::read(&capture).unwrap()
}

/// Over the socket by SEND_RARP, and out of the port behind it as RFC 903 has it.
#[test]
fn a_guest_that_moved_is_announced_in_the_network_of_the_device_behind() {
    let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let mut frame = [
        &[0xff; 6][..],
        &mac,
        &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3],
        &mac,
        &[0; 4],
        &mac,
    ]
    .concat();
    frame.resize(60, 0);
    let by = soon();
    // A reset takes back what has not left yet.
    while !announced(mac).ends_with(&frame) {
        assert!(!by.expired(), "it is never sent");
    }

    let disk = Back::new("sim:blk,size=1M");
    let device = disk.open("type=blk");
    assert!(!device.cap_names().contains(&"announce"));
    let refused = device.announce(mac.into()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
}

#[test]
fn a_wrong_type_is_found_out_by_the_configuration() {
    let back = Back::new("sim:rng");
    let error = mirror().open(&back.spec("type=blk")).unwrap_err();
    let text = error.to_string();
    assert!(!text.is_empty(), "{text}");
    assert_ne!(error.kind(), ErrorKind::Misuse);
}

#[test]
fn a_queue_larger_than_those_of_the_back_end_is_refused_and_a_smaller_one_goes() {
    let back = Back::new("sim:blk,size=1M");
    let session = Session::open(back.open("type=blk,queue_size=1024"), soon());
    let session = session.map_err(|(_, e)| e).unwrap();
    let wanted = bits::VERSION_1.mask();
    let mut session = session.negotiate(wanted).map_err(|(_, e)| e).unwrap();
    let setup = QueueSetup {
        size: 1024,
        ..QueueSetup::default()
    };
    session.queue(q(0), setup).unwrap();
    let Err((session, error)) = session.run() else {
        panic!("it has 256 descriptors at most");
    };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("1024 descriptors"), "{text}");
    assert!(text.contains("queue_size="), "{text}");
    let (_control, mut queue) = disk(session.close(soon()).map_err(|(_, e)| e).unwrap());
    read(&mut queue, 1);
    assert_eq!(finish(&mut queue), 1);
}

#[test]
fn a_queue_stopped_with_a_request_under_way_goes_on_where_it_stood() {
    let back = Back::new("sim:blk,size=1M");
    let (control, mut queue) = disk(back.open("type=blk"));
    for round in 0..50u64 {
        read(&mut queue, round % 8);
        control.stop_queue(&mut queue, soon()).unwrap();
        // Seen only once it runs again.
        read(&mut queue, 1);
        control.start_queue(&mut queue).unwrap();
        let done = finish(&mut queue);
        assert!(done >= 1, "round {round}");
        while queue.in_flight() > 0 {
            finish(&mut queue);
        }
    }
}

/// Asks for a sector.
fn read(queue: &mut vdpa_core::Queue, sector: u64) {
    let lease = queue.lease().unwrap();
    let mut header = [0; 16];
    header[8..].copy_from_slice(&sector.to_le_bytes());
    queue.write(&lease, 0, &header);
    let parts = [Part::Readable(16), Part::Writable(513)];
    queue
        .submit(lease, &parts)
        .map_err(|refused| refused.why)
        .unwrap();
    queue.publish();
}

/// Waits until something is done, and takes it.
fn finish(queue: &mut vdpa_core::Queue) -> usize {
    let by = std::time::Instant::now() + Duration::from_secs(20);
    let mut done = Completions::new(16);
    loop {
        let count = queue.poll(&mut done).unwrap();
        for done in done.drain() {
            queue.put(done.lease);
        }
        if count > 0 {
            return count;
        }
        assert!(std::time::Instant::now() < by, "nothing is done");
        std::thread::yield_now();
    }
}
