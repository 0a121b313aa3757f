//! Finds where an address belongs among thousands of first addresses, in a few loads.

use std::sync::Arc;

/// At how many places the addresses are cut apart: guests have memory below and above a hole, drivers take their
/// addresses from one more place.
const ZONES: usize = 4;

/// Sorted addresses, and for each stretch of them a table from high bits to the place where to look.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The zone with most of the addresses.
    main: Zone,
    firsts: Box<[u64]>,
    zones: Vec<Zone>,
}

/// A stretch without large gaps: cut into equal buckets, about two for each address.
#[derive(Clone, Debug, Default)]
struct Zone {
    first: u64,
    shift: u32,
    /// For each bucket the last address at or before its beginning; one more at the end.
    buckets: Arc<[u32]>,
}

impl Index {
    /// The index of `firsts`, which are sorted.
    pub(crate) fn new(firsts: Vec<u64>) -> Self {
        let mut gaps: Vec<(u64, usize)> = (1..firsts.len())
            .map(|at| (firsts[at] - firsts[at - 1], at))
            .collect();
        gaps.sort_unstable_by_key(|&(gap, at)| (std::cmp::Reverse(gap), at));
        // Before the widest gaps a zone begins, if they are much wider than the others are on average.
        let (wide, others) = gaps.split_at(gaps.len().min(ZONES - 1));
        let sum: u64 = others.iter().map(|(gap, _)| gap).sum();
        let average = sum.checked_div(others.len() as u64).unwrap_or(0);
        let mut cuts = vec![0];
        cuts.extend(
            wide.iter()
                .filter(|(gap, _)| gap / 8 > average)
                .map(|&(_, at)| at),
        );
        cuts.sort_unstable();
        let ends = cuts[1..].iter().copied().chain([firsts.len()]);
        let zones = std::iter::zip(cuts.iter().copied(), ends).filter(|(from, to)| from < to);
        let main = zones.clone().max_by_key(|(from, to)| to - from);
        let zone = |(from, to)| Zone::new(&firsts, from, to);
        Self {
            main: main.map(zone).unwrap_or_default(),
            zones: zones.map(zone).collect(),
            firsts: firsts.into_boxed_slice(),
        }
    }

    /// Quickly, which address of the main zone may be the last that is not above `at`.
    #[inline(always)]
    pub(crate) fn guess(&self, at: u64) -> Option<usize> {
        let bucket = at.wrapping_sub(self.main.first) >> self.main.shift;
        let place = self.main.buckets.get(usize::try_from(bucket).ok()?)?;
        Some(*place as usize)
    }

    /// The last address that is not above `at`.
    #[inline]
    pub(crate) fn find(&self, at: u64) -> Option<usize> {
        let zone = self.zones.iter().rev().find(|zone| zone.first <= at)?;
        let last = zone.buckets.len().checked_sub(2)?;
        let bucket = usize::try_from((at - zone.first) >> zone.shift).unwrap_or(usize::MAX);
        let bucket = bucket.min(last);
        let (from, to) = (zone.buckets[bucket], zone.buckets[bucket + 1]);
        // None but those that begin inside the bucket are in question.
        let inside = self.firsts.get(from as usize + 1..=to as usize)?;
        Some(from as usize + inside.partition_point(|&first| first <= at))
    }
}

impl Zone {
    /// The zone of `firsts[from..to]`, which is not empty.
    fn new(firsts: &[u64], from: usize, to: usize) -> Self {
        let part = &firsts[from..to];
        let (first, span) = (part[0], part[part.len() - 1] - part[0]);
        let buckets = 2 * part.len().next_power_of_two() as u64;
        // So that fewer than `buckets` hold the span.
        let shift = (u64::BITS - span.leading_zeros()).saturating_sub(buckets.trailing_zeros());
        let count = (span >> shift) + 1;
        let mut last = from;
        let bucket = |i: u64| {
            while last + 1 < to && firsts[last + 1] - first <= i << shift {
                last += 1;
            }
            last as u32
        };
        Self {
            first,
            shift,
            buckets: (0..count).map(bucket).chain([to as u32 - 1]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at all of them, and at their neighbours.
    fn finds_all(firsts: &[u64]) {
        let index = Index::new(firsts.to_vec());
        let around = |f: u64| [f.saturating_sub(1), f, f.saturating_add(1)];
        let extremes = [0, u64::MAX];
        for at in firsts.iter().flat_map(|&f| around(f)).chain(extremes) {
            let plain = firsts.iter().rposition(|&first| first <= at);
            assert_eq!(index.find(at), plain, "{at:#x} in {firsts:x?}");
            assert!(index.guess(at).is_none_or(|i| i < firsts.len()));
        }
    }

    #[test]
    fn guesses_mappings_of_one_pitch() {
        let pitch = 2 << 20;
        let many = if cfg!(miri) { 20 } else { 1000 };
        let mut firsts = vec![0];
        firsts.extend((0..many).map(|i| (1 << 40) + i * pitch));
        let index = Index::new(firsts.clone());
        for (i, first) in firsts.iter().enumerate().skip(1) {
            for at in [*first, first + pitch / 2, first + pitch - 1] {
                assert_eq!(index.guess(at), Some(i), "{at:#x}");
            }
        }
        assert_eq!(index.guess(0), None);
        assert_eq!(Index::new(Vec::new()).guess(0), None);
    }

    #[test]
    fn finds_what_a_plain_search_finds() {
        finds_all(&[]);
        finds_all(&[0]);
        finds_all(&[u64::MAX]);
        finds_all(&[0, u64::MAX]);
        finds_all(&[5, 6, 7, 1 << 40]);
        finds_all(&[0, 1 << 20, 1 << 32, 1 << 40, 1 << 50, 1 << 60, u64::MAX - 1]);
        let many = if cfg!(miri) { 50 } else { 1000 };
        let even: Vec<u64> = (0..many).map(|i| (1 << 40) + (i << 21)).collect();
        finds_all(&even);
        let skewed: Vec<u64> = (0..64).map(|i| (1u64 << i) - 1).collect();
        finds_all(&skewed);
        let mut random = 88172645463325252u64;
        for n in [2, 3, 10, 100] {
            let mut some: Vec<u64> = std::iter::repeat_with(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random >> (random % 40)
            })
            .take(n)
            .collect();
            some.sort_unstable();
            some.dedup();
            finds_all(&some);
        }
    }
}
