//! A tree that stands for a system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::sysfs::Host;

pub(in crate::sysfs) struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    pub(in crate::sysfs) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub(in crate::sysfs) fn host(&self) -> Host {
        Host::new(self.root.path())
    }

    pub(in crate::sysfs) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(in crate::sysfs) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(in crate::sysfs) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub(in crate::sysfs) fn attribute(&self, function: &str, name: &str, text: impl AsRef<[u8]>) {
        self.file(&format!("/sys/bus/pci/devices/{function}/{name}"), text);
    }

    /// A function: `VENDOR:DEVICE SUBVENDOR:SUBDEVICE CLASS`, in hexadecimal.
    pub(in crate::sysfs) fn function(&self, function: &str, numbers: &str) {
        let mut numbers = numbers.split([' ', ':']);
        for name in [
            "vendor",
            "device",
            "subsystem_vendor",
            "subsystem_device",
            "class",
        ] {
            let number = numbers.next().unwrap();
            self.attribute(function, name, format!("0x{number}\n"));
        }
        self.attribute(function, "driver_override", "(null)\n");
        self.attribute(function, "numa_node", "-1\n");
        self.attribute(function, "resource", "");
    }

    pub(in crate::sysfs) fn driver(&self, function: &str, driver: &str) {
        fs::create_dir_all(self.path(&format!("/sys/bus/pci/drivers/{driver}"))).unwrap();
        self.link(
            &format!("/sys/bus/pci/devices/{function}/driver"),
            &format!("../../drivers/{driver}"),
        );
    }

    pub(in crate::sysfs) fn group(&self, function: &str, group: u32) {
        let members = format!("/sys/kernel/iommu_groups/{group}/devices");
        self.link(
            &format!("{members}/{function}"),
            &format!("../../../../bus/pci/devices/{function}"),
        );
        self.link(
            &format!("/sys/bus/pci/devices/{function}/iommu_group"),
            &format!("../../../../kernel/iommu_groups/{group}"),
        );
    }

    /// What the bus and these drivers can be told.
    pub(in crate::sysfs) fn bus(&self, drivers: &[&str]) {
        self.file("/sys/bus/pci/drivers_probe", "");
        for driver in drivers {
            self.file(&format!("/sys/bus/pci/drivers/{driver}/unbind"), "");
        }
    }

    /// A network interface, with flags as `linux/if.h` has them.
    pub(in crate::sysfs) fn interface(&self, function: &str, name: &str, flags: u32) {
        self.attribute(
            function,
            &format!("net/{name}/flags"),
            format!("{flags:#x}\n"),
        );
        let target = format!("../../bus/pci/devices/{function}/net/{name}");
        self.link(&format!("/sys/class/net/{name}"), &target);
    }

    /// A disk, with its number.
    pub(in crate::sysfs) fn disk(&self, function: &str, name: &str, number: &str) {
        self.attribute(
            function,
            &format!("block/{name}/dev"),
            format!("{number}\n"),
        );
        let target = format!("../../bus/pci/devices/{function}/block/{name}");
        self.link(&format!("/sys/class/block/{name}"), &target);
    }

    pub(in crate::sysfs) fn remove(&self, path: &str) {
        let path = self.path(path);
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

/// The configuration space of a virtio network function, as QEMU lays it out: MSI-X in BAR 1, virtio's structures in BAR 4.
pub(in crate::sysfs) fn config() -> Vec<u8> {
    let mut config = vec![0; 256];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(
        0x00,
        &[
            0xf4, 0x1a, 0x41, 0x10, 0x06, 0x04, 0x10, 0x00, 0x01, 0x00, 0x00, 0x02,
        ],
    );
    put(0x14, &0xfe00_0000_u32.to_le_bytes());
    put(0x20, &0x3800_0000_000c_u64.to_le_bytes());
    put(0x2c, &[0xf4, 0x1a, 0x00, 0x11]);
    put(0x34, &[0x98]);
    // MSI-X: 3 vectors.
    put(
        0x98,
        &[
            0x11, 0x84, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00,
        ],
    );
    let virtio: [(usize, u8, u8, u8, u32, u32); 4] = [
        (0x84, 0x70, 20, 2, 0x3000, 0x1000),
        (0x70, 0x60, 16, 4, 0x2000, 0x1000),
        (0x60, 0x50, 16, 3, 0x1000, 0x1000),
        (0x50, 0x00, 16, 1, 0x0000, 0x1000),
    ];
    for (at, next, len, kind, offset, size) in virtio {
        put(at, &[0x09, next, len, kind, 4, 0, 0, 0]);
        put(at + 8, &offset.to_le_bytes());
        put(at + 12, &size.to_le_bytes());
    }
    // From one doorbell to the next.
    put(0x94, &[4, 0, 0, 0]);
    config
}
