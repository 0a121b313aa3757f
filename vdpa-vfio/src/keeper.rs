//! What a function was opened through, and how it is closed.
#![allow(
    unsafe_code,
    reason = "closes what `vfio-ioctls` opened where its own way would panic"
)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use vfio_ioctls::VfioDevice;

/// A device of `vfio-ioctls`, which closes the function, and then gives its group or its space back.
///
/// Its own `Drop` unwraps what a function that is gone answers with, and what a process without `/sys` finds there.
pub(crate) struct Keeper {
    device: ManuallyDrop<VfioDevice>,
    way: Way,
}

/// What a device was opened through.
pub(crate) enum Way {
    /// A group, which it looks for below the function's directory when it closes, and unwraps what it finds.
    Group {
        /// The function's directory.
        function: PathBuf,
        /// The group's number.
        number: u32,
    },
    /// A space of an iommufd.
    #[cfg(feature = "iommufd")]
    Space,
}

impl Keeper {
    pub(crate) fn new(device: VfioDevice, way: Way) -> Self {
        Self {
            device: ManuallyDrop::new(device),
            way,
        }
    }

    /// The function's file, once more. It has to be closed before the keeper is dropped.
    pub(crate) fn file(&self) -> io::Result<File> {
        duplicate(&*self.device)
    }

    /// Whether `vfio-ioctls` can close it.
    fn is_closable(&self) -> bool {
        match &self.way {
            Way::Group { function, number } => is_in(function, *number),
            // A second time it does nothing.
            #[cfg(feature = "iommufd")]
            Way::Space => self.device.detach_hwpt().is_ok(),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.is_closable() {
            let close = AssertUnwindSafe(|| {
                // SAFETY: nobody uses it any more.
                unsafe { ManuallyDrop::drop(&mut self.device) }
            });
            // It closes the function before it looks for the group. A removal that waits for that may be done by then, and what
            // is left is closed by unwinding.
            if catch_unwind(close).is_err() {
                tracing::debug!("a function was taken away while it was closed");
            }
            return;
        }
        tracing::warn!(
            "a function's container stays open, since the function cannot be looked up any more"
        );
        // SAFETY: the file is the device's own, and the device is forgotten.
        drop(unsafe { OwnedFd::from_raw_fd(self.device.as_raw_fd()) });
    }
}

/// Whether a function is still in the group that it was opened in. An address that another function has now may be in
/// another, which is not in the container, and may be open elsewhere.
fn is_in(function: &Path, number: u32) -> bool {
    let group = function.join("iommu_group").read_link();
    let found = group
        .as_deref()
        .ok()
        .and_then(|group| group.file_name()?.to_str()?.parse::<u32>().ok());
    found == Some(number)
}

/// The same file, once more.
pub(crate) fn duplicate(of: &impl AsRawFd) -> io::Result<File> {
    // SAFETY: the file is open for as long as `of` is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) };
    borrowed.try_clone_to_owned().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::tests::Tree;

    #[test]
    fn a_group_that_changed_while_open_is_not_closed_as_another() {
        let tree = Tree::new();
        let function = tree.function("0000:01:00.1", Some("vfio-pci"), Some(7));
        assert!(is_in(&function, 7));
        std::fs::remove_file(function.join("iommu_group")).unwrap();
        assert!(!is_in(&function, 7), "it is gone");
        std::os::unix::fs::symlink("../../kernel/iommu_groups/8", function.join("iommu_group"))
            .unwrap();
        assert!(!is_in(&function, 7), "another is there");
    }
}
