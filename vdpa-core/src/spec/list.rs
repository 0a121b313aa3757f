//! A list of features in a device string: `A+B`, or `+A-B` on top of the default.

use super::{SpecError, Value};
use crate::bits;
use crate::device_type::DeviceType;
use crate::features::{FeatureBit, Features};
use crate::graph;

/// One name of a list.
struct Item<'s> {
    /// Whether the feature is taken out.
    out: bool,
    name: Value<'s>,
}

/// Reads a list; what it means is told at [`super::Keys::take_features`].
pub(super) fn features(
    value: &Value<'_>,
    device: DeviceType,
    possible: Features,
    default: Features,
) -> Result<Features, SpecError> {
    let text = value.text();
    let relative = text.starts_with(['+', '-']);
    let mut set = if relative {
        default
    } else {
        possible & bits::VERSION_1.mask()
    };
    let mut named = Features::NONE;
    for item in items(value) {
        let legal = || possible.names(device).map(|name| name.to_string());
        let bit = bit(device, item.name.text())
            .filter(|&bit| item.out || possible.contains(bit))
            .ok_or_else(|| item.name.unknown(legal()))?;
        if item.out {
            set = set.without(bit);
            named = named.without(bit);
        } else {
            set = set.with(bit);
            named = named.with(bit);
        }
    }
    // What was named must stand on its own; what came with the default goes with its needs.
    let closed = graph::close_down(device, set);
    let set = if closed.contains_all(named) {
        closed
    } else {
        set
    };
    graph::check_offered(device, set).map_err(|refusal| value.refused(refusal))?;
    Ok(set)
}

fn bit(device: DeviceType, name: &str) -> Option<FeatureBit> {
    let by_number = || {
        let number = after_bit(name)?;
        // `+5` parses as a number and is no digit.
        let digits = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        FeatureBit::new(number.parse().ok().filter(|_| digits)?)
    };
    bits::by_name(device, name)
        .map(bits::Named::bit)
        .or_else(by_number)
}

/// What follows `bit-` in any case.
fn after_bit(text: &str) -> Option<&str> {
    let prefix = text.get(..4)?;
    prefix
        .eq_ignore_ascii_case("bit-")
        .then(|| text.get(4..))
        .flatten()
}

/// The names of a list with their signs; the first may have none. The `-` of `bit-77` is no sign.
fn items<'s>(value: &Value<'s>) -> Vec<Item<'s>> {
    let text = value.text();
    let mut items = Vec::new();
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let out = rest.starts_with('-');
        let start = at + usize::from(rest.starts_with(['+', '-']));
        let name = text.get(start..).unwrap_or_default();
        let numbered = after_bit(name).map_or(0, |_| 4);
        let length = name
            .get(numbered..)
            .and_then(|tail| tail.find(['+', '-']))
            .map_or(name.len(), |sign| numbered + sign);
        let end = start + length;
        items.push(Item {
            out,
            name: value.part(start..end),
        });
        if end >= text.len() {
            return items;
        }
        at = end;
    }
}
