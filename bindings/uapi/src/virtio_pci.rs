//! Registers, capabilities and administration commands of virtio over PCI (`linux/virtio_pci.h`).
//!
//! Layouts only: what drives a function is `vdpa-pci`. Numbers of more than one byte are little-endian in the device.
//! `struct virtio_admin_cmd_dev_parts_metadata_result` is left out: it is a union of counts, each of four bytes, of which
//! the list goes on with [`virtio_dev_part_hdr`].

mod numbers;

pub(crate) use numbers::ROWS;
pub use numbers::*;
