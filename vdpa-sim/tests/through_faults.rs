//! The same once more with a layer around each device, which may have faults, and has none: it has every capability that it has without.
#![allow(clippy::duplicate_mod, reason = "each file has the rig")]

#[path = "announcement.rs"]
mod announcement;
#[path = "control.rs"]
mod control;
#[path = "loopback.rs"]
mod loopback;
#[path = "spaces.rs"]
mod spaces;
