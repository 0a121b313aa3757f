//! What a soak does, decided by its seed alone: how the device is set up in each phase, and where which interruption comes.
//!
//! ```text
//!   phase 0: packed, no EVENT_IDX, 2 pairs         phase 1: split, mergeable
//!   ──────────┬───────┬─────────── … ──┬──── end   ───┬── …
//!           move   suspend           reset          pause            about EIGHT of them, EVERY packets apart
//! ```
//! At the end of a phase everything that is under way is waited for, and the device is set up otherwise.

use std::fmt::{self, Write as _};

use vdpa::net::Ring;

use super::dice::Dice;
use super::operation::Operation;

/// Interruptions of a phase.
const EIGHT: u64 = 8;

/// What can be chosen of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Choices {
    /// Ring formats; at least one.
    pub(crate) rings: Vec<Ring>,
    /// Whether each of these can be negotiated: then half of the phases do.
    pub(crate) mergeable: bool,
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
    /// The most queue pairs, or request queues.
    pub(crate) queues: u16,
    /// Interruptions that it can take; at least one.
    pub(crate) operations: Vec<Operation>,
}

/// What a seed makes of them.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    choices: Choices,
    seed: u64,
    packets: u64,
    every: u64,
    /// Every combination of rings and features once, in an order of the seed's.
    combinations: Vec<Combination>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Combination {
    ring: Ring,
    mergeable: bool,
    event_idx: bool,
    indirect: bool,
}

/// How long packets, or requests, are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lengths {
    /// The shortest there are.
    Short,
    /// The longest there are.
    Long,
    /// Any.
    Mixed,
}

/// How the device is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Configuration {
    pub(crate) ring: Ring,
    pub(crate) mergeable: bool,
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
    /// Queue pairs, or request queues.
    pub(crate) queues: u16,
    /// Descriptors in a queue, at most.
    pub(crate) queue_size: u16,
    pub(crate) lengths: Lengths,
}

/// Traffic with one configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Phase {
    /// Its number, from 0.
    pub(crate) number: u64,
    pub(crate) configuration: Configuration,
    /// How many packets it has.
    pub(crate) packets: u64,
    /// Where it is interrupted, in order.
    pub(crate) stops: Vec<Stop>,
}

/// An interruption.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    /// After how many packets of the phase.
    pub(crate) at: u64,
    pub(crate) operation: Operation,
    /// Which queue, or how many: whoever does it knows what there is.
    pub(crate) which: u64,
}

impl Plan {
    /// `packets` packets with an interruption each `every` of them on average.
    pub(crate) fn new(choices: Choices, seed: u64, packets: u64, every: u64) -> Self {
        let options = |offered: bool| {
            if offered {
                &[true, false][..]
            } else {
                &[false]
            }
        };
        let mut combinations = Vec::new();
        for &ring in &choices.rings {
            for &mergeable in options(choices.mergeable) {
                for &event_idx in options(choices.event_idx) {
                    combinations.extend(options(choices.indirect).iter().map(|&indirect| {
                        Combination {
                            ring,
                            mergeable,
                            event_idx,
                            indirect,
                        }
                    }));
                }
            }
        }
        Dice::new(seed, 0).shuffle(&mut combinations);
        Self {
            choices,
            seed,
            packets,
            every: every.max(1),
            combinations,
        }
    }

    /// How many packets there are from one interruption to the next, if nothing else is said: few where there are few of
    /// them, and never so many that 10^8 packets have less than 10^4 interruptions.
    pub(crate) fn every(packets: u64) -> u64 {
        (packets / 2000).clamp(50, 2000)
    }

