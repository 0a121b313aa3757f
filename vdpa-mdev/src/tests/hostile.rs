//! What a damaged tree, or one that somebody prepared, must not do.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use vdpa_core::ParentError;

use super::*;

const KIND: &str = "/sys/devices/virtual/x/mtty/mdev_supported_types/mtty-1";

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.parent("mtty", &[("mtty-1", "vfio-pci", "2")]);
    fixture.device(A, "mtty", "mtty-1", 3);
    fixture
}

fn kind(fixture: &Fixture) -> Kind {
    let parents = fixture.host().parents().unwrap();
    parents[0].kind("mtty-1").unwrap().clone()
}

#[test]
fn numbers_that_are_none_are_unknown_and_are_not_repeated_at_length() {
    let junk: [&[u8]; 8] = [
        b"",
        b"-1",
        b"+1",
        b"0x",
        b"2 2",
        b"\xff\xfe",
        b"\x1b[2J",
        &[b'7'; 4000],
    ];
    for text in junk {
        let fixture = fixture();
        fixture.kind_file("mtty", "mtty-1", "available_instances", text);
        let Fact::Unknown(why) = kind(&fixture).available else {
            panic!("{text:?}");
        };
        assert!(why.len() < 200 && !why.contains('\u{1b}'), "{why}");
    }
}

#[test]
fn files_that_are_something_else_are_neither_opened_nor_waited_for() {
    let with = |make: &dyn Fn(&std::path::Path)| {
        let fixture = fixture();
        let path = fixture.path(&format!("{KIND}/device_api"));
        fs::remove_file(&path).unwrap();
        make(&path);
        assert!(
            matches!(kind(&fixture).api, Fact::Unknown(_)),
            "{:?}",
            kind(&fixture)
        );
        // Not known to be a function, it is not opened.
        let device = fixture.host().device(uuid(A).unwrap()).unwrap();
        let error = device.found(fixture.root()).unwrap_err();
        assert!(matches!(error, MdevError::Unreadable { .. }), "{error}");
        assert_eq!(error.kind(), vdpa_core::ErrorKind::Io);
    };
    with(&|path| fs::create_dir(path).unwrap());
    with(&|path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap());
    with(&|path| symlink("/dev/zero", path).unwrap());
    with(&|path| symlink("device_api", path).unwrap());
    with(&|path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap());
    with(&|path| fs::write(path, b"vfio-pci\xff").unwrap());
}

#[test]
fn links_in_circles_and_to_nowhere_are_unknown() {
    let fixture = fixture();
    let home = format!("/sys/devices/virtual/x/mtty/{A}");
    for (name, target) in [
        ("driver", ".."),
        ("iommu_group", "../x/y"),
        ("mdev_type", "mdev_type"),
    ] {
        fixture.remove(&format!("{home}/{name}"));
        fixture.link(&format!("{home}/{name}"), target);
    }
    fixture.remove(&format!("{home}/vfio-dev"));
    fixture.file(&format!("{home}/vfio-dev"), "");
    let device = fixture.host().device(uuid(A).unwrap()).unwrap();
    assert!(matches!(device.driver, Fact::Unknown(_)), "{device:?}");
    assert!(matches!(device.iommu_group, Fact::Unknown(_)), "{device:?}");
    assert!(matches!(device.vfio_device, Fact::Unknown(_)), "{device:?}");
    let api = device.kind.as_ref().and_then(|kind| kind.api.as_ref());
    assert!(matches!(api, Fact::Unknown(_)), "{device:?}");

    fixture.link("/sys/class/mdev_bus/loop", "loop");
    fixture.link("/sys/class/mdev_bus/nowhere", "../../none");
    fixture.file("/sys/class/mdev_bus/file", "");
    let parents = fixture.host().parents().unwrap();
    assert_eq!(parents.len(), 4);
    for parent in &parents {
        assert_eq!(
            parent.kinds.known().is_some(),
            parent.name == "mtty",
            "{parent:?}"
        );
    }
}

#[test]
fn names_that_are_no_uuids_are_no_devices() {
    let fixture = fixture();
    let devices = fixture.path("/sys/bus/mdev/devices");
    let upper = A.to_uppercase();
    for name in [
        &b"\xff\xfe"[..],
        b"junk",
        b"83b8f4f2509f382f3c1ee6bfe0fa1001",
        upper.as_bytes(),
    ] {
        fs::create_dir(devices.join(std::ffi::OsStr::from_bytes(name))).unwrap();
    }
    let devices = fixture.host().devices().unwrap();
    assert_eq!(devices.len(), 1, "{devices:?}");
}

#[test]
fn a_device_that_is_no_link_has_no_parent() {
    let fixture = fixture();
    fs::create_dir(fixture.path(&format!("/sys/bus/mdev/devices/{B}"))).unwrap();
    let device = fixture.host().device(uuid(B).unwrap()).unwrap();
    assert!(matches!(device.parent, Fact::Unknown(_)), "{device:?}");
    assert_eq!(device.kind, Fact::Absent);
    assert_eq!(device.kind_name(), "of an unknown type");
}

#[test]
fn directories_that_are_files_are_an_error_and_name_it() {
    for path in ["/sys/class/mdev_bus", "/sys/bus/mdev/devices"] {
        let fixture = Fixture::new();
        fixture.file(path, "");
        let host = fixture.host();
        let errors = [host.parents().err(), host.devices().err()];
        let [error] = &errors.into_iter().flatten().collect::<Vec<_>>()[..] else {
            panic!("one of them is there");
        };
        assert!(error.to_string().contains(path), "{error}");
    }
}
