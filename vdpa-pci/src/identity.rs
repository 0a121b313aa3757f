//! Who a function is: which virtio device, or what else.

use vdpa_core::DeviceType;

use crate::error::PciError;
use crate::pci::Header;

/// The vendor id of virtio functions, virtio 1.4 §4.1.2.
pub const VIRTIO_VENDOR: u16 = 0x1af4;

/// What the ids of a virtio function say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// What kind of device it is.
    pub device_type: DeviceType,
    /// Whether its id is one of those that a function with a legacy interface has. It may have today's beside it.
    pub transitional: bool,
}

impl Identity {
    /// Tells which virtio device it is.
    ///
    /// * `name`: of the function, for the error
    ///
    /// # Errors
    /// [`PciError::Absent`] and [`PciError::NotVirtio`].
    ///
    /// # Spec
    /// virtio 1.4 §4.1.2.1.
    pub fn of(name: &str, header: &Header) -> Result<Self, PciError> {
        if header.is_absent() {
            return Err(PciError::Absent {
                function: name.to_owned(),
            });
        }
        let transitional = match (header.vendor, header.device) {
            (VIRTIO_VENDOR, 0x1000..=0x103f) => true,
            (VIRTIO_VENDOR, 0x1040..=0x107f) => false,
            (vendor, device) => {
                return Err(PciError::NotVirtio {
                    function: name.to_owned(),
                    vendor,
                    device,
                    known: known(vendor, device).map_or_else(String::new, |k| format!(", {k}")),
                });
            }
        };
        let device_type = match transitional {
            true => by_transitional_id(header),
            false => DeviceType::from_id(u32::from(header.device) - 0x1040),
        };
        Ok(Self {
            device_type,
            transitional,
        })
    }
}

/// The device of a transitional id. Those that have no id of their own say it in the subsystem id.
fn by_transitional_id(header: &Header) -> DeviceType {
    match header.device {
        0x1000 => DeviceType::Net,
        0x1001 => DeviceType::Block,
        0x1002 => DeviceType::Balloon,
        0x1003 => DeviceType::Console,
        0x1004 => DeviceType::Scsi,
        0x1005 => DeviceType::Entropy,
        0x1009 => DeviceType::Plan9,
        _ => DeviceType::from_id(u32::from(header.subsystem)),
    }
}

/// What a function that is not virtio is, and what drives it, for functions that are taken for virtio.
pub fn known(vendor: u16, device: u16) -> Option<&'static str> {
    Some(match (vendor, device) {
        (0x15b3, 0x101b..=0x101f | 0x1021 | 0xa2d6 | 0xa2dc) => {
            "an NVIDIA ConnectX or BlueField function: the kernel's mlx5_vdpa makes vDPA devices of it"
        }
        (0x1dd8, 0x1003 | 0x100b | 0x100c) => {
            "an AMD Pensando function: the kernel's pds_vdpa makes vDPA devices of it"
        }
        (0xd063, 0x1000) => "a SolidRun SNET function: the kernel's snet_vdpa drives it",
        (0x177d, 0xb900 | 0xb903 | 0xba00 | 0xba03 | 0xbd00 | 0xbd03) => {
            "a Marvell Octeon function: the kernel's octep_vdpa drives it"
        }
        (0x1f53, 0x1000) => "a Jaguar Micro function: the kernel has a vDPA driver for it",
        (0x19ee | 0x1da8, 0x3803 | 0x6003) => "a Corigine function, which DPDK has a driver for",
        (0x10ee, _) => "a Xilinx function, which DPDK has drivers for",
        (0x1cf2, _) => "a ZTE function, which DPDK has drivers for",
        (0x8086, 0x10c9 | 0x1521) => "an Intel igb card",
        (0x8086, 0x1520 | 0x152f | 0x10ca) => "a VF of an Intel igb card",
        (
            0x8086,
            0x10ed | 0x152e | 0x1515 | 0x1530 | 0x1565 | 0x1564 | 0x15a8 | 0x15a9 | 0x15b4 | 0x15c5,
        ) => "a VF of an Intel ixgbe card",
        (0x8086, 0x1452 | 0x145c) => "an Intel IPU function, which idpf drives",
        (0x1c2c, 0x1000 | 0x1001) => "a Silicom N5010 function",
        (VIRTIO_VENDOR, 0x1110) => "QEMU's inter-VM shared memory",
        _ => return None,
    })
}

/// Who made a legacy function, where that is known.
pub(crate) fn known_legacy(header: &Header) -> Option<&'static str> {
    match (header.device, header.subsystem_vendor, header.subsystem) {
        (0x1000, VIRTIO_VENDOR, 0x0001) if header.revision == 0 => {
            Some("as an Alibaba Cloud ENI has")
        }
        _ => None,
    }
}
