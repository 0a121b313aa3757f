//! Wrong about network devices.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
