//! What a function is, by its numbers alone.

use std::fmt;

use vdpa_core::DeviceType;

use super::Function;

/// What a function is, as far as its numbers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// A virtio device whose registers are the specification's: what this crate drives.
    Virtio {
        /// What kind of device.
        device_type: DeviceType,
        /// The product, where its numbers tell.
        product: Option<&'static str>,
        /// Whether it also shows the interface from before virtio 1.0. Such a device may have nothing else, which only
        /// its capabilities tell.
        transitional: bool,
    },
    /// Its data path is virtio's, its control path its maker's: a driver of the kernel makes a vDPA device of it.
    KernelVdpa {
        /// The product.
        product: &'static str,
        /// The kernel's driver, where it has a well-known name.
        driver: Option<&'static str>,
    },
    /// Its data path is virtio's, its control path its maker's, and the kernel has no driver for that.
    VendorDriver {
        /// The product.
        product: &'static str,
    },
    /// No virtio device.
    NotVirtio {
        /// The product, where it is often taken for one.
        product: Option<&'static str>,
    },
    /// Its numbers cannot be read.
    Unknown,
}

impl Identity {
    pub(super) fn of(function: &Function) -> Self {
        let (Some(&vendor), Some(&device)) = (function.vendor.known(), function.device.known())
        else {
            return Self::Unknown;
        };
        let subsystem = match (
            function.subsystem_vendor.known(),
            function.subsystem_device.known(),
        ) {
            (Some(&vendor), Some(&device)) => Some((vendor, device)),
            _ => None,
        };
        by_numbers(vendor, device, subsystem)
    }

    /// Whether virtio's registers are to be expected.
    pub fn is_virtio(self) -> bool {
        matches!(self, Self::Virtio { .. })
    }
}

fn by_numbers(vendor: u16, device: u16, subsystem: Option<(u16, u16)>) -> Identity {
    let kernel = |product, driver| Identity::KernelVdpa {
        product,
        driver: Some(driver),
    };
    let vendor_driver = |product| Identity::VendorDriver { product };
    let none = |product| Identity::NotVirtio {
        product: Some(product),
    };
    match (vendor, device) {
        (0x1af4, 0x1000..=0x107f) => virtio(device, subsystem),
        (0x15b3, 0x101b..=0x101f | 0x1021 | 0xa2d6 | 0xa2dc) => {
            kernel("NVIDIA ConnectX or BlueField", "mlx5_vdpa")
        }
        (0x1dd8, 0x1003 | 0x100b | 0x100c) => kernel("AMD Pensando", "pds_vdpa"),
        (0xd063, 0x1000) => kernel("SolidRun SNET", "snet_vdpa"),
        (0x177d, 0xb900 | 0xb903 | 0xba00 | 0xba03 | 0xbd00 | 0xbd03) => {
            kernel("Marvell Octeon", "octep_vdpa")
        }
        (0x1f53, 0x1000) => Identity::KernelVdpa {
            product: "Jaguar Micro",
            driver: None,
        },
        (0x19ee | 0x1da8, 0x3803 | 0x6003) => vendor_driver("Corigine"),
        (0x10ee, 0x0100 | 0x1100) => vendor_driver("Xilinx EF100"),
        (0x1cf2, 0x8061 | 0x8062) => vendor_driver("ZTE"),
        (0x8086, 0x1452 | 0x145c) => none("Intel IPU (idpf)"),
        (0x8086, 0x10ca | 0x1520 | 0x10ed | 0x1515 | 0x1565 | 0x15a8 | 0x15c5) => {
            none("an Intel igb or ixgbe virtual function")
        }
        (0x1c2c, 0x1000 | 0x1001) => none("Silicom N5010"),
        _ => Identity::NotVirtio { product: None },
    }
}

/// # Spec
/// virtio 1.4 §4.1.2: 0x1040 and the device's number; §4.1.2.3 for transitional devices, whose subsystem has that number.
fn virtio(device: u16, subsystem: Option<(u16, u16)>) -> Identity {
    let product = match (device, subsystem) {
        (0x1041, Some((0x8086, 0x001a))) => Some("Intel N3000"),
        (0x1000, Some((0x8086, 0x0001))) | (0x1001, Some((0x8086, 0x0002))) => {
            Some("Intel C5000X-PL or F2000X-PL")
        }
        _ => None,
    };
    let number = match device {
        0x1041.. => device.saturating_sub(0x1040),
        0x1000 => 1,
        0x1001 => 2,
        0x1002 => 5,
        0x1003 => 3,
        0x1004 => 8,
        0x1005 => 4,
        0x1009 => 9,
        _ => 0,
    };
    match number {
        0 => Identity::NotVirtio { product: None },
        number => Identity::Virtio {
            device_type: DeviceType::from_id(number.into()),
            product,
            transitional: device < 0x1040,
        },
    }
}

/// One line: what it is, and what to do with it.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtio {
                device_type,
                product,
                transitional,
            } => {
                write!(f, "virtio {device_type}")?;
                if *transitional {
                    write!(f, ", transitional")?;
                }
                product.map_or(Ok(()), |product| write!(f, " ({product})"))
            }
            Self::KernelVdpa { product, driver } => write!(
                f,
                "{product}: vendor control path, use the kernel's {} and vhost-vdpa",
                driver.unwrap_or("vDPA driver")
            ),
            Self::VendorDriver { product } => {
                write!(f, "{product}: vendor control path, for DPDK's driver only")
            }
            Self::NotVirtio { product: None } => write!(f, "not virtio"),
            Self::NotVirtio {
                product: Some(product),
            } => write!(f, "{product}: not virtio"),
            Self::Unknown => write!(f, "unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of `VENDOR:DEVICE` or `VENDOR:DEVICE SUBVENDOR:SUBDEVICE`.
    fn said(numbers: &str) -> String {
        let numbers: Vec<u16> = numbers
            .split([' ', ':'])
            .map(|number| u16::from_str_radix(number, 16).unwrap())
            .collect();
        let subsystem = numbers.get(2..).filter(|numbers| !numbers.is_empty());
        let subsystem = subsystem.map(|numbers| (numbers[0], numbers[1]));
        by_numbers(numbers[0], numbers[1], subsystem).to_string()
    }

    #[test]
    fn virtio_is_told_from_what_is_only_near_it() {
        for (numbers, words) in [
            ("1af4:1041", "virtio net"),
            ("1af4:1042", "virtio block"),
            ("1af4:1041 8086:001a", "virtio net (Intel N3000)"),
            ("1af4:1000 1af4:0001", "virtio net, transitional"),
            (
                "1af4:1001 8086:0002",
                "virtio block, transitional (Intel C5000X-PL or F2000X-PL)",
            ),
            (
                "15b3:101e",
                "NVIDIA ConnectX or BlueField: vendor control path, use the kernel's mlx5_vdpa and vhost-vdpa",
            ),
            (
                "1f53:1000",
                "Jaguar Micro: vendor control path, use the kernel's vDPA driver and vhost-vdpa",
            ),
            (
                "1cf2:8061",
                "ZTE: vendor control path, for DPDK's driver only",
            ),
            ("8086:145c", "Intel IPU (idpf): not virtio"),
            ("8086:10d3", "not virtio"),
            // virtio's vendor, and no virtio device: what QEMU calls ivshmem.
            ("1af4:1110", "not virtio"),
            ("1af4:1040", "not virtio"),
            ("1af4:1006", "not virtio"),
        ] {
            assert_eq!(said(numbers), words, "{numbers}");
        }
    }
}
