//! The packed virtqueue, `virtio 1.4 §2.8`.

mod device;
mod driver;

pub(crate) use device::Noted;
pub use device::PackedDevice;
pub use driver::PackedDriver;
