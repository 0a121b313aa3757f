//! Groups, IOMMUs, and what a process may do.

use super::*;

fn grouped(drivers: &[(&str, &str, &str)]) -> Fixture {
    let fixture = Fixture::new();
    for (at, numbers, driver) in drivers {
        fixture.function(at, numbers);
        fixture.group(at, 7);
        if !driver.is_empty() {
            fixture.driver(at, driver);
        }
    }
    fixture
}

#[test]
fn a_group_is_viable_unless_a_driver_uses_its_addresses() {
    const NET: &str = "1af4:1041 1af4:1100 020000";
    const PORT: &str = "8086:a110 0000:0000 060400";
    // lpc_ich and its like: a bridge by its class, with a driver of its own.
    const ISA: &str = "8086:a143 0000:0000 060100";
    for (drivers, in_the_way) in [
        (&[("01:00.0", NET, "vfio-pci")][..], &[][..]),
        (&[("01:00.0", NET, "vfio-pci"), ("01:00.1", NET, "")], &[]),
        (
            &[("01:00.0", NET, "vfio-pci"), ("00:1c.0", PORT, "pcieport")],
            &[],
        ),
        (&[("01:00.0", NET, "vfio-pci"), ("00:1c.0", PORT, "")], &[]),
        (
            &[
                ("01:00.0", NET, "mlx5_vfio_pci"),
                ("01:00.1", NET, "pci-stub"),
            ],
            &[],
        ),
        (
            &[("01:00.0", NET, "vfio-pci"), ("01:00.1", NET, "virtio-pci")],
            &["0000:01:00.1"],
        ),
        (
            &[("01:00.0", NET, "vfio-pci"), ("00:1f.0", ISA, "lpc_ich")],
            &["0000:00:1f.0"],
        ),
    ] {
        let full = |at: &str| format!("0000:{at}");
        let names: Vec<String> = drivers.iter().map(|(at, ..)| full(at)).collect();
        let drivers: Vec<_> = names
            .iter()
            .zip(drivers)
            .map(|(at, (_, numbers, driver))| (at.as_str(), *numbers, *driver))
            .collect();
        let group = grouped(&drivers).host().group(7);
        let named: Vec<&str> = group
            .in_the_way()
            .iter()
            .map(|member| &*member.name)
            .collect();
        assert_eq!(named, in_the_way, "{group:?}");
        assert_eq!(group.viable(), Fact::Is(in_the_way.is_empty()));
        assert_eq!(group.members.known().unwrap().len(), drivers.len());
    }
}

#[test]
fn members_that_are_no_pci_functions_count_too() {
    let fixture = grouped(&[("0000:01:00.0", "1af4:1041 1af4:1100 020000", "vfio-pci")]);
    fixture.link(
        "/sys/devices/platform/3f201000.serial/driver",
        "../../../bus/platform/drivers/uart-pl011",
    );
    fixture.link(
        "/sys/kernel/iommu_groups/7/devices/3f201000.serial",
        "../../../../devices/platform/3f201000.serial",
    );
    let group = fixture.host().group(7);
    let [member] = group.in_the_way()[..] else {
        panic!("{group:?}");
    };
    let driver = "uart-pl011".to_owned();
    assert_eq!(member.standing, Standing::Taken { driver });
}

#[test]
fn a_group_that_cannot_be_seen_is_not_viable() {
    let fixture = Fixture::new();
    assert_eq!(fixture.host().group(7).viable(), Fact::Absent);
    fixture.file("/sys/kernel/iommu_groups/7/devices", "");
    assert!(matches!(fixture.host().group(7).viable(), Fact::Unknown(_)));
    let fixture = grouped(&[("0000:01:00.0", "1af4:1041 1af4:1100 020000", "")]);
    fixture.attribute("0000:01:00.0", "driver", "");
    assert_eq!(fixture.host().group(7).viable(), Fact::Is(false));
}

#[test]
fn a_group_without_iommu_is_none() {
    let fixture = grouped(&[("0000:01:00.0", "1af4:1041 1af4:1100 020000", "vfio-pci")]);
    assert_eq!(fixture.host().iommu().is_on(), Fact::Is(true));
    fixture.file("/sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    let group = fixture.host().group(7);
    assert!(group.no_iommu);
    assert_eq!(group.viable(), Fact::Is(false));
    assert_eq!(fixture.host().iommu().is_on(), Fact::Is(false));
}

#[test]
fn the_iommu_is_off_where_there_are_no_groups() {
    let fixture = Fixture::new();
    let iommu = fixture.host().iommu();
    assert_eq!(iommu.is_on(), Fact::Is(false));
    assert!(iommu.mend().contains("firmware"));
    fixture.file("/proc/cmdline", "quiet amd_iommu=off\n");
    let mend = fixture.host().iommu().mend();
    assert!(mend.contains("take amd_iommu=off off"), "{mend}");
    // Junk there is nothing to go by.
    fixture.file("/proc/cmdline", b"\xff\xfe");
    fixture.file("/proc/cpuinfo", vec![b'x'; 3 << 20]);
    assert!(fixture.host().iommu().mend().contains("firmware"));
}

#[test]
fn locked_memory_is_limited_unless_the_process_is_exempt() {
    let fixture = Fixture::new();
    assert_eq!(fixture.host().memlock().bytes(), Fact::Absent);
    let limits = |soft: &str| {
        let line =
            format!("Max locked memory         {soft:<20} 8388608              bytes     \n");
        fixture.file(
            "/proc/self/limits",
            format!("Limit  Soft Limit  Hard Limit  Units\n{line}"),
        );
        fixture.host().memlock().bytes()
    };
    assert_eq!(limits("8388608"), Fact::Is(8 << 20));
    assert_eq!(limits("unlimited"), Fact::Is(u64::MAX));
    assert!(matches!(limits("many"), Fact::Unknown(_)));
    fixture.file("/proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n");
    assert_eq!(limits("65536"), Fact::Is(65536));
    fixture.file("/proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n");
    assert_eq!(limits("65536"), Fact::Is(u64::MAX));
}

#[test]
fn this_process_has_a_limit() {
    let memlock = Host::new(Path::new("/")).memlock();
    assert!(memlock.limit.known().is_some(), "{memlock:?}");
    assert!(memlock.exempt.known().is_some(), "{memlock:?}");
}
