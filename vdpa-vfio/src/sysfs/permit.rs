//! What this process may do: open VFIO's files, and lock memory.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{AccessFlags, eaccess};

use super::Fact;
use super::address::excerpt;
use super::error::said;
use super::tree::{ATTRIBUTE, Tree};

/// Whether this process can open a file to read and write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opens {
    /// It can.
    Yes,
    /// It is not allowed to.
    Denied {
        /// The user that the file belongs to.
        uid: u32,
        /// The group that the file belongs to.
        gid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no such file.
    Missing,
    /// That cannot be seen.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl Opens {
    pub(super) fn of(tree: &Tree, path: &str) -> Self {
        let path = tree.path(path);
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::Missing,
            Err(error) => return Self::Unknown { why: said(&error) },
        };
        match eaccess(&path, AccessFlags::R_OK | AccessFlags::W_OK) {
            Ok(()) => Self::Yes,
            Err(_) => Self::Denied {
                uid: about.uid(),
                gid: about.gid(),
                mode: about.mode() & 0o7777,
            },
        }
    }
}

/// How much memory this process may lock: what a device is to reach must be.
///
/// # Spec
/// `getrlimit(2)`, RLIMIT_MEMLOCK; `capabilities(7)`, CAP_IPC_LOCK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memlock {
    /// Bytes, [`u64::MAX`] for any.
    pub limit: Fact<u64>,
    /// Whether the limit does not hold for this process.
    pub exempt: Fact<bool>,
}

impl Memlock {
    pub(super) fn read(tree: &Tree) -> Self {
        Self {
            limit: tree
                .text("/proc/self/limits", ATTRIBUTE)
                .and_then(|text| limit(&text)),
            exempt: tree
                .text("/proc/self/status", ATTRIBUTE)
                .and_then(|text| exempt(&text)),
        }
    }

    /// The most bytes that can be locked, [`u64::MAX`] for any.
    pub fn bytes(&self) -> Fact<u64> {
        match self.exempt {
            Fact::Is(true) => Fact::Is(u64::MAX),
            _ => self.limit.clone(),
        }
    }
}

fn limit(text: &str) -> Fact<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => Fact::Is(u64::MAX),
        Some(soft) => match soft.parse() {
            Ok(soft) => Fact::Is(soft),
            Err(_) => Fact::Unknown(format!("`{}` is no limit", excerpt(soft))),
        },
        None => Fact::Absent,
    }
}

fn exempt(text: &str) -> Fact<bool> {
    /// `linux/capability.h`: CAP_IPC_LOCK.
    const IPC_LOCK: u64 = 1 << 14;

    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match line.map(|line| u64::from_str_radix(line.trim(), 16)) {
        Some(Ok(capabilities)) => Fact::Is(capabilities & IPC_LOCK != 0),
        Some(Err(_)) => Fact::Unknown("CapEff is no mask".to_owned()),
        None => Fact::Absent,
    }
}
