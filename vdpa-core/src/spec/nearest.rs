//! The name that was probably meant.

/// Names longer than this are not compared: the work grows with the square of the length.
const LONGEST: usize = 64;

/// The legal name that `given` is a slip of: at most a third of its letters differ, letter case
/// aside; the first one among equals. `None` if none comes near.
pub(super) fn nearest<'l>(given: &str, legal: &'l [String]) -> Option<&'l str> {
    if given.chars().nth(LONGEST).is_some() {
        return None;
    }
    let given: Vec<char> = given.to_lowercase().chars().collect();
    legal
        .iter()
        .filter(|name| name.len() <= LONGEST)
        .map(|name| {
            let letters: Vec<char> = name.to_lowercase().chars().collect();
            (distance(&given, &letters), letters.len(), name)
        })
        .filter(|&(distance, length, _)| distance <= (length.max(given.len()) / 3).max(1))
        // Replacing every letter is no slip.
        .filter(|&(distance, length, _)| distance < length)
        .min_by_key(|&(distance, ..)| distance)
        .map(|(.., name)| name.as_str())
}

/// How many letters must be put in, taken out, replaced or swapped with the next one.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(last.len());
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y;
            if swapped {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str) -> Option<&'static str> {
        static LEGAL: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
            ["mac", "mtu", "queue_pairs", "queue_size", "port"]
                .map(String::from)
                .to_vec()
        });
        nearest(given, &LEGAL)
    }

    #[test]
    fn slips_are_recognised_and_other_names_are_not() {
        assert_eq!(of("mca"), Some("mac"));
        assert_eq!(of("MAC"), Some("mac"));
        assert_eq!(of("queue_pair"), Some("queue_pairs"));
        assert_eq!(of("queues_size"), Some("queue_size"));
        assert_eq!(of("prot"), Some("port"));
        assert_eq!(of("speed"), None);
        assert_eq!(of(""), None);
        assert_eq!(of(&"m".repeat(100_000)), None);
    }

    #[test]
    fn the_distance_counts_single_slips() {
        let count = |a: &str, b: &str| {
            distance(
                &a.chars().collect::<Vec<_>>(),
                &b.chars().collect::<Vec<_>>(),
            )
        };
        assert_eq!(count("", ""), 0);
        assert_eq!(count("abc", ""), 3);
        assert_eq!(count("abc", "abd"), 1);
        assert_eq!(count("abc", "acb"), 1);
        assert_eq!(count("abc", "xabc"), 1);
        assert_eq!(count("kitten", "sitting"), 3);
    }
}
