//! Section F: values that change at every fetch.

use vdpa_hostile::suite::Code;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[];
