//! Mediated devices of a stock kernel: a serial port that is refused, and `vmdev`, whose devices are virtio functions. No
//! IOMMU is needed: memory is what the kernel's VFIO knows as mapped, and it is the kernel that copies.

use crate::machine::{Kernel, Machine, cache};
use crate::transcript::Transcript;
use crate::verdict;

/// A mediated device each.
const PORT: &str = "9b2e1d40-3c61-4b7a-8f0e-5a1d7c3e0001";
const DISK: &str = "9b2e1d40-3c61-4b7a-8f0e-5a1d7c3e0002";
const CARD: &str = "9b2e1d40-3c61-4b7a-8f0e-5a1d7c3e0003";

/// How many there are is what the kernel says, before and after.
const SCRIPT: &str = r#"
load
modprobe mdev
insmod ./mtty.ko
insmod ./vmdev.ko
types=/sys/class/mdev_bus/*/mdev_supported_types
left() { cat $types/$1/available_instances; }
create() { echo "$2" >"$(echo $types/$1/create)"; }
remove() { echo 1 >"/sys/bus/mdev/devices/$1/remove"; }

step port create mtty-2 PORT
step "open port" ./vdpactl dev show mdev:PORT --json
step "check port" ./vdpactl check mdev:PORT --effort quick --json
step "remove port" remove PORT
step "open removed" ./vdpactl dev show mdev:PORT --json

step before left vmdev-blk
step disk create vmdev-blk DISK
step card create vmdev-net CARD
step meanwhile left vmdev-blk
step "show disk" ./vdpactl dev show mdev:DISK --json
step "show card" ./vdpactl dev show mdev:CARD --json
step split ./guest disk mdev:DISK split
step packed ./guest disk mdev:DISK packed
step "loop split" ./guest loop mdev:CARD split 2000
step "loop packed" ./guest loop mdev:CARD packed 2000
step dma ./guest dma mdev:DISK
step "check disk" ./vdpactl check mdev:DISK --effort quick --json
step "check card" ./vdpactl check mdev:CARD --effort quick --json

mkfifo told
./guest held mdev:CARD packed >told 2>&1 &
held=$!
exec 3<told
read -r traffic <&3
step traffic echo "$traffic"
step "remove card" remove CARD
step held cat <&3
step "end of held" wait "$held"
step "open card" ./vdpactl dev show mdev:CARD --json
step "remove disk" remove DISK
step after left vmdev-blk
step unload rmmod vmdev mtty
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
    let script = [("PORT", PORT), ("DISK", DISK), ("CARD", CARD)]
        .into_iter()
        .fold(SCRIPT.to_owned(), |script, (word, uuid)| {
            script.replace(word, uuid)
        });
    let transcript = machine.run(&script);
    no_virtio_device_is_refused_by_name(&transcript);
    devices_keep_what_they_promise(&transcript);
    memory_that_is_not_mapped_is_not_reached(&transcript);
    what_is_removed_is_let_go_of(&transcript);
    // Nothing in the kernel went wrong meanwhile.
    let log = transcript.said("log");
    for word in ["BUG", "Oops", "WARNING", "Call Trace", "blocked for more"] {
        assert!(!log.contains(word), "{word} in the kernel's log:\n{log}");
    }
}

#[track_caller]
fn no_virtio_device_is_refused_by_name(transcript: &Transcript) {
    transcript.step("port").well();
    let refused = [PORT, "no virtio device", "mtty"];
    transcript.step("open port").ends_with(2, &refused);
    transcript.step("check port").ends_with(2, &refused);
    transcript.step("remove port").well();
    transcript
        .step("open removed")
        .ends_with(2, &["no mediated device", PORT]);
}

#[track_caller]
fn devices_keep_what_they_promise(transcript: &Transcript) {
    let left = |step| transcript.said(step).parse::<u32>().unwrap();
    assert_eq!(left("meanwhile"), left("before") - 2);
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

/// The kernel waits with a removal until who drives the device, and is asked for it, has let go of it.
#[track_caller]
fn what_is_removed_is_let_go_of(transcript: &Transcript) {
    assert_eq!(transcript.said("traffic"), "@tell traffic");
    transcript.step("remove card").well();
    let held = transcript.step("held").well().json();
    assert_eq!(held["end"], "RemoveRequested", "{held}");
    assert_eq!(held["stopped"], serde_json::Value::Null, "{held}");
    let again = held["again"].as_str().unwrap();
    assert!(again.contains("no mediated device"), "{again}");
    transcript.step("end of held").well();
    transcript
        .step("open card")
        .ends_with(2, &["no mediated device", CARD]);
    transcript.step("remove disk").well();
    assert_eq!(transcript.said("after"), transcript.said("before"));
    transcript.step("unload").well();
}
