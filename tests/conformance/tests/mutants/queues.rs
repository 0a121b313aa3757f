//! Wrong about the set-up of queues.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