    /// The phases, in order.
    pub(crate) fn phases(&self) -> impl Iterator<Item = Phase> + '_ {
        let length = self.every.saturating_mul(EIGHT);
        (0..self.packets.div_ceil(length)).map(move |number| {
            let begun = number * length;
            self.phase(number, length.min(self.packets - begun))
        })
    }

    /// What decides on everything in a phase that the plan does not: lengths, bursts, which request is next.
    pub(crate) fn dice(&self, phase: &Phase) -> Dice {
        Dice::new(!self.seed, phase.number)
    }

    /// A number that differs where plans differ.
    pub(crate) fn digest(&self) -> u32 {
        let mut text = String::new();
        let mut digest = crc32fast::Hasher::new();
        for phase in self.phases() {
            text.clear();
            // Into a string.
            let _never = write!(text, "{phase:?}");
            digest.update(text.as_bytes());
        }
        digest.finalize()
    }

    fn phase(&self, number: u64, packets: u64) -> Phase {
        let mut dice = Dice::new(self.seed, number + 1);
        let place = number % self.combinations.len() as u64;
        let Combination {
            ring,
            mergeable,
            event_idx,
            indirect,
        } = self.combinations[place as usize];
        let configuration = Configuration {
            ring,
            mergeable,
            event_idx,
            indirect,
            // As many as there are in every second phase.
            queues: match dice.below(2) {
                0 => self.choices.queues,
                _ => dice.between(1, self.choices.queues.into()) as u16,
            },
            queue_size: dice.one_of(&[16, 64, 256, 1024]),
            lengths: dice.one_of(&[
                Lengths::Short,
                Lengths::Long,
                Lengths::Mixed,
                Lengths::Mixed,
            ]),
        };
        let mut deck = Vec::new();
        let mut stops = Vec::new();
        let mut at = 0;
        loop {
            at += dice.between(self.every.div_ceil(2), self.every + self.every / 2);
            if at >= packets {
                break;
            }
            // Each once before one comes again.
            if deck.is_empty() {
                deck.clone_from(&self.choices.operations);
                dice.shuffle(&mut deck);
            }
            let Some(operation) = deck.pop() else {
                break;
            };
            let which = dice.next();
            stops.push(Stop {
                at,
                operation,
                which,
            });
        }
        Phase {
            number,
            configuration,
            packets,
            stops,
        }
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ring,
            mergeable,
            event_idx,
            indirect,
            queues,
            queue_size,
            lengths,
        } = self;
        write!(f, "{ring} rings of {queue_size}, {queues} of them, ")?;
        for (on, name) in [
            (mergeable, "mergeable buffers"),
            (event_idx, "EVENT_IDX"),
            (indirect, "INDIRECT_DESC"),
        ] {
            if *on {
                write!(f, "{name}, ")?;
            }
        }
        f.write_str(match lengths {
            Lengths::Short => "short packets",
            Lengths::Long => "long packets",
            Lengths::Mixed => "packets of all lengths",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn choices() -> Choices {
        Choices {
            rings: Ring::ALL.to_vec(),
            mergeable: true,
            event_idx: true,
            indirect: true,
            queues: 4,
            operations: Operation::ALL.to_vec(),
        }
    }

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_is_another() {
        let plan = |seed| Plan::new(choices(), seed, 100_000, 200);
        let phases: Vec<Phase> = plan(7).phases().collect();
        assert_eq!(phases, plan(7).phases().collect::<Vec<_>>());
        assert_eq!(plan(7).digest(), plan(7).digest());
        assert_ne!(plan(7).digest(), plan(8).digest());
        let sum: u64 = phases.iter().map(|phase| phase.packets).sum();
        assert_eq!(sum, 100_000);
        for phase in &phases {
            assert!(phase.stops.is_sorted_by_key(|stop| stop.at));
            assert!(phase.stops.iter().all(|stop| stop.at < phase.packets));
        }
    }

    #[test]
    fn every_combination_and_every_operation_comes() {
        let plan = Plan::new(choices(), 1, 100_000, 200);
        let phases: Vec<Phase> = plan.phases().collect();
        let combinations: BTreeSet<_> = phases
            .iter()
            .map(|phase| {
                let c = phase.configuration;
                (c.ring.name(), c.mergeable, c.event_idx, c.indirect)
            })
            .collect();
        assert_eq!(combinations.len(), 32);
        let operations: BTreeSet<_> = phases
            .iter()
            .flat_map(|phase| phase.stops.iter().map(|stop| stop.operation))
            .collect();
        assert_eq!(operations.len(), Operation::ALL.len());
    }

    #[test]
    fn a_hundred_million_packets_are_interrupted_ten_thousand_times() {
        let packets = 100_000_000;
        let plan = Plan::new(choices(), 1, packets, Plan::every(packets));
        let stops: usize = plan.phases().map(|phase| phase.stops.len()).sum();
        assert!(stops >= 10_000, "{stops}");
        assert!(Plan::every(10_000) <= 100 && Plan::every(0) > 0);
    }

    #[test]
    fn what_cannot_be_chosen_never_is() {
        let few = Choices {
            rings: vec![Ring::Packed],
            mergeable: false,
            event_idx: false,
            indirect: false,
            queues: 1,
            operations: vec![Operation::Reset],
        };
        for phase in Plan::new(few, 3, 50_000, 100).phases() {
            let c = phase.configuration;
            assert_eq!((c.ring, c.queues), (Ring::Packed, 1));
            assert!(!c.mergeable && !c.event_idx && !c.indirect);
            let only = |stop: &Stop| stop.operation == Operation::Reset;
            assert!(phase.stops.iter().all(only));
        }
    }
}
