//! Changes that are refused, and those that there is nothing to do for.

use std::io;

use super::bindings::{AT, PHYSICAL, changed, done, fixture, given_away, read, refused, with};
use super::*;

#[test]
fn a_function_without_iommu_is_not_given_to_vfio() {
    let fixture = fixture();
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/iommu_group"));
    fixture.file("/proc/cmdline", "quiet intel_iommu=on intel_iommu=off\n");
    refused(
        &fixture,
        AT,
        Wish::Bind,
        &["IOMMU", "intel_iommu=off", "reboot"],
    );
    fixture.file("/proc/cmdline", "quiet\n");
    fixture.file(
        "/proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\n",
    );
    refused(&fixture, AT, Wish::Bind, &["VT-d", "intel_iommu=on"]);
    fixture.file(
        "/proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: AuthenticAMD\n",
    );
    refused(&fixture, AT, Wish::Bind, &["AMD-Vi"]);
    // A group in name only.
    fixture.file("/sys/kernel/iommu_groups/12/name", "vfio-noiommu\n");
    fixture.link(
        &format!("/sys/bus/pci/devices/{AT}/iommu_group"),
        "../../../../kernel/iommu_groups/12",
    );
    refused(&fixture, AT, Wish::Bind, &["IOMMU"]);
}

#[test]
fn a_group_that_cannot_be_seen_is_not_told_as_none() {
    let fixture = fixture();
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/iommu_group"));
    fixture.attribute(AT, "iommu_group", "12");
    let words = ["IOMMU group", "cannot be read", "no link"];
    refused(&fixture, AT, Wish::Bind, &words);
}

#[test]
fn a_kernel_without_vfio_is_told_how_to_get_it() {
    let fixture = fixture();
    fixture.remove("/sys/bus/pci/drivers/vfio-pci");
    refused(&fixture, AT, Wish::Bind, &["modprobe vfio-pci"]);
}

#[test]
fn a_bridge_is_not_given_to_anybody() {
    let fixture = fixture();
    for class in ["060400", "060401", "060700", "060940"] {
        fixture.function("0000:00:1c.0", &format!("8086:a110 0000:0000 {class}"));
        refused(&fixture, "0000:00:1c.0", Wish::Bind, &["bridge"]);
    }
}

#[test]
fn an_isa_bridge_that_is_in_the_way_can_be_bound_as_doctor_says() {
    for class in ["060000", "060100", "068000"] {
        let fixture = fixture();
        fixture.function("0000:01:00.1", &format!("8086:a110 0000:0000 {class}"));
        fixture.bus(&["lpc_ich"]);
        fixture.driver("0000:01:00.1", "lpc_ich");
        fixture.group("0000:01:00.1", 12);
        let findings = examine(&fixture.host(), &read(&fixture, AT));
        let group = findings.iter().find(|finding| finding.what == "group");
        let mend = group.unwrap().mend.as_ref().unwrap();
        assert!(mend.contains("vdpactl vfio bind 0000:01:00.1"), "{mend}");
        done(&fixture, "0000:01:00.1", Wish::Bind).unwrap();
    }
}

#[test]
fn what_cannot_be_seen_is_not_changed() {
    for name in ["driver", "driver_override", "vendor"] {
        let fixture = fixture();
        fixture.remove(&format!("/sys/bus/pci/devices/{AT}/{name}"));
        fixture.attribute(AT, name, b"\xff");
        refused(&fixture, AT, Wish::Bind, &[name, "cannot be read"]);
    }
}

#[test]
fn a_driver_with_a_name_that_leads_elsewhere_is_not_written_to() {
    let fixture = fixture();
    for name in ["../../../../etc/passwd", "a b", "", ".hidden"] {
        fixture.attribute(AT, "driver_override", name);
        let error = done(&fixture, AT, Wish::Bind);
        match name {
            "" => assert!(error.is_ok()),
            _ => {
                let text = error.unwrap_err().to_string();
                assert!(text.contains("no name of one"), "{text}");
            }
        }
        if name.is_empty() {
            done(&fixture, AT, Wish::Unbind).unwrap();
        }
    }
}

