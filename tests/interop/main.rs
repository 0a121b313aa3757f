//! Devices in front of programs that nobody here wrote, and our drivers in front of theirs.
//!
//! ```text
//!   test ─ vdpactl serve ─ socket ─ QEMU │ guest: kernel ─ ping, nc, ethtool, ... ─ @step lines ─▶ test
//!     ├── network namespace, tap         │
//!     └── QMP: stop, migrate, end        │
//! ```
//! Guests are those of `tests/lab`: Debian's kernel as it comes, and busybox. Tests in `full` are for `tests/run --full`.
#![cfg(feature = "cli")]

mod harness;
#[path = "../lab/machine.rs"]
mod machine;
#[path = "../lab/monitor.rs"]
mod monitor;
mod net;
#[path = "../../vdpa-sim/tests/netns/mod.rs"]
mod netns;
#[path = "../lab/transcript.rs"]
mod transcript;
