//! Faults on purpose: which, how often, and the dice that decide.
//!
//! ```text
//!   fault=KIND[:RATE]+KIND[:RATE]...   seed=N
//!         \__/ \___/
//!          |    0.01  each occasion with this probability, 0 to 1 (without a rate: 0.01)
//!          |    @N    occasion N alone, counted from 1
//!          |    /N    each N-th occasion
//!          a `Kind`: of a layer, or of a parent by itself
//! ```
//!
//! A [`Plan`] is such a list with its seed. Who makes faults of a kind asks it for a [`Dice`] on each lane of its own, such
//! as a queue, and throws that on every occasion. The dice of each kind and lane are apart: with the same seed, a lane
//! that sees the same occasions sees the same faults, whatever happens on the others.
//!
//! ```
//! use vdpa_core::faults::{Kind, Plan};
//! use vdpa_core::spec::DeviceSpec;
//!
//! # fn main() -> Result<(), vdpa_core::SpecError> {
//! const LOST: Kind = Kind { name: "kick.lost", about: "a kick does not arrive" };
//! let spec = DeviceSpec::parse("sim:net,fault=kick.lost:/3")?;
//! let value = spec.value("fault").unwrap();
//! let plan = Plan::parse(&value, 7, [LOST])?;
//! let mut dice = plan.dice(LOST, 0).unwrap();
//! let struck: Vec<bool> = (0..6).map(|_| dice.strikes()).collect();
//! assert_eq!(struck, [false, false, true, false, false, true]);
//! assert_eq!(plan.count(LOST), 2);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::spec::{SpecError, Value};

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// Its name: `kick.lost`.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
}

/// On which occasions a fault is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate(When);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// With this probability, in units of 2^-53, which a float holds exactly.
    Chance(u64),
    /// On this one.
    Once(u64),
    /// On each one of so many.
    Every(u64),
}

/// 1, as a probability.
const CERTAIN: u64 = 1 << 53;

impl Rate {
    /// Each occasion with this probability; what is beyond 0 to 1 counts as the nearer of them, and no number as 0.
    pub fn chance(probability: f64) -> Self {
        // Saturates, and makes 0 of what is no number.
        Self(When::Chance(
            (probability.clamp(0.0, 1.0) * CERTAIN as f64) as u64,
        ))
    }

    /// Occasion `n` alone, counted from 1.
    pub fn once(n: u64) -> Self {
        Self(When::Once(n.max(1)))
    }

    /// Each `n`-th occasion.
    pub fn every(n: u64) -> Self {
        Self(When::Every(n.max(1)))
    }

    /// Reads `0.01`, `@3` or `/8`.
    ///
    /// # Errors
    /// [`SpecError`] when it is none of them, or out of its range.
    pub fn parse(value: &Value<'_>) -> Result<Self, SpecError> {
        let text = value.text();
        let counted = || value.part(1..text.len()).integer(1..=u64::MAX);
        match text.as_bytes().first() {
            Some(b'@') => Ok(Self::once(counted()?)),
            Some(b'/') => Ok(Self::every(counted()?)),
            _ => {
                let range = 0.0..=1.0;
                let chance: f64 = text.parse().map_err(|_| {
                    value
                        .malformed("a rate (0.01, @3 for the third time alone, /8 for each eighth)")
                })?;
                match range.contains(&chance) {
                    true => Ok(Self::chance(chance)),
                    false => Err(value.out_of_range(&range)),
                }
            }
        }
    }
}

impl Default for Rate {
    /// One occasion in a hundred.
    fn default() -> Self {
        Self::chance(0.01)
    }
}

/// One kind that is asked for.
#[derive(Clone)]
struct Fault {
    kind: Kind,
    rate: Rate,
    /// How often it was made.
    made: Arc<AtomicU64>,
    lanes: Lanes,
}

/// How far the dice on each lane are.
type Lanes = Arc<Mutex<BTreeMap<u64, Arc<Mutex<Throws>>>>>;

/// What was thrown on a lane.
#[derive(Debug)]
struct Throws {
    occasions: u64,
    generator: Xoshiro256PlusPlus,
}

/// The faults that are asked for, and their seed. Clones count together.
#[derive(Clone)]
pub struct Plan {
    seed: u64,
    faults: Vec<Fault>,
}

