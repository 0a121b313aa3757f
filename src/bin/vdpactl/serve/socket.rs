//! The socket of a device, as the command line has it: its path, and who may connect.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::unistd::{Group, User};
use vdpa::export::vhost_user::Admission;

/// The path by which two ways to write it are one, as far as its directory is there.
pub(super) fn whole(path: &Path) -> PathBuf {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    match (fs::canonicalize(dir), path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    }
}

/// Who may connect.
///
/// * `mode`: as of a file, 0 to 0o777; `None`: what the umask leaves
/// * `owner`: `USER`, `USER:GROUP` or `:GROUP`, names or numbers
///
/// # Errors
/// A name that nobody has.
pub(super) fn admission(mode: Option<u32>, owner: Option<&str>) -> Result<Admission> {
    let (user, group) = match owner {
        None => (None, None),
        Some(owner) => match owner.split_once(':') {
            None => (Some(user(owner)?), None),
            Some(("", of)) => (None, Some(group(of)?)),
            Some((owner, of)) => (Some(user(owner)?), Some(group(of)?)),
        },
    };
    Ok(Admission { mode, user, group })
}

fn user(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = User::from_name(name)
        .with_context(|| format!("--owner: user `{name}` cannot be looked up"))?;
    let found = found.ok_or_else(|| anyhow!("--owner: there is no user `{name}`"))?;
    Ok(found.uid.as_raw())
}

fn group(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = Group::from_name(name)
        .with_context(|| format!("--owner: group `{name}` cannot be looked up"))?;
    let found = found.ok_or_else(|| anyhow!("--owner: there is no group `{name}`"))?;
    Ok(found.gid.as_raw())
}
