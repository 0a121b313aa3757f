//! Mediated devices of a stock kernel: a serial port that is refused, and `vmdev`, whose devices are virtio functions. No
//! IOMMU is needed: memory is what the kernel's VFIO knows as mapped, and it is the kernel that copies.

use serde_json::{Value, json};

use crate::machine::{Kernel, Machine, cache};
use crate::transcript::Transcript;
use crate::verdict;

/// A mediated device each; the last one is made from a definition.
const PORT: &str = "9b2e1d40-3c61-4b7a-8f0e-5a1d7c3e0001";
const DISK: &str = "9b2e1d40-3c61-4b7a-8f0e-5a1d7c3e0002";
const CARD: &str = "9b2e1d40-3c61-4b7a-8f0e-5a1d7c3e0003";
const KEPT: &str = "9b2e1d40-3c61-4b7a-8f0e-5a1d7c3e0004";

/// What is there is what the kernel says; somebody listens to it from before the modules come until ours is gone.
const SCRIPT: &str = r#"
load
modprobe mdev
there() { echo $(ls /sys/bus/mdev/devices); }
left() { cat /sys/class/mdev_bus/*/mdev_supported_types/$1/available_instances; }

mkfifo changes told
./guest watch vmdev >changes 2>&1 &
exec 4<changes
read -r listening <&4
insmod ./mtty.ko
insmod ./vmdev.ko

step types ./vdpactl mdev types --json
step port ./vdpactl mdev create mtty-2 PORT --json
step taken ./vdpactl mdev create vmdev-blk PORT --json
step unknown ./vdpactl mdev create vmdev-none --json
step list ./vdpactl mdev list --json
step "open port" ./vdpactl dev show mdev:PORT --json
step "check port" ./vdpactl check mdev:PORT --effort quick --json
step "remove port" ./vdpactl mdev remove PORT --json
step "open removed" ./vdpactl dev show mdev:PORT --json
step "remove removed" ./vdpactl mdev remove PORT --json

step before left vmdev-blk
step disk ./vdpactl mdev create vmdev-blk DISK --json
step card ./vdpactl mdev create vmdev-net CARD --json
step meanwhile left vmdev-blk
step there there
step "show disk" ./vdpactl dev show mdev:DISK --json
step "show card" ./vdpactl dev show mdev:CARD --json
step split ./guest disk mdev:DISK split
step packed ./guest disk mdev:DISK packed
step "loop split" ./guest loop mdev:CARD split 2000
step "loop packed" ./guest loop mdev:CARD packed 2000
step dma ./guest dma mdev:DISK
step "check disk" ./vdpactl check mdev:DISK --effort quick --json
step "check card" ./vdpactl check mdev:CARD --effort quick --json
step "storm disk" ./guest storm mdev:DISK 2000
step "storm card" ./guest storm mdev:CARD 2000
step "after storm" ./guest loop mdev:CARD packed 100

./guest held mdev:CARD packed >told 2>&1 &
held=$!
exec 3<told
read -r traffic <&3
step traffic echo "$traffic"
step "remove card" ./vdpactl mdev remove CARD --json
step held cat <&3
step "end of held" wait "$held"
step "open card" ./vdpactl dev show mdev:CARD --json

mkdir -p /etc/mdevctl.d
step define ./vdpactl mdev define vmdev-blk KEPT --json
step definition cat /etc/mdevctl.d/vmdev/KEPT
step "not yet" there
step start ./vdpactl mdev start KEPT --json
step twice ./vdpactl mdev start KEPT --json
step "show kept" ./vdpactl dev show mdev:KEPT --json
step both there
step "remove kept" ./vdpactl mdev remove KEPT --json
step kept ./vdpactl mdev list --json
step undefine ./vdpactl mdev undefine KEPT --json
step undefined ls /etc/mdevctl.d/vmdev

step "remove disk" ./vdpactl mdev remove DISK --json
step none ./vdpactl mdev list --json
step after left vmdev-blk
step unload rmmod mtty vmdev
step changes cat <&4
step log dmesg
"#;

/// The machine, if the kernel and the modules were made; if not, the skip of this test is told.
fn machine(test: &str) -> Option<Machine> {
    if !Kernel::Stock.is_there(test) {
        return None;
    }
    let modules = ["vmdev.ko", "mtty.ko"].map(|name| cache().join("modules").join(name));
    if !modules.iter().all(|module| module.exists()) {
        println!("SKIP {test}: not installed: modules for the guest's kernel (tests/lab/modules)");
        return None;
    }
    let machine = Machine::new(Kernel::Stock, &[]);
    Some(modules.into_iter().fold(machine, Machine::with))
}

#[test]
fn mediated_devices_are_driven_refused_and_let_go_of() {
    let Some(machine) = machine("mediated_devices_are_driven_refused_and_let_go_of") else {
        return;
    };
    let names = [
        ("PORT", PORT),
        ("DISK", DISK),
        ("CARD", CARD),
        ("KEPT", KEPT),
    ];
    let script = names
        .iter()
        .fold(SCRIPT.to_owned(), |script, (word, uuid)| {
            script.replace(word, uuid)
        });
    let transcript = machine.run(&script);
    no_virtio_device_is_refused_by_name(&transcript);
    devices_keep_what_they_promise(&transcript);
    memory_that_is_not_mapped_is_not_reached(&transcript);
    nonsense_in_a_ring_ends_with_a_reset(&transcript);
    what_is_removed_is_let_go_of(&transcript);
    what_is_defined_is_made_again(&transcript);
    what_changed_was_told(&transcript);
    // Nothing in the kernel went wrong meanwhile.
    let log = transcript.said("log");
    for word in ["BUG", "Oops", "WARNING", "Call Trace", "blocked for more"] {
        assert!(!log.contains(word), "{word} in the kernel's log:\n{log}");
    }
}

#[track_caller]
fn no_virtio_device_is_refused_by_name(transcript: &Transcript) {
    let types = transcript.step("types").well().json();
    let listed = types.to_string();
    for (kind, parent) in [
        ("mtty-2", "mtty"),
        ("vmdev-blk", "vmdev"),
        ("vmdev-net", "vmdev"),
    ] {
        let of_parent = |of: &&Value| of["parent"] == parent;
        let found = rows(&types["parents"]).find(of_parent).expect(&listed);
        let row = rows(&found["types"]).find(|row| row["type"] == kind);
        let row = row.expect(&listed);
        assert_eq!(row["device_api"], "vfio-pci", "{row}");
        assert!(row["available_instances"].as_u64() > Some(0), "{row}");
    }
    transcript.step("port").well();
    transcript.step("taken").ends_with(2, &[PORT, "mtty-2"]);
    transcript.step("unknown").ends_with(2, &["vmdev-none"]);
    let list = transcript.step("list").well().json();
    let names: Vec<_> = rows(&list["devices"]).map(|row| &row["uuid"]).collect();
    assert_eq!(names, [PORT], "{list}");
    let refused = [PORT, "no virtio device", "mtty"];
    transcript.step("open port").ends_with(2, &refused);
    transcript.step("check port").ends_with(2, &refused);
    transcript.step("remove port").well();
    for step in ["open removed", "remove removed"] {
        let gone = ["no mediated device", PORT];
        transcript.step(step).ends_with(2, &gone);
    }
}

#[track_caller]
fn devices_keep_what_they_promise(transcript: &Transcript) {
    let left = |step| transcript.said(step).parse::<u32>().unwrap();
    assert_eq!(left("meanwhile"), left("before") - 2);
    assert_eq!(transcript.said("there"), format!("{DISK} {CARD}"));
    for step in ["disk", "card", "show disk", "show card"] {
        transcript.step(step).well();
    }
    for (step, packed) in [("split", false), ("packed", true)] {
        let said = transcript.step(step).well().json();
        assert_eq!(said["packed"], packed, "{said}");
        assert_eq!(said["read"], said["written"], "{said}");
    }
    for (step, packed) in [("loop split", false), ("loop packed", true)] {
        let said = transcript.step(step).well().json();
        assert_eq!(said["packed"], packed, "{said}");
        assert!(said["frames"].as_u64() >= Some(2000), "{said}");
    }
    verdict::is_well(transcript.step("check disk"), 100);
    verdict::is_well(transcript.step("check card"), 100);
}

#[track_caller]
fn memory_that_is_not_mapped_is_not_reached(transcript: &Transcript) {
    let dma = transcript.step("dma").well().json();
    for what in ["mapped", "again"] {
        assert_eq!(dma[what]["answered"], 0, "{what}: {dma}");
        assert_eq!(dma[what]["untouched"], false, "{what}: {dma}");
    }
    for what in ["unmapped", "outside"] {
        assert_eq!(dma[what]["untouched"], true, "{what}: {dma}");
        assert_eq!(dma[what]["needs_reset"], true, "{what}: {dma}");
        assert_eq!(dma[what]["told"], true, "{what}: {dma}");
    }
}

/// It is the kernel that reads these rings, and it lives.
#[track_caller]
fn nonsense_in_a_ring_ends_with_a_reset(transcript: &Transcript) {
    for step in ["storm disk", "storm card"] {
        let said = transcript.step(step).well().json();
        for way in ["broken", "worked"] {
            assert!(said[way].as_u64() > Some(0), "{step}: {said}");
        }
        println!("{step}: {said}");
    }
    transcript.step("after storm").well();
}

/// The kernel waits with a removal until who drives the device, and is asked for it, has let go of it.
#[track_caller]
fn what_is_removed_is_let_go_of(transcript: &Transcript) {
    assert_eq!(transcript.said("traffic"), "@tell traffic");
    transcript.step("remove card").well();
    let held = transcript.step("held").well().json();
    assert_eq!(held["end"], "RemoveRequested", "{held}");
    assert_eq!(held["stopped"], Value::Null, "{held}");
    let again = held["again"].as_str().unwrap();
    assert!(again.contains("no mediated device"), "{again}");
    transcript.step("end of held").well();
    transcript
        .step("open card")
        .ends_with(2, &["no mediated device", CARD]);
}

/// A definition is mdevctl's file, and a device of it is as good as one that was made by hand.
#[track_caller]
fn what_is_defined_is_made_again(transcript: &Transcript) {
    transcript.step("define").well();
    let definition = transcript.step("definition").well().json();
    assert_eq!(definition["mdev_type"], "vmdev-blk", "{definition}");
    assert_eq!(definition["start"], "manual", "{definition}");
    assert_eq!(transcript.said("not yet"), DISK);
    transcript.step("start").well();
    transcript.step("twice").ends_with(2, &[KEPT]);
    transcript.step("show kept").well();
    assert_eq!(transcript.said("both"), format!("{DISK} {KEPT}"));
    transcript.step("remove kept").well();
    let kept = transcript.step("kept").well().json();
    let row = rows(&kept["devices"]).find(|row| row["uuid"] == KEPT);
    assert_eq!(row.map(|row| &row["active"]), Some(&json!(false)), "{kept}");
    transcript.step("undefine").well();
    assert!(!transcript.step("undefined").out.contains(KEPT));
}

#[track_caller]
fn what_changed_was_told(transcript: &Transcript) {
    transcript.step("remove disk").well();
    let none = transcript.step("none").well().json();
    assert_eq!(none["devices"], json!([]), "{none}");
    assert_eq!(transcript.said("after"), transcript.said("before"));
    transcript.step("unload").well();
    let told = transcript.step("changes").well().json();
    let due = json!([
        ["came", "mtty"],
        ["came", "vmdev"],
        ["made", PORT, "mtty"],
        ["removed", PORT, "mtty"],
        ["made", DISK, "vmdev"],
        ["made", CARD, "vmdev"],
        ["removed", CARD, "vmdev"],
        ["made", KEPT, "vmdev"],
        ["removed", KEPT, "vmdev"],
        ["removed", DISK, "vmdev"],
        ["went", "mtty"],
        ["went", "vmdev"]
    ]);
    assert_eq!(told, due);
}

#[track_caller]
fn rows(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().unwrap().iter()
}
