//! What a port counts, pair by pair, and tells as sums.

use std::sync::Arc;

use crate::stats::Counters;

/// The counters of a port: a row for each pair, so that each worker counts alone.
pub(super) struct Tally {
    names: &'static [&'static str],
    rows: Box<[Arc<Counters>]>,
}

impl Tally {
    /// Counters at 0 with these names, for `pairs` pairs.
    pub(super) fn new(names: &'static [&'static str], pairs: u16) -> Self {
        Self {
            names,
            rows: (0..pairs).map(|_| Arc::new(Counters::new(names))).collect(),
        }
    }

    /// The counters of `pair`.
    pub(super) fn row(&self, pair: u16) -> Arc<Counters> {
        let row = self.rows.get(usize::from(pair)).cloned();
        row.unwrap_or_else(|| Arc::new(Counters::new(self.names)))
    }

    /// Calls `to` for each counter, with its sum over all pairs.
    pub(super) fn read(&self, to: &mut dyn FnMut(&str, u64)) {
        for (place, name) in self.names.iter().enumerate() {
            let sum = self.rows.iter().map(|row| row.value(place));
            to(&format!("port.{name}"), sum.fold(0, u64::wrapping_add));
        }
    }
}
