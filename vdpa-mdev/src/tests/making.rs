//! Devices made and removed, on a copy that changes as the kernel would change it.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;
use vdpa_core::{ErrorKind, ParentError};
use vdpa_vfio::sysfs::{Kernel, Step};

use super::*;

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.parent(
        "mtty",
        &[("mtty-1", "vfio-pci", "2"), ("mtty-2", "vfio-pci", "0")],
    );
    fixture.parent("mdpy", &[("mdpy-xga", "vfio-pci", "3")]);
    fixture
}

fn left(fixture: &Fixture) -> Fact<u32> {
    let parents = fixture.host().parents().unwrap();
    let mut parents = parents.iter();
    parents
        .find_map(|parent| parent.kind("mtty-1"))
        .unwrap()
        .available
        .clone()
}

#[test]
fn a_device_is_made_found_and_removed() {
    let fixture = fixture();
    let host = fixture.host();
    let kernel = host.kernel().unwrap();
    let making = Making::new(&host, &*kernel);
    let made = making.create("mtty-1", None, uuid(A).unwrap()).unwrap();
    assert_eq!(made.kind_name(), "mtty-1 of mtty");
    assert_eq!(made.driver, Fact::Is("mtty".to_owned()));
    assert_eq!(host.devices().unwrap(), [made]);
    assert_eq!(left(&fixture), Fact::Is(1));
    let second = making
        .create("mtty-1", Some("mtty"), uuid(B).unwrap())
        .unwrap();
    assert_eq!(second.iommu_group, Fact::Is(1));
    assert!(fixture.path("/dev/vfio/1").exists());
    making.remove(uuid(A).unwrap()).unwrap();
    let there = host.devices().unwrap();
    assert!(
        matches!(&there[..], [one] if one.uuid == second.uuid),
        "{there:?}"
    );
    assert_eq!(left(&fixture), Fact::Is(1));
    assert!(!fixture.path("/dev/vfio/0").exists());
    let gone = making.remove(uuid(A).unwrap()).unwrap_err();
    assert!(matches!(gone, MdevError::NoDevice { .. }), "{gone}");
}

#[test]
fn what_cannot_be_made_says_why_and_nothing_is_there() {
    let fixture = fixture();
    fixture.parent("mtty2", &[("mtty-1", "vfio-pci", "2")]);
    let host = fixture.host();
    let kernel = host.kernel().unwrap();
    let making = Making::new(&host, &*kernel);
    let refused = |kind, parent, error: ErrorKind, words: &[&str]| {
        let said = making.create(kind, parent, uuid(A).unwrap()).unwrap_err();
        let text = said.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(!text.contains(['\n', '\u{1b}']), "{text}");
        assert_eq!(said.kind(), error, "{text}");
        assert_eq!(host.devices().unwrap(), []);
    };
    let types = "types: mdpy-xga, mtty-1, mtty-2";
    refused("mtty-9", None, ErrorKind::Misuse, &["mtty-9", types]);
    refused("../mtty-1", None, ErrorKind::Misuse, &[types]);
    refused("\u{1b}[2J", None, ErrorKind::Misuse, &[types]);
    refused(
        "mtty-1",
        Some("mdpy"),
        ErrorKind::Misuse,
        &["by mdpy: types: mdpy-xga"],
    );
    refused(
        "mtty-1",
        Some("tty"),
        ErrorKind::Misuse,
        &["tty makes", "mdpy, mtty, mtty2"],
    );
    refused(
        "mtty-1",
        None,
        ErrorKind::Misuse,
        &["--parent", "mtty, mtty2"],
    );
    refused(
        "mtty-2",
        None,
        ErrorKind::Busy,
        &["mtty can make no more mtty-2"],
    );

    let empty = Fixture::new();
    let host = empty.host();
    let kernel = host.kernel().unwrap();
    let making = Making::new(&host, &*kernel);
    let error = making.create("x", None, uuid(A).unwrap()).unwrap_err();
    assert!(error.to_string().contains("no types"), "{error}");
    let error = making.create("x", Some("p"), uuid(A).unwrap()).unwrap_err();
    assert!(error.to_string().contains("none does"), "{error}");
}

