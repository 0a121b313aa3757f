//! Counters that one worker writes and anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of counters, each with a name. One worker adds to them; reading costs it nothing.
#[derive(Debug)]
pub struct Counters {
    names: &'static [&'static str],
    values: Box<[AtomicU64]>,
}

impl Counters {
    /// Counters at 0 with these names.
    pub fn new(names: &'static [&'static str]) -> Self {
        Self {
            names,
            values: names.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Adds `more` to the counter at `place` in the list of names. For the one worker that counts.
    #[inline]
    pub fn add(&self, place: usize, more: u64) {
        if let Some(value) = self.values.get(place) {
            // A plain load and store: nobody else stores.
            let now = value.load(Ordering::Relaxed).wrapping_add(more);
            value.store(now, Ordering::Relaxed);
        }
    }

    /// The value of the counter at `place`.
    pub fn value(&self, place: usize) -> u64 {
        self.values
            .get(place)
            .map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// The sum of the counters of these names; one that ends with a dot or an underscore stands for all that begin so.
    pub fn sum(&self, names: &[&str]) -> u64 {
        let is_meant = |own: &str, name: &str| {
            own == name || (name.ends_with(['.', '_']) && own.starts_with(name))
        };
        let all = self.names.iter().zip(&self.values);
        let counted = all.filter(|(own, _)| names.iter().any(|name| is_meant(own, name)));
        counted.fold(0, |sum, (_, value)| {
            sum.wrapping_add(value.load(Ordering::Relaxed))
        })
    }

    /// Calls `to` for each counter, as `PREFIX.NAME`.
    pub fn read(&self, prefix: &str, to: &mut dyn FnMut(&str, u64)) {
        for (name, value) in self.names.iter().zip(&self.values) {
            to(&format!("{prefix}.{name}"), value.load(Ordering::Relaxed));
        }
    }
}

/// A list of counters: an enum of their places, and their names in the same order.
macro_rules! counters {
    (
        $(#[$doc:meta])* $vis:vis enum $name:ident;
        $(#[$list:meta])* $listed:vis const $names:ident {
            $( $(#[$about:meta])* $variant:ident = $text:literal, )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        $vis enum $name {
            $( $(#[$about])* $variant, )*
        }

        $(#[$list])*
        $listed const $names: &[&str] = &[$( $text, )*];
    };
}
pub(crate) use counters;
