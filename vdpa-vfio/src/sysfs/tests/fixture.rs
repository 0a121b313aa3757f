//! A tree that stands for a system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::sysfs::Host;

pub(super) struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn host(&self) -> Host {
        Host::new(self.root.path())
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub(super) fn attribute(&self, function: &str, name: &str, text: impl AsRef<[u8]>) {
        self.file(&format!("/sys/bus/pci/devices/{function}/{name}"), text);
    }

    /// A function: `VENDOR:DEVICE SUBVENDOR:SUBDEVICE CLASS`, in hexadecimal.
    pub(super) fn function(&self, function: &str, numbers: &str) {
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

    pub(super) fn driver(&self, function: &str, driver: &str) {
        fs::create_dir_all(self.path(&format!("/sys/bus/pci/drivers/{driver}"))).unwrap();
        self.link(
            &format!("/sys/bus/pci/devices/{function}/driver"),
            &format!("../../drivers/{driver}"),
        );
    }

    pub(super) fn group(&self, function: &str, group: u32) {
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
    pub(super) fn bus(&self, drivers: &[&str]) {
        self.file("/sys/bus/pci/drivers_probe", "");
        for driver in drivers {
            self.file(&format!("/sys/bus/pci/drivers/{driver}/unbind"), "");
        }
    }

    /// A network interface, with flags as `linux/if.h` has them.
    pub(super) fn interface(&self, function: &str, name: &str, flags: u32) {
        self.attribute(
            function,
            &format!("net/{name}/flags"),
            format!("{flags:#x}\n"),
        );
        let target = format!("../../bus/pci/devices/{function}/net/{name}");
        self.link(&format!("/sys/class/net/{name}"), &target);
    }

    /// A disk, with its number.
    pub(super) fn disk(&self, function: &str, name: &str, number: &str) {
        self.attribute(
            function,
            &format!("block/{name}/dev"),
            format!("{number}\n"),
        );
        let target = format!("../../bus/pci/devices/{function}/block/{name}");
        self.link(&format!("/sys/class/block/{name}"), &target);
    }

    pub(super) fn remove(&self, path: &str) {
        let path = self.path(path);
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}
