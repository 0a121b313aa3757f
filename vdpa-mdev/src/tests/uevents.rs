//! Messages of this machine's kernel, and of somebody who plays it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockname, sendto,
    socket,
};

use super::*;

/// Has the kernel say something of a device that is always there.
const TRIGGER: &str = "/sys/devices/virtual/mem/null/uevent";

fn heard(uevents: &Uevents) -> Option<Uevent> {
    let mut fds = [PollFd::new(uevents.as_fd(), PollFlags::POLLIN)];
    loop {
        match uevents.next().unwrap() {
            Heard::Event(event) => return Some(event),
            Heard::Lost => continue,
            Heard::Nothing => {}
        }
        if poll(&mut fds, PollTimeout::from(5000u16)).unwrap() == 0 {
            return None;
        }
    }
}

/// Of the test that needs a kernel which talks.
const NAME: &str = "tests::uevents::the_kernel_is_heard_and_nobody_else";

#[test]
fn the_kernel_is_heard_and_nobody_else() {
    let uevents = Uevents::open().unwrap();
    let port = getsockname::<NetlinkAddr>(uevents.as_fd().as_raw_fd())
        .unwrap()
        .pid();
    let mine = format!("/devices/virtual/mtty/mtty/{A}");
    let forged = format!("add@{mine}\0ACTION=add\0DEVPATH={mine}\0SUBSYSTEM=mdev\0");
    assert!(Uevent::parse(forged.as_bytes()).unwrap().change().is_some());
    let liar = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    );
    let liar = liar.unwrap();
    let to = NetlinkAddr::new(port, 0);
    let sent = sendto(liar.as_raw_fd(), forged.as_bytes(), &to, MsgFlags::empty());
    match sent {
        Ok(_) | Err(Errno::EPERM | Errno::ECONNREFUSED) => {}
        Err(errno) => panic!("{errno}"),
    }
    // It is there now if it ever is: the kernel's own comes after it.
    let id = uuid::Uuid::new_v4();
    if let Err(error) = fs::write(TRIGGER, format!("change {id} TEST=1")) {
        println!("SKIP {NAME}: {TRIGGER} cannot be written: {error} (run as root, with sysfs)");
        return;
    }
    let id = id.to_string();
    loop {
        let Some(event) = heard(&uevents) else {
            println!(
                "SKIP {NAME}: no event of the kernel's comes here (another network namespace)"
            );
            return;
        };
        assert_ne!(event.path, mine, "somebody else's word was taken");
        if event.value("SYNTH_UUID") == Some(&id) {
            assert_eq!(event.action, "change");
            assert_eq!(event.path, "/devices/virtual/mem/null");
            assert_eq!(event.value("SUBSYSTEM"), Some("mem"));
            assert_eq!(event.value("SYNTH_ARG_TEST"), Some("1"));
            assert_eq!(event.change(), None);
            return;
        }
    }
}
