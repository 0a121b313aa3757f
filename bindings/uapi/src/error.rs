//! What the kernel refuses, and what it said that cannot be understood.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Why a call failed. Each message names the call, and what the kernel said to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device file that cannot be opened.
    #[error("cannot open {}: {}", path.display(), way_out(source, made_by))]
    Open {
        /// The file.
        path: PathBuf,
        /// What makes it, in words.
        made_by: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A descriptor of something else.
    #[error("descriptor {fd} is no {what}: {call}: {errno}")]
    Foreign {
        /// Its number.
        fd: i32,
        /// What it was to be.
        what: &'static str,
        /// The call that was made to find out.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// An ioctl, `read` or `write` that failed.
    #[error("{call}: {errno}")]
    Call {
        /// The kernel's name for it.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// An address space that the kernel would not look at: the change would be made to address space 0.
    #[error(
        "{call}: address space {asid}: the kernel takes 0 until VHOST_BACKEND_F_IOTLB_ASID is accepted (`set_backend_features`)"
    )]
    NoSpace {
        /// The kernel's name for it.
        call: &'static str,
        /// The address space.
        asid: u32,
    },
    /// A buffer that is longer than the call can say.
    #[error("{call}: {len} bytes are more than the {most} that it takes")]
    TooLong {
        /// The kernel's name for it.
        call: &'static str,
        /// How long it is, in bytes.
        len: usize,
        /// How long it may be, in bytes.
        most: usize,
    },
    /// A name with a NUL in it, or an empty one.
    #[error("the name {name:?} is empty or has a NUL in it")]
    Name {
        /// The name.
        name: String,
    },
    /// A message with fewer bytes than it has to have.
    #[error("a {what} of {len} bytes: it has {least}")]
    Short {
        /// What it was to be.
        what: &'static str,
        /// How many there are.
        len: usize,
        /// How many there have to be.
        least: usize,
    },
    /// A message with a number that means nothing.
    #[error("a {what} with {field} {value}, which has no meaning")]
    Unknown {
        /// What it was to be.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A system without the netlink family.
    #[error("the kernel has no netlink family {family}: `modprobe vdpa`")]
    NoFamily {
        /// Its name.
        family: &'static str,
    },
    /// A netlink message that cannot be taken apart.
    #[error("{command}: an answer that cannot be understood")]
    Netlink {
        /// The kernel's name for the command.
        command: &'static str,
        /// Why.
        source: netlink_packet_core::DecodeError,
    },
    /// Netlink that ended before the answer did, or answered something else.
    #[error("{command}: the answer lacks {lacks}")]
    Answer {
        /// The kernel's name for the command.
        command: &'static str,
        /// What is missing.
        lacks: &'static str,
    },
}

impl Error {
    /// What the kernel said, where it said something.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } | Self::Foreign { errno, .. } => Some(*errno),
            Self::Open { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
}

/// What the system says of a file that cannot be opened, and what there is to do.
fn way_out(source: &io::Error, made_by: &str) -> String {
    let errno = source.raw_os_error().map(Errno::from_raw);
    let hint = match errno {
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => format!("{made_by} makes it"),
        Some(Errno::EACCES | Errno::EPERM) => {
            "root may open it, and who owns the file or is of its group".into()
        }
        Some(Errno::EBUSY) => "somebody has it open, and one may: `fuser` says who".into(),
        _ => return source.to_string(),
    };
    format!("{source}: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_cannot_be_opened_is_told_with_the_way_out_of_that() {
        let said = |errno: Errno| {
            let error = Error::Open {
                path: "/dev/vduse/card".into(),
                made_by: "`vduse::Control::create`",
                source: io::Error::from_raw_os_error(errno as i32),
            };
            assert_eq!(error.errno(), Some(errno));
            error.to_string()
        };
        for (errno, way_out) in [
            (Errno::ENOENT, "Control::create"),
            (Errno::ENXIO, "Control::create"),
            (Errno::EACCES, "root may"),
            (Errno::EBUSY, "`fuser` says who"),
            (Errno::EMFILE, "Too many open files"),
        ] {
            let said = said(errno);
            assert!(
                said.starts_with("cannot open /dev/vduse/card: ") && said.contains(way_out),
                "{said}"
            );
            let named = said.contains("Control::create");
            assert_eq!(named, way_out == "Control::create", "{said}");
        }
    }
}
