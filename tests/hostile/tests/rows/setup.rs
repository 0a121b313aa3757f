//! Section G: set-up and state.

use vdpa_hostile::suite::Code;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[];