#[test]
fn a_uuid_that_is_taken_is_refused_whoever_has_it() {
    let fixture = fixture();
    let host = fixture.host();
    let kernel = host.kernel().unwrap();
    let making = Making::new(&host, &*kernel);
    making.create("mtty-1", None, uuid(A).unwrap()).unwrap();
    let error = making
        .create("mdpy-xga", None, uuid(A).unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert!(error.to_string().contains("mtty-1 of mtty"), "{error}");
    assert_eq!(host.devices().unwrap().len(), 1);
}

/// A kernel that says no.
struct Refusing(Errno, Mutex<Vec<Step>>);

impl Kernel for Refusing {
    fn write(&self, step: &Step) -> io::Result<()> {
        self.1.lock().unwrap().push(step.clone());
        match self.0 {
            Errno::UnknownErrno => Ok(()),
            errno => Err(errno.into()),
        }
    }
}

#[test]
fn what_the_kernel_answers_is_understood() {
    let fixture = fixture();
    let host = fixture.host();
    let create = |errno| {
        let kernel = Refusing(errno, Mutex::default());
        let error = Making::new(&host, &kernel)
            .create("mtty-1", None, uuid(A).unwrap())
            .unwrap_err();
        let steps = kernel.1.into_inner().unwrap();
        let path = "/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create";
        assert_eq!(steps, [Step::new(path, A)]);
        (error.kind(), error.to_string())
    };
    let said = |errno, kind, word: &str| {
        let (said, text) = create(errno);
        assert!(
            said == kind && text.contains(word),
            "{errno}: {said:?}: {text}"
        );
    };
    said(Errno::EUSERS, ErrorKind::Busy, "no more mtty-1");
    said(Errno::ENODEV, ErrorKind::Gone, "mtty went away");
    said(Errno::ENOENT, ErrorKind::Gone, "mtty went away");
    said(Errno::EACCES, ErrorKind::Io, "try as root");
    said(Errno::EIO, ErrorKind::Io, "dmesg");
    // It says that it did, and did not.
    said(Errno::UnknownErrno, ErrorKind::Io, "not what came of it");
}

#[test]
fn a_definition_is_started_with_its_attributes_or_not_at_all() {
    let fixture = fixture();
    let host = fixture.host();
    let kernel = host.kernel().unwrap();
    let making = Making::new(&host, &*kernel);
    let mut definition = Definition::new(uuid(A).unwrap(), "mtty", "mtty-1", Start::Manual);
    making.start(&definition).unwrap();
    making.remove(definition.uuid).unwrap();
    for name in [
        "speed",
        "../remove",
        "/etc/passwd",
        "",
        "a//b",
        "remove/..",
        "no/such",
    ] {
        definition.attributes = vec![(name.to_owned(), "1".to_owned())];
        let error = making.start(&definition).unwrap_err();
        assert!(matches!(error, MdevError::Attribute { .. }), "{error}");
        assert!(error.to_string().contains("removed again"), "{error}");
        assert_eq!(host.devices().unwrap(), [], "{name}");
        assert_eq!(left(&fixture), Fact::Is(2), "{name}");
    }
    definition.parent = "gone".to_owned();
    let error = making.start(&definition).unwrap_err();
    assert!(matches!(error, MdevError::NoParent { .. }), "{error}");
}

/// A copy whose devices come with what a driver and the kernel put below them.
struct Furnished<'f>(Box<dyn Kernel>, &'f Fixture);

impl Kernel for Furnished<'_> {
    fn write(&self, step: &Step) -> io::Result<()> {
        self.0.write(step)?;
        if step.path.ends_with("/create") {
            let home = format!("/sys/bus/mdev/devices/{A}");
            for name in ["speed", "vendor/params", "uevent", "driver_override"] {
                self.1.file(&format!("{home}/{name}"), "");
            }
            for name in ["power/control", "vfio-dev/vfio0/uevent"] {
                self.1.file(&format!("{home}/{name}"), "");
            }
            self.1
                .link(&format!("{home}/subsystem"), "../../../../../bus/mdev");
            self.1.link(&format!("{home}/alias"), "speed");
        }
        if step.path.ends_with("/speed") && step.text == "off" {
            self.0
                .write(&Step::new(format!("/sys/bus/mdev/devices/{A}/remove"), "1"))?;
        }
        Ok(())
    }
}

