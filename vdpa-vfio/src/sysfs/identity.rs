//! What a function is, by its numbers alone.

use std::fmt;

use vdpa_core::DeviceType;
use vdpa_pci::pci::{Bar, Header};
use vdpa_pci::{BARS, known};

use super::Function;

/// What a function is, as far as its numbers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// A virtio device, whose registers are the specification's: what this crate drives.
    Virtio {
        /// What kind of device.
        device_type: DeviceType,
        /// Whether it has the numbers of one that also shows the interface from before virtio 1.0. It may have nothing
        /// else, which only its capabilities tell.
        transitional: bool,
        /// The product, where its numbers tell.
        product: Option<&'static str>,
    },
    /// No virtio device.
    Other {
        /// What it is, and what drives it, where it is taken for one.
        known: Option<&'static str>,
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
        let subsystem_vendor = function.subsystem_vendor.known().copied();
        let subsystem = function.subsystem_device.known().copied();
        let header = Header {
            vendor,
            device,
            revision: function.revision.known().copied().unwrap_or(0),
            class: function.class.known().copied().unwrap_or(0),
            kind: 0,
            multi_function: false,
            subsystem_vendor: subsystem_vendor.unwrap_or(0),
            subsystem: subsystem.unwrap_or(0),
            bars: [Bar::None; BARS as usize],
            memory_on: false,
            bus_master: false,
            interrupt_pin: 0,
            capabilities: 0,
        };
        match vdpa_pci::Identity::of("", &header) {
            // Numbers that virtio has kept for itself, and given to no device.
            Ok(identity) if matches!(identity.device_type, DeviceType::Unassigned(_)) => {
                Self::Other { known: None }
            }
            Ok(identity) => Self::Virtio {
                device_type: identity.device_type,
                transitional: identity.transitional,
                product: product(&header),
            },
            Err(_) => Self::Other {
                known: known(vendor, device),
            },
        }
    }

    /// Whether virtio's registers are to be expected.
    pub fn is_virtio(self) -> bool {
        matches!(self, Self::Virtio { .. })
    }
}

/// What is sold with these numbers.
fn product(header: &Header) -> Option<&'static str> {
    match (header.device, header.subsystem_vendor, header.subsystem) {
        (0x1041, 0x8086, 0x001a) => Some("Intel N3000"),
        (0x1000, 0x8086, 0x0001) | (0x1001, 0x8086, 0x0002) => Some("Intel C5000X-PL, F2000X-PL"),
        _ => None,
    }
}

/// One line.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtio {
                device_type,
                transitional,
                product,
            } => {
                write!(f, "virtio {device_type}")?;
                if *transitional {
                    write!(f, ", transitional")?;
                }
                product.map_or(Ok(()), |product| write!(f, " ({product})"))
            }
            Self::Other { known: None } => write!(f, "not virtio"),
            Self::Other { known: Some(known) } => write!(f, "not virtio: {known}"),
            Self::Unknown => write!(f, "unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sysfs::tests::Fixture;

    fn said(numbers: &str) -> String {
        let fixture = Fixture::new();
        fixture.function("0000:01:00.0", &format!("{numbers} 020000"));
        let host = fixture.host();
        let function = host.function("0000:01:00.0".parse().unwrap());
        function.unwrap().identity().to_string()
    }

    #[test]
    fn virtio_is_told_from_what_is_only_near_it() {
        for (numbers, words) in [
            ("1af4:1041 1af4:1100", "virtio net"),
            ("1af4:1042 1af4:1100", "virtio block"),
            ("1af4:1041 8086:001a", "virtio net (Intel N3000)"),
            ("1af4:1000 1af4:0001", "virtio net, transitional"),
            (
                "1af4:1001 8086:0002",
                "virtio block, transitional (Intel C5000X-PL, F2000X-PL)",
            ),
            ("8086:10d3 8086:0000", "not virtio"),
            ("1af4:1040 1af4:0000", "not virtio"),
            ("1af4:1006 1af4:0000", "not virtio"),
        ] {
            assert_eq!(said(numbers), words, "{numbers}");
        }
        for (numbers, word) in [
            ("15b3:101e 15b3:0000", "mlx5_vdpa"),
            ("1dd8:100b 1dd8:0000", "pds_vdpa"),
            ("1cf2:8061 1cf2:0000", "DPDK"),
            ("8086:1520 8086:0000", "igb"),
            ("8086:145c 8086:0000", "idpf"),
            ("1af4:1110 1af4:1100", "shared memory"),
        ] {
            let said = said(numbers);
            assert!(
                said.starts_with("not virtio: ") && said.contains(word),
                "{said}"
            );
        }
    }
}
