//! Trees that stand for systems, good ones and hostile ones.

mod bindings;
mod doctor;
mod fixture;
mod hostile;
mod refusals;
mod rehearsal;
mod room;
mod usage;
mod virtuals;

pub(super) use fixture::Fixture;

use super::*;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[test]
fn functions_are_listed_with_what_sysfs_says() {
    let fixture = Fixture::new();
    fixture.function("0000:01:00.1", "1af4:1041 1af4:1100 020000");
    fixture.function("0000:00:01.0", "8086:3420 0000:0000 060400");
    fixture.driver("0000:01:00.1", "virtio-pci");
    fixture.group("0000:01:00.1", 12);
    fixture.file(
        "/sys/bus/pci/devices/0000:01:00.1/resource",
        "0x000000000000c000 0x000000000000c03f 0x0000000000040101\n\
         0x00000000fe000000 0x00000000fe000fff 0x0000000000040200\n\
         0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
         0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
         0x0000380000000000 0x0000380000003fff 0x000000000014220c\n\
         0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
         0x00000000fe100000 0x00000000fe13ffff 0x0000000000046200\n",
    );
    let functions = fixture.host().functions().unwrap();
    assert_eq!(functions.len(), 2);
    let [bridge, net] = &functions[..] else {
        unreachable!()
    };
    assert!(bridge.is_bridge() && !net.is_bridge());
    assert_eq!(bridge.driver, Fact::Absent);
    assert_eq!(net.address, address("0000:01:00.1"));
    assert_eq!(net.vendor, Fact::Is(0x1af4));
    assert_eq!(net.device, Fact::Is(0x1041));
    assert_eq!(net.subsystem_device, Fact::Is(0x1100));
    assert_eq!(net.class, Fact::Is(0x02_0000));
    assert_eq!(net.driver, Fact::Is("virtio-pci".to_owned()));
    assert_eq!(net.driver_override, Fact::Absent);
    assert_eq!(net.iommu_group, Fact::Is(12));
    assert_eq!(net.numa_node, Fact::Absent);
    assert_eq!(net.sriov, Fact::Absent);
    assert_eq!(net.physical, Fact::Absent);
    assert!(!net.is_vfio());
    let bars = net.bars.known().unwrap();
    let seen: Vec<_> = bars
        .iter()
        .map(|bar| (bar.index, bar.len, bar.memory, bar.wide))
        .collect();
    assert_eq!(
        seen,
        [
            (0, 0x40, false, false),
            (1, 0x1000, true, false),
            (4, 0x4000, true, true)
        ]
    );
    assert!(bars[2].prefetchable && !bars[1].prefetchable);
}

#[test]
fn a_function_that_is_not_there_is_named() {
    let fixture = Fixture::new();
    fixture.function("0000:01:00.0", "1af4:1041 1af4:1100 020000");
    let error = fixture
        .host()
        .function(address("0000:02:00.0"))
        .unwrap_err();
    assert!(error.to_string().contains("0000:02:00.0"), "{error}");
    assert!(fixture.host().function(address("0000:01:00.0")).is_ok());
}

#[test]
fn a_system_without_a_bus_says_where_it_was_looked_for() {
    let fixture = Fixture::new();
    let error = fixture.host().functions().unwrap_err().to_string();
    assert!(
        error.contains("/sys/bus/pci/devices") && error.contains("sysfs"),
        "{error}"
    );
}

#[test]
fn virtual_functions_know_their_physical_one_and_the_other_way_round() {
    let fixture = Fixture::new();
    fixture.function("0000:01:00.0", "8086:10c9 8086:0000 020000");
    fixture.attribute("0000:01:00.0", "sriov_totalvfs", "7\n");
    fixture.attribute("0000:01:00.0", "sriov_numvfs", "2\n");
    for (number, at) in [(0, "0000:01:10.0"), (1, "0000:01:10.2")] {
        fixture.function(at, "8086:10ca 8086:0000 020000");
        fixture.link(
            &format!("/sys/bus/pci/devices/{at}/physfn"),
            "../0000:01:00.0",
        );
        let name = format!("/sys/bus/pci/devices/0000:01:00.0/virtfn{number}");
        fixture.link(&name, &format!("../{at}"));
    }
    let functions = fixture.host().functions().unwrap();
    let sriov = functions[0].sriov.known().unwrap();
    assert_eq!((&sriov.total, &sriov.made), (&Fact::Is(7), &Fact::Is(2)));
    assert_eq!(
        sriov.functions,
        [address("0000:01:10.0"), address("0000:01:10.2")]
    );
    assert_eq!(functions[2].physical, Fact::Is(address("0000:01:00.0")));
}

#[test]
fn the_functions_of_this_machine_can_be_read() {
    match Host::new(Path::new("/")).functions() {
        Ok(functions) => {
            for function in functions {
                assert!(function.vendor.known().is_some(), "{function:?}");
                assert!(function.bars.known().is_some(), "{function:?}");
            }
        }
        // A container without sysfs, a machine without PCI.
        Err(error) => assert!(matches!(error, SysfsError::Bus { .. }), "{error}"),
    }
}
