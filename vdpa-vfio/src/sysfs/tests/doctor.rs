//! What a doctor finds, and what mends it.

use super::*;

const AT: &str = "0000:01:00.0";

/// A machine on which the function can be used.
fn well() -> Fixture {
    let fixture = Fixture::new();
    fixture.bus(&["virtio-pci", "vfio-pci"]);
    fixture.function(AT, "1af4:1041 1af4:1100 020000");
    fixture.driver(AT, "vfio-pci");
    fixture.group(AT, 12);
    fixture.attribute(
        AT,
        "resource",
        "0x0 0x0 0x0\n0xfe000000 0xfe000fff 0x40200\n0x0 0x0 0x0\n0x0 0x0 0x0\n\
         0x380000000000 0x380000003fff 0x14220c\n0x0 0x0 0x0\n",
    );
    fixture.attribute(AT, "config", fixture::config());
    fixture.file("/sys/class/iommu/dmar0/type", "");
    fixture.file("/dev/vfio/12", "");
    fixture.file("/dev/vfio/vfio", "");
    fixture.file(
        "/proc/self/limits",
        "Max locked memory         67108864             67108864             bytes     \n",
    );
    fixture
}

fn findings(fixture: &Fixture) -> Vec<Finding> {
    let host = fixture.host();
    examine(&host, &host.function(address(AT)).unwrap())
}

/// What is not well: its name, what was found and what mends it, in one line.
fn trouble(fixture: &Fixture) -> Vec<String> {
    findings(fixture)
        .into_iter()
        .filter(|finding| finding.verdict != Verdict::Pass)
        .map(|finding| {
            let mend = finding.mend.unwrap_or_default();
            let line = format!(
                "{} {:?}: {} => {mend}",
                finding.what, finding.verdict, finding.found
            );
            assert!(!line.contains('\n'), "{line}");
            line
        })
        .collect()
}

#[track_caller]
fn has(fixture: &Fixture, words: &[&str]) {
    let trouble = trouble(fixture);
    let named = |line: &&String| words.iter().all(|word| line.contains(word));
    assert!(
        trouble.iter().any(|line| named(&line)),
        "{words:?} in {trouble:#?}"
    );
}

#[test]
fn a_function_that_can_be_used_has_no_trouble() {
    let fixture = well();
    assert_eq!(trouble(&fixture), [] as [&str; 0]);
    let lines: Vec<String> = findings(&fixture)
        .into_iter()
        .map(|finding| format!("{}: {}", finding.what, finding.found))
        .collect();
    assert_eq!(
        lines,
        [
            "function: 1af4:1041, virtio net",
            "IOMMU: on, units: 1, groups: 1",
            "group: 12: 0000:01:00.0 (VFIO)",
            "driver: vfio-pci",
            "device file: /dev/vfio/12 can be opened",
            "VFIO: /dev/vfio/vfio can be opened",
            "locked memory: at most 64 MiB",
            "BARs: 1: 4 KiB, 4: 16 KiB 64-bit",
            "registers: common 4+0x0, notify 4+0x3000 x 4, ISR 4+0x1000, device 4+0x2000, 3 MSI-X vectors",
        ]
    );
}

#[test]
fn each_trouble_has_what_mends_it() {
    for (spoil, words) in [
        (
            (|f| f.attribute(AT, "device", "0x1110")) as fn(&Fixture),
            &["function Fail", "not virtio", "vfio list"][..],
        ),
        (
            |f| {
                f.attribute(AT, "vendor", "0x8086");
                f.attribute(AT, "device", "0x1520");
            },
            &["function Fail", "igb"],
        ),
        (
            |f| f.remove("/sys/kernel/iommu_groups"),
            &["IOMMU Fail", "off", "firmware"],
        ),
        (
            |f| f.file("/sys/kernel/iommu_groups/12/name", "vfio-noiommu\n"),
            &["group Fail", "without an IOMMU"],
        ),
        (
            |f| f.remove(&format!("/sys/bus/pci/devices/{AT}/iommu_group")),
            &["group Fail", "no IOMMU group"],
        ),
        (
            |f| {
                f.function("0000:01:00.1", "8086:10d3 8086:0000 020000");
                f.group("0000:01:00.1", 12);
                f.driver("0000:01:00.1", "e1000e");
            },
            &[
                "group Fail",
                "0000:01:00.1 (e1000e)",
                "not viable",
                "=> vdpactl vfio bind 0000:01:00.1",
            ],
        ),
        (
            |f| {
                f.remove(&format!("/sys/bus/pci/devices/{AT}/driver"));
                f.driver(AT, "virtio-pci");
            },
            &[
                "driver Fail",
                "virtio-pci",
                "=> vdpactl vfio bind 0000:01:00.0",
            ],
        ),
        (
            |f| {
                f.remove(&format!("/sys/bus/pci/devices/{AT}/driver"));
                f.remove("/sys/bus/pci/drivers/vfio-pci");
            },
            &[
                "driver Fail",
                "none",
                "modprobe vfio-pci; vdpactl vfio bind",
            ],
        ),
        (
            |f| {
                f.link("/proc/77/fd/3", "/dev/vfio/12");
                f.file("/proc/77/comm", "dpdk-testpmd\n");
            },
            &["users Fail", "77", "dpdk-testpmd"],
        ),
        (
            |f| f.remove("/dev/vfio/12"),
            &["device file Fail", "/dev/vfio/12 is not there"],
        ),
        (
            |f| f.remove("/dev/vfio/vfio"),
            &["VFIO Fail", "modprobe vfio-pci"],
        ),
        (
            |f| {
                f.file(
                    "/proc/self/limits",
                    "Max locked memory 8388608 8388608 bytes\n",
                )
            },
            &["locked memory Fail", "8 MiB", "ulimit -l"],
        ),
        (
            |f| f.remove("/proc/self/limits"),
            &["locked memory Unknown", "ulimit -l"],
        ),
        (
            |f| f.attribute(AT, "resource", "0xc000 0xc03f 0x40101\n"),
            &["BARs Fail", "I/O ports", "pci=realloc"],
        ),
        (
            |f| f.attribute(AT, "resource", ""),
            &["BARs Fail", "none has an address"],
        ),
        (
            |f| f.attribute(AT, "config", &fixture::config()[..64]),
            &["registers Unknown", "=> make the copy as root"],
        ),
        (
            |f| {
                let mut config = fixture::config();
                config[0x34] = 0;
                f.attribute(AT, "config", config);
            },
            &["registers Fail", "common configuration"],
        ),
        (
            |f| {
                let mut config = fixture::config();
                (config[2], config[3], config[0x34]) = (0x00, 0x10, 0);
                f.attribute(AT, "config", config);
                f.attribute(AT, "device", "0x1000\n");
            },
            &["registers Fail", "legacy only"],
        ),
    ] {
        let fixture = well();
        spoil(&fixture);
        has(&fixture, words);
    }
}

