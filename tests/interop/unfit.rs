//! QEMU asks for what a device has not, or keeps its guest's memory to itself: who says so, and what is served afterwards.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vdpa::Deadline;

use crate::harness::process::Process;
use crate::harness::{BackEnd, Guest, PATIENCE, are_installed, machine};
use crate::machine::{Kernel, Machine};

fn socket() -> (TempDir, std::path::PathBuf) {
    let home = TempDir::with_prefix("unfit.").unwrap();
    let socket = home.path().join("net");
    (home, socket)
}

/// The features that a guest's driver has settled on with the card at this socket, as digits.
#[track_caller]
fn features(machine: Machine) -> (Guest, String) {
    let mut guest = Guest::start(machine);
    guest.does("modprobe virtio_net; ip link set eth0 up");
    let bits = guest.does("cat /sys/bus/virtio/drivers/virtio_net/virtio*/features");
    (guest, bits)
}

fn card(socket: &Path, more: &str) -> String {
    format!("vhost-user-net,socket={}{more}", socket.display())
}

/// It is QEMU that finds out, and says so; it tries again for as long as it is there.
#[test]
fn more_pairs_than_a_device_has_are_refused_by_the_vmm_and_the_device_is_served_on() {
    let name =
        "unfit::more_pairs_than_a_device_has_are_refused_by_the_vmm_and_the_device_is_served_on";
    if !are_installed(name, &[("qemu-system-x86_64", "qemu-system-x86")]) {
        return;
    }
    let (_home, socket) = socket();
    let mut back_end = BackEnd::start("sim:net,queue_pairs=1", &socket, &[]);
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args("-nodefaults -no-user-config -display none -accel tcg -m 64M -machine q35,memory-backend=mem".split(' '));
    qemu.args("-object memory-backend-memfd,id=mem,size=64M,share=on".split(' '));
    qemu.arg("-chardev").arg(format!(
        "socket,id=net,path={},reconnect-ms=100",
        socket.display()
    ));
    qemu.args("-netdev vhost-user,id=net,chardev=net,queues=4 -device virtio-net-pci,netdev=net,mq=on,vectors=10".split(' '));
    let qemu = Process::start(&mut qemu);
    back_end.event("connected");
    back_end.event("disconnected");
    let by = Deadline::after(PATIENCE);
    while !qemu
        .errors()
        .contains("asking more queues than supported: 2")
    {
        assert!(!by.expired(), "{}", qemu.errors());
        thread::sleep(Duration::from_millis(20));
    }
    drop(qemu);
    // So few that QEMU asks for them, since it is told how many queues there are.
    let (guest, _) = features(machine(&[&card(&socket, ",pairs=2,mq=on")]));
    // The first QEMU may have died with an answer unread, and be cut off for that.
    let mut why = || back_end.event("cut_off")["why"].to_string();
    let (first, died) = (why(), "reset by peer");
    let why = if first.contains(died) { why() } else { first };
    assert!(why.contains("there is no queue 3"), "{why}");
    guest.ends();
    let (guest, _) = features(machine(&[&card(&socket, "")]));
    back_end.event("running");
    guest.ends();
    back_end.stop();
}

/// QEMU offers the guest what both have.
#[test]
fn a_guest_that_may_have_packed_rings_of_a_device_without_has_split_ones() {
    let name = "unfit::a_guest_that_may_have_packed_rings_of_a_device_without_has_split_ones";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let (_home, socket) = socket();
    let mut back_end = BackEnd::start("sim:net,features=-RING_PACKED", &socket, &[]);
    let (guest, bits) = features(machine(&[&card(&socket, ",packed=on")]));
    assert_eq!(bits.as_bytes()[34], b'0', "{bits}");
    assert_eq!(back_end.event("running")["ring"], "split");
    guest.ends();
    back_end.stop();
}

/// QEMU has no file to hand over: it says `consider using -object memory-backend-file share=on`, and starts queues in no
/// memory all the same.
#[test]
fn a_guest_whose_memory_is_in_no_file_is_cut_off_and_the_next_one_is_served() {
    let name = "unfit::a_guest_whose_memory_is_in_no_file_is_cut_off_and_the_next_one_is_served";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let (_home, socket) = socket();
    let mut back_end = BackEnd::start("sim:net", &socket, &[]);
    let part = card(&socket, "");
    let (guest, _) = features(Machine::plain(Kernel::Stock, &[&part]));
    guest.ends();
    back_end.event("connected");
    let (guest, _) = features(machine(&[&part]));
    let said = back_end.events_until("running");
    let why = said.iter().find_map(|event| event["why"].as_str()).unwrap();
    assert!(
        why.contains("in no memory region") && !why.contains('\n'),
        "{why}"
    );
    let [.., before, running] = &said[..] else {
        panic!("{said:#?}")
    };
    assert_eq!(
        (&before["event"], &running["event"]),
        (&"connected".into(), &"running".into())
    );
    guest.ends();
    let said = back_end.stop();
    assert_eq!(said.last().unwrap()["by"], "signal");
}
