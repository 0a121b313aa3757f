use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A picture of a system.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.root().join("sys/bus/pci/devices")).unwrap();
        fs::create_dir_all(tree.root().join("dev/vfio")).unwrap();
        tree
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// A function with this driver, in this group.
    pub(crate) fn function(&self, name: &str, driver: Option<&str>, group: Option<u32>) -> PathBuf {
        let at = self.root().join("sys/bus/pci/devices").join(name);
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("vendor"), "0x1af4\n").unwrap();
        if let Some(driver) = driver {
            let to = self.root().join("sys/bus/pci/drivers").join(driver);
            fs::create_dir_all(&to).unwrap();
            symlink(to, at.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let to = self
                .root()
                .join("sys/kernel/iommu_groups")
                .join(group.to_string());
            fs::create_dir_all(to.join("devices")).unwrap();
            symlink(&at, to.join("devices").join(name)).unwrap();
            symlink(to, at.join("iommu_group")).unwrap();
        }
        at
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn open(&self, name: &str, via: Option<Via>) -> VfioError {
        Function::open(self.root(), name.parse().unwrap(), via, Relay::new()).unwrap_err()
    }
}

/// A function that shares its group with a card that another driver has, and with a bridge.
pub(crate) fn found() -> (Tree, Found) {
    let tree = Tree::new();
    tree.function("0000:00:01.0", Some("pcieport"), Some(7));
    tree.function("0000:01:00.0", Some("igb"), Some(7));
    tree.function("0000:01:00.1", Some("vfio-pci"), Some(7));
    tree.function("0000:01:00.2", None, Some(7));
    tree.function("0000:02:00.0", Some("nvme"), Some(8));
    let found = Found::function(tree.root(), "01:00.1".parse().unwrap()).unwrap();
    (tree, found)
}

#[test]
fn each_thing_in_the_way_has_its_error_and_its_cure() {
    let tree = Tree::new();
    tree.function("0000:01:00.0", Some("virtio-pci"), Some(7));
    tree.function("0000:01:00.1", None, Some(7));
    tree.function("0000:01:00.2", Some("vfio-pci"), None);
    tree.function("0000:01:00.3", Some("vfio-pci"), Some(8));
    tree.file("sys/kernel/iommu_groups/8/name", "vfio-noiommu\n");
    let said = |name, words: &[&str]| {
        let text = tree.open(name, None).to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(!text.contains('\n'), "{text}");
    };
    said("09:00.0", &["no PCI function 0000:09:00.0", "vfio list"]);
    said(
        "01:00.0",
        &["bound to virtio-pci,", "vfio bind 0000:01:00.0"],
    );
    said("01:00.1", &["bound to no driver,"]);
    said("01:00.2", &["no IOMMU", "intel_iommu=on"]);
    said("01:00.3", &["no-IOMMU mode", "enable_unsafe_noiommu_mode"]);
}

#[test]
fn the_way_is_the_one_wanted_or_the_one_that_is_there() {
    let tree = Tree::new();
    let at = tree.function("0000:01:00.1", Some("vfio-pci"), Some(7));
    let open = |via| tree.open("01:00.1", via);
    let lacks = |via, file: &str| match open(via) {
        VfioError::NoFile { path, .. } => assert_eq!(path, file),
        other => panic!("{other}"),
    };
    let goes = |via| {
        let error = open(via);
        assert!(matches!(error, VfioError::Picture { .. }), "{error}");
    };
    lacks(None, "/dev/vfio/7");
    lacks(Some(Via::Cdev), "/dev/iommu");
    tree.file("dev/iommu", "");
    fs::create_dir_all(at.join("vfio-dev/vfio3")).unwrap();
    lacks(None, "/dev/vfio/7");
    lacks(Some(Via::Cdev), "/dev/vfio/devices/vfio3");
    tree.file("dev/vfio/devices/vfio3", "");
    let cdev = |via| match cfg!(feature = "iommufd") {
        true => goes(via),
        false => assert!(matches!(open(via), VfioError::NoIommufd { .. })),
    };
    cdev(None);
    cdev(Some(Via::Cdev));
    lacks(Some(Via::Group), "/dev/vfio/7");
    tree.file("dev/vfio/7", "");
    goes(Some(Via::Group));
    let found = Found::function(tree.root(), "01:00.1".parse().unwrap()).unwrap();
    assert_eq!(found.via(None).unwrap(), Via::Group, "both are there");
}

#[test]
fn only_drivers_that_use_dma_stand_in_the_way() {
    let (_tree, found) = found();
    let igb = ("0000:01:00.0".to_owned(), "igb".to_owned());
    assert_eq!(found.others(), [igb]);
}