#[test]
fn what_mends_it_is_for_the_system_that_was_looked_at() {
    let fixture = well();
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/driver"));
    let sysfs = fixture.path("/sys");
    let root = sysfs.parent().unwrap();
    let bind = format!("=> vdpactl vfio bind {AT} --root {}", root.display());
    has(&fixture, &["driver Fail", &bind]);
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/vendor"));
    let sysfs = fixture.path(&format!("/sys/bus/pci/devices/{AT}"));
    let look = format!("=> ls -l {}", sysfs.display());
    has(&fixture, &["function Unknown", &look]);
}

#[test]
fn of_a_function_that_is_no_virtio_nothing_else_is_to_be_mended() {
    let fixture = well();
    fixture.attribute(AT, "device", "0x1110");
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/driver"));
    has(&fixture, &["function Fail", "take another function"]);
    has(&fixture, &["driver Fail"]);
    for line in trouble(&fixture) {
        assert!(
            line.starts_with("function ") || line.ends_with("=> "),
            "{line}"
        );
    }
}

#[test]
fn a_function_that_does_not_answer_is_looked_for_again() {
    let fixture = well();
    fixture.attribute(AT, "config", [0xff; 256]);
    has(
        &fixture,
        &[
            "registers Fail",
            "rescan",
            "=> echo 1 > /sys/bus/pci/rescan",
        ],
    );
}

#[test]
fn a_kernel_with_files_of_functions_only_is_fine() {
    let fixture = well();
    fixture.remove("/dev/vfio");
    fixture.attribute(AT, "vfio-dev/vfio3/dev", "");
    fixture.file("/dev/vfio/devices/vfio3", "");
    has(&fixture, &["VFIO Fail", "/dev/iommu is not there"]);
    fixture.file("/dev/iommu", "");
    assert_eq!(trouble(&fixture), [] as [&str; 0]);
}

#[test]
fn the_registers_of_a_virtual_function_are_found() {
    let fixture = well();
    // Who it is, and where its BARs are, is not in a virtual function's own header.
    let mut config = fixture::config();
    config[..4].fill(0xff);
    config[0x10..0x28].fill(0);
    fixture.attribute(AT, "config", config);
    has(&fixture, &["registers Fail"]);
    fixture.link(
        &format!("/sys/bus/pci/devices/{AT}/physfn"),
        "../0000:00:05.0",
    );
    assert_eq!(trouble(&fixture), [] as [&str; 0]);
}

#[test]
fn nothing_at_all_is_a_page_of_troubles() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path(&format!("/sys/bus/pci/devices/{AT}"))).unwrap();
    assert_eq!(trouble(&fixture).len(), 9);
}

#[test]
fn whatever_configuration_space_says_there_is_a_line() {
    let whole = fixture::config();
    let fixture = well();
    let host = fixture.host();
    let function = host.function(address(AT)).unwrap();
    for at in 0..whole.len() {
        for byte in [0x00, 0x01, 0x40, 0xfc, 0xff] {
            let mut config = whole.clone();
            config[at] = byte;
            fixture.attribute(AT, "config", &config);
            // That it ends, and how, is all: `vdpa-pci` says what is right.
            let _ = host.layout(&function);
        }
    }
}

#[test]
fn virtual_functions_of_a_bound_physical_one_are_no_trouble() {
    let fixture = well();
    fixture.attribute(AT, "sriov_totalvfs", "2");
    fixture.attribute(AT, "sriov_numvfs", "1");
    fixture.link(
        &format!("/sys/bus/pci/devices/{AT}/virtfn0"),
        "../0000:01:00.1",
    );
    assert_eq!(trouble(&fixture), [] as [&str; 0]);
}

#[test]
fn an_error_is_told_with_what_the_system_said() {
    let error = SysfsError::Records {
        path: "/run".to_owned(),
        source: std::io::Error::other("the cause"),
    };
    let said = vdpa_core::Chain(&error).to_string();
    assert!(
        said.starts_with("/run: ") && said.ends_with(": the cause"),
        "{said}"
    );
}