#[test]
fn records_that_are_damaged_are_not_acted_on() {
    let whole = {
        let fixture = fixture();
        done(&fixture, AT, Wish::Bind).unwrap();
        std::fs::read_to_string(fixture.host().state().join(AT)).unwrap()
    };
    let mut broken: Vec<String> = (0..whole.len() - 1)
        .map(|len| whole[..len].to_owned())
        .collect();
    broken.push(whole.replace("driver virtio-pci", "driver ../../../etc"));
    broken.push(whole.replace("function 0000:01:00.0", "function 0000:01:00.1"));
    broken.push(whole.replace("end", "vfs 99999 1\nend"));
    broken.push("x".repeat(1 << 20));
    for text in broken {
        let fixture = fixture();
        fixture.file(&format!("/run/vdpactl/vfio/{AT}"), &text);
        for wish in [Wish::Restore, Wish::Unbind, Wish::Bind] {
            refused(&fixture, AT, wish, &[AT, "no record", "remove the file"]);
        }
    }
}

#[test]
fn another_card_in_the_same_place_is_left_alone() {
    let fixture = fixture();
    done(&fixture, AT, Wish::Bind).unwrap();
    fixture.attribute(AT, "device", "0x1042\n");
    refused(&fixture, AT, Wish::Restore, &["1af4:1041", "1af4:1042"]);
}

#[test]
fn a_record_of_a_function_that_is_gone_is_dropped() {
    let fixture = fixture();
    done(&fixture, AT, Wish::Bind).unwrap();
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}"));
    assert_eq!(done(&fixture, AT, Wish::Restore).unwrap().steps, []);
    assert_eq!(changed(&fixture), []);
}

#[test]
fn restoring_what_was_never_changed_does_nothing() {
    let fixture = fixture();
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/driver"));
    fixture.driver(AT, "vfio-pci");
    assert_eq!(done(&fixture, AT, Wish::Restore).unwrap().steps, []);
    assert!(read(&fixture, AT).is_vfio());
}

#[test]
fn two_do_not_change_functions_at_the_same_time() {
    struct Second<'a>(&'a Fixture, Box<dyn Kernel>);
    impl Kernel for Second<'_> {
        fn write(&self, step: &Step) -> io::Result<()> {
            let error = done(self.0, PHYSICAL, Wish::Bind).unwrap_err();
            assert!(matches!(error, SysfsError::Locked { .. }), "{error}");
            self.1.write(step)
        }
    }
    let fixture = fixture();
    let kernel = Second(&fixture, fixture.host().kernel().unwrap());
    with(&fixture, &kernel, |bindings| {
        bindings.carry_out(address(AT), Wish::Bind, Regard::Spare)
    })
    .unwrap();
    assert_eq!(read(&fixture, PHYSICAL).driver, Fact::Is("igb".to_owned()));
}

#[test]
fn nothing_to_do_takes_no_lock_and_keeps_no_record() {
    let fixture = given_away();
    for (at, wish) in [
        (AT, Wish::Bind),
        (PHYSICAL, Wish::Unbind),
        (PHYSICAL, Wish::Restore),
        (PHYSICAL, Wish::VirtualFunctions(0)),
    ] {
        assert_eq!(done(&fixture, at, wish).unwrap().steps, []);
        assert!(!fixture.host().state().exists(), "{wish:?}");
    }
}

#[test]
fn nothing_is_changed_that_cannot_be_recorded() {
    let fixture = fixture();
    fixture.file("/run/vdpactl", "a file in the way");
    refused(&fixture, AT, Wish::Bind, &["/run/vdpactl/vfio"]);
}

#[test]
fn records_of_a_copy_are_not_kept_out_of_it() {
    for link in ["/run", "/run/vdpactl", "/run/vdpactl/vfio"] {
        let elsewhere = tempfile::tempdir().unwrap();
        for target in ["", "made"] {
            let fixture = fixture();
            fixture.link(link, elsewhere.path().join(target).to_str().unwrap());
            refused(&fixture, AT, Wish::Bind, &["/run/vdpactl/vfio"]);
            refused(&fixture, AT, Wish::Restore, &["/run/vdpactl/vfio"]);
            assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        }
    }
}
