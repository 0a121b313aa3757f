//! Wrong about suspend.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
