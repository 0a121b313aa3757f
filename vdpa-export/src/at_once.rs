//! Reads and writes that wait for nothing, whatever the flags of the file say: whoever gave it can change them.
//!
//! Linux before 6.4 knows of no such call for pipes; there the flags are relied on, as for regular files, which are always
//! ready.
#![allow(
    unsafe_code,
    reason = "preadv2 and pwritev2 with their flags, which no crate of ours has"
)]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// At its own position, as read(2) and write(2) have it.
const OWN: libc::off_t = -1;

/// Reads what is there: 0 bytes at the end, `EAGAIN` while there are none.
pub(crate) fn read(from: &impl AsFd, into: &mut [u8]) -> Result<usize, Errno> {
    let part = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let fd = from.as_fd().as_raw_fd();
    // SAFETY: the one part is `into`, which is borrowed for writing as long as the call lasts.
    let read = unsafe { libc::preadv2(fd, &raw const part, 1, OWN, libc::RWF_NOWAIT) };
    match Errno::result(read) {
        Err(Errno::EOPNOTSUPP) => nix::unistd::read(from, into),
        read => read.map(isize::unsigned_abs),
    }
}

/// Writes what there is room for: `EAGAIN` while there is none.
pub(crate) fn write(to: &impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let fd = to.as_fd().as_raw_fd();
    // SAFETY: the one part is `bytes`, which is only read.
    let written = unsafe { libc::pwritev2(fd, &raw const part, 1, OWN, libc::RWF_NOWAIT) };
    match Errno::result(written) {
        Err(Errno::EOPNOTSUPP) => nix::unistd::write(to, bytes),
        written => written.map(isize::unsigned_abs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a pipe that blocks.
    #[test]
    fn a_pipe_that_is_empty_or_full_is_not_waited_for() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        assert_eq!(write(&writer, b"abc"), Ok(3));
        let mut bytes = [0; 8];
        assert_eq!(read(&reader, &mut bytes), Ok(3));
        assert_eq!(&bytes[..3], b"abc");
        assert_eq!(read(&reader, &mut bytes), Err(Errno::EAGAIN));
        while write(&writer, &[0; 4096]).is_ok() {}
        assert_eq!(write(&writer, &[0; 4096]), Err(Errno::EAGAIN));
        drop(writer);
        let mut rest = vec![0; 1 << 20];
        assert!(read(&reader, &mut rest).unwrap() > 0);
        assert_eq!(read(&reader, &mut rest), Ok(0));
    }

    #[test]
    fn sockets_and_files_are_read_and_written_as_well() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(write(&one, b"abc"), Ok(3));
        let mut bytes = [0; 8];
        assert_eq!(read(&other, &mut bytes), Ok(3));
        assert_eq!(read(&other, &mut bytes), Err(Errno::EAGAIN));
        let file = tempfile::tempfile().unwrap();
        assert_eq!(write(&file, b"abc"), Ok(3));
        assert_eq!(read(&file, &mut bytes), Ok(0));
    }
}
