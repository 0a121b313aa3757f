//! The split virtqueue, `virtio 1.4 §2.7`.

mod device;
mod driver;

pub use device::SplitDevice;
pub use driver::SplitDriver;
