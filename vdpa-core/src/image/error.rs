//! Why bytes are no image of a device.

use crate::DeviceType;

/// Why bytes are no image of a device, or of none that this one can become.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It begins otherwise.
    #[error("a device's image begins with \"vdpa\", this with {found:02x?}")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Another version of the layout.
    #[error(
        "the image's version is {found}, known is 1: save it again with the version that restores it"
    )]
    Version {
        /// The version found.
        found: u16,
    },
    /// It ends too early.
    #[error("the image ends within its {what}, at byte {at}")]
    Truncated {
        /// What is cut.
        what: &'static str,
        /// Where that begins.
        at: usize,
    },
    /// It has not the length that it says.
    #[error("the image says that it has {said} bytes, and has {found}")]
    Length {
        /// The length that it says.
        said: u32,
        /// The length it has.
        found: usize,
    },
    /// It was changed on the way.
    #[error(
        "the image's checksum is {found:#010x}, its bytes have {computed:#010x}: it was damaged"
    )]
    Checksum {
        /// The checksum found.
        found: u32,
        /// That of the bytes.
        computed: u32,
    },
    /// Bytes that belong to nothing.
    #[error("{left} bytes of the image are left over")]
    LeftOver {
        /// How many.
        left: usize,
    },
    /// A field that no device can have so.
    #[error("the image's {what} cannot be {found:#x}")]
    Illegal {
        /// Which field.
        what: &'static str,
        /// What is there.
        found: u64,
    },
    /// An image of another type of device.
    #[error("the image is of a device of type {image}, this one is of type {device}")]
    DeviceType {
        /// The image's.
        image: DeviceType,
        /// The device's.
        device: DeviceType,
    },
    /// A queue that holds chains of another device's, by a record which is not part of the image.
    #[error(
        "queue {queue} has chains in flight that it took over by a record: let it give them back first"
    )]
    InFlight {
        /// The queue.
        queue: u16,
    },
}

impl ImageError {
    pub(super) fn illegal(what: &'static str, found: impl Into<u64>) -> Self {
        let found = found.into();
        Self::Illegal { what, found }
    }
}
