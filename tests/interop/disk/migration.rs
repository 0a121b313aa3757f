//! A guest moves from one QEMU to another while it writes its disk and reads it: each QEMU has a back end of its own, on the
//! same image.

use std::path::Path;

use serde_json::Value;

use super::Scene;
use crate::harness::migration::{self, WAITS, WRITES, Way};
use crate::harness::{BackEnd, Guest, machine, talker};
use crate::machine::{Kernel, Machine};

/// Queues that QEMU has, and processors of the guest.
const QUEUES: &str = "2";
/// Who writes in the guest; each has 128 blocks, from the first of the disk on.
const WORKERS: u64 = 4;
/// What is read on the way, and compared once the guest has moved.
const LATE: &str = "4096+2048";

/// A guest with the disk at this socket.
#[track_caller]
fn guest(socket: &Path, rings: &str) -> Machine {
    let socket = socket.display();
    let disk = format!("vhost-user-blk,socket={socket},queues={QUEUES},{rings}");
    talker(machine(&[&disk]).words(&["-smp", QUEUES]))
}

/// Moves the guest to where it is waited for; what is here afterwards.
#[track_caller]
fn moves(mut guest: Guest, scene: &Scene, rings: &str) -> (Guest, BackEnd) {
    let (socket, way) = (scene.beside("other"), scene.beside("way"));
    let mut back_end = BackEnd::start(&format!("{},lock=off", scene.spec), &socket, &[]);
    let arriving = Guest::arriving(self::guest(&socket, rings).words(&WAITS));
    // So its monitor listens.
    back_end.event("connected");
    let way = Way::begin(&guest, &arriving, &way);
    // What is read now lies in pages that went over before, and nothing but the disk writes there.
    guest.hears("read");
    assert_eq!(guest.object()["waits"], "to compare");
    way.end();
    back_end.event("running");
    guest.kill();
    (arriving, back_end)
}

fn migrates(name: &str, rings: &str) {
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let _alone = migration::alone();
    let scene = Scene::new("");
    let back_end = BackEnd::start(&scene.spec, &scene.socket, &[]);
    let mut guest = Guest::start(self::guest(&scene.socket, rings));
    guest.does("modprobe virtio_blk");
    guest.does(&format!("talker blocks fill /dev/vda 1 {LATE}"));
    guest.does(&format!(
        "mkfifo /run/enough; talker blocks storm /dev/vda {WORKERS} 7 <>/run/enough >/run/storm 2>&1 & storm=$!"
    ));
    guest.does(WRITES);
    guest.begins(&format!("talker blocks late /dev/vda 1 {LATE} </dev/ttyS1"));
    assert_eq!(guest.object()["waits"], "to read");
    let (mut guest, other) = moves(guest, &scene, rings);
    back_end.stop();

    guest.hears("compare");
    let said = guest.object();
    assert_eq!(said["altered"], 0, "{said}");
    guest.does("kill $writes; told=$(wc -l </run/storm)");
    // The workers go on, and have all that they wrote and read before.
    guest.does("until [ $(wc -l </run/storm) -gt $told ]; do usleep 100000; done");
    guest.does("echo >/run/enough; wait $storm; code=$?; tail -n 1 /run/storm; [ $code = 0 ]");
    let said: Value = serde_json::from_str(&guest.does("tail -n 1 /run/storm")).unwrap();
    guest.does(&format!("talker blocks hold /dev/vda 1 {LATE}"));
    guest.ends();
    other.stop();
    let held = said["versions"].as_array().unwrap();
    for (block, version) in (0..).zip(held) {
        scene.holds(version.as_u64().unwrap(), block, 1);
    }
}

#[test]
fn a_guest_migrates_while_it_writes_and_reads_and_no_block_is_another() {
    let name =
        "disk::migration::a_guest_migrates_while_it_writes_and_reads_and_no_block_is_another";
    migrates(name, "packed=off");
}

#[test]
fn a_guest_with_a_disk_of_packed_rings_migrates_as_well() {
    let name = "disk::migration::a_guest_with_a_disk_of_packed_rings_migrates_as_well";
    migrates(name, "packed=on");
}
