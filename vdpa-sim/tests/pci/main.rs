//! The simulated device as a virtio-pci function, by its registers alone. Numbers are those of docs/conformance.md.

mod bench;
mod capabilities;
mod interrupts;
mod memory;
mod notify;
mod registers;
