//! Which feature needs which: virtio 1.4's dependencies as one table, and why a set is refused.
//!
//! A [`Rule`] says: who has `bit` has one of `any_of` as well. A feature with several needs has
//! several rules. Since no rule forbids anything, every set has one largest subset that keeps
//! all rules; [`close_down`] finds it.
//!
//! ```text
//! what a device offers     check_offered     every rule; legacy bits may be there
//! what a driver accepts    check_accepted    offered before; no legacy bit; every rule but
//!                                            those on offers alone
//! ```
//!
//! ```
//! use vdpa_core::bits::{self, net};
//! use vdpa_core::DeviceType;
//! use vdpa_core::graph;
//!
//! let set = bits::VERSION_1 | net::GUEST_TSO4;
//! let refusal = graph::check(DeviceType::Net, set).unwrap_err();
//! assert_eq!(
//!     refusal.to_string(),
//!     "net features refused: GUEST_TSO4 needs GUEST_CSUM, which is not in the set",
//! );
//! ```

use crate::bits;
use crate::device_type::DeviceType;
use crate::features::Features;

mod reason;
mod rule;

pub use reason::{Reason, Refusal};
use rule::mandatory;
pub use rule::{Binding, Rule, rules};

fn missing(device: DeviceType, set: Features) -> impl Iterator<Item = Reason> {
    mandatory(device)
        .filter(move |(any_of, _)| !set.intersects(Features::of(any_of)))
        .map(move |(any_of, clause)| Reason::Missing {
            device,
            any_of,
            clause,
        })
}

/// The bits of `set` that mean something on a device of this type, the legacy interface's among them. The others are of a
/// later specification than virtio 1.4, or wrong; a driver passes them over (§2.2.1).
#[must_use]
pub fn known(device: DeviceType, set: Features) -> Features {
    // Of a type that virtio 1.4 does not describe the own bits are not known: not judged.
    let unjudged = match bits::own(device) {
        Some(_) => Features::NONE,
        None => bits::TYPE_RANGE,
    };
    set & (bits::defined(device) | bits::legacy(device) | unjudged)
}

fn unknown(device: DeviceType, set: Features) -> impl Iterator<Item = Reason> {
    (set - known(device, set)).iter().map(move |bit| {
        if bits::TYPE_RANGE.contains(bit) {
            Reason::Undefined { device, bit }
        } else {
            Reason::Reserved { bit }
        }
    })
}

fn unmet(device: DeviceType, set: Features, binding: Binding) -> impl Iterator<Item = Reason> {
    rules(device)
        .iter()
        .filter(move |rule| rule.binding() == Binding::Always || binding == Binding::Offer)
        .filter(move |rule| !rule.is_kept_by(set))
        .map(move |rule| Reason::Needs {
            device,
            bit: rule.bit(),
            any_of: rule.any_of(),
            clause: rule.clause(),
        })
}

/// Everything that speaks against a driver's use of this set; empty if nothing does.
///
/// What a device offers follows other rules: see [`check_offered`].
pub fn explain(device: DeviceType, set: Features) -> Vec<Reason> {
    let old = (set & bits::legacy(device))
        .iter()
        .map(|bit| Reason::Legacy { device, bit });
    missing(device, set)
        .chain(unknown(device, set))
        .chain(old)
        .chain(unmet(device, set, Binding::Always))
        .collect()
}

/// Whether a driver may run a device of this type with this set of features.
///
/// # Errors
/// [`Refusal`] with all that [`explain`] finds.
pub fn check(device: DeviceType, set: Features) -> Result<(), Refusal> {
    Refusal::unless_empty(device, set, explain(device, set))
}

/// Whether a device of this type may offer this set (virtio 1.4 §2.2.2, §6.2). Legacy bits are
/// no reason to refuse: a transitional device has them.
///
/// # Errors
/// [`Refusal`]: `VERSION_1` is not there, a bit is reserved or not defined, or a dependency is
/// not met.
pub fn check_offered(device: DeviceType, set: Features) -> Result<(), Refusal> {
    let reasons = missing(device, set)
        .chain(unknown(device, set))
        .chain(unmet(device, set, Binding::Offer))
        .collect();
    Refusal::unless_empty(device, set, reasons)
}

/// Whether a driver may accept `accepted` of what a device offers (virtio 1.4 §2.2.1, §6.1).
///
/// # Errors
/// [`Refusal`]: a bit was not offered, or [`check`] refuses the set.
pub fn check_accepted(
    device: DeviceType,
    offered: Features,
    accepted: Features,
) -> Result<(), Refusal> {
    let reasons = (accepted - offered)
        .iter()
        .map(|bit| Reason::NotOffered { device, bit })
        .chain(explain(device, accepted))
        .collect();
    Refusal::unless_empty(device, accepted, reasons)
}

/// The largest subset in which no feature misses what it depends on, by the rules for offers.
///
/// For an end that carries less than the device offers (64 bits, no control queue): take out
/// what it can't carry, then close down. Reserved and undefined bits stay, and nothing is added.
#[must_use]
pub fn close_down(device: DeviceType, set: Features) -> Features {
    let mut closed = set;
    loop {
        let dropped: Features = rules(device)
            .iter()
            .filter(|rule| !rule.is_kept_by(closed))
            .map(Rule::bit)
            .collect();
        if dropped.is_empty() {
            return closed;
        }
        closed -= dropped;
    }
}

/// The most that a driver may accept of an offer: the bits that are defined for this type, closed
/// down. Bits it can't know are left out, which is no reason to fail (virtio 1.4 §2.2.1).
#[must_use]
pub fn acceptable(device: DeviceType, offered: Features) -> Features {
    close_down(device, offered & bits::defined(device))
}

#[cfg(test)]
mod tests;
