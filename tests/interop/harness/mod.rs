//! What the tests here are made of: a device that is served, a guest that is talked to, and programs of the system's.
//!
//! Nothing sleeps: what has to come first is a line, an event of a monitor, or the end of a process.
#![allow(dead_code, reason = "each test uses a part of it")]

mod back_end;
mod guest;
pub(crate) mod migration;
pub(crate) mod process;
mod program;

use std::time::Duration;

pub(crate) use back_end::BackEnd;
pub(crate) use guest::{Guest, machine};
pub(crate) use program::{are_installed, packed, talker};

/// How long one that is waited for may say nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
