//! A tree that stands for a system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::Host;

pub(crate) struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn host(&self) -> Host {
        Host::new(self.root())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A parent, with types: name, device API and how many there are.
    pub(crate) fn parent(&self, parent: &str, kinds: &[(&str, &str, &str)]) {
        let home = format!("/sys/devices/virtual/x/{parent}");
        fs::create_dir_all(self.path(&format!("{home}/mdev_supported_types"))).unwrap();
        self.link(
            &format!("/sys/class/mdev_bus/{parent}"),
            &format!("../../devices/virtual/x/{parent}"),
        );
        fs::create_dir_all(self.path("/sys/bus/mdev/devices")).unwrap();
        for (kind, api, available) in kinds {
            self.kind_file(parent, kind, "device_api", format!("{api}\n"));
            self.kind_file(
                parent,
                kind,
                "available_instances",
                format!("{available}\n"),
            );
            self.kind_file(parent, kind, "create", "");
        }
    }

    /// A file of a type's.
    pub(crate) fn kind_file(&self, parent: &str, kind: &str, name: &str, text: impl AsRef<[u8]>) {
        let home = format!("/sys/devices/virtual/x/{parent}/mdev_supported_types/{kind}");
        self.file(&format!("{home}/{name}"), text);
    }

    /// A device of that parent and type, in that group, with files for VFIO.
    pub(crate) fn device(&self, uuid: &str, parent: &str, kind: &str, group: u32) {
        let home = format!("/sys/devices/virtual/x/{parent}/{uuid}");
        self.file(&format!("{home}/remove"), "");
        self.link(
            &format!("/sys/bus/mdev/devices/{uuid}"),
            &format!("../../../devices/virtual/x/{parent}/{uuid}"),
        );
        self.link(
            &format!("{home}/mdev_type"),
            &format!("../mdev_supported_types/{kind}"),
        );
        let driver = self.path(&format!("/sys/bus/mdev/drivers/{parent}"));
        fs::create_dir_all(&driver).unwrap();
        symlink(&driver, self.path(&format!("{home}/driver"))).unwrap();
        let members = format!("/sys/kernel/iommu_groups/{group}/devices");
        self.link(
            &format!("{members}/{uuid}"),
            &format!("../../../../..{home}"),
        );
        self.link(
            &format!("{home}/iommu_group"),
            &format!("../../../../kernel/iommu_groups/{group}"),
        );
        fs::create_dir_all(self.path(&format!("{home}/vfio-dev/vfio0"))).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}
