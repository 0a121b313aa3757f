//! Files written whole, and onto the disk.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Writes a new file.
///
/// * `like`: whose owner and permissions it gets; `None`: the caller's, and those of a file that all may read
pub(super) fn write(new: &Path, text: &str, like: Option<&Metadata>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // Never open to more than it will be.
    let mode = if like.is_some() { 0o600 } else { 0o644 };
    let mut file = options.mode(mode).open(new)?;
    if let Some(like) = like {
        let is = file.metadata()?;
        if (is.uid(), is.gid()) != (like.uid(), like.gid()) {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(like.mode() & 0o777))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Gives a file its name, which nobody else has. Unlike a rename, this replaces nothing that came meanwhile.
pub(super) fn put_new(new: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(new, path) {
        // It has its name; that it has another one too is nobody's loss, as that one is passed over.
        Ok(()) => {
            if let Err(error) = fs::remove_file(new) {
                tracing::debug!(%error, path = %new.display(), "stays behind");
            }
            Ok(())
        }
        Err(error) if no_links(&error) => put_reserved(new, path),
        Err(error) => Err(error),
    }
}

/// What file systems without links say.
fn no_links(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

/// The same where a file has one name at most: an empty file takes it, and is replaced. A crash in between leaves that one.
fn put_reserved(new: &Path, path: &Path) -> io::Result<()> {
    File::create_new(path)?;
    fs::rename(new, path).inspect_err(|_| {
        // Ours, and empty.
        let _ = fs::remove_file(path);
    })
}

/// Makes a directory, and writes out the names that lead to it. Those that it made, innermost first; none of them stays when
/// it fails.
pub(super) fn make(folder: &Path) -> io::Result<Vec<&Path>> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made: Vec<&Path> = folder.ancestors().take_while(missing).collect();
    let written = || {
        fs::create_dir_all(folder)?;
        made.iter().try_for_each(|path| sync(path.parent()))
    };
    if let Err(error) = written() {
        take_away(&made);
        return Err(error);
    }
    Ok(made)
}

/// Removes what [`make`] made, but for what somebody else uses meanwhile.
pub(super) fn take_away(made: &[&Path]) {
    // Outer ones may be there where an inner one was never made.
    for path in made {
        let _ = fs::remove_dir(path);
    }
}

/// The names in a directory are written out.
pub(super) fn sync(folder: Option<&Path>) -> io::Result<()> {
    match folder {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_name_that_is_taken_is_not_taken_away_with_links_or_without() {
        for put in [put_new, put_reserved] {
            let home = tempfile::tempdir().unwrap();
            let (new, path) = (home.path().join("new"), home.path().join("name"));
            write(&new, "first", None).unwrap();
            put(&new, &path).unwrap();
            assert!(!new.exists());
            write(&new, "second", None).unwrap();
            let error = put(&new, &path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert_eq!(fs::read_to_string(&path).unwrap(), "first");
            assert_eq!(fs::read_to_string(&new).unwrap(), "second");
        }
    }
}
