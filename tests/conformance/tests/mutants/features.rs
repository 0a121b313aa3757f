//! Wrong about features.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
