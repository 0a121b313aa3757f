//! The adapter for VMMs in Rust, by the guest of `examples/vmm` (drivers that nobody here wrote, over a device model of
//! virtio-mmio), by rings laid out by hand, and by what VMMs do wrong. `docs/vmm.md` says which test shows what.
#![cfg(all(feature = "sim", feature = "rust-vmm"))]

#[path = "../../examples/vmm/guest.rs"]
mod guest;
#[path = "../../examples/vmm/mmio.rs"]
mod mmio;
#[path = "../translator/mod.rs"]
mod translator;

mod driven;
mod faults;
mod memory;
mod moved;
mod packed;
mod ring;
mod status;

use std::io::ErrorKind;
use std::time::Duration;

use vdpa::Deadline;
use vdpa::vmm::{GuestDevice, Interrupts};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Anything ends within this.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn open(spec: &str) -> GuestDevice {
    GuestDevice::new(vdpa::open(spec).unwrap()).unwrap()
}

/// Acknowledges all that is offered.
fn acked(spec: &str) -> GuestDevice {
    let mut device = open(spec);
    device.ack_features(device.device_features());
    device
}

fn eventfd() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

/// Interrupts that nobody looks at.
fn ignored() -> Interrupts {
    Interrupts::from_fn(|_| Ok(()))
}

/// Waits until `is_so`.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let by = soon();
    while !is_so() {
        assert!(!by.expired(), "{what}: not in time");
        std::thread::yield_now();
    }
}

/// Waits until somebody wrote `event`.
fn written(event: &EventFd) {
    until("an eventfd is written", || match event.read() {
        Ok(_) => true,
        Err(e) if e.kind() == ErrorKind::WouldBlock => false,
        Err(e) => panic!("{e}"),
    });
}
