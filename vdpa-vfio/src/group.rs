//! A function through its IOMMU group, in a container of its own.

use std::io;
use std::sync::Arc;

use vdpa_core::Relay;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError as Ioctls};

use crate::VfioError;
use crate::dma::Translator;
use crate::function::Parts;
use crate::keeper::{Keeper, Way, duplicate};
use crate::open::Found;

const CONTAINER: &str = "/dev/vfio/vfio";

/// Opens a function of the running system.
pub(crate) fn open(found: &Found, relay: Relay) -> Result<Parts, VfioError> {
    let why = |error| explained(found, error);
    let container = Arc::new(VfioContainer::new(None).map_err(why)?);
    let device = VfioDevice::new(&found.path, container.clone(), true).map_err(why)?;
    let way = Way::Group {
        function: found.path.clone(),
        number: found.group,
    };
    let keeper = Keeper::new(device, way);
    let failed = |source| VfioError::System {
        name: found.name.clone(),
        what: "duplicate its file",
        source,
    };
    let device = keeper.file().map_err(failed)?;
    Ok(Parts {
        name: found.name.clone(),
        device,
        translator: Translator::Container(duplicate(&*container).map_err(failed)?),
        keeper: Some(keeper),
        relay,
    })
}

/// What an error means for who wants the function.
fn explained(found: &Found, error: Ioctls) -> VfioError {
    let name = || found.name.clone();
    let refused = |what, source| VfioError::Refused {
        name: name(),
        what,
        source,
    };
    match error {
        Ioctls::OpenContainer(source) => found.unopened(CONTAINER, source),
        Ioctls::OpenGroup(source, group) => found.unopened(&format!("/dev/vfio/{group}"), source),
        Ioctls::GroupViable => found.not_viable(),
        Ioctls::ContainerSetIOMMU(errno) if errno.errno() == libc::EPERM => {
            VfioError::UnsafeInterrupts {
                name: name(),
                module: "vfio_iommu_type1",
            }
        }
        Ioctls::GroupGetDeviceFD(errno) => {
            let source = io::Error::from_raw_os_error(errno.errno());
            VfioError::System {
                name: name(),
                what: "open it in its group: has VFIO got it?",
                source,
            }
        }
        error @ Ioctls::VfioExtension => refused(
            "have its DMA translated: `modprobe vfio_iommu_type1`",
            error,
        ),
        error @ (Ioctls::VfioDeviceGetInfoOther | Ioctls::VfioDeviceGetInfoPCI) => {
            refused("use it as a PCI function", error)
        }
        error => refused("open it", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::tests::found;

    #[test]
    fn errors_say_what_is_wrong_with_which_file() {
        let (_tree, found) = found();
        let said = |error| explained(&found, error).to_string();
        let os = io::Error::from_raw_os_error;
        let group = |errno| said(Ioctls::OpenGroup(os(errno), "7".into()));
        assert!(group(libc::EACCES).contains("no permission to open /dev/vfio/7"));
        assert!(group(libc::ENOENT).contains("modprobe vfio-pci"));
        assert!(group(libc::EBUSY).contains("fuser /dev/vfio/7"));
        let container = said(Ioctls::OpenContainer(os(libc::ENODEV)));
        assert!(
            container.contains("there is no /dev/vfio/vfio"),
            "{container}"
        );
        let viable = said(Ioctls::GroupViable);
        assert!(
            viable.contains("group 7") && viable.contains("0000:01:00.0 is bound to igb"),
            "{viable}"
        );
        let unsafe_irqs = Ioctls::ContainerSetIOMMU(vmm_sys_util::errno::Error::new(libc::EPERM));
        assert!(said(unsafe_irqs).contains("allow_unsafe_interrupts of vfio_iommu_type1"));
    }
}
