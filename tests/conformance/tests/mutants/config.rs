//! Wrong about configuration space.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
