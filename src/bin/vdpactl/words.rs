//! Words in lines of a bounded width.

/// Fills lines of at most `width` characters with the words, a space between them. A longer word has a line of its own.
pub(crate) fn filled<S: AsRef<str>>(
    words: impl IntoIterator<Item = S>,
    width: usize,
) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        let word = word.as_ref();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_they_may_be() {
        assert_eq!(filled(["ab", "cd", "ef"], 5), ["ab cd", "ef"]);
        assert_eq!(filled(["abcdefgh", "i"], 4), ["abcdefgh", "i"]);
        assert!(filled([] as [&str; 0], 4).is_empty());
    }
}
