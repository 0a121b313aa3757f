//! Numbers as people read them.

/// `12345678` as `12 345 678`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A rate with three figures and its unit's prefix: `12.3 M`, `987 k`, `42.0 `.
pub(crate) fn rate(per_second: f64) -> String {
    let (value, prefix) = match per_second {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let decimals = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {prefix}")
}

/// Nanoseconds in a unit that suits them: `850 ns`, `12.3 µs`, `4.56 ms`.
pub(crate) fn duration(nanos: u64) -> String {
    let nanos = nanos as f64;
    let (value, unit) = match nanos {
        v if v >= 1e9 => (v / 1e9, "s"),
        v if v >= 1e6 => (v / 1e6, "ms"),
        v if v >= 1e3 => (v / 1e3, "µs"),
        v => return format!("{v:.0} ns"),
    };
    let decimals = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// `count` of `thing`, with an `s` unless it is one.
pub(crate) fn count(count: u64, thing: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {thing}{s}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1 000");
        assert_eq!(grouped(12_345_678), "12 345 678");
        assert_eq!(grouped(u64::MAX), "18 446 744 073 709 551 615");
    }

    #[test]
    fn rates_have_three_figures() {
        assert_eq!(rate(12_345_678.0), "12.3 M");
        assert_eq!(rate(9_995_000.0), "10.0 M");
        assert_eq!(rate(987_654.0), "988 k");
        assert_eq!(rate(1.5), "1.50 ");
        assert_eq!(rate(0.0), "0.00 ");
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        assert_eq!(duration(850), "850 ns");
        assert_eq!(duration(12_345), "12.3 µs");
        assert_eq!(duration(4_560_000), "4.56 ms");
        assert_eq!(duration(2_000_000_000), "2.00 s");
    }

    #[test]
    fn one_is_not_plural() {
        assert_eq!(count(1, "frame"), "1 frame");
        assert_eq!(count(1200, "frame"), "1 200 frames");
    }
}
