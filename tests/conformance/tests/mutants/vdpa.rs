//! Wrong about what the contract asks.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
