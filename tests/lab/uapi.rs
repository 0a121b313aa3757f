//! The crate of kernel interfaces: vDPA's own bus from both ends, and iommufd, on kernels that have them.

use serde_json::json;

use crate::machine::{Kernel, Machine};

/// A disk that is played by VDUSE, gets onto the bus by netlink, and is driven by vhost-vdpa.
const BUS: &str = "
modprobe vduse
modprobe vhost_vdpa
step bus ./guest bus
";

#[test]
fn device_that_a_program_plays_is_driven_over_the_kernels_bus() {
    let name = "device_that_a_program_plays_is_driven_over_the_kernels_bus";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let transcript = Machine::new(Kernel::Stock, &[]).run(BUS);
    let said = transcript.step("bus").well().json();
    let whole = u64::MAX;

    // Netlink: the device came and went.
    let bus = &said["bus"];
    assert_eq!(bus["makers"][0]["name"], "vduse", "{said}");
    let device = json!({ "name": "lab", "maker": "vduse", "type": 2, "queues": 1, "size": 128 });
    assert_eq!(bus["devices"], json!([device]), "{said}");
    assert_eq!(said["left"], 0, "{said}");
    for (what, call) in [
        (&bus["taken"], "VDUSE_CREATE_DEV: EEXIST"),
        (&bus["twice"], "VDPA_CMD_DEV_NEW: EEXIST"),
        (&bus["counters"], "VDPA_CMD_DEV_VSTATS_GET: EOPNOTSUPP"),
        (&said["busy"], "VDUSE_DESTROY_DEV: EBUSY"),
        (&said["gone"], "VDUSE_DESTROY_DEV: EINVAL"),
        (&said["asked"]["owner twice"], "VHOST_SET_OWNER: EBUSY"),
        (&said["asked"]["config beyond"], "VHOST_VDPA_GET_CONFIG: "),
        (
            &said["asked"]["group"],
            "VHOST_VDPA_GET_VRING_GROUP: EOPNOTSUPP",
        ),
        (
            &said["asked"]["descriptor group"],
            "VHOST_VDPA_GET_VRING_DESC_GROUP: EOPNOTSUPP",
        ),
        (
            &said["asked"]["asid"],
            "VHOST_VDPA_SET_GROUP_ASID: EOPNOTSUPP",
        ),
        (&said["driven"]["taken"], "VHOST_IOTLB_UPDATE: EFAULT"),
        (&said["driven"]["suspend"], "VHOST_VDPA_SUSPEND: EOPNOTSUPP"),
        (&said["driven"]["resume"], "VHOST_VDPA_RESUME: EOPNOTSUPP"),
        // What is unmapped in a batch is the device's to the end of that.
        (&said["driven"]["in batch"], "fine"),
        (&said["driven"]["unmapped"], "VDUSE_IOTLB_GET_FD: EINVAL"),
        (
            &said["driven"]["space"],
            "VHOST_IOTLB_UPDATE: address space 1: ",
        ),
        (
            &said["driven"]["busy"],
            "cannot open /dev/vhost-vdpa-0: Device or resource busy (os error 16): somebody has it open",
        ),
    ] {
        let line = what.as_str().unwrap_or_default();
        assert!(line.starts_with(call), "{call}, not {line}: {said}");
    }

    // vhost-vdpa says what VDUSE was told.
    for (what, value) in [
        ("type", json!(2)),
        ("features", json!(3u64 << 32)),
        ("config size", json!(60)),
        ("capacity", json!(2048)),
        ("queues", json!(1)),
        ("max size", json!(128)),
        ("size", json!(128)),
        ("groups", json!(1)),
        ("address spaces", json!(1)),
        ("range", json!([0, whole])),
    ] {
        assert_eq!(said["asked"][what], value, "{what}: {said}");
    }

    // VDUSE says what vhost-vdpa was told, and each has reached the other.
    let queue = json!({
        "size": 64, "descriptors": 0x10_0000, "driver": 0x10_1000, "device": 0x10_2000, "ready": true, "avail": 5,
    });
    for (what, value) in [
        ("features ok", json!(11)),
        ("queue", queue),
        (
            "region",
            json!({ "start": 0x10_0000, "last": 0x10_ffff, "access": 3 }),
        ),
        ("read", json!("of the driver's")),
        ("back", json!("of the device's")),
        ("kicks", json!(1)),
        ("calls", json!(1)),
        ("changes", json!(1)),
        ("capacity", json!(4096)),
        ("base", json!(0x1234)),
        ("inherited", json!(false)),
        ("reset", json!(0)),
    ] {
        assert_eq!(said["driven"][what], value, "{what}: {said}");
    }
    assert_eq!(said["capacity"], 4096, "by netlink: {said}");
    let statuses = said["statuses"].as_array().unwrap();
    assert_eq!(
        statuses[..5],
        [0, 3, 11, 15, 0].map(|status| json!(status)),
        "{said}"
    );
    assert!(!said["mappings"].as_array().unwrap().is_empty(), "{said}");
}

#[test]
fn second_kernel_keeps_address_spaces() {
    let name = "second_kernel_keeps_address_spaces";
    if !Kernel::Second.is_there(name) {
        return;
    }
    let transcript = Machine::new(Kernel::Second, &[]).run("step spaces ./guest spaces\n");
    let said = transcript.step("spaces").well().json();
    for (what, value) in [
        ("ranges", json!([[0, u64::MAX]])),
        ("huge", json!(1)),
        ("small", json!(0)),
        ("copied", json!(0x20_0000)),
    ] {
        assert_eq!(said[what], value, "{what}: {said}");
    }
    for (what, call) in [
        (&said["vfio"][0], "IOMMU_VFIO_IOAS: ENODEV"),
        (&said["vfio"][1], "fine"),
        (&said["vfio"][2], "fine"),
        (&said["vfio"][3], "fine"),
        (&said["beyond"], "IOMMU_IOAS_COPY: ENOENT"),
        (
            &said["no table"][0],
            "IOMMU_HWPT_SET_DIRTY_TRACKING: ENOENT",
        ),
        (&said["no table"][1], "IOMMU_HWPT_GET_DIRTY_BITMAP: ENOENT"),
        // Linux 6.14 has it.
        (&said["process"], "IOMMU_IOAS_CHANGE_PROCESS: ENOTTY"),
        (&said["destroyed"][0], "fine"),
        (&said["destroyed"][2], "IOMMU_DESTROY: ENOENT"),
    ] {
        let line = what.as_str().unwrap_or_default();
        assert!(line.starts_with(call), "{call}, not {line}: {said}");
    }
}