#[test]
fn an_attribute_is_the_devices_own_and_nothing_else_is_written() {
    let fixture = fixture();
    fixture.device(B, "mtty", "mtty-1", 5);
    let host = fixture.host();
    let kernel = Furnished(host.kernel().unwrap(), &fixture);
    let making = Making::new(&host, &kernel);
    let mut definition = Definition::new(uuid(A).unwrap(), "mtty", "mtty-1", Start::Manual);
    let home = format!("/sys/bus/mdev/devices/{A}");
    let read = |name: &str| std::fs::read_to_string(fixture.path(&format!("{home}/{name}")));
    definition.attributes = [("speed", "9600"), ("vendor/params", "x=1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    making.start(&definition).unwrap();
    assert_eq!(read("speed").unwrap(), "9600\n");
    assert_eq!(read("vendor/params").unwrap(), "x=1\n");
    making.remove(definition.uuid).unwrap();

    let other = format!("subsystem/devices/{B}/remove");
    for (name, word) in [
        ("remove", "the kernel's"),
        ("uevent", "the kernel's"),
        ("driver_override", "the kernel's"),
        ("power/control", "the kernel's"),
        ("vfio-dev/vfio0/uevent", "the kernel's"),
        ("mdev_type/create", "a link"),
        ("driver/unbind", "a link"),
        (&other, "a link"),
        ("alias", "a link"),
        ("vendor", "no file"),
        ("../remove", "no name"),
    ] {
        definition.attributes = vec![(name.to_owned(), "1".to_owned())];
        let error = making.start(&definition).unwrap_err().to_string();
        assert!(error.contains(word), "{name}: {error}");
        assert!(error.contains("removed again"), "{name}: {error}");
        let left = host.devices().unwrap();
        assert!(
            matches!(&left[..], [one] if one.uuid.to_string() == B),
            "{name}: {left:?}"
        );
    }
}

#[test]
fn a_device_that_its_attribute_takes_away_is_not_said_to_be_made() {
    let fixture = fixture();
    let host = fixture.host();
    let kernel = Furnished(host.kernel().unwrap(), &fixture);
    let mut definition = Definition::new(uuid(A).unwrap(), "mtty", "mtty-1", Start::Manual);
    definition.attributes = vec![("speed".to_owned(), "off".to_owned())];
    let error = Making::new(&host, &kernel).start(&definition).unwrap_err();
    assert!(matches!(error, MdevError::NotSettled { .. }), "{error}");
    assert!(error.to_string().contains("with its attributes"), "{error}");
}

#[test]
fn a_device_whose_link_leads_elsewhere_takes_nothing_with_it() {
    let fixture = fixture();
    fixture.device(A, "mtty", "mtty-1", 5);
    let link = format!("/sys/bus/mdev/devices/{A}");
    fixture.remove(&link);
    fixture.link(&link, "../../../devices/virtual/x");
    fixture.file("/sys/devices/virtual/x/remove", "");
    let host = fixture.host();
    let kernel = host.kernel().unwrap();
    let error = Making::new(&host, &*kernel).remove(uuid(A).unwrap());
    let error = error.unwrap_err();
    assert!(
        format!("{error:?}").contains("another directory"),
        "{error:?}"
    );
    assert!(fixture.path("/sys/devices/virtual/x/mtty").exists());
}

#[test]
fn what_is_no_copy_is_not_rehearsed_on() {
    let refused = Host::new(Path::new("/proc/self/root")).kernel().err();
    assert!(matches!(refused, Some(MdevError::Copy(_))), "{refused:?}");
    let fixture = Fixture::new();
    symlink("/sys", fixture.path("/sys")).unwrap();
    assert!(fixture.host().kernel().is_err() || !Path::new("/sys/class").exists());
}

#[test]
fn nothing_outside_of_a_copy_is_changed() {
    let fixture = fixture();
    let outside = tempfile::tempdir().unwrap();
    let home = "/sys/devices/virtual/x/mtty";
    // A parent that is elsewhere.
    let elsewhere = outside.path().join("mtty");
    std::fs::rename(fixture.path(home), &elsewhere).unwrap();
    symlink(&elsewhere, fixture.path(home)).unwrap();
    let before = std::fs::read_dir(&elsewhere).unwrap().count();
    let host = fixture.host();
    let kernel = host.kernel().unwrap();
    let making = Making::new(&host, &*kernel);
    let error = making.create("mtty-1", None, uuid(A).unwrap()).unwrap_err();
    assert!(format!("{error:?}").contains("leads out"), "{error:?}");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), before);
    assert_eq!(left(&fixture), Fact::Is(2));
}
