use std::collections::BTreeSet;

use super::*;

/// Writes `byte` and carries every step out, as a willing device does.
fn write_all(machine: &mut StatusMachine, byte: u8) -> Vec<Step> {
    let mut steps = Vec::new();
    loop {
        let step = machine.write(byte);
        steps.push(step);
        machine.done(step);
        let last = Step::Suspend == step || Step::Resume == step;
        if last || matches!(step, Step::None | Step::Refused | Step::Reset) {
            return steps;
        }
        assert!(steps.len() < 8, "{byte:#x} never settles: {steps:?}");
    }
}

fn machine(status: Status, suspend: SuspendBit) -> StatusMachine {
    StatusMachine { status, suspend }
}

/// Every state that some sequence of bytes reaches, with refusals and successes of each step.
fn reachable(suspend: SuspendBit) -> BTreeSet<u8> {
    let mut seen = BTreeSet::from([0]);
    let mut todo = vec![Status::empty()];
    while let Some(status) = todo.pop() {
        let mut next = Vec::new();
        let mut lost = machine(status, suspend);
        lost.needs_reset();
        next.push(lost.status());
        for byte in 0..=255 {
            let mut m = machine(status, suspend);
            let step = m.write(byte);
            next.push(m.status());
            m.done(step);
            next.push(m.status());
        }
        todo.extend(next.into_iter().filter(|s| seen.insert(s.bits())));
    }
    seen
}

#[test]
fn every_byte_from_every_state_keeps_the_invariants() {
    for suspend in [SuspendBit::Unknown, SuspendBit::Negotiated] {
        let states = reachable(suspend);
        assert!(states.len() > 16);
        for (&before, byte) in states.iter().flat_map(|s| (0..=255u8).map(move |b| (s, b))) {
            let old = Status::from_bits_retain(before);
            let mut m = machine(old, suspend);
            let step = m.write(byte);
            let taken = m.status();
            assert!(
                taken.contains(old),
                "a write alone cleared a bit: {old} by {byte:#x}"
            );
            m.done(step);
            let new = m.status();
            match step {
                Step::Reset => assert!(byte == 0 && new.is_empty()),
                Step::Resume => assert_eq!(new, (taken - Status::SUSPEND) | Status::DRIVER_OK),
                Step::Suspend => assert_eq!(new, (taken - Status::DRIVER_OK) | Status::SUSPEND),
                _ => assert!(new.contains(old), "{old} lost bits by {byte:#x}"),
            }
            if new.contains(Status::DRIVER_OK) {
                assert!(
                    new.contains(Status::FEATURES_OK),
                    "live without features: {new}"
                );
            }
            if new.contains(Status::SUSPEND) {
                assert!(new.contains(Status::FEATURES_OK) && suspend == SuspendBit::Negotiated);
                assert!(
                    !new.contains(Status::DRIVER_OK),
                    "suspended and live: {new}"
                );
            }
            let dead = Status::FAILED | Status::DEVICE_NEEDS_RESET;
            if taken.intersects(dead) {
                assert!(matches!(step, Step::None | Step::Refused | Step::Reset));
            }
            // The device's own bit never comes from the driver.
            let lost = Status::DEVICE_NEEDS_RESET;
            assert!(byte == 0 || new.contains(lost) == old.contains(lost));
        }
    }
}

#[test]
fn qemu_writes_features_ok_before_acknowledge() {
    let mut m = StatusMachine::new();
    assert_eq!(write_all(&mut m, 0x08), [Step::Negotiate, Step::None]);
    assert_eq!(write_all(&mut m, 0x0b), [Step::None]);
    assert_eq!(write_all(&mut m, 0x0f), [Step::Start, Step::None]);
}

#[test]
fn all_bits_in_one_write_are_taken_in_order() {
    let mut m = StatusMachine::new();
    assert_eq!(
        write_all(&mut m, 0x0f),
        [Step::Negotiate, Step::Start, Step::None]
    );
}

#[test]
fn refused_features_never_read_as_accepted() {
    let mut m = StatusMachine::new();
    assert_eq!(m.write(0x0b), Step::Negotiate);
    assert_eq!(m.status(), Status::ACKNOWLEDGE | Status::DRIVER);
    assert_eq!(m.write(0x0f), Step::Negotiate, "asked again, not skipped");
    assert_eq!(m.write(0x07), Step::Refused, "live without features");
}

#[test]
fn suspend_is_refused_where_it_is_not_negotiated() {
    let mut m = StatusMachine::new();
    write_all(&mut m, 0x0f);
    assert_eq!(m.write(0x1f), Step::Refused);
    m.set_suspend_bit(SuspendBit::Negotiated);
    assert_eq!(write_all(&mut m, 0x1f), [Step::Suspend]);
    assert_eq!(m.write(0x0b), Step::Refused, "cleared bits do not resume");
    assert_eq!(write_all(&mut m, 0x0f), [Step::Resume]);
    assert_eq!(write_all(&mut m, 0x0f), [Step::None]);
    assert_eq!(write_all(&mut m, 0), [Step::Reset]);
    write_all(&mut m, 0x0f);
    assert_eq!(m.write(0x1f), Step::Refused, "a reset forgets the feature");
}

#[test]
fn nothing_but_reset_leaves_needs_reset() {
    let mut m = StatusMachine::new();
    write_all(&mut m, 0x0b);
    m.needs_reset();
    assert_eq!(m.write(0x4f), Step::Refused);
    assert_eq!(m.write(0x4b), Step::None, "written back as read");
    assert_eq!(write_all(&mut m, 0), [Step::Reset]);
    assert_eq!(m.write(0x40), Step::Refused, "the driver cannot set it");
}

#[test]
fn undefined_bits_are_refused() {
    let mut m = StatusMachine::new();
    assert_eq!(m.write(0x21), Step::Refused);
    assert_eq!(m.status(), Status::ACKNOWLEDGE);
}

#[test]
fn a_refused_byte_does_not_make_the_device_live() {
    // An unknown bit, SUSPEND before the end of initialisation, the device's own bit.
    for byte in [0x2f, 0x1f, 0x4f] {
        let mut m = StatusMachine::new();
        m.set_suspend_bit(SuspendBit::Negotiated);
        assert_eq!(write_all(&mut m, byte), [Step::Refused], "{byte:#x}");
        assert_eq!(m.status(), Status::ACKNOWLEDGE | Status::DRIVER);
    }
    let mut m = StatusMachine::new();
    write_all(&mut m, 0x0b);
    assert_eq!(write_all(&mut m, 0x04), [Step::Refused], "bits left out");
    assert!(!m.status().contains(Status::DRIVER_OK));
}

#[test]
fn a_suspended_device_reads_suspend_without_driver_ok_and_takes_the_byte_again() {
    let mut m = StatusMachine::new();
    write_all(&mut m, 0x0f);
    m.set_suspend_bit(SuspendBit::Negotiated);
    for suspend in [0x1b, 0x1f] {
        assert_eq!(write_all(&mut m, suspend), [Step::Suspend]);
        assert_eq!(m.status().bits(), 0x1b);
        assert_eq!(
            m.write(0x1b),
            Step::None,
            "suspending twice changes nothing"
        );
        // What a driver writes that adds DRIVER_OK to what it reads.
        assert_eq!(write_all(&mut m, 0x1f), [Step::Resume]);
        assert_eq!(m.status().bits(), 0x0f);
    }
}
