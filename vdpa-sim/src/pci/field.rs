//! The fields of the common configuration structure, virtio 1.4 §4.1.4.3.

use vdpa_pci::Width;

/// A field, or half of one of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    /// Address of descriptor area, driver area or device area: which, and which half of it.
    Address(Area, Half),
    QueueNotifyData,
    QueueReset,
    AdminQueueIndex,
    AdminQueueCount,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Area {
    Descriptor,
    Driver,
    Device,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Half {
    Low,
    High,
}

/// Offset, width, field.
const FIELDS: &[(u32, Width, Field)] = &[
    (0x00, Width::U32, Field::DeviceFeatureSelect),
    (0x04, Width::U32, Field::DeviceFeature),
    (0x08, Width::U32, Field::DriverFeatureSelect),
    (0x0c, Width::U32, Field::DriverFeature),
    (0x10, Width::U16, Field::ConfigVector),
    (0x12, Width::U16, Field::NumQueues),
    (0x14, Width::U8, Field::Status),
    (0x15, Width::U8, Field::Generation),
    (0x16, Width::U16, Field::QueueSelect),
    (0x18, Width::U16, Field::QueueSize),
    (0x1a, Width::U16, Field::QueueVector),
    (0x1c, Width::U16, Field::QueueEnable),
    (0x1e, Width::U16, Field::QueueNotifyOff),
    (
        0x20,
        Width::U32,
        Field::Address(Area::Descriptor, Half::Low),
    ),
    (
        0x24,
        Width::U32,
        Field::Address(Area::Descriptor, Half::High),
    ),
    (0x28, Width::U32, Field::Address(Area::Driver, Half::Low)),
    (0x2c, Width::U32, Field::Address(Area::Driver, Half::High)),
    (0x30, Width::U32, Field::Address(Area::Device, Half::Low)),
    (0x34, Width::U32, Field::Address(Area::Device, Half::High)),
    (0x38, Width::U16, Field::QueueNotifyData),
    (0x3a, Width::U16, Field::QueueReset),
    (0x3c, Width::U16, Field::AdminQueueIndex),
    (0x3e, Width::U16, Field::AdminQueueCount),
];

impl Field {
    /// The field that an access of its natural width is to, virtio 1.4 §4.1.3.1.
    pub(super) fn at(at: u32, width: Width) -> Option<Self> {
        let found = FIELDS
            .iter()
            .find(|field| (field.0, field.1) == (at, width));
        found.map(|(_, _, field)| *field)
    }
}
