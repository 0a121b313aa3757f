//! A copy of a system's files that may be changed, and nothing outside of it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{SYSFS_MAGIC, statfs};

use super::SysfsError;
use super::tree::Tree;

/// A tree that was seen to be a copy. Its links may lead out of it, to the system that runs, and the kernel's files may be
/// mounted in it: neither is followed when something is written.
#[derive(Clone, Debug)]
pub struct Copied {
    tree: Tree,
}

impl Copied {
    /// * `never`: directories of the system, beside `/sys`, that show a system that runs where they are a sysfs
    ///
    /// # Errors
    /// [`SysfsError::NoCopy`]: what is written would be done.
    pub fn new(tree: Tree, never: &[&str]) -> Result<Self, SysfsError> {
        let live = |path: &&&str| is_live(&tree.path(path));
        let root = tree.root();
        let here = match (fs::metadata(root), fs::metadata("/")) {
            (Ok(root), Ok(own)) => (root.dev(), root.ino()) == (own.dev(), own.ino()),
            _ => false,
        };
        let path = match here {
            true => Some("/"),
            false => ["/sys"].iter().chain(never).find(live).copied(),
        };
        match path {
            None => Ok(Self { tree }),
            Some(path) => Err(SysfsError::NoCopy {
                root: root.display().to_string(),
                path: path.to_owned(),
            }),
        }
    }

    /// The path, if it is in the tree.
    ///
    /// * `path`: from the system's root; that of a directory that is there and of one name more
    ///
    /// # Errors
    /// When a link leads out of the copy, or what is there is the running system's.
    pub fn inside(&self, path: &str) -> io::Result<PathBuf> {
        let path = self.tree.path(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EINVAL.into());
        };
        let (parent, root) = (parent.canonicalize()?, self.tree.root().canonicalize()?);
        match parent.starts_with(root) {
            // The kernel's files may be mounted in it, anywhere and at any time.
            true if is_live(&parent) => Err(io::Error::other("it is this machine's own")),
            true => Ok(parent.join(name)),
            false => Err(io::Error::other("a link leads out of the copy")),
        }
    }

    /// Makes a directory and those above it, link by link: none may lead out.
    ///
    /// # Errors
    /// As for [`inside`](Self::inside), and the system's.
    pub fn directory(&self, path: &str) -> io::Result<()> {
        for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            let above = self.inside(path.get(..end).unwrap_or(path))?;
            if !above.is_dir() {
                fs::create_dir(above)?;
            }
        }
        Ok(())
    }

    /// Writes a file, which is made if there is none.
    ///
    /// # Errors
    /// As for [`inside`](Self::inside), and the system's; `EINVAL` for what is no file.
    pub fn put(&self, path: &str, text: &str) -> io::Result<()> {
        let path = self.inside(path)?;
        match fs::symlink_metadata(&path) {
            Ok(about) if !about.is_file() => Err(Errno::EINVAL.into()),
            _ => fs::write(path, text),
        }
    }
}

/// Whether a path is in a sysfs: a kernel's, and no copy.
fn is_live(path: &Path) -> bool {
    statfs(path).is_ok_and(|about| about.filesystem_type() == SYSFS_MAGIC)
}
