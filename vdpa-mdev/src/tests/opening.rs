//! What is in the way of opening a device.

use vdpa_core::{Attr, DeviceSpec, Error, ErrorKind, LinkState, MgmtDevice};
use vdpa_pci::PciParent;

use super::*;

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.parent("vmdev", &[("vmdev-blk", "vfio-pci", "7")]);
    fixture.device(A, "vmdev", "vmdev-blk", 7);
    fixture
}

fn add(fixture: &Fixture, spec: &str) -> Error {
    let mgmt = MdevMgmt::at(fixture.root());
    let spec = DeviceSpec::parse(spec).unwrap();
    let Err(error) = mgmt.dev_add(&spec) else {
        panic!("a picture has no devices");
    };
    let again = mgmt.function(&spec).err().unwrap();
    assert_eq!(again.to_string(), error.to_string());
    assert!(mgmt.devices().is_empty(), "nothing half-made is left");
    error
}

fn refused(fixture: &Fixture, kind: ErrorKind, words: &[&str]) {
    let error = add(fixture, &format!("mdev:{A}"));
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(error.kind(), kind, "{text}");
}

#[test]
fn a_device_string_is_read_and_its_faults_are_pointed_at() {
    let fixture = fixture();
    let part = |spec: &str| match add(&fixture, spec) {
        Error::Spec(error) => error.part().to_owned(),
        other => panic!("{other}"),
    };
    assert_eq!(part("mdev:vmdev-blk"), "vmdev-blk");
    assert_eq!(part(&format!("mdev:{A},via=uio")), "uio");
    assert_eq!(part(&format!("mdev:{A},mtu=1")), "mtu");
    let unknown = add(&fixture, &format!("mdev:{B}"));
    assert_eq!(unknown.kind(), ErrorKind::Misuse);
    assert!(
        unknown.to_string().contains("vdpactl mdev list"),
        "{unknown}"
    );
}

#[test]
fn the_way_is_by_its_group_or_by_a_file_of_its_own() {
    let fixture = fixture();
    refused(
        &fixture,
        ErrorKind::Io,
        &["no /dev/vfio/7", "modprobe vfio`"],
    );
    fixture.file("/dev/vfio/7", "");
    refused(&fixture, ErrorKind::Misuse, &["picture", A]);
    let cdev = add(&fixture, &format!("mdev:{},via=cdev", A.to_uppercase()));
    assert!(cdev.to_string().contains("/dev/iommu"), "{cdev}");
    fixture.file("/dev/iommu", "");
    let cdev = add(&fixture, &format!("mdev:{A},via=cdev"));
    assert!(
        cdev.to_string().contains("/dev/vfio/devices/vfio0"),
        "{cdev}"
    );
}

#[test]
fn what_is_no_pci_device_is_refused_by_name_before_it_is_opened() {
    for api in ["vfio-ccw", "vfio-ap", "vfio-platform", "vfio-pci-core", ""] {
        let fixture = fixture();
        fixture.kind_file("vmdev", "vmdev-blk", "device_api", format!("{api}\n"));
        fixture.file("/dev/vfio/7", "");
        let words = [&format!("is a {api} device") as &str, "vmdev-blk of vmdev"];
        refused(&fixture, ErrorKind::Unsupported, &words);
    }
}

#[test]
fn a_device_that_vfio_has_not_got_is_refused() {
    let home = format!("/sys/devices/virtual/x/vmdev/{A}");
    let without = |name: &str| {
        let fixture = fixture();
        fixture.remove(&format!("{home}/{name}"));
        fixture
    };
    refused(&without("driver"), ErrorKind::Unsupported, &["no driver"]);
    refused(
        &without("iommu_group"),
        ErrorKind::Unsupported,
        &["no group"],
    );
    refused(&without("mdev_type"), ErrorKind::Io, &["device_api"]);
}

#[test]
fn what_is_not_open_is_not_there() {
    let mgmt = MdevMgmt::at(fixture().root());
    let unknown = |error| matches!(error, Error::DeviceUnknown { .. });
    assert!(unknown(mgmt.dev_del(A).unwrap_err()));
    assert!(unknown(
        mgmt.dev_set(A, Attr::Link(LinkState::Up)).unwrap_err()
    ));
}
