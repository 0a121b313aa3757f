//! Wrong about packed rings.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
