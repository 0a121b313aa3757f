//! Wrong about split rings.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
