//! The system that mediated devices are in, or a copy of its files.

use std::path::Path;

use uuid::Uuid;
use vdpa_vfio::sysfs::{Fact, Tree};

use crate::kind::{PARENTS, Parent};
use crate::mediated::{DEVICES, Mediated};
use crate::{MdevError, uuid};

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
        let uuids = names.iter().filter_map(|name| uuid(name).ok());
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

    fn names(&self, path: &str) -> Result<Vec<String>, MdevError> {
        match self.tree.names(path) {
            Fact::Is(names) => Ok(names),
            Fact::Absent => Ok(Vec::new()),
            Fact::Unknown(why) => Err(MdevError::List {
                path: self.tree.path(path).display().to_string(),
                why,
            }),
        }
    }
}
