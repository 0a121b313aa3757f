//! Layers: what stands between any parent's device and its users, and is a device itself.
//!
//! ```text
//!   vdpa_core::Device ─▶ Trace ─▶ Faults ─▶ a parent's device        contract calls
//!   driver ─ Doorbell ─▶ Trace ─▶ Faults ─▶ Doorbell                 kicks, only if a layer has to see them
//!   driver ◀── Call ─── Trace ◀── Faults ◀─ device                   calls, likewise
//! ```
//!
//! * [`Trace`] tells the `tracing` crate of contract calls, events, kicks and calls.
//! * [`Faults`] alters contract calls, kicks and calls, by a seed: for whoever tests a driver's recovery.
//!
//! Each has a [`Layer`](vdpa_core::Layer) that reads its keys of a device string: [`TraceLayer`], [`FaultsLayer`].
//!
//! A layer keeps every capability of the device that it wraps, and is that device in all that it does not alter. It sees
//! kicks and calls only when it has to: otherwise the driver gets the device's own doorbell, and the device the driver's
//! own call. Where it has to, an eventfd that kicks the device is relayed to it.
//!
//! # Reading order
//! `line` (how kicks and calls are led through a layer), [`Trace`] and its `log`, [`faults`] with its parts.

pub mod faults;
mod line;
mod trace;

pub use faults::{Faults, FaultsLayer, InjectedError};
pub use trace::{Trace, TraceLayer};
