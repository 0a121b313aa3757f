//! Queues before they run: their indices, limits and set-up.

use std::fmt;

use vdpa_mem::Iova;
use vdpa_ring::QueueState;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($int);

        impl $name {
            /// The one with this number, counted from 0.
            pub const fn new(number: $int) -> Self {
                Self(number)
            }

            /// Its number.
            pub const fn get(self) -> $int {
                self.0
            }

            /// Its number, as a place in a list.
            pub fn place(self) -> usize {
                usize::try_from(self.0).unwrap_or(usize::MAX)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

index! {
    /// The number of a queue of a device.
    QueueIndex(u16)
}
index! {
    /// The number of a queue group: queues that share an address space.
    GroupIndex(u32)
}
index! {
    /// The number of an address space of a device.
    Asid(u32)
}

/// What a parent can do for one queue. It depends on the features accepted: they decide the queue's role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimits {
    /// The largest size, in descriptors; 0 for a queue that does not exist with these features.
    pub max_size: u16,
    /// The group that the queue is in.
    pub group: GroupIndex,
}

/// Everything a queue needs to start, given at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueConfig {
    /// Size in descriptors: a power of two for a split ring, any size for a packed one, 1 to 32768.
    pub size: u16,
    /// The descriptor area.
    pub descriptor: Iova,
    /// The driver area: the available ring, or the driver's event suppression structure.
    pub driver: Iova,
    /// The device area: the used ring, or the device's event suppression structure.
    pub device: Iova,
    /// Where the queue goes on; `None`: at the beginning of a fresh ring.
    pub state: Option<QueueState>,
    /// Whether the queue is processed with effect. `false` runs it without side effects, and needs the capability
    /// [`QueueEnable`](crate::QueueEnable).
    pub enabled: bool,
}

impl QueueConfig {
    /// An enabled queue with a fresh ring.
    pub const fn new(size: u16, descriptor: Iova, driver: Iova, device: Iova) -> Self {
        Self {
            size,
            descriptor,
            driver,
            device,
            state: None,
            enabled: true,
        }
    }

    /// Where `area` is.
    pub const fn area(&self, area: Area) -> Iova {
        match area {
            Area::Descriptor => self.descriptor,
            Area::Driver => self.driver,
            Area::Device => self.device,
        }
    }
}

/// The three parts of a queue, virtio 1.4 §2.6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Area {
    /// Descriptors.
    Descriptor,
    /// What the driver says to the device.
    Driver,
    /// What the device says to the driver.
    Device,
}

impl Area {
    /// All three.
    pub const ALL: [Area; 3] = [Area::Descriptor, Area::Driver, Area::Device];
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::Descriptor => "descriptor area",
            Area::Driver => "driver area",
            Area::Device => "device area",
        })
    }
}
