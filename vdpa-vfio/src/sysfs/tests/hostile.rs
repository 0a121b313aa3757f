//! What a damaged tree, or one that somebody prepared, must not do.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use nix::sys::stat::Mode;

use super::*;

const AT: &str = "0000:01:00.0";
const ATTRIBUTES: [&str; 10] = [
    "vendor",
    "device",
    "subsystem_vendor",
    "subsystem_device",
    "class",
    "revision",
    "driver_override",
    "numa_node",
    "resource",
    "sriov_totalvfs",
];

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.function(AT, "1af4:1041 1af4:1100 020000");
    fixture.attribute(AT, "sriov_totalvfs", "4\n");
    fixture
}

fn read(fixture: &Fixture) -> Function {
    fixture.host().function(address(AT)).unwrap()
}

#[test]
fn a_function_without_files_has_nothing_known() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("/sys/bus/pci/devices/0000:01:00.0")).unwrap();
    let function = read(&fixture);
    assert_eq!(function.vendor, Fact::Absent);
    assert_eq!(function.bars, Fact::Absent);
    assert_eq!(function.identity(), Identity::Unknown);
    assert!(!function.is_bridge() && !function.is_vfio());
}

#[test]
fn junk_is_unknown_and_is_not_repeated_at_length() {
    for junk in [
        &b""[..],
        b"0x",
        b"0xzz",
        b"0x1af40",
        b"-2",
        b"+5",
        b"0x1af4 0x1af4",
        b"\xff\xfe",
        b"\x1b[2J",
        &[b'7'; 4000],
    ] {
        for name in ATTRIBUTES {
            let fixture = fixture();
            fixture.attribute(AT, name, junk);
            let function = read(&fixture);
            if name == "vendor" {
                let Fact::Unknown(why) = &function.vendor else {
                    panic!("{junk:?}: {function:?}");
                };
                assert!(why.len() < 200 && !why.contains('\u{1b}'), "{why}");
                assert_eq!(function.identity(), Identity::Unknown);
            }
        }
    }
}

#[test]
fn regions_that_make_no_sense_are_unknown() {
    for lines in [
        "nothing of the kind",
        "0x0 0xfff",
        "0x0 0xfff 0x200 0x0",
        "0x1000 0xfff 0x200",
        // Its length is more than 64 bits hold.
        "0x0 0xffffffffffffffff 0x200",
        "0x0 0x10000000000000000 0x200",
    ] {
        let fixture = fixture();
        fixture.attribute(AT, "resource", lines);
        let bars = read(&fixture).bars;
        assert!(matches!(bars, Fact::Unknown(_)), "{lines}: {bars:?}");
    }
}

#[test]
fn files_without_end_are_not_read_to_it() {
    let fixture = fixture();
    let huge = fs::File::create(fixture.path(&format!("/sys/bus/pci/devices/{AT}/vendor")));
    huge.unwrap().set_len(1 << 40).unwrap();
    let Fact::Unknown(why) = read(&fixture).vendor else {
        panic!("a tebibyte is no number");
    };
    assert!(why.contains("4096"), "{why}");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let path = |fixture: &Fixture| fixture.path(&format!("/sys/bus/pci/devices/{AT}/vendor"));
    let pipe = fixture();
    fs::remove_file(path(&pipe)).unwrap();
    nix::unistd::mkfifo(&path(&pipe), Mode::S_IRWXU).unwrap();
    let directory = fixture();
    fs::remove_file(path(&directory)).unwrap();
    fs::create_dir(path(&directory)).unwrap();
    let device = fixture();
    fs::remove_file(path(&device)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path(&device)).unwrap();
    let itself = fixture();
    fs::remove_file(path(&itself)).unwrap();
    std::os::unix::fs::symlink("vendor", path(&itself)).unwrap();
    for fixture in [pipe, directory, device] {
        // Not even opened.
        let why = "it is no regular file".to_owned();
        assert_eq!(read(&fixture).vendor, Fact::Unknown(why));
    }
    let vendor = read(&itself).vendor;
    assert!(matches!(vendor, Fact::Unknown(_)), "{vendor:?}");
}

#[test]
fn links_to_nowhere_and_in_circles_are_unknown() {
    let fixture = fixture();
    let at = |name: &str| format!("/sys/bus/pci/devices/{AT}/{name}");
    fixture.link(&at("driver"), "..");
    fixture.link(&at("iommu_group"), "../../not-a-number");
    fixture.link(&at("physfn"), "../eth0");
    fixture.link(&at("virtfn0"), "virtfn0");
    fixture.link(&at("virtfn1"), "../0000:01:00.1");
    fixture.link(&at("virtfn99999999"), "../0000:01:00.2");
    let function = read(&fixture);
    assert!(matches!(function.driver, Fact::Unknown(_)));
    assert!(matches!(function.iommu_group, Fact::Unknown(_)));
    assert!(matches!(function.physical, Fact::Unknown(_)));
    let functions = &function.sriov.known().unwrap().functions;
    assert_eq!(functions, &[address("0000:01:00.1")]);
}

#[test]
fn a_driver_that_is_a_file_is_no_driver() {
    let fixture = fixture();
    fixture.attribute(AT, "driver", "vfio-pci");
    let function = read(&fixture);
    assert!(matches!(function.driver, Fact::Unknown(_)), "{function:?}");
    assert!(!function.is_vfio());
}

#[test]
fn names_that_are_no_text_are_left_out_of_the_list() {
    let fixture = fixture();
    let devices = fixture.path("/sys/bus/pci/devices");
    for name in [&b"\xff\xfe"[..], b"0000:01:00.0 ", b"junk"] {
        fs::create_dir(devices.join(std::ffi::OsStr::from_bytes(name))).unwrap();
    }
    let functions = fixture.host().functions().unwrap();
    assert_eq!(functions.len(), 1);
}

#[test]
fn a_bus_that_is_a_file_is_an_error() {
    let fixture = Fixture::new();
    fixture.file("/sys/bus/pci/devices", "");
    let error = fixture.host().functions().unwrap_err().to_string();
    assert!(error.contains("/sys/bus/pci/devices"), "{error}");
    let fixture = Fixture::new();
    fixture.link("/sys/bus/pci/devices", "devices");
    assert!(fixture.host().functions().is_err());
}
