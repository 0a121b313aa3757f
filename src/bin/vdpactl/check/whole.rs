//! A file that has all of its new content, or is as it was.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A file that is to be written once there is something to write.
pub(super) struct Whole {
    to: PathBuf,
    /// Where it is written first; `None` where it is written in place: a terminal or a pipe.
    beside: Option<PathBuf>,
}

impl Whole {
    /// Sees that it can be written, and changes nothing of it.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        // Through links: what they lead to is replaced, and not they.
        let to = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let in_place = fs::metadata(&to).is_ok_and(|there| !there.is_file());
        let beside = match in_place {
            true => {
                File::options().write(true).open(&to)?;
                None
            }
            false => {
                let mut name = to.clone().into_os_string();
                name.push(format!(".{}.part", std::process::id()));
                let beside = PathBuf::from(name);
                File::create(&beside)?;
                Some(beside)
            }
        };
        Ok(Self { to, beside })
    }

    /// Writes it.
    pub(super) fn write(mut self, text: &str) -> io::Result<()> {
        let Some(beside) = &self.beside else {
            return fs::write(&self.to, text);
        };
        fs::write(beside, text)?;
        fs::rename(beside, &self.to)?;
        self.beside = None;
        Ok(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Nothing depends on its being gone.
            let _left = fs::remove_file(beside);
        }
    }
}
