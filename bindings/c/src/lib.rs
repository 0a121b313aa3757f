//! The C interface of vDPA: what `libvdpa` exports, and `vdpa.h` is generated from.
//!
//! ```text
//!   C ─▶ vdpa_device_... ─▶ boundary::call ─▶ vdpa::Device
//!          pointers          no panic passes;    validates, serialises, waits
//!          become            an error becomes
//!          references        a code and a message
//! ```
//!
//! The functions are for C alone, and say in their signatures what C has to keep: a reference for a pointer that is valid
//! or NULL, [`MaybeUninit`](std::mem::MaybeUninit) for what is only written. So their bodies are safe code. What remains is in
//! four places: strings, buffers and handles that are given up (`pointer`), descriptors (`fd`), memory that C lends to a
//! device and the callback that gives it back (`memory`), and the callback for counters (`device`).
//!
//! The doc comments of what is exported are the manual, in `vdpa.h`: they speak C.
//!
//! # Reading order
//! `boundary` and `failure`, `pointer`, `fd`; then `registry`, `device`, `event`, `memory`, `queue`, `doorbell`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
// cbindgen takes what is `pub` for the header. Nothing is for Rust: what C has to promise, a Rust caller would not.
#![allow(unreachable_pub, reason = "for the generated header")]

mod boundary;
mod device;
mod doorbell;
mod event;
mod failure;
mod fd;
mod memory;
mod pointer;
mod queue;
mod registry;
mod version;

/// What the header says of threads: calls with one handle may come from several. References in the signatures do not ask.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<registry::Registry>();
    shared::<device::Device>();
    shared::<doorbell::Doorbell>();
};

#[cfg(test)]
mod tests;
