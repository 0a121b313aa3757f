//! Which headers there are to compare with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One set of headers.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    /// What is given to the compiler, none for the system's own.
    pub(crate) root: Option<PathBuf>,
    /// Major and minor number of the kernel they are of.
    pub(crate) release: (u32, u32),
    /// Whether they are Debian's, as published, and not what this system happens to have.
    pub(crate) fetched: bool,
}

impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.release;
        let whose = if self.fetched {
            "fetched"
        } else {
            "the system's"
        };
        write!(f, "headers of Linux {major}.{minor} ({whose})")
    }
}

/// The system's, and what `fetch` has unpacked, oldest first. Where there is nothing to ask, the skip of `test` is told.
pub(crate) fn all(test: &str) -> Vec<Headers> {
    if Command::new("cc").arg("--version").output().is_err() {
        println!("SKIP {test}: not installed: a C compiler (apt-get install gcc libc6-dev)");
        return Vec::new();
    }
    let mut sets = Vec::new();
    if let Some(release) = release(Path::new("/usr")) {
        sets.push(Headers {
            root: None,
            release,
            fetched: false,
        });
    }
    for entry in std::fs::read_dir(cache()).into_iter().flatten() {
        let root = entry.unwrap().path();
        if let Some(release) = release(&root.join("usr")) {
            sets.push(Headers {
                root: Some(root),
                release,
                fetched: true,
            });
        }
    }
    sets.sort_by_key(|set| set.release);
    if sets.is_empty() {
        println!("SKIP {test}: not installed: kernel headers (apt-get install linux-libc-dev)");
    }
    sets
}

/// Where `fetch` keeps what it made.
fn cache() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    set("UAPI_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_default().join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("vdpa-uapi")
    })
}

/// From `linux/version.h`: `#define LINUX_VERSION_CODE` and a number.
fn release(usr: &Path) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(usr.join("include/linux/version.h")).ok()?;
    let line = text
        .lines()
        .find(|line| line.contains("LINUX_VERSION_CODE"))?;
    let code: u32 = line.split_whitespace().last()?.parse().ok()?;
    Some((code >> 16, code >> 8 & 0xff))
}
