//! The lab: guests with QEMU's functions behind emulated IOMMUs, where a real kernel's VFIO hands them to our programs.
//!
//! ```text
//!   test ─ boot ─ QEMU: IOMMU, virtio functions │ guest: kernel ─ vfio-pci ─ vdpactl, guest ─ @step lines ─▶ test
//!     └─────────── QMP: take a function out     │
//! ```
//! `tests/lab/README.md` says how to run one by hand. Guests in `full` are for `tests/run --full`: six are what a plain
//! run has time for.
#![cfg(feature = "cli")]

#[path = "../kernel/datagrams.rs"]
mod datagrams;
mod disk;
mod echo;
mod ending;
mod full;
#[path = "../kernel/host.rs"]
mod host;
mod isolation;
mod known;
mod machine;
mod mdev;
mod monitor;
#[path = "../../vdpa-sim/tests/netns/mod.rs"]
mod netns;
mod owner;
#[path = "../kernel/ping.rs"]
mod ping;
mod slices;
#[path = "../kernel/streams.rs"]
mod streams;
mod traffic;
mod transcript;
mod uapi;
mod verdict;

use machine::{Kernel, Machine};
use transcript::Transcript;

/// Sectors of the disks: 2 MiB.
const SECTORS: u64 = 4096;

/// A network card, all of its life with us: doctor, bind, check, restore.
const CARD: &str = r#"
load
via=VIA
card=$(behind SLOT)
step before driver_of "$card"
step "doctor before" ./vdpactl vfio doctor "$card" --json
step bind ./vdpactl vfio bind "$card" --json
step bound driver_of "$card"
step doctor ./vdpactl vfio doctor "$card" --json
step show ./vdpactl dev show "vfio:$card$via" --json
BEFORE
step check ./vdpactl check "vfio:$card$via" --effort quick --json {known}
AFTER
step restore ./vdpactl vfio restore --json
step after driver_of "$card"
"#;

/// The same for a disk, whose contents are compared first.
const DISK: &str = r#"
load
disk=$(behind 07)
step bind ./vdpactl vfio bind "$disk" --json
step split ./guest disk "vfio:$disk" split
step packed ./guest disk "vfio:$disk" packed
step handed ./guest handed "vfio:$disk"
tell compared
hear seen
step dma ./guest dma "vfio:$disk"
step log dmesg
step check ./vdpactl check "vfio:$disk" --effort quick --json {known}
step restore ./vdpactl vfio restore --json
step after driver_of "$disk"
"#;

/// A card, all of its life.
#[track_caller]
fn card_is_well(kernel: Kernel, parts: &[&str]) {
    let machine = Machine::new(kernel, parts);
    card_is_well_in(machine, kernel, parts, ["", ""]);
}

/// * `around`: what is done before the check and after it
#[track_caller]
fn card_is_well_in(
    machine: Machine,
    kernel: Kernel,
    parts: &[&str],
    around: [&str; 2],
) -> Transcript {
    let loops = parts.iter().any(|part| part.starts_with("net-loop"));
    let packed = !parts.iter().any(|part| part.contains("packed=off"));
    let mut lists = vec!["net"];
    lists.extend(loops.then_some("net-loop"));
    lists.extend(packed.then_some("packed"));
    let script = CARD
        .replace("{known}", &known::options(&lists))
        .replace("SLOT", if loops { "06" } else { "0c" })
        .replace("VIA", kernel.way())
        .replace("BEFORE\n", around[0])
        .replace("AFTER\n", around[1]);
    let transcript = machine.run(&script);
    assert_eq!(transcript.said("before"), "virtio-pci");
    transcript.step("bind").well();
    assert_eq!(transcript.said("bound"), "vfio-pci");
    transcript.step("doctor").well();
    transcript.step("show").well();
    let least = if packed { 75 } else { 60 };
    verdict::is_well(transcript.step("check"), least);
    transcript.step("restore").well();
    assert_eq!(transcript.said("after"), "virtio-pci");
    transcript
}

/// What is sent comes back, and a disk is beside it, so that all of the commands have something to do.
#[test]
fn a_card_keeps_every_statement_and_traffic_goes_through_it_and_a_disk() {
    let name = "a_card_keeps_every_statement_and_traffic_goes_through_it_and_a_disk";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let parts = ["intel-iommu", "net-loop,vectors=2"];
    let machine = Machine::new(Kernel::Stock, &parts);
    let image = machine.file("disk.img");
    disk::make(&image, SECTORS);
    let capture = machine.file("in.pcap");
    traffic::record(&capture);
    let machine = machine
        .with(capture)
        .part(format!("block,disk={},reset=off", image.display()));
    let transcript = card_is_well_in(machine, Kernel::Stock, &parts, traffic::SCRIPTS);
    traffic::went_well(&transcript);
}

