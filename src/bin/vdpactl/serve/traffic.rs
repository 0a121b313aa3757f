//! What the counters of a device come to.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::number::rate;

/// The sums that are told, by the end of the counter's name in docs/statistics.md, with the parity of its queue where that
/// is the direction: virtio 1.4 §5.1.2, a network device receives by queues of even numbers.
const SUMS: [(&str, &str, Option<u16>); 7] = [
    ("received", "packets", Some(0)),
    ("received_bytes", "bytes", Some(0)),
    ("sent", "packets", Some(1)),
    ("sent_bytes", "bytes", Some(1)),
    ("requests", "requests.", None),
    ("read_bytes", "bytes.read", None),
    ("written_bytes", "bytes.written", None),
];

/// The sums of a device's counters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Traffic([u64; SUMS.len()]);

impl Traffic {
    pub(super) fn of(counters: &BTreeMap<String, u64>) -> Self {
        let mut sums = [0; SUMS.len()];
        for (name, value) in counters {
            let Some((queue, what)) = queue(name) else {
                continue;
            };
            for (sum, (_, end, parity)) in sums.iter_mut().zip(SUMS) {
                let is = what == end || end.ends_with('.') && what.starts_with(end);
                if is && parity.is_none_or(|parity| queue % 2 == parity) {
                    // They wrap around, as each of them does.
                    *sum = u64::wrapping_add(*sum, *value);
                }
            }
        }
        Self(sums)
    }

    /// What came to it since `before`, a second. Only what ever came.
    pub(super) fn per_second(
        &self,
        before: &Self,
        passed: Duration,
    ) -> BTreeMap<&'static str, f64> {
        let seconds = passed.as_secs_f64().max(1e-3);
        let both = self.0.iter().zip(before.0);
        let rates = SUMS.iter().zip(both).filter(|(_, (now, _))| **now != 0);
        rates
            .map(|((name, ..), (now, before))| (*name, now.wrapping_sub(before) as f64 / seconds))
            .collect()
    }
}

/// `queue3.packets` as 3 and `packets`.
fn queue(name: &str) -> Option<(u16, &str)> {
    let (queue, what) = name.strip_prefix("queue")?.split_once('.')?;
    Some((queue.parse().ok()?, what))
}

/// Rates for people.
pub(super) fn words(per_second: &BTreeMap<&'static str, f64>) -> String {
    let of = |name: &str| per_second.get(name).copied().unwrap_or_default();
    let mut words = Vec::new();
    for (what, packets, bytes) in [
        ("received", "received", "received_bytes"),
        ("sent", "sent", "sent_bytes"),
    ] {
        if per_second.contains_key(packets) {
            let (packets, bits) = (rate(of(packets)), rate(of(bytes) * 8.0));
            words.push(format!("{what} {packets}pps {bits}bit/s"));
        }
    }
    if per_second.contains_key("requests") {
        words.push(format!("{}requests/s", rate(of("requests"))));
        for (what, bytes) in [("read", "read_bytes"), ("written", "written_bytes")] {
            words.push(format!("{what} {}B/s", rate(of(bytes))));
        }
    }
    match words.is_empty() {
        true => "nothing yet".to_owned(),
        false => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect()
    }

    #[test]
    fn a_direction_is_the_parity_of_its_queue() {
        let now = Traffic::of(&counters(&[
            ("queue0.packets", 100),
            ("queue2.packets", 20),
            ("queue1.packets", 7),
            ("queue1.bytes", 700),
            ("queue1.dropped.tx_short", 9),
            ("control.commands", 3),
            ("port.flooded", 4),
        ]));
        let rates = now.per_second(&Traffic::default(), Duration::from_secs(2));
        let expected = [("received", 60.0), ("sent", 3.5), ("sent_bytes", 350.0)];
        assert_eq!(rates, expected.into());
    }

    #[test]
    fn requests_of_all_kinds_are_requests() {
        let before = counters(&[("queue0.requests.read", 10), ("queue0.bytes.read", 4096)]);
        let mut after = before.clone();
        after.insert("queue1.requests.flush".to_owned(), 5);
        let rates = Traffic::of(&after).per_second(&Traffic::of(&before), Duration::from_secs(1));
        assert_eq!(rates, [("requests", 5.0), ("read_bytes", 0.0)].into());
        assert_eq!(
            words(&rates),
            "5.00 requests/s, read 0.00 B/s, written 0.00 B/s"
        );
    }

    #[test]
    fn what_counts_nothing_has_nothing_to_say() {
        let none = Traffic::of(&counters(&[("fault.kick.lost", 3)]));
        assert_eq!(none, Traffic::default());
        assert_eq!(
            words(&none.per_second(&none, Duration::ZERO)),
            "nothing yet"
        );
    }
}
