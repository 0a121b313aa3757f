//! Wrong about the reset of queues.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
