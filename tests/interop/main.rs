//! Devices in front of programs that nobody here wrote, and our drivers in front of theirs.
//!
//! ```text
//!   test ─ vdpactl serve ─ socket ─ QEMU │ guest: kernel ─ ping, nc, ethtool, ... ─ @step lines ─▶ test
//!     ├── network namespace, tap         │
//!     └── QMP: stop, migrate, end        │
//! ```
//! Guests are those of `tests/lab`: Debian's kernel as it comes, and busybox. Tests in `full` are for `tests/run --full`.
#![cfg(feature = "cli")]

mod choices;
#[path = "guest/content.rs"]
mod content;
#[path = "../kernel/datagrams.rs"]
mod datagrams;
mod disk;
mod dpdk;
mod harness;
#[path = "../kernel/host.rs"]
mod host;
mod kill;
#[path = "../lab/machine.rs"]
mod machine;
#[path = "../lab/monitor.rs"]
mod monitor;
mod net;
#[path = "../../vdpa-sim/tests/netns/mod.rs"]
mod netns;
#[path = "guest/numbered.rs"]
mod numbered;
mod ovs;
#[path = "../kernel/ping.rs"]
mod ping;
mod station;
mod stranger;
#[path = "../kernel/streams.rs"]
mod streams;
#[path = "../lab/transcript.rs"]
mod transcript;
mod unfit;
mod wire;
