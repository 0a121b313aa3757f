//! Runs a piece of work where no system call is possible: a forked child in seccomp's strict mode, in which anything
//! but `read`, `write` and `exit` on this thread is death.
#![allow(
    unsafe_code,
    reason = "fork, prctl and a bare exit have no safe wrapper"
)]

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::wrong;

/// Runs `work` in the child, and says how many packets it moved without a system call.
pub fn run(work: impl FnOnce() -> u64) -> String {
    let (mut from, mut to) = std::io::pipe().unwrap_or_else(|e| wrong(&e.to_string()));
    // SAFETY: the child runs on the one thread that this process has, and leaves by a bare exit.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            // SAFETY: a request without pointers.
            let sealed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
            let moved = if sealed == 0 { work() } else { u64::MAX };
            // Allowed in strict mode; the parent sees a short read if it fails.
            let _ = to.write_all(&moved.to_le_bytes());
            // SAFETY: ends this thread, which is the process; `exit_group` is not allowed.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
            unreachable!("descriptor {} outlived its process", to.as_raw_fd());
        }
        Err(errno) => return format!("not shown: fork: {errno}"),
    };
    drop(to);
    let mut moved = [0; 8];
    let told = from.read_exact(&mut moved);
    match (waitpid(child, None), told) {
        (Ok(WaitStatus::Exited(_, 0)), Ok(())) => match u64::from_le_bytes(moved) {
            u64::MAX => "not shown: strict mode is not allowed here".into(),
            moved => format!("0 in {moved} packets"),
        },
        (status, _) => wrong(&format!("a packet made a system call: {status:?}")),
    }
}
