//! Section D: indices of the split ring.

use vdpa_hostile::suite::Code;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[];
