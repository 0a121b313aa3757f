//! A function through its own device file, in a space of an iommufd.

use std::io;
use std::sync::Arc;

use iommufd_ioctls::{IommuFd, IommufdError};
use vdpa_core::Relay;
use vfio_ioctls::{VfioDevice, VfioError as Ioctls, VfioIommufd};

use crate::VfioError;
use crate::dma::Translator;
use crate::function::Parts;
use crate::keeper::{Keeper, Way, duplicate};
use crate::open::{Found, IOMMU};

/// Opens a function of the running system.
pub(crate) fn open(found: &Found, relay: Relay) -> Result<Parts, VfioError> {
    let why = |error| explained(found, error);
    let failed = |source| VfioError::System {
        name: found.name.clone(),
        what: "duplicate its file",
        source,
    };
    let iommufd = IommuFd::new().map_err(|error| match error {
        IommufdError::OpenIommufd(source) => found.unopened(IOMMU, source),
        error => why(Ioctls::IommufdIoctlError(error)),
    })?;
    // `vfio-ioctls` has no number for it; and its file is closed with the last of its users.
    let iommufd = Arc::new(iommufd);
    let spaces = Arc::new(VfioIommufd::new(iommufd, None, None).map_err(why)?);
    let ioas = spaces.ioas().id();
    let file = duplicate(&**spaces.iommufd()).map_err(failed)?;
    let device = VfioDevice::new(&found.path, spaces, true).map_err(why)?;
    let keeper = Keeper::new(device, Way::Space);
    Ok(Parts {
        name: found.name.clone(),
        device: keeper.file().map_err(failed)?,
        translator: Translator::Space {
            iommufd: file,
            ioas,
        },
        keeper: Some(keeper),
        relay,
    })
}

/// What an error means for who wants the function.
fn explained(found: &Found, error: Ioctls) -> VfioError {
    let name = || found.name.clone();
    let unsafe_interrupts = || VfioError::UnsafeInterrupts {
        name: name(),
        module: "iommufd",
    };
    match error {
        Ioctls::OpenDeviceCdev(source) => found.unopened(&found.device_file(), source),
        Ioctls::VfioDeviceBindIommufd(errno) => match errno.errno() {
            libc::EBUSY if !found.others().is_empty() => found.not_viable(),
            // The answer for one that is bound through another file; EBUSY is for one whose group is open. An IOMMU that
            // leaves caches incoherent has the same answer, and is rare.
            libc::EINVAL => VfioError::InUse {
                name: name(),
                path: found.device_file(),
            },
            libc::EPERM => unsafe_interrupts(),
            errno => found.unopened(&found.device_file(), io::Error::from_raw_os_error(errno)),
        },
        Ioctls::VfioDeviceAttachIommufdPt(errno) if errno.errno() == libc::EPERM => {
            unsafe_interrupts()
        }
        source => VfioError::Refused {
            name: name(),
            what: "open it",
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::tests::{Tree, found};
    use vdpa_core::{ErrorKind, ParentError};

    fn said(
        found: &Found,
        error: fn(vmm_sys_util::errno::Error) -> Ioctls,
        errno: i32,
    ) -> VfioError {
        explained(found, error(vmm_sys_util::errno::Error::new(errno)))
    }

    #[test]
    fn a_function_in_use_by_its_own_file_is_no_fault_of_io() {
        let tree = Tree::new();
        let at = tree.function("0000:01:00.1", Some("vfio-pci"), Some(7));
        std::fs::create_dir_all(at.join("vfio-dev/vfio3")).unwrap();
        let found = Found::function(tree.root(), "01:00.1".parse().unwrap()).unwrap();
        for errno in [libc::EINVAL, libc::EBUSY] {
            let error = said(&found, Ioctls::VfioDeviceBindIommufd, errno);
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            let text = error.to_string();
            assert!(text.contains("fuser /dev/vfio/devices/vfio3"), "{text}");
        }
    }

    #[test]
    fn interrupts_that_are_not_remapped_are_no_lack_of_permission() {
        let (_tree, found) = found();
        for error in [
            Ioctls::VfioDeviceBindIommufd as fn(_) -> _,
            Ioctls::VfioDeviceAttachIommufdPt,
        ] {
            let text = said(&found, error, libc::EPERM).to_string();
            assert!(
                text.contains("allow_unsafe_interrupts of iommufd"),
                "{text}"
            );
        }
        let others = said(&found, Ioctls::VfioDeviceBindIommufd, libc::EBUSY).to_string();
        assert!(others.contains("0000:01:00.0 is bound to igb"), "{others}");
    }
}
