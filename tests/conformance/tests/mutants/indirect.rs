//! Wrong about indirect descriptors.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
