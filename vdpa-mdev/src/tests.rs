//! Trees that stand for systems, good ones and hostile ones.

mod definitions;
mod fixture;
mod hostile;
mod making;
mod opening;
mod uevents;

pub(crate) use fixture::Fixture;

use super::*;
use vdpa_vfio::sysfs::Fact;

/// UUIDs, as the kernel writes them.
pub(crate) const A: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
pub(crate) const B: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002";

#[test]
fn parents_types_and_devices_are_what_sysfs_says() {
    let fixture = Fixture::new();
    fixture.parent(
        "mtty",
        &[("mtty-1", "vfio-pci", "24"), ("mtty-2", "vfio-pci", "12")],
    );
    fixture.parent("0.0.0313", &[("vfio_ccw-io", "vfio-ccw", "1")]);
    fixture.kind_file("mtty", "mtty-2", "name", "Dual port serial\n");
    fixture.device(A, "mtty", "mtty-2", 7);
    let host = fixture.host();
    let parents = host.parents().unwrap();
    let names: Vec<_> = parents.iter().map(|parent| parent.name.as_str()).collect();
    assert_eq!(names, ["0.0.0313", "mtty"]);
    let kind = parents[1].kind("mtty-2").unwrap();
    assert_eq!(kind.name, Fact::Is("Dual port serial".to_owned()));
    assert_eq!(kind.description, Fact::Absent);
    assert_eq!(kind.api, Fact::Is("vfio-pci".to_owned()));
    assert_eq!(kind.available, Fact::Is(12));
    assert!(parents[0].kind("mtty-2").is_none());

    let devices = host.devices().unwrap();
    let [device] = &devices[..] else {
        panic!("{devices:?}");
    };
    assert_eq!(device.uuid.to_string(), A);
    assert_eq!(device.parent, Fact::Is("mtty".to_owned()));
    assert_eq!(
        device.kind.as_ref().map(|kind| kind.id.as_str()),
        Fact::Is("mtty-2")
    );
    assert_eq!(device.driver, Fact::Is("mtty".to_owned()));
    assert_eq!(device.iommu_group, Fact::Is(7));
    assert_eq!(device.vfio_device, Fact::Is("vfio0".to_owned()));
    assert_eq!(device.kind_name(), "mtty-2 of mtty");
    assert_eq!(host.device(uuid(A).unwrap()).unwrap(), *device);
    let missing = host.device(uuid(B).unwrap()).unwrap_err();
    assert!(missing.to_string().contains(B), "{missing}");
}

#[test]
fn a_kernel_without_mediated_devices_has_none() {
    let host = Fixture::new().host();
    assert_eq!(host.parents().unwrap(), []);
    assert_eq!(host.devices().unwrap(), []);
}

#[test]
fn the_mediated_devices_of_this_machine_can_be_read() {
    let host = Host::new(std::path::Path::new("/"));
    for parent in host.parents().unwrap() {
        assert!(parent.kinds.known().is_some(), "{parent:?}");
    }
    for device in host.devices().unwrap() {
        assert!(device.kind.known().is_some(), "{device:?}");
    }
}

#[test]
fn a_uuid_is_read_as_the_kernel_does() {
    assert_eq!(uuid(A).unwrap().to_string(), A);
    assert_eq!(uuid(&A.to_uppercase()).unwrap().to_string(), A);
    let simple = A.replace('-', "");
    let braced = format!("{{{A}}}");
    let urn = format!("urn:uuid:{A}");
    let long = "a".repeat(10_000);
    for wrong in [
        "",
        "mtty",
        &simple,
        &braced,
        &urn,
        &A[..35],
        &format!("{A} "),
        "83b8f4f2-509f-382f-3c1e-e6bfe0fa100g",
        "83b8f4f2x509f-382f-3c1e-e6bfe0fa1001",
        "\u{fe}3b8f4f2-509f-382f-3c1e-e6bfe0fa100",
        &long,
    ] {
        let error = uuid(wrong).unwrap_err().to_string();
        assert!(error.contains("is no UUID") && error.len() < 200, "{error}");
    }
}
