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
    match error {
        Ioctls::OpenDeviceCdev(source) => found.unopened(&found.device_file(), source),
        Ioctls::VfioDeviceBindIommufd(errno) => match errno.errno() {
            libc::EBUSY if !found.others().is_empty() => found.not_viable(),
            errno => found.unopened(&found.device_file(), io::Error::from_raw_os_error(errno)),
        },
        Ioctls::VfioDeviceAttachIommufdPt(errno) if errno.errno() == libc::EPERM => {
            VfioError::UnsafeInterrupts {
                name: name(),
                module: "iommufd",
            }
        }
        source => VfioError::Refused {
            name: name(),
            what: "open it",
            source,
        },
    }
}
