//! What serves a disk is killed under a guest's load, and started again at the same socket: no request is lost, and none
//! is done again that was done. QEMU keeps the record of what is in flight, and hands it to the next back end.

use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use vdpa::Deadline;

use crate::disk::{Scene, can_run};
use crate::harness::PATIENCE;
use crate::harness::process::Process;

/// How often it is killed.
const KILLS: u64 = 20;
/// Who writes in the guest.
const WORKERS: u64 = 16;

/// Serves until it is killed. The system lets go of a dead process's image once the last of its requests has ended: until
/// then nobody else has it, so it is tried again, as a service manager does.
#[track_caller]
fn serve(scene: &Scene) -> Process {
    let by = Deadline::after(PATIENCE);
    while !by.expired() {
        let mut process = Process::start(
            Command::new(env!("CARGO_BIN_EXE_vdpactl"))
                .args(["serve", &scene.spec, "--json", "--stats", "0.2"])
                .arg("--vhost-user")
                .arg(&scene.socket),
        );
        while let Some(line) = process.line() {
            if line.contains("\"listening\"") {
                return process;
            }
        }
        println!("not yet: {}", process.errors());
        thread::sleep(Duration::from_millis(20));
    }
    panic!("it cannot be started again");
}

fn is_killed_again_and_again(name: &str, rings: &str, keys: &str, seed: u64) {
    if !can_run(name) {
        return;
    }
    let scene = Scene::new(keys);
    let mut back_end = serve(&scene);
    let mut guest = scene.guest(rings);
    guest.begins(&format!(
        "talker blocks storm /dev/vda {WORKERS} {seed} </dev/ttyS1"
    ));
    let (mut dice, mut again) = (seed, 0);
    for _ in 0..KILLS {
        // It works, for a random while.
        for _ in 0..2 + roll(&mut dice, 4) {
            let said = guest.object();
            assert!(said["done"].is_u64(), "{said}");
        }
        // Not a wait for anything: the moment is to have nothing to do with what the guest says.
        thread::sleep(Duration::from_micros(roll(&mut dice, 20_000)));
        back_end.signal(Signal::SIGKILL);
        let (_, said) = back_end.end();
        again += taken_again(&said);
        back_end = serve(&scene);
    }
    for _ in 0..5 {
        guest.object();
    }
    guest.hears("enough");
    let held = loop {
        let said = guest.object();
        if let Some(versions) = said["versions"].as_array() {
            break versions.clone();
        }
    };
    guest.ends();
    back_end.signal(Signal::SIGTERM);
    let (status, said) = back_end.end();
    assert!(status.success(), "{status}: {said:#?}");
    again += taken_again(&said);
    for (block, version) in (0..).zip(&held) {
        scene.holds(version.as_u64().unwrap(), block, 1);
    }
    println!("{again} requests were taken again after {KILLS} deaths");
    assert!(again > 0, "nothing was ever in flight");
}

/// How many requests this back end found in the record, by its last line of statistics.
fn taken_again(said: &[String]) -> u64 {
    let last = said.iter().rev().find_map(|line| {
        let said: serde_json::Value = serde_json::from_str(line).ok()?;
        said["counters"].as_object().cloned()
    });
    let counters = last.unwrap_or_default();
    let again = counters.iter().filter(|(name, _)| name.ends_with(".again"));
    again.filter_map(|(_, count)| count.as_u64()).sum()
}

fn roll(state: &mut u64, end: u64) -> u64 {
    crate::content::mixed(state) % end
}

#[test]
fn no_request_of_split_rings_is_lost_or_done_twice_when_a_back_end_is_killed() {
    let name = "kill::no_request_of_split_rings_is_lost_or_done_twice_when_a_back_end_is_killed";
    is_killed_again_and_again(name, "packed=off", ",io=threads,io_threads=1", 11);
}

#[test]
fn no_request_of_packed_rings_is_lost_or_done_twice_when_a_back_end_is_killed() {
    let name = "kill::no_request_of_packed_rings_is_lost_or_done_twice_when_a_back_end_is_killed";
    is_killed_again_and_again(name, "packed=on", ",io=uring,workers=2", 12);
}

/// QEMU gives the record before it translates anything, and hands it to the next back end.
#[test]
fn a_disk_behind_an_iommu_is_driven_and_its_back_end_may_die() {
    if !can_run("kill::a_disk_behind_an_iommu_is_driven_and_its_back_end_may_die") {
        return;
    }
    let scene = Scene::new(",page_requests=on");
    let back_end = serve(&scene);
    let mut guest = scene.guest("packed=on,iommu=on");
    let features = guest.does("cat /sys/bus/virtio/devices/virtio0/features");
    // ACCESS_PLATFORM
    assert_eq!(features.as_bytes()[33], b'1', "{features}");
    guest.does("talker blocks fill /dev/vda 1 0+512");
    guest.does("(talker blocks fill /dev/vda 2 256+8192; echo $? >/run/filled) >/dev/null 2>&1 &");
    back_end.signal(Signal::SIGKILL);
    back_end.end();
    let back_end = serve(&scene);
    guest.does("until [ -s /run/filled ]; do sleep 0.1; done; [ $(cat /run/filled) = 0 ]");
    guest.does("talker blocks hold /dev/vda 1 0+256");
    guest.does("talker blocks hold /dev/vda 2 256+8192");
    guest.ends();
    back_end.signal(Signal::SIGTERM);
    let (status, said) = back_end.end();
    assert!(status.success(), "{status}: {said:#?}");
    scene.holds(1, 0, 256);
    scene.holds(2, 256, 8192);
}
