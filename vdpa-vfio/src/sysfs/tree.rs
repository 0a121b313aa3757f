//! Reading files that somebody else wrote.
//!
//! Nothing here trusts what it reads: files are read up to a bound, directories up to a number of entries, only regular
//! files are opened, so that none makes the reader wait, and what is no text, or no number, is told as unknown.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Fact;
use super::address::excerpt;
use super::error::said;

/// Bytes of an attribute: the kernel gives at most a page.
pub const ATTRIBUTE: usize = 4096;

/// White space around a text.
const BLANK: [char; 3] = ['\n', ' ', '\t'];

/// Entries of a directory.
const ENTRIES: usize = 65_536;

/// A file system's root, or a copy of part of one.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// What is below `root`: `/`, but for a copy.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it is the system that runs.
    pub fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the system is in this tree.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The bytes of a regular file, at most `limit`.
    pub fn bytes(&self, path: impl AsRef<Path>, limit: usize) -> Fact<Vec<u8>> {
        match read(&self.path(path), limit) {
            Ok(bytes) => Fact::Is(bytes),
            Err(error) => Fact::failed(&error),
        }
    }

    /// The text of a regular file of at most `limit` bytes, without white space around it.
    pub fn text(&self, path: impl AsRef<Path>, limit: usize) -> Fact<String> {
        self.bytes(path, limit)
            .and_then(|bytes| match str::from_utf8(&bytes) {
                Ok(text) => Fact::Is(text.trim_matches(BLANK).to_owned()),
                Err(_) => Fact::Unknown("it is no text".to_owned()),
            })
    }

    /// The same for people: what is no text in it is shown as such.
    pub fn shown(&self, path: impl AsRef<Path>, limit: usize) -> Fact<String> {
        self.bytes(path, limit).map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.trim_matches(BLANK).to_owned()
        })
    }

    /// An attribute that holds a number: hexadecimal with `0x` before it, or else decimal.
    pub fn number<N: TryFrom<u64>>(&self, path: impl AsRef<Path>) -> Fact<N> {
        self.text(path, ATTRIBUTE).and_then(|text| {
            match number(&text).and_then(|number| N::try_from(number).ok()) {
                Some(number) => Fact::Is(number),
                None => Fact::Unknown(format!("`{}` is no such number", excerpt(&text))),
            }
        })
    }

    /// What a link points to. The link is not followed.
    pub fn target(&self, path: impl AsRef<Path>) -> Fact<PathBuf> {
        match fs::read_link(self.path(path)) {
            Ok(target) => Fact::Is(target),
            // EINVAL: something is there, and it is no link.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Fact::Unknown("it is no link".to_owned())
            }
            Err(error) => Fact::failed(&error),
        }
    }

    /// The last part of what a link points to: sysfs names drivers and groups in this way. The link is not followed.
    pub fn link(&self, path: impl AsRef<Path>) -> Fact<String> {
        self.target(path).and_then(|target| {
            match target.file_name().and_then(|name| name.to_str()) {
                Some(name) => plain(name.to_owned()),
                None => Fact::Unknown("the link points to nothing with a name".to_owned()),
            }
        })
    }

    /// The names in a directory, sorted. Those that are no text, or have control characters, are left out.
    pub fn names(&self, path: impl AsRef<Path>) -> Fact<Vec<String>> {
        self.texts(path).map(|mut names| {
            names.retain(|name| !name.contains(char::is_control));
            names
        })
    }

    /// The names in a directory that are text, whatever characters they have, sorted.
    pub fn texts(&self, path: impl AsRef<Path>) -> Fact<Vec<String>> {
        self.entries(path).map(|names| {
            let texts = names.into_iter().map(OsString::into_string);
            texts.filter_map(Result::ok).collect()
        })
    }

    /// All names in a directory, sorted.
    pub fn entries(&self, path: impl AsRef<Path>) -> Fact<Vec<OsString>> {
        match names(&self.path(path)) {
            Ok(names) => Fact::Is(names),
            Err(error) => Fact::failed(&error),
        }
    }
}

impl<T> Fact<T> {
    fn failed(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Absent,
            _ => Self::Unknown(said(error)),
        }
    }
}

fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let other = |why: &str| io::Error::other(why.to_owned());
    // Looked at before it is opened: opening a device may do something, opening a pipe may wait.
    if !fs::metadata(path)?.is_file() {
        return Err(other("it is no regular file"));
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let mut bytes = Vec::new();
    let more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(more).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(other(&format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for (seen, entry) in fs::read_dir(path)?.enumerate() {
        if seen >= ENTRIES {
            return Err(io::Error::other(format!(
                "it has more than {ENTRIES} entries"
            )));
        }
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// A name of the kernel's, which has no control characters. One of a copy may have any, and is shown on a terminal.
pub(super) fn plain(name: String) -> Fact<String> {
    match name.contains(char::is_control) {
        true => Fact::Unknown(format!("`{}` is no name", excerpt(&name))),
        false => Fact::Is(name),
    }
}

/// A number as sysfs writes it.
pub(super) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    match digits.starts_with('+') {
        true => None,
        false => u64::from_str_radix(digits, radix).ok(),
    }
}
