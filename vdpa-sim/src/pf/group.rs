//! What administration commands are carried out on.

use std::sync::Arc;
use std::task::Poll;

use super::command::Refusal;
use super::part::Part;

/// Whether a member runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// It does what its driver asks of it.
    Running,
    /// It touches no memory and calls nobody, while its registers answer as ever.
    Stopped,
}

/// The virtual functions of an owner, numbered from 1.
pub trait Group: Send + Sync {
    /// How many there are: NumVFs. `None` while VF Enable is clear: there is no such group then.
    fn members(&self) -> Option<u16>;

    /// A number that changes whenever members come or go: what was known of those before is void.
    fn generation(&self) -> u64;

    /// Member `number`, from 1 to [`members`](Self::members).
    fn member(&self, number: u16) -> Option<Arc<dyn Member>>;
}

/// A device that its owner controls.
///
/// None of the calls waits: what takes time is pending, and is asked for again with the same arguments. A refusal leaves
/// everything as it was, but for [`Refusal::UNFIT`].
pub trait Member: Send + Sync {
    /// Stops or resumes it, which is done when this is ready. Twice in a row is no error. What was set before it is
    /// resumed takes effect then.
    fn set_mode(&self, mode: Mode) -> Poll<Result<(), Refusal>>;

    /// What was pending is not asked for again, as its owner was reset: a stop that is not complete is taken back. One that
    /// is complete holds.
    fn abandon(&self);

    /// Whether it is stopped, completely.
    fn mode(&self) -> Mode;

    /// All its parts, in their order.
    fn parts(&self) -> Poll<Result<Vec<Part>, Refusal>>;

    /// Changes parts: all, or none. It is stopped.
    ///
    /// * `parts`: in their order, each of them one that [`parts`](Self::parts) has too, and as long
    fn set_parts(&self, parts: &[Part]) -> Poll<Result<(), Refusal>>;
}

/// A group that never exists: of an owner without virtual functions.
#[derive(Clone, Copy, Debug)]
pub struct NoGroup;

impl Group for NoGroup {
    fn members(&self) -> Option<u16> {
        None
    }

    fn generation(&self) -> u64 {
        0
    }

    fn member(&self, _: u16) -> Option<Arc<dyn Member>> {
        None
    }
}
