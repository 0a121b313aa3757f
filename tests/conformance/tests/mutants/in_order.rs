//! Wrong about order of use.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
