//! A physical function: a simulated device that has virtual functions, and an administration queue for them.
//!
//! ```text
//!   administration queue ─▶ clerk (a unit of the owner's class) ─▶ Office ─▶ Engine ─▶ Group: 1 to NumVFs ─▶ Member
//!   SR-IOV capability (sriov) ─▶ virtual functions: each a pci::Function over a device of its own
//! ```
//! * [`PfFunction`]: all of it, put together · [`sriov`]: virtual functions that come and go
//! * [`command`]: what commands look like · [`part`]: what device parts look like
//! * [`Engine`]: carries commands out, over [`Group`] and [`Member`] · [`Owner`]: adds the queue to any class
//!
//! What virtio 1.4 §2.12 to §2.14 leave open is so here:
//!
//! * Lists of commands are asked for and set without a member: whatever stands in its field is not looked at.
//! * Resource objects belong to a member, and so do their ids; how many there can be counts for all members together.
//! * A stop outlasts a reset of the member by its driver; DRIVER_OK is then held back until the resume. What was set is
//!   forgotten by such a reset.
//! * A reset of the owner, or of its administration queue, takes back a stop that is pending: its member goes on. One that
//!   is complete outlasts it, as whether a member runs is the member's own; the owner's next driver resumes it. So does a
//!   resume that is pending: the member stays stopped, and what was set takes effect with the next one.
//! * Where queues stand has no part of its own, nor has what a class keeps. Both are in
//!   [a part](part::PartType::Simulated) behind all others, which there is while a member is stopped. Its value is a
//!   [`DeviceImage`](vdpa_core::DeviceImage).
//! * A command that is pending for more than [a while](Office::set_patience) is taken back, and answered with
//!   [`Refusal::TRY_AGAIN`](command::Refusal::TRY_AGAIN): a member that does not come to a stop goes on. The resume
//!   of one that has stopped is not: it may have begun.
//! * A command that is refused by [`Refusal::UNFIT`](command::Refusal::UNFIT) leaves its member in reset, and stopped.

mod clerk;
pub mod command;
mod engine;
mod function;
mod group;
mod objects;
mod office;
mod owner;
pub mod part;
pub mod sriov;

pub use engine::{Engine, OBJECTS};
pub use function::PfFunction;
pub use group::{Group, Member, Mode, NoGroup};
pub use objects::Limits;
pub use office::{COUNTERS, Office};
pub use owner::{Owner, QUEUES};
