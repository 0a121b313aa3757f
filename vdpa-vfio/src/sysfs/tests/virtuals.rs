//! Virtual functions that come and go.

use super::bindings::{AT, PHYSICAL, changed, done, fixture, make, read, refused, with};
use super::*;

#[test]
fn virtual_functions_come_without_drivers_and_go() {
    let fixture = fixture();
    let before = fixture.host().functions().unwrap();
    let change = done(&fixture, PHYSICAL, Wish::VirtualFunctions(2)).unwrap();
    let steps: Vec<String> = change.steps.iter().map(Step::to_string).collect();
    assert_eq!(
        steps,
        [
            "echo 0 > /sys/bus/pci/devices/0000:02:00.0/sriov_drivers_autoprobe",
            "echo 2 > /sys/bus/pci/devices/0000:02:00.0/sriov_numvfs",
        ]
    );
    let made = &change.after.sriov.known().unwrap().functions;
    assert_eq!(made, &[address("0000:02:00.1"), address("0000:02:00.2")]);
    let first = read(&fixture, "0000:02:00.1");
    assert_eq!(first.driver, Fact::Absent);
    assert_eq!(first.physical, Fact::Is(address(PHYSICAL)));
    assert_eq!(
        done(&fixture, PHYSICAL, Wish::VirtualFunctions(2))
            .unwrap()
            .steps,
        []
    );
    done(&fixture, "0000:02:00.1", Wish::Bind).unwrap();
    done(&fixture, "0000:02:00.1", Wish::Unbind).unwrap();
    done(&fixture, PHYSICAL, Wish::VirtualFunctions(0)).unwrap();
    assert_eq!(fixture.host().functions().unwrap(), before);
    assert_eq!(changed(&fixture), []);
    assert_eq!(
        std::fs::read_to_string(fixture.path(&format!(
            "/sys/bus/pci/devices/{PHYSICAL}/sriov_drivers_autoprobe"
        )))
        .unwrap(),
        "1\n"
    );
}

#[test]
fn impossible_numbers_of_virtual_functions_are_refused() {
    let fixture = fixture();
    refused(
        &fixture,
        PHYSICAL,
        Wish::VirtualFunctions(8),
        &["7", "8", PHYSICAL],
    );
    refused(&fixture, AT, Wish::VirtualFunctions(1), &["SR-IOV"]);
    done(&fixture, PHYSICAL, Wish::VirtualFunctions(1)).unwrap();
    refused(
        &fixture,
        "0000:02:00.1",
        Wish::VirtualFunctions(1),
        &[PHYSICAL],
    );
    fixture.remove(&format!("/sys/bus/pci/devices/{PHYSICAL}/driver"));
    refused(
        &fixture,
        PHYSICAL,
        Wish::VirtualFunctions(2),
        &["no driver"],
    );
}

#[test]
fn virtual_functions_in_use_are_not_taken_away() {
    let fixture = fixture();
    done(&fixture, PHYSICAL, Wish::VirtualFunctions(2)).unwrap();
    done(&fixture, "0000:02:00.2", Wish::Bind).unwrap();
    let group = *read(&fixture, "0000:02:00.2").iommu_group.known().unwrap();
    fixture.link("/proc/4711/fd/9", &format!("/dev/vfio/{group}"));
    fixture.file("/proc/4711/comm", "qemu-system-x86\n");
    for count in [0, 1] {
        let words = ["0000:02:00.2", "4711", "qemu"];
        refused(&fixture, PHYSICAL, Wish::VirtualFunctions(count), &words);
    }
    // Nor is their physical function.
    refused(&fixture, PHYSICAL, Wish::Bind, &["2 virtual functions"]);
}

#[test]
fn everything_that_was_changed_is_restored() {
    let fixture = fixture();
    let before = fixture.host().functions().unwrap();
    done(&fixture, PHYSICAL, Wish::VirtualFunctions(2)).unwrap();
    done(&fixture, "0000:02:00.1", Wish::Bind).unwrap();
    done(&fixture, AT, Wish::Bind).unwrap();
    let kernel = fixture.host().kernel().unwrap();
    with(&fixture, &*kernel, |bindings| {
        for at in bindings.changed().unwrap() {
            bindings
                .carry_out(at, Wish::Restore, Regard::Spare)
                .unwrap();
        }
    });
    assert_eq!(fixture.host().functions().unwrap(), before);
    assert_eq!(changed(&fixture), []);
}

#[test]
fn virtual_functions_that_went_with_the_driver_are_restored() {
    let fixture = fixture();
    make(&fixture, 2);
    let before = fixture.host().functions().unwrap();
    let kernel = fixture.host().kernel().unwrap();
    with(&fixture, &*kernel, |bindings| {
        let bound = bindings.carry_out(address(PHYSICAL), Wish::Bind, Regard::Force);
        let sriov = bound.unwrap().after.sriov;
        let sriov = sriov.known().unwrap();
        assert_eq!((&sriov.made, &sriov.functions[..]), (&Fact::Is(0), &[][..]));
    });
    done(&fixture, PHYSICAL, Wish::Unbind).unwrap();
    assert_eq!(changed(&fixture), [address(PHYSICAL)]);
    done(&fixture, PHYSICAL, Wish::Restore).unwrap();
    assert_eq!(fixture.host().functions().unwrap(), before);
    assert_eq!(changed(&fixture), []);
}
