//! Wrong about block devices.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
