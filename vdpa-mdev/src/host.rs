//! The system that mediated devices are in, or a copy of its files.

use std::path::{Path, PathBuf};

use uuid::Uuid;
use vdpa_vfio::sysfs::{Fact, Kernel, Running, Tree};

use crate::kind::{PARENTS, Parent};
use crate::mediated::{DEVICES, Mediated};
use crate::{Definitions, MdevError, Rehearsal, uuid};

/// The system that mediated devices are in, or a copy of its files.
#[derive(Clone, Debug)]
pub struct Host {
    tree: Tree,
}

impl Host {
    /// The system whose `/sys` is below `root`: `/`, but for a copy.
    pub fn new(root: &Path) -> Self {
        Self {
            tree: Tree::new(root),
        }
    }

    /// The devices that make mediated ones, by name. None, where the kernel has no mediated devices at all.
    ///
    /// # Errors
    /// When they cannot be listed. What cannot be read of a single one is unknown there.
    pub fn parents(&self) -> Result<Vec<Parent>, MdevError> {
        let names = self.names(PARENTS)?;
        let read = |name: &String| Parent::read(&self.tree, name);
        Ok(names.iter().map(read).collect())
    }

    /// The mediated devices that there are, by UUID.
    ///
    /// # Errors
    /// When they cannot be listed. What cannot be read of a single one is unknown there.
    pub fn devices(&self) -> Result<Vec<Mediated>, MdevError> {
        let names = self.names(DEVICES)?;
        // The kernel writes them in one way.
        let named = |name: &String| uuid(name).ok().filter(|uuid| uuid.to_string() == *name);
        let uuids = names.iter().filter_map(named);
        Ok(uuids.map(|uuid| Mediated::read(&self.tree, uuid)).collect())
    }

    /// The mediated device of this name.
    ///
    /// # Errors
    /// [`MdevError::NoDevice`].
    pub fn device(&self, uuid: Uuid) -> Result<Mediated, MdevError> {
        match self.tree.path(format!("{DEVICES}/{uuid}")).is_dir() {
            true => Ok(Mediated::read(&self.tree, uuid)),
            false => Err(MdevError::NoDevice { uuid }),
        }
    }

    /// The definitions that mdevctl keeps on this system.
    pub fn definitions(&self) -> Definitions {
        Definitions::of_system(self.tree.root())
    }

    /// What acts on writes: the kernel, for the system that runs, or else a [`Rehearsal`].
    ///
    /// # Errors
    /// When the root is another name of the running system's, such as `/proc/1/root`, or has its sysfs in it.
    pub fn kernel(&self) -> Result<Box<dyn Kernel>, MdevError> {
        match self.tree.is_running() {
            true => Ok(Box::new(Running::new(self.tree.clone()))),
            false => Ok(Box::new(Rehearsal::new(self.tree.clone())?)),
        }
    }

    /// Where a path of the system is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.tree.path(path)
    }

    fn names(&self, path: &str) -> Result<Vec<String>, MdevError> {
        match self.tree.texts(path) {
            Fact::Is(names) => Ok(names),
            Fact::Absent => Ok(Vec::new()),
            Fact::Unknown(why) => Err(MdevError::List {
                path: self.tree.path(path).display().to_string(),
                why,
            }),
        }
    }
}
