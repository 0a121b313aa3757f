//! Holds any vDPA device to the virtio specification, statement by statement, without a virtual machine.
//!
//! ```
//! use vdpa_conformance::{Selection, Target};
//!
//! # struct Nothing;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut registry = vdpa_core::Registry::new();
//! registry.add(std::sync::Arc::new(vdpa_sim::SimMgmt::new()));
//!
//! let target = Target::named(&registry, "sim:rng")?;
//! let report = vdpa_conformance::run(&target, &Selection::only("1-9".parse()?));
//! assert_eq!(report.failed(), 0, "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! A [`Target`] makes devices, and says which statements they are known not to keep. A [`Selection`] says how much is
//! tried. [`run`] goes through the [`catalogue`] and returns a [`Report`] with a row for each statement and ring variant:
//! passed, failed with what was seen, skipped with the reason, or excepted. A skip is never a pass.
//!
//! It drives the device as anybody could: through [`vdpa_core::Device`], with the driver half of `vdpa-ring`, and by
//! writing into rings what no driver should.
//!
//! # Reading order
//! `statement` (what is asked), `target` and `selection` (of whom), `bench` (what a statement is given), `rig` (a device
//! with memory), `ring` (a queue that may do what none should), `lane` (requests of any device type), `registers` (a
//! PCI function below the device), `chapters` (the statements), `run`, `report`.

mod bench;
mod chapters;
mod checked;
mod driven;
mod hand;
mod lane;
mod puppet;
mod recorder;
pub mod registers;
mod report;
mod rig;
mod ring;
mod run;
mod selection;
mod statement;
mod target;
mod variant;

pub use bench::Bench;
pub use checked::{Checked, Stop};
pub use lane::{Cut, Lane, Request, Traffic};
pub use report::{Outcome, Report, Row};
pub use rig::{Piece, Rig};
pub use ring::Ring;
pub use run::{Progress, run, run_watched};
pub use selection::{Effort, Ids, Selection, UnknownIds};
pub use statement::{Chapter, Kind, Statement, catalogue};
pub use target::{Exception, Target};
pub use variant::Variant;

/// Holds `docs/conformance.md` to its examples.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/conformance.md")]
struct Documents;
