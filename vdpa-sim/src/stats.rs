//! Counters that one worker writes and anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::queue::{BATCH_SIZES, Tally};

/// Counters on cache lines of their own: those of two sets, which two workers write, share none.
#[repr(align(128))]
#[derive(Default, Debug)]
struct Line([AtomicU64; LINE]);

/// How many counters there are in a line.
const LINE: usize = 16;

/// A set of counters, each with a name. One worker adds to them; reading costs it nothing.
#[derive(Debug)]
pub struct Counters {
    names: &'static [&'static str],
    lines: Box<[Line]>,
}

impl Counters {
    /// Counters at 0 with these names.
    pub fn new(names: &'static [&'static str]) -> Self {
        Self {
            names,
            lines: names.chunks(LINE).map(|_| Line::default()).collect(),
        }
    }

    #[inline]
    fn at(&self, place: usize) -> Option<&AtomicU64> {
        self.lines.get(place / LINE)?.0.get(place % LINE)
    }

    /// The counters, and behind them what the last line has no names for.
    fn values(&self) -> impl Iterator<Item = &AtomicU64> {
        self.lines.iter().flat_map(|line| &line.0)
    }

    /// Adds `more` to the counter at `place` in the list of names. For the one worker that counts.
    #[inline]
    pub fn add(&self, place: usize, more: u64) {
        if let Some(value) = self.at(place) {
            // A plain load and store: nobody else stores.
            let now = value.load(Ordering::Relaxed).wrapping_add(more);
            value.store(now, Ordering::Relaxed);
        }
    }

    /// Adds what a queue did, in a list of [`queue_counters`].
    #[inline]
    pub(crate) fn add_tally(&self, tally: &Tally) {
        let Tally {
            kicks,
            calls,
            suppressed,
            again,
            batches,
        } = tally;
        // Behind what is the queue's own.
        let first = self
            .names
            .len()
            .saturating_sub(BATCH_SIZES.saturating_add(4));
        let all = [kicks, calls, suppressed, again].into_iter().chain(batches);
        for (place, count) in (first..).zip(all) {
            if *count != 0 {
                self.add(place, *count);
            }
        }
    }

    /// The value of the counter at `place`.
    pub fn value(&self, place: usize) -> u64 {
        self.at(place)
            .map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// The sum of the counters of these names; one that ends with a dot or an underscore stands for all that begin so.
    pub fn sum(&self, names: &[&str]) -> u64 {
        let is_meant = |own: &str, name: &str| {
            own == name || (name.ends_with(['.', '_']) && own.starts_with(name))
        };
        let all = self.names.iter().zip(self.values());
        let counted = all.filter(|(own, _)| names.iter().any(|name| is_meant(own, name)));
        counted.fold(0, |sum, (_, value)| {
            sum.wrapping_add(value.load(Ordering::Relaxed))
        })
    }

    /// Calls `to` for each counter, as `PREFIX.NAME`.
    pub fn read(&self, prefix: &str, to: &mut dyn FnMut(&str, u64)) {
        for (name, value) in self.names.iter().zip(self.values()) {
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
            $( + $more:literal )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        $vis enum $name {
            $( $(#[$about])* $variant, )*
        }

        $(#[$list])*
        $listed const $names: &[&str] = &[$( $text, )* $( $more, )*];
    };
}
pub(crate) use counters;

/// The same for a queue: what every queue counts comes behind what is its own ([`Counters::add_tally`]).
macro_rules! queue_counters {
    (
        $(#[$doc:meta])* $vis:vis enum $name:ident;
        $(#[$list:meta])* $listed:vis const $names:ident { $($own:tt)* }
    ) => {
        $crate::stats::counters! {
            $(#[$doc])* $vis enum $name;
            $(#[$list])* $listed const $names {
                $($own)*
                + "kicks"
                + "calls"
                + "suppressed"
                + "again"
                + "batches.1"
                + "batches.2-3"
                + "batches.4-7"
                + "batches.8-15"
                + "batches.16-31"
                + "batches.32-63"
                + "batches.64+"
            }
        }
    };
}
pub(crate) use queue_counters;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_two_workers_share_no_cache_line_and_keep_their_names() {
        const NAMES: &[&str] = &["a"; LINE + 3];
        let sets = [(); 4].map(|()| Counters::new(NAMES));
        for (number, set) in (0_u64..).zip(&sets) {
            assert!(
                std::ptr::from_ref(set.at(0).unwrap())
                    .addr()
                    .is_multiple_of(128)
            );
            set.add(LINE, number);
            assert_eq!((set.value(LINE), set.value(LINE + 1)), (number, 0));
            assert_eq!(set.sum(&["a"]), number);
            let mut read = Vec::new();
            set.read("q", &mut |name, value| read.push((name.to_owned(), value)));
            assert_eq!(read.len(), NAMES.len());
            assert_eq!(read[LINE], ("q.a".to_owned(), number));
        }
    }
}
