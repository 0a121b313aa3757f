//! Section C: indirect tables.

use vdpa_hostile::suite::Code;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[];
