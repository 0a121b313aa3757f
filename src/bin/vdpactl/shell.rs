//! Command lines that are printed to be run again.

use std::borrow::Cow;

/// A word as a shell takes it: in quotes where it would make something else of it.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => Cow::Borrowed(word),
        false => Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        for plain in ["sim:net,mtu=1400", "pci:0000:01:00.0", "./a_b-c.img"] {
            assert_eq!(quoted(plain), plain);
        }
        for (word, wanted) in [
            ("", "''"),
            (
                "mdev:slice,of=sim:net;mtu=1400",
                "'mdev:slice,of=sim:net;mtu=1400'",
            ),
            ("known bug", "'known bug'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(word), wanted);
        }
    }
}
