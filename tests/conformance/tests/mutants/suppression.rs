//! Wrong about the suppression of notifications.

use crate::Mutant;

pub const MUTANTS: &[Mutant] = &[];
