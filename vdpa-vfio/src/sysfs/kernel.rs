//! Who is told to change something.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};

use super::tree::Tree;

/// Something that is written to a file of the kernel's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The file, from the system's root.
    pub path: String,
    /// What is written, without a line end.
    pub text: String,
}

impl Step {
    /// What `echo TEXT > PATH` would write.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }
}

/// As a shell does it.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => write!(f, "echo > {}", self.path),
            text => write!(f, "echo {text} > {}", self.path),
        }
    }
}

/// What acts on writes to sysfs: the kernel, or what does as it would.
pub trait Kernel: Send + Sync {
    /// Writes, and returns when that has had its effect.
    ///
    /// # Errors
    /// What the kernel answers; there may have been part of the effect all the same.
    fn write(&self, step: &Step) -> io::Result<()>;
}

/// The kernel that runs.
#[derive(Clone, Debug)]
pub struct Running {
    tree: Tree,
}

impl Running {
    /// * `tree`: of the system that runs
    pub fn new(tree: Tree) -> Self {
        Self { tree }
    }
}

impl Kernel for Running {
    fn write(&self, step: &Step) -> io::Result<()> {
        // One write, or the kernel would see two values; never a file made, which sysfs refuses anyway.
        let mut file = OpenOptions::new()
            .write(true)
            .open(self.tree.path(&step.path))?;
        let line = format!("{}\n", step.text);
        match file.write(line.as_bytes())? {
            written if written == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_line_is_written_to_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("driver_override");
        fs::write(&file, "").unwrap();
        let kernel = Running::new(Tree::new(root.path()));
        kernel
            .write(&Step::new("/driver_override", "vfio-pci"))
            .unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "vfio-pci\n");
        fs::write(&file, "").unwrap();
        kernel.write(&Step::new("/driver_override", "")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "\n");
        let missing = kernel
            .write(&Step::new("/unbind", "0000:01:00.0"))
            .unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(!root.path().join("unbind").exists());
    }
}
