//! Cells of a ring that count their loads, and change after any of them.
