//! A copy of a machine's files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub(crate) struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    /// With these drivers.
    pub(crate) fn new(drivers: &str) -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
        };
        machine.file("/sys/bus/pci/drivers_probe", "");
        for driver in drivers.split_whitespace() {
            machine.file(&format!("/sys/bus/pci/drivers/{driver}/unbind"), "");
        }
        machine
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    /// `ADDRESS VENDOR:DEVICE CLASS DRIVER GROUP`.
    pub(crate) fn function(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [at, ids, class, driver, group] = words[..] else {
            panic!("{line}");
        };
        let (vendor, device) = ids.split_once(':').unwrap();
        for (name, number) in [("vendor", vendor), ("device", device), ("class", class)] {
            self.attribute(at, name, format!("0x{number}\n"));
        }
        self.attribute(at, "driver_override", "(null)\n");
        let home = format!("/sys/bus/pci/devices/{at}");
        self.link(
            &format!("{home}/driver"),
            &format!("../../drivers/{driver}"),
        );
        self.link(
            &format!("{home}/iommu_group"),
            &format!("../../../../kernel/iommu_groups/{group}"),
        );
        self.link(
            &format!("/sys/kernel/iommu_groups/{group}/devices/{at}"),
            &format!("../../../../bus/pci/devices/{at}"),
        );
    }

    pub(crate) fn attribute(&self, at: &str, name: &str, text: impl AsRef<[u8]>) {
        self.file(&format!("/sys/bus/pci/devices/{at}/{name}"), text);
    }

    pub(crate) fn text(&self, at: &str, name: &str) -> String {
        fs::read_to_string(self.path(&format!("/sys/bus/pci/devices/{at}/{name}"))).unwrap()
    }

    /// An interface that is up.
    pub(crate) fn interface(&self, at: &str, name: &str) {
        self.attribute(at, &format!("net/{name}/flags"), "0x1003\n");
        let target = format!("../../bus/pci/devices/{at}/net/{name}");
        self.link(&format!("/sys/class/net/{name}"), &target);
    }

    /// Who has the function.
    pub(crate) fn driver(&self, at: &str) -> Option<String> {
        let link = fs::read_link(self.path(&format!("/sys/bus/pci/devices/{at}/driver")));
        Some(link.ok()?.file_name()?.to_str()?.to_owned())
    }
}

/// The configuration space of a virtio network function, as QEMU lays it out: MSI-X in BAR 1, virtio's structures in BAR 4.
pub(crate) fn config() -> Vec<u8> {
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
    put(
        0x98,
        &[
            0x11, 0x84, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00,
        ],
    );
    let virtio: [(usize, u8, u8, u8, u32); 4] = [
        (0x84, 0x70, 20, 2, 0x3000),
        (0x70, 0x60, 16, 4, 0x2000),
        (0x60, 0x50, 16, 3, 0x1000),
        (0x50, 0x00, 16, 1, 0x0000),
    ];
    for (at, next, len, kind, offset) in virtio {
        put(at, &[0x09, next, len, kind, 4, 0, 0, 0]);
        put(at + 8, &offset.to_le_bytes());
        put(at + 12, &0x1000_u32.to_le_bytes());
    }
    put(0x94, &[4, 0, 0, 0]);
    config
}
