//! Section N: memory and threads.

use vdpa_hostile::suite::Code;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[];