impl Plan {
    /// Nothing yet, with this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: Vec::new(),
        }
    }

    /// Reads `KIND[:RATE]+KIND[:RATE]...`.
    ///
    /// * `legal`: the kinds that there are
    ///
    /// # Errors
    /// [`SpecError`] that points at a kind that there is not, with those that there are; at one that comes twice; at a
    /// rate that is none.
    pub fn parse(
        value: &Value<'_>,
        seed: u64,
        legal: impl IntoIterator<Item = Kind>,
    ) -> Result<Self, SpecError> {
        let legal: Vec<Kind> = legal.into_iter().collect();
        let mut plan = Self::new(seed);
        let mut rest = Some(value.clone());
        while let Some(list) = rest {
            let (item, more) = list.split('+');
            rest = more;
            let (name, rate) = item.split(':');
            let kind = legal.iter().find(|kind| kind.name == name.text());
            let kind = kind.ok_or_else(|| name.unknown(legal.iter().map(|kind| kind.name)))?;
            if plan.has(*kind) {
                return Err(name.malformed("named once: it was before"));
            }
            let rate = rate.map_or(Ok(Rate::default()), |rate| Rate::parse(&rate))?;
            plan = plan.with(*kind, rate);
        }
        Ok(plan)
    }

    /// The same with faults of one more kind.
    #[must_use]
    pub fn with(mut self, kind: Kind, rate: Rate) -> Self {
        self.faults.push(Fault {
            kind,
            rate,
            made: Arc::default(),
            lanes: Lanes::default(),
        });
        self
    }

    /// What of it is of these kinds; `None` for nothing.
    pub fn of(&self, kinds: &[Kind]) -> Option<Self> {
        let faults = self.faults.iter();
        let faults: Vec<_> = faults
            .filter(|fault| kinds.contains(&fault.kind))
            .cloned()
            .collect();
        let seed = self.seed;
        (!faults.is_empty()).then_some(Self { seed, faults })
    }

    /// What makes it the same again.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether faults of this kind are asked for.
    pub fn has(&self, kind: Kind) -> bool {
        self.fault(kind).is_some()
    }

    /// How often faults of this kind were made by now.
    pub fn count(&self, kind: Kind) -> u64 {
        self.fault(kind)
            .map_or(0, |fault| fault.made.load(Ordering::Relaxed))
    }

    /// The dice for this kind on one lane; `None` if none are asked for. Asked for again, they go on where they were:
    /// what counts occasions goes on when a queue is started anew.
    ///
    /// * `lane`: whatever has occasions of its own, such as the number of a queue
    pub fn dice(&self, kind: Kind, lane: u64) -> Option<Dice> {
        let fault = self.fault(kind)?;
        let mut lanes = lock(&fault.lanes);
        let throws = lanes.entry(lane).or_insert_with(|| {
            // FNV-1a of the name: the same in every process. The generator spreads what it is seeded with.
            let name = kind.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let lane = lane.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Arc::new(Mutex::new(Throws {
                occasions: 0,
                generator: Xoshiro256PlusPlus::seed_from_u64(self.seed ^ name ^ lane),
            }))
        });
        Some(Dice {
            rate: fault.rate,
            throws: Arc::clone(throws),
            made: Arc::clone(&fault.made),
        })
    }

    /// Calls `to` for each kind that is asked for, as counters of a device: `fault.KIND`, how often it was made.
    pub fn read(&self, to: &mut dyn FnMut(&str, u64)) {
        for Fault { kind, made, .. } in &self.faults {
            to(
                &format!("fault.{}", kind.name),
                made.load(Ordering::Relaxed),
            );
        }
    }

    fn fault(&self, kind: Kind) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.kind == kind)
    }
}

/// Whether they ask for the same; not how far they are.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        let asked = |plan: &Self| -> Vec<_> {
            let faults = plan.faults.iter();
            faults.map(|fault| (fault.kind, fault.rate)).collect()
        };
        self.seed == other.seed && asked(self) == asked(other)
    }
}

impl Eq for Plan {}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults.iter();
        f.debug_struct("Plan")
            .field("seed", &self.seed)
            .field(
                "faults",
                &DebugMap(faults.map(|f| (f.kind.name, f.rate.0)).collect()),
            )
            .finish()
    }
}

struct DebugMap(Vec<(&'static str, When)>);

impl fmt::Debug for DebugMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(k, v)| (k, v)))
            .finish()
    }
}

/// Decides for one kind on one lane. Thrown once on each occasion.
#[derive(Debug)]
pub struct Dice {
    rate: Rate,
    throws: Arc<Mutex<Throws>>,
    made: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dice {
    /// Whether the fault is to be made on this occasion. It is then counted as made.
    pub fn strikes(&mut self) -> bool {
        let mut throws = lock(&self.throws);
        throws.occasions = throws.occasions.wrapping_add(1);
        let strikes = match self.rate.0 {
            When::Chance(chance) => throws.generator.next_u64() >> 11 < chance,
            When::Once(n) => throws.occasions == n,
            When::Every(n) => throws.occasions.is_multiple_of(n),
        };
        drop(throws);
        if strikes {
            self.made.fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }

    /// A number that says more about a fault that is made: how late, which byte.
    pub fn draw(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (least, most) = (*range.start(), *range.end());
        // The bias of a remainder is of no matter here.
        let drawn = lock(&self.throws).generator.next_u64();
        let span = most.saturating_sub(least).checked_add(1);
        let above = span.map_or(drawn, |span| drawn.checked_rem(span).unwrap_or(0));
        least.saturating_add(above)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
