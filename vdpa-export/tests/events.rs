//! Eventfds that a front end gives, and what it can do with those that it has as well.

mod rig;

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::EventFd;
use rig::guest::Guest;
use rig::{Served, open_all, set_up, until};
use vdpa_export::vhost_user::{Listen, Options};
use vdpa_vhost_user::payload::VringFd;
use vdpa_vhost_user::{Connection, Front, FrontMessage, ProtocolFeatures};

fn front(served: &Served) -> Front {
    Front::new(Connection::new(UnixStream::connect(&served.path).unwrap()))
}

/// A front end that drives a disk.
fn running(served: &Served) -> (Front, Guest) {
    let (mut front, guest) = (front(served), Guest::new());
    let file = guest.file();
    set_up(&mut front, &guest, file);
    served.hears("running");
    (front, guest)
}

/// For queue 0.
fn vring(fd: OwnedFd) -> VringFd {
    VringFd {
        index: 0,
        fd: Some(fd),
    }
}

/// Whether the device's features can be asked for.
fn answers(front: &mut Front) -> bool {
    front.value(&FrontMessage::GetFeatures).is_ok()
}

/// An eventfd that the device calls from here on.
fn called(front: &mut Front) -> EventFd {
    let (mine, given) = event();
    front
        .ask(&FrontMessage::SetVringCall(vring(given)))
        .unwrap();
    mine
}

/// Waits until the device has come to its call; or until the front end is gone, whose counter may be seen before that.
fn come_to_call(guest: &Guest, front: &mut Front) {
    until("the end of a request or of its front end", || {
        guest.is_done() || !answers(front)
    });
}

/// From here on whoever writes to it has to wait, whatever it was like.
fn block(event: &EventFd) {
    let set = |flags| fcntl(event.as_fd(), FcntlArg::F_SETFL(flags)).unwrap();
    set(OFlag::O_NONBLOCK);
    let _empty = event.read();
    let _full = event.write(u64::MAX - 1);
    set(OFlag::empty());
}

/// The front end's own, and what it gives.
fn event() -> (EventFd, OwnedFd) {
    let event = EventFd::new().unwrap();
    let given = event.as_fd().try_clone_to_owned().unwrap();
    (event, given)
}

#[test]
fn a_file_or_a_pipe_is_taken_neither_for_a_call_nor_for_a_kick() {
    let served = Served::new("sim:blk,size=1M");
    type Set = fn(VringFd) -> FrontMessage;
    let sets: [Set; 3] = [
        FrontMessage::SetVringCall,
        FrontMessage::SetVringKick,
        FrontMessage::SetVringErr,
    ];
    for set in sets {
        let file = tempfile::tempfile().unwrap();
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        for (fd, what) in [
            (file.try_clone().unwrap().into(), "(deleted) is no eventfd"),
            (writer, "pipe:["),
        ] {
            let mut front = front(&served);
            assert!(answers(&mut front));
            let wanted = ProtocolFeatures::REPLY_ACK;
            let asked = front.ask(&FrontMessage::SetProtocolFeatures(wanted));
            asked.unwrap();
            assert!(front.ask(&set(vring(fd))).is_err());
            let said = served.hears("cut off");
            assert!(said.contains(what), "{said}");
        }
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
    let (_front, mut guest) = running(&served);
    guest.round(5, 0x42);
    served.end().unwrap();
}

#[test]
fn a_call_that_is_full_and_blocks_stops_the_front_end_and_not_the_device() {
    let served = Served::new("sim:blk,size=1M");
    let (mut hostile, mut guest) = running(&served);
    let mine = called(&mut hostile);
    guest.round(5, 0x42);
    assert!(answers(&mut hostile));
    block(&mine);
    guest.submit(0, 5);
    let said = served.hears("cut off");
    assert!(said.contains("the counter of its call eventfd"), "{said}");
    let (_front, mut guest) = running(&served);
    guest.round(5, 0x43);
    served.end().unwrap();
}

#[test]
fn a_call_that_blocks_is_replaced_without_the_server_waiting_for_ever() {
    let served = Served::new("sim:blk,size=1M");
    let (mut hostile, mut guest) = running(&served);
    let mine = called(&mut hostile);
    guest.round(5, 0x42);
    assert!(answers(&mut hostile));
    block(&mine);
    guest.submit(0, 5);
    // By now the worker is in its call, which is what the server waits for here.
    come_to_call(&guest, &mut hostile);
    let (_other, given) = event();
    let _either = hostile.ask(&FrontMessage::SetVringCall(vring(given)));
    served.hears("cut off");
    served.end().unwrap();
}

/// Two disks that one thread serves.
fn on_one_crew() -> [Served; 2] {
    let spec = "sim:blk,size=1M,crew=both";
    let (devices, sim) = open_all(&[spec, spec]);
    let served = devices.into_iter().map(|device| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("vdpa.sock");
        let (options, listen) = (Options::default(), Listen::bind(&path));
        Served::of(device, Arc::clone(&sim), options, listen, path, home)
    });
    served.collect::<Vec<_>>().try_into().ok().unwrap()
}

#[test]
fn a_front_end_whose_call_blocks_does_not_stop_the_other_devices_of_the_crew() {
    let [one, other] = on_one_crew();
    let (mut hostile, mut guest) = running(&one);
    let (_good, mut sibling) = running(&other);
    sibling.round(1, 0x11);
    let mine = called(&mut hostile);
    assert!(answers(&mut hostile));
    block(&mine);
    guest.submit(0, 5);
    come_to_call(&guest, &mut hostile);
    sibling.round(2, 0x22);
    one.hears("cut off");
    sibling.round(3, 0x33);
    let (_front, mut guest) = running(&one);
    guest.round(5, 0x43);
}

#[test]
fn a_call_that_is_filled_again_whenever_it_has_room_lets_the_worker_go_all_the_same() {
    let [one, other] = on_one_crew();
    let (mut hostile, mut guest) = running(&one);
    let (_good, mut sibling) = running(&other);
    let mine = called(&mut hostile);
    assert!(answers(&mut hostile));
    block(&mine);
    guest.submit(0, 5);
    come_to_call(&guest, &mut hostile);
    // Until the test ends, however it does.
    let going_on = Arc::new(());
    let still = Arc::downgrade(&going_on);
    let fills = std::thread::spawn(move || {
        while still.strong_count() > 0 {
            block(&mine);
        }
    });
    // A call may come where there is room, and is made then.
    until("a call that blocks", || {
        if guest.is_done() {
            guest.submit(0, 5);
        }
        !answers(&mut hostile)
    });
    one.hears("cut off");
    sibling.round(2, 0x22);
    let (_front, mut guest) = running(&one);
    guest.round(5, 0x43);
    drop(going_on);
    fills.join().unwrap();
}

#[test]
fn an_error_descriptor_that_is_full_and_blocks_holds_up_nobody() {
    let served = Served::new("sim:blk,size=1M");
    let (mut hostile, guest) = running(&served);
    let (mine, given) = event();
    hostile
        .ask(&FrontMessage::SetVringErr(vring(given)))
        .unwrap();
    assert!(answers(&mut hostile));
    block(&mine);
    // More than there is room for.
    let index = rig::guest::AVAIL as u32 + 2;
    guest.window.bytes().store_u16(index, 0x7fff);
    let said = served.hears("cut off");
    assert!(said.contains("the counter of its error eventfd"), "{said}");
    let (_front, mut guest) = running(&served);
    guest.round(5, 0x43);
    served.end().unwrap();
}
