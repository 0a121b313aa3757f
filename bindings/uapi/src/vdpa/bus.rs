//! What is on the vDPA bus, as a message of the kernel's has it.

use super::attribute::Attribute;
use super::message::Message;
use crate::Error;

/// How a management device is called.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ManagementName {
    /// Its bus, `pci` say, where it has one.
    pub bus: Option<String>,
    /// Its name on that.
    pub device: String,
}

/// What makes devices: a parent driver's function, or `vduse`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManagementDevice {
    /// How it is called.
    pub name: ManagementName,
    /// Bits, each of a virtio device type that it makes.
    pub classes: u64,
    /// How many queues it gives a device. Linux 5.17.
    pub max_queues: Option<u32>,
    /// Features that it has for devices. Linux 5.17.
    pub features: Option<u64>,
}

/// A device on the vDPA bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusDevice {
    /// Its name.
    pub name: String,
    /// What made it.
    pub management: ManagementName,
    /// The virtio device type.
    pub device_id: u32,
    /// The vendor.
    pub vendor_id: u32,
    /// How many queues it has.
    pub max_queues: u32,
    /// How large they may be.
    pub max_queue_size: u16,
    /// How small they may be. Linux 5.16.
    pub min_queue_size: Option<u16>,
}

impl ManagementDevice {
    pub(super) fn of(message: &Message) -> Result<Self, Error> {
        Ok(Self {
            name: ManagementName::of(message)?,
            classes: find(message, |a| {
                if let Attribute::Classes(bits) = a {
                    Some(*bits)
                } else {
                    None
                }
            })
            .unwrap_or(0),
            max_queues: find(message, |a| {
                if let Attribute::ManagementMaxQueues(n) = a {
                    Some(*n)
                } else {
                    None
                }
            }),
            features: find(message, |a| {
                if let Attribute::SupportedFeatures(bits) = a {
                    Some(*bits)
                } else {
                    None
                }
            }),
        })
    }
}

impl ManagementName {
    pub(super) fn of(message: &Message) -> Result<Self, Error> {
        let device = find(message, |a| {
            if let Attribute::ManagementDevice(name) = a {
                Some(name.clone())
            } else {
                None
            }
        });
        Ok(Self {
            bus: find(message, |a| {
                if let Attribute::ManagementBus(name) = a {
                    Some(name.clone())
                } else {
                    None
                }
            }),
            device: device.ok_or_else(|| lacks(message, "VDPA_ATTR_MGMTDEV_DEV_NAME"))?,
        })
    }
}

impl BusDevice {
    pub(super) fn of(message: &Message) -> Result<Self, Error> {
        let name = find(message, |a| {
            if let Attribute::Name(name) = a {
                Some(name.clone())
            } else {
                None
            }
        });
        let id = find(message, |a| {
            if let Attribute::DeviceId(n) = a {
                Some(*n)
            } else {
                None
            }
        });
        let queues = find(message, |a| {
            if let Attribute::MaxQueues(n) = a {
                Some(*n)
            } else {
                None
            }
        });
        let size = find(message, |a| {
            if let Attribute::MaxQueueSize(n) = a {
                Some(*n)
            } else {
                None
            }
        });
        Ok(Self {
            name: name.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_NAME"))?,
            management: ManagementName::of(message)?,
            device_id: id.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_ID"))?,
            vendor_id: find(message, |a| {
                if let Attribute::VendorId(n) = a {
                    Some(*n)
                } else {
                    None
                }
            })
            .unwrap_or(0),
            max_queues: queues.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_MAX_VQS"))?,
            max_queue_size: size.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_MAX_VQ_SIZE"))?,
            min_queue_size: find(message, |a| {
                if let Attribute::MinQueueSize(n) = a {
                    Some(*n)
                } else {
                    None
                }
            }),
        })
    }
}

fn find<T>(message: &Message, of: impl FnMut(&Attribute) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(of)
}

fn lacks(message: &Message, lacks: &'static str) -> Error {
    Error::Answer {
        command: message.command.name(),
        lacks,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Command;
    use super::*;

    fn answer(attributes: &[Attribute]) -> Message {
        Message {
            command: Command::DevNew,
            attributes: attributes.to_vec(),
        }
    }

    #[test]
    fn device_lacks_what_the_kernel_did_not_say() {
        let whole = [
            Attribute::Name("card".into()),
            Attribute::ManagementDevice("vduse".into()),
            Attribute::DeviceId(1),
            Attribute::MaxQueues(2),
            Attribute::MaxQueueSize(256),
        ];
        let device = BusDevice::of(&answer(&whole)).unwrap();
        assert_eq!(
            (
                device.device_id,
                device.management.bus,
                device.min_queue_size
            ),
            (1, None, None)
        );
        for left_out in 0..whole.len() {
            let mut some = whole.to_vec();
            some.remove(left_out);
            let error = BusDevice::of(&answer(&some)).unwrap_err().to_string();
            assert!(
                error.starts_with("VDPA_CMD_DEV_NEW: the answer lacks VDPA_ATTR_"),
                "{error}"
            );
        }
    }
}
