//! A copy of a system's files in which mediated devices come and go as the kernel has them do.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;

use nix::errno::Errno;
use vdpa_vfio::sysfs::{Copied, Fact, Kernel, Step, SysfsError, Tree};

use crate::kind::PARENTS;
use crate::mediated::DEVICES;
use crate::uuid;

/// Every group of VFIO's.
const GROUPS: &str = "/sys/kernel/iommu_groups";

/// Does to a copy of a system's files what the kernel would: a type's `create` makes a device with a group and its file, a
/// device's `remove` takes it away, and what is left of a type is counted.
pub struct Rehearsal {
    tree: Tree,
    copy: Copied,
}

impl Rehearsal {
    /// # Errors
    /// When the tree is no copy: what is written would be done.
    pub(crate) fn new(tree: Tree) -> Result<Self, SysfsError> {
        let copy = Copied::new(tree.clone(), &[PARENTS, "/sys/bus/mdev", DEVICES])?;
        Ok(Self { tree, copy })
    }

    /// How many can be made still, and one fewer or more.
    fn count(&self, kind: &str, one: fn(u32) -> Option<u32>) -> io::Result<()> {
        let path = format!("{kind}/available_instances");
        let left: Fact<u32> = self.tree.number(&path);
        let left = left.known().copied().ok_or(Errno::EINVAL)?;
        let then = one(left).ok_or(Errno::EUSERS)?;
        self.copy.put(&path, &format!("{then}\n"))
    }

    fn create(&self, parent: &str, kind: &str, text: &str) -> io::Result<()> {
        let uuid = uuid(text).map_err(|_| Errno::EINVAL)?.to_string();
        if fs::symlink_metadata(self.tree.path(format!("{DEVICES}/{uuid}"))).is_ok() {
            return Err(Errno::EEXIST.into());
        }
        let of = format!("{PARENTS}/{parent}/mdev_supported_types/{kind}");
        self.count(&of, |left| left.checked_sub(1))?;
        let groups = self.tree.names(GROUPS).known().cloned().unwrap_or_default();
        let numbers = groups.iter().filter_map(|name| name.parse::<u32>().ok());
        let group = numbers.max().map_or(0, |last| last.saturating_add(1));

        let home = format!("{PARENTS}/{parent}/{uuid}");
        self.copy
            .directory(&format!("{home}/vfio-dev/vfio{group}"))?;
        self.copy.put(&format!("{home}/remove"), "")?;
        let link = |target: String, name: &str| {
            symlink(target, self.copy.inside(&format!("{home}/{name}"))?)
        };
        link(format!("../mdev_supported_types/{kind}"), "mdev_type")?;
        // Types are named after the driver of their parent.
        let driver = kind.rsplit_once('-').map_or(kind, |(driver, _)| driver);
        link(format!("../../../bus/mdev/drivers/{driver}"), "driver")?;
        link(
            format!("../../../kernel/iommu_groups/{group}"),
            "iommu_group",
        )?;

        let members = format!("{GROUPS}/{group}/devices");
        self.copy.directory(&members)?;
        let member = self.copy.inside(&format!("{members}/{uuid}"))?;
        symlink(
            format!("../../../../class/mdev_bus/{parent}/{uuid}"),
            member,
        )?;
        self.copy.directory("/dev/vfio")?;
        File::create_new(self.copy.inside(&format!("/dev/vfio/{group}"))?)?;
        // Last: this is what it is found by.
        self.copy.directory(DEVICES)?;
        let device = self.copy.inside(&format!("{DEVICES}/{uuid}"))?;
        symlink(format!("../../../class/mdev_bus/{parent}/{uuid}"), device)
    }

    fn remove(&self, name: &str, text: &str) -> io::Result<()> {
        // What is no number is refused, and 0 changes nothing.
        if text.parse::<u64>().map_err(|_| Errno::EINVAL)? == 0 {
            return Ok(());
        }
        let name = uuid(name).map_err(|_| Errno::ENODEV)?.to_string();
        let at = format!("{DEVICES}/{name}");
        let group = self.tree.link(format!("{at}/iommu_group"));
        let (real, link) = (
            self.copy.inside(&format!("{at}/remove"))?,
            self.copy.inside(&at)?,
        );
        let home = real.parent().ok_or(Errno::EINVAL)?;
        // A link may lead anywhere in a copy.
        if home.file_name() != Some(name.as_ref()) {
            return Err(io::Error::other("it leads to another directory"));
        }
        self.count(&format!("{at}/mdev_type"), |left| left.checked_add(1))?;
        fs::remove_dir_all(home)?;
        // In a copy it may be the directory itself.
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(link)?;
        }
        if let Fact::Is(group) = group {
            fs::remove_dir_all(self.copy.inside(&format!("{GROUPS}/{group}"))?)?;
            let file = self.copy.inside(&format!("/dev/vfio/{group}"));
            // It is there only if VFIO had it.
            let _ = file.and_then(fs::remove_file);
        }
        Ok(())
    }
}

impl Kernel for Rehearsal {
    fn write(&self, step: &Step) -> io::Result<()> {
        // As the kernel has it, only what is there can be written.
        if !self.copy.inside(&step.path)?.exists() {
            return Err(Errno::ENOENT.into());
        }
        let below = |home: &str| {
            let rest = step.path.strip_prefix(home)?.strip_prefix('/')?;
            Some(rest.split('/').collect::<Vec<_>>())
        };
        match (below(PARENTS).as_deref(), below(DEVICES).as_deref()) {
            (Some([parent, "mdev_supported_types", kind, "create"]), _) => {
                self.create(parent, kind, &step.text)
            }
            (_, Some([uuid, "remove"])) => self.remove(uuid, &step.text),
            (_, Some([_, _, ..])) => self.copy.put(&step.path, &format!("{}\n", step.text)),
            _ => Err(Errno::EACCES.into()),
        }
    }
}
