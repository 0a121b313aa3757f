//! What `vdpactl check --json` has said.

use crate::transcript::Step;

/// What QEMU's devices, or any PCI function, do otherwise: `--except` for `vdpactl check`. One that is kept after all
/// fails, so that this list is right.
const KNOWN: [(u16, &str); 4] = [
    (
        38,
        "QEMU: a queue of a feature that was not accepted has a size",
    ),
    (
        77,
        "a PCI function starts a queue afresh and has no index to go on from",
    ),
    (
        87,
        "a PCI function starts a queue afresh and has no index to go on from",
    ),
    (
        102,
        "QEMU: calls once, whatever the event of a packed ring is, the first time that it looks",
    ),
];
/// Of its disk.
const KNOWN_OF_DISKS: [(u16, &str); 2] = [
    (
        2,
        "QEMU: its disk looks at a queue that is kicked, DRIVER_OK or not",
    ),
    (
        3,
        "QEMU: its disk looks at a queue that is kicked, DRIVER_OK or not",
    ),
];

/// Arguments for `vdpactl check` of a card, which has packed rings or does not offer them: what is said of them (102) then
/// is no exception.
pub(crate) fn of_cards(packed: bool) -> String {
    arguments(if packed { &KNOWN } else { &KNOWN[..3] })
}

/// Of a disk: what comes before the rings. A chain that is a loop, or whose readable part comes last, hangs QEMU as a whole,
/// and not only the disk.
pub(crate) fn of_disks() -> String {
    let some = "--only 1-4,6-37,39-58 ".to_owned();
    some + &arguments(&KNOWN_OF_DISKS)
}

fn arguments(known: &[(u16, &str)]) -> String {
    let word = |(id, why): &(u16, &str)| format!("--except '{id}={why}' ");
    known.iter().map(word).collect()
}

/// A device keeps every statement that applies to it, and `least` of them do.
#[track_caller]
pub(crate) fn is_well(step: &Step, least: u64) {
    let object = step.json();
    let statements = object["statements"].as_array().unwrap();
    let failed: Vec<String> = statements
        .iter()
        .filter(|row| row["result"] == "failed")
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            format!(
                "{} {} {}: {}",
                row["id"],
                text("clause"),
                text("variant"),
                text("reason")
            )
        })
        .collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", object["spec"]);
    let passed = object["passed"].as_u64().unwrap();
    println!(
        "{}: {passed} passed in {} s",
        object["spec"], object["seconds"]
    );
    assert!(
        passed >= least,
        "{}: {passed} statements passed, at least {least} apply",
        object["spec"]
    );
    step.well();
}
