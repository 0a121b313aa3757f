//! Wrong about other device types.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