#[test]
fn second_kernel_gives_a_card_by_its_own_file() {
    let name = "second_kernel_gives_a_card_by_its_own_file";
    if Kernel::Second.is_there(name) {
        card_is_well(Kernel::Second, &["intel-iommu", "net-alone"]);
    }
}

#[test]
fn a_disk_holds_what_was_written_and_writes_nowhere_else() {
    let name = "a_disk_holds_what_was_written_and_writes_nowhere_else";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let machine = Machine::new(Kernel::Stock, &["intel-iommu"]);
    let image = machine.file("disk.img");
    disk::make(&image, SECTORS);
    let mut guest = machine
        .part(format!("block,disk={}", image.display()))
        .start(&DISK.replace("{known}", &known::options(&["block", "packed"])));
    guest.wait_for("compared");
    disk::is_as_written(&image, SECTORS);
    guest.say("seen");
    let transcript = guest.finish();
    for (step, packed) in [("split", false), ("packed", true)] {
        let said = transcript.step(step).well().json();
        assert_eq!(said["packed"], packed, "{said}");
        assert_eq!(said["read"], SECTORS / 2, "{said}");
    }
    owner::has_handed_over(transcript.step("handed"), SECTORS);
    isolation::holds(&transcript);
    verdict::is_well(transcript.step("check"), 80);
    transcript.step("restore").well();
    assert_eq!(transcript.said("after"), "virtio-pci");
}

/// Two cards on a hub: frames from one to the other, with BARs that cannot be had as usual too; the first one is deleted
/// while they are on their way, is reported to be broken, and is taken out at last.
const HUB: &str = r#"
load
left=$(behind 04)
right=$(behind 05)
step "bind left" ./vdpactl vfio bind "$left" --json
step "bind right" ./vdpactl vfio bind "$right" --json
step split ./guest pair "vfio:$left" "vfio:$right" split 2000
step packed ./guest pair "vfio:$left" "vfio:$right" packed 2000
step shut ./guest shut "vfio:$left" "vfio:$right" 200
step twice ./guest twice "vfio:$left"
step deleted ./guest deleted "vfio:$left" "vfio:$right"
step broken ./guest broken "vfio:$left"
step traffic ./guest traffic "vfio:$left" "vfio:$right" packed
step "list" ./vdpactl vfio list --json
step restore ./vdpactl vfio restore --json
step after driver_of "$right"
"#;

#[test]
fn cards_on_a_hub_exchange_frames_until_one_is_taken_out() {
    let name = "cards_on_a_hub_exchange_frames_until_one_is_taken_out";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let parts = ["virtio-iommu", "net-pair,vectors=1"];
    let mut guest = Machine::new(Kernel::Stock, &parts).start(HUB);
    guest.wait_for("driven");
    let mut monitor = guest.monitor();
    monitor.report_an_error("left");
    guest.wait_for("traffic");
    monitor.take_out("left");
    monitor.is_out("left");
    let transcript = guest.finish();
    for (step, packed) in [("split", false), ("packed", true)] {
        let said = transcript.step(step).well().json();
        assert_eq!(said["packed"], packed, "{said}");
        for way in ["there", "back"] {
            assert!(said[way].as_u64() >= Some(2000), "{said}");
        }
    }
    ending::shut_off_bars(transcript.step("shut"));
    ending::refused_twice(transcript.step("twice"));
    ending::deleted_while_in_use(transcript.step("deleted"));
    ending::reported_broken(transcript.step("broken"));
    // It was asked for, let go of, and is no function any more; the other one works on.
    let end = transcript.step("traffic").well();
    let said = end.out.lines().find(|line| line.starts_with('{')).unwrap();
    let said: serde_json::Value = serde_json::from_str(said).unwrap();
    assert_eq!(said["end"], "RemoveRequested", "{said}");
    assert_eq!(said["stopped"], serde_json::Value::Null, "{said}");
    let again = said["again"].as_str().unwrap();
    assert!(
        again.contains("0000:"),
        "which function it is about: {again}"
    );
    transcript.step("restore").well();
    assert_eq!(transcript.said("after"), "virtio-pci");
}

