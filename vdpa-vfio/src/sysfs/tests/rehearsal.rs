//! A copy changes as a kernel changes it, and nothing else does.

use std::fs;

use super::*;

const AT: &str = "0000:01:00.0";

fn write(fixture: &Fixture, path: &str, text: &str) -> std::io::Result<()> {
    let (path, text) = (path.to_owned(), text.to_owned());
    fixture.host().kernel().unwrap().write(&Step { path, text })
}

#[test]
fn what_is_not_a_file_of_the_bus_is_not_written() {
    let fixture = Fixture::new();
    fixture.bus(&["vfio-pci"]);
    fixture.function(AT, "1af4:1041 1af4:1100 020000");
    for path in [
        "/sys/bus/pci/devices/0000:01:00.0/vendor",
        "/sys/bus/pci/devices/0000:01:00.0/nothing",
        "/sys/bus/pci/drivers/none/unbind",
        "/etc/passwd",
    ] {
        assert!(write(&fixture, path, "1").is_err(), "{path}");
    }
    // Not bound to this driver; no function; no address.
    for text in [AT, "0000:09:00.0", "../.."] {
        assert!(write(&fixture, "/sys/bus/pci/drivers/vfio-pci/unbind", text).is_err());
    }
}

#[test]
fn a_link_out_of_the_copy_is_not_followed_to_write() {
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("driver_override");
    fs::write(&precious, "precious").unwrap();
    let fixture = Fixture::new();
    fixture.link(
        "/sys/bus/pci/devices/0000:01:00.0",
        elsewhere.path().to_str().unwrap(),
    );
    fixture.function("0000:02:00.0", "1af4:1041 1af4:1100 020000");
    fixture.remove("/sys/bus/pci/devices/0000:02:00.0/driver_override");
    fixture.link(
        "/sys/bus/pci/devices/0000:02:00.0/driver_override",
        precious.to_str().unwrap(),
    );
    for at in ["0000:01:00.0", "0000:02:00.0"] {
        let path = format!("/sys/bus/pci/devices/{at}/driver_override");
        assert!(write(&fixture, &path, "vfio-pci").is_err());
    }
    assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
}

#[test]
fn a_root_that_is_this_machine_by_another_name_is_not_rehearsed_on() {
    let fixture = Fixture::new();
    // Both are links on the way: nothing is written below them.
    for (name, target) in [("itself", "/"), ("process", "/proc/self/root")] {
        fixture.link(name, target);
        let host = Host::new(&fixture.path(name));
        let error = host.kernel().err().unwrap();
        assert!(matches!(error, SysfsError::NoCopy { .. }), "{error}");
    }
    for root in ["/..", "/proc/../"] {
        let error = Host::new(Path::new(root)).kernel().err().unwrap();
        assert!(error.to_string().contains("--root"), "{error}");
    }
}

#[test]
fn the_running_sysfs_in_a_copy_is_not_written() {
    if !Path::new("/sys/kernel").is_dir() {
        eprintln!("skipped: there is no sysfs here");
        return;
    }
    let fixture = Fixture::new();
    fixture.link("/sys", "/sys");
    let error = fixture.host().kernel().err().unwrap().to_string();
    assert!(error.contains("/sys in it"), "{error}");
    // Mounted deeper in it, it is noticed when it is written.
    let kernel = Host::new(Path::new("/sys/kernel")).kernel().unwrap();
    let (path, text) = ("/no_such_file".to_owned(), String::new());
    let error = kernel.write(&Step { path, text }).unwrap_err();
    assert!(error.to_string().contains("own"), "{error}");
}

#[test]
fn a_directory_is_not_made_out_of_the_copy() {
    let elsewhere = tempfile::tempdir().unwrap();
    let fixture = Fixture::new();
    fixture.bus(&["vfio-pci"]);
    fixture.function(AT, "1af4:1041 1af4:1100 020000");
    fixture.group(AT, 12);
    fixture.attribute(AT, "driver_override", "vfio-pci\n");
    fixture.link("/dev", elsewhere.path().to_str().unwrap());
    assert!(write(&fixture, "/sys/bus/pci/drivers_probe", AT).is_err());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_link_to_nothing_does_not_make_a_file_out_of_the_copy() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("made");
    let fixture = Fixture::new();
    fixture.bus(&["vfio-pci"]);
    fixture.function(AT, "1af4:1041 1af4:1100 020000");
    fixture.group(AT, 12);
    fixture.attribute(AT, "driver_override", "vfio-pci\n");
    fixture.link("/dev/vfio/12", target.to_str().unwrap());
    write(&fixture, "/sys/bus/pci/drivers_probe", AT).unwrap();
    assert!(!target.exists());
}
