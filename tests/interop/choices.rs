//! Which configurations are tried: all that there are, or so few that each two choices have met in every way.
//!
//! A configuration is a number: bit N of it is how choice N was made.

use std::collections::BTreeSet;
use std::ops::Range;

/// As many as `tests/run` tries; the rest is for `tests/run --full`.
pub(crate) const FEW: usize = 10;

/// All configurations of so many choices.
pub(crate) fn all(choices: u32) -> Range<u32> {
    0..1 << choices
}

/// [`FEW`] of them: any two choices are made in all four ways, and of threes as many ways are among them as one finds by
/// taking whichever brings most.
pub(crate) fn few(choices: u32) -> Vec<u32> {
    let (mut pairs, mut threes) = (BTreeSet::new(), BTreeSet::new());
    let mut taken = Vec::new();
    while taken.len() < FEW {
        let left = all(choices).filter(|one| !taken.contains(one));
        let brings = |one: &u32| {
            let new = |count, known: &BTreeSet<_>| {
                ways(choices, count, *one)
                    .filter(|way| !known.contains(way))
                    .count()
            };
            (new(2, &pairs), new(3, &threes))
        };
        // The first of the best.
        let best = left
            .rev()
            .max_by_key(brings)
            .expect("there are more than a few");
        pairs.extend(ways(choices, 2, best));
        threes.extend(ways(choices, 3, best));
        taken.push(best);
    }
    taken
}

/// How `count` of the choices are made together in a configuration: which ones, and in which way.
fn ways(choices: u32, count: u32, one: u32) -> impl Iterator<Item = (u32, u32)> {
    let together = all(choices).filter(move |which| which.count_ones() == count);
    together.map(move |which| (which, one & which))
}

#[test]
fn any_two_choices_meet_in_each_way() {
    for choices in 4..=8 {
        let few = few(choices);
        assert_eq!(few.iter().collect::<BTreeSet<_>>().len(), FEW);
        let met = |count| {
            let ways = few.iter().flat_map(|one| ways(choices, count, *one));
            ways.collect::<BTreeSet<_>>().len()
        };
        let possible = |count: u32| {
            let which = all(choices).filter(|which| which.count_ones() == count);
            which.count() << count
        };
        assert_eq!(met(2), possible(2), "{few:?}");
        println!(
            "{choices} choices: {few:?}: {} of {} threes",
            met(3),
            possible(3)
        );
    }
}