/// A card with four queue pairs, and a host behind it.
const PAIRS: &str = r#"
load
card=$(behind 0b)
step bind ./vdpactl vfio bind "$card" --json
step check ./vdpactl check "vfio:$card" --effort quick --json {known}
tell "echo"
./vdpactl echo "vfio:$card" --json --every 0 --ring packed --pairs 4 ADDRESSES &
echo=$!
hear enough
kill -TERM $echo
step echo wait $echo
step restore ./vdpactl vfio restore --json
step after driver_of "$card"
"#;

#[test]
fn a_card_with_four_pairs_answers_the_hosts_stack() {
    let name = "a_card_with_four_pairs_answers_the_hosts_stack";
    netns::within(name, move || {
        if !Kernel::Stock.is_there(name) || !ping::is_installed(name) {
            return;
        }
        let script = PAIRS.replace("ADDRESSES", echo::ADDRESSES);
        let script = script.replace("{known}", &known::options(&["net", "packed"]));
        let mut guest = Machine::new(Kernel::Stock, &["intel-iommu", "net-tap"]).start(&script);
        guest.wait_for("echo");
        host::address("tap0");
        host::has_carrier("tap0");
        echo::comes_back(&mut guest, 4);
        let transcript = guest.finish();
        verdict::is_well(transcript.step("check"), 80);
        transcript.step("echo").well();
        transcript.step("restore").well();
        assert_eq!(transcript.said("after"), "virtio-pci");
    });
}

/// Functions that cannot be driven, and why: somebody else is in the group, it is no virtio device, or too old.
const OTHERS: &str = r#"
load
modprobe igb
card=$(behind 09)
first=$(behind 08 0)
second=$(behind 08 1)
old=$(behind 0a)
step list ./vdpactl vfio list --json
step "bind first" ./vdpactl vfio bind "$first" --json
step doctor ./vdpactl vfio doctor "$first" --json
step open ./vdpactl dev show "vfio:$first" --json
step "bind second" ./vdpactl vfio bind "$second" --json
step "doctor both" ./vdpactl vfio doctor "$first" --json
step show ./vdpactl dev show "vfio:$second" --json
step check ./vdpactl check "vfio:$second" --effort quick --json {known}
step vf ./vdpactl vfio vf create "$card" 2 --json
step vfs cat "/sys/bus/pci/devices/$card/sriov_numvfs"
vf=$(basename "$(readlink "/sys/bus/pci/devices/$card/virtfn1")")
step name echo "$vf"
step "bind vf" ./vdpactl vfio bind "$vf" --json
step "doctor vf" ./vdpactl vfio doctor "$vf" --json
step "open vf" ./vdpactl dev show "vfio:$vf" --json
step "bind old" ./vdpactl vfio bind "$old" --json
step "open old" ./vdpactl dev show "vfio:$old" --json
step restore ./vdpactl vfio restore --json
step none ./vdpactl vfio vf create "$card" 0 --json
step after echo "$(driver_of "$first") $(driver_of "$second") $(driver_of "$card") $(driver_of "$old")"
step "no vfs" cat "/sys/bus/pci/devices/$card/sriov_numvfs"
"#;

#[test]
fn what_cannot_be_driven_is_refused_by_name() {
    let name = "what_cannot_be_driven_is_refused_by_name";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let parts = ["intel-iommu", "shared-group", "igb", "legacy"];
    let script = OTHERS.replace("{known}", &known::options(&["entropy"]));
    let transcript = Machine::new(Kernel::Stock, &parts).run(&script);
    transcript.step("list").well();
    transcript.step("bind first").well();
    // Its neighbour has a driver of the kernel's: nothing can be opened, and the neighbour is named.
    transcript
        .step("doctor")
        .ends_with(1, &["group", "virtio-pci"]);
    transcript.step("open").ends_with(2, &["group"]);
    transcript.step("bind second").well();
    transcript.step("doctor both").well();
    transcript.step("show").well();
    verdict::is_well(transcript.step("check"), 60);
    transcript.step("vf").well();
    assert_eq!(transcript.said("vfs"), "2");
    transcript.step("bind vf").well();
    transcript.step("doctor vf").ends_with(1, &["virtio"]);
    transcript.step("open vf").ends_with(2, &["virtio"]);
    transcript.step("open old").ends_with(2, &["legacy"]);
    transcript.step("restore").well();
    transcript.step("none").well();
    assert_eq!(
        transcript.said("after"),
        "virtio-pci virtio-pci igb virtio-pci"
    );
    assert_eq!(transcript.said("no vfs"), "0");
}
