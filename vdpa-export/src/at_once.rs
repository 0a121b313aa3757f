//! Reads and writes that wait for nothing, whatever the flags of the file say: whoever gave it can change them.
//!
//! Linux before 6.4 knows of no such call for pipes; there the flags are relied on, as for regular files, which are always
//! ready.
#![allow(
    unsafe_code,
    reason = "preadv2 and pwritev2 with their flags, and pending signals, which no crate of ours has"
)]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

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

/// Writes what there is room for: `EAGAIN` while there is none. That the reader is gone is `EPIPE`, and no signal: a
/// program that is not written in Rust may not ignore SIGPIPE, and would end by it.
pub(crate) fn write(to: &impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let fd = to.as_fd().as_raw_fd();
    quietly(|| {
        // SAFETY: the one part is `bytes`, which is only read.
        let written = unsafe { libc::pwritev2(fd, &raw const part, 1, OWN, libc::RWF_NOWAIT) };
        match Errno::result(written) {
            Err(Errno::EOPNOTSUPP) => nix::unistd::write(to, bytes),
            written => written.map(isize::unsigned_abs),
        }
    })
}

/// Writes, and takes the signal back that a write without a reader sends to its thread.
fn quietly(write: impl FnOnce() -> Result<usize, Errno>) -> Result<usize, Errno> {
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    let before = pipe.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // One that somebody else sent is left where it is.
    let others = is_pending(Signal::SIGPIPE);
    let written = write();
    if written == Err(Errno::EPIPE) && !others {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: both are only read, and nothing is asked about the signal. Where SIGPIPE is ignored there is none.
        let _taken =
            unsafe { libc::sigtimedwait(pipe.as_ref(), std::ptr::null_mut(), &raw const now) };
    }
    before.thread_set_mask()?;
    written
}

fn is_pending(signal: Signal) -> bool {
    let mut pending = *SigSet::empty().as_ref();
    // SAFETY: a set of signals, which is filled.
    let asked = unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: it is only read.
    asked == 0 && unsafe { libc::sigismember(&raw const pending, signal as libc::c_int) } == 1
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, sigaction};

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

    thread_local! {
        /// Signals that this thread has taken: those of other tests are theirs.
        static SIGNALS: Cell<usize> = const { Cell::new(0) };
    }

    extern "C" fn count(_signal: libc::c_int) {
        SIGNALS.set(SIGNALS.get() + 1);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_and_no_signal() {
        let action = |handler| SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: it adds to a number, and nothing else.
        let before = unsafe { sigaction(Signal::SIGPIPE, &action(SigHandler::Handler(count))) };
        let mask = SigSet::thread_get_mask().unwrap();
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(other);
        assert_eq!(write(&one, b"abc"), Err(Errno::EPIPE));
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        assert_eq!(write(&writer, b"abc"), Err(Errno::EPIPE));
        assert_eq!(SigSet::thread_get_mask().unwrap(), mask);
        assert_eq!(SIGNALS.get(), 0);
        // One that somebody else sent comes all the same.
        let mut pipe = SigSet::empty();
        pipe.add(Signal::SIGPIPE);
        pipe.thread_block().unwrap();
        nix::sys::pthread::pthread_kill(nix::sys::pthread::pthread_self(), Signal::SIGPIPE)
            .unwrap();
        assert_eq!(write(&writer, b"abc"), Err(Errno::EPIPE));
        mask.thread_set_mask().unwrap();
        assert_eq!(SIGNALS.get(), 1);
        // SAFETY: as it was.
        unsafe { sigaction(Signal::SIGPIPE, &before.unwrap()) }.unwrap();
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
