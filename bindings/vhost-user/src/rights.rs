//! Descriptors that come over a socket.
//!
//! `nix` makes the call; the control message is read here, from the buffer, since nix gives none of it back once the
//! kernel has cut it short (`MSG_CTRUNC`): what the kernel had installed by then would stay open for ever.
//!
//! ```text
//!   struct cmsghdr      0         W       W+4     W+8        W: bytes of a usize
//!                       ├ cmsg_len ┼ level ┼ type ┼─ descriptors, 4 bytes each ─ ... padded to W
//! ```
#![allow(
    unsafe_code,
    reason = "descriptors that the kernel has just made are numbers, which only this process owns"
)]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recvmsg};

/// How many descriptors the kernel passes with one call (`SCM_MAX_FD`).
const MOST: usize = 253;

const WORD: usize = size_of::<usize>();
const CMSG_HEADER: usize = WORD + 8;

/// The length of a control message with all of them, which is a multiple of [`WORD`] where `WORD` is 8 or 4.
const SPACE: usize = (CMSG_HEADER + MOST * size_of::<RawFd>()).next_multiple_of(WORD);

/// What one call has brought.
pub(crate) struct Brought {
    /// How many bytes; 0 at the end.
    pub(crate) len: usize,
    /// What came with them, close on exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether the kernel dropped some, since this process may have no more.
    pub(crate) lost: bool,
}

/// Receives what is there, without waiting.
pub(crate) fn receive(socket: &UnixStream, into: &mut [u8]) -> Result<Brought, Errno> {
    let mut control = [0u8; SPACE];
    let (len, lost) = {
        let mut parts = [IoSliceMut::new(into)];
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let lost = received.flags.contains(MsgFlags::MSG_CTRUNC);
        (received.bytes, lost)
    };
    Ok(Brought {
        len,
        fds: taken(&control),
        lost,
    })
}

/// The descriptors of a control message that the kernel wrote over zeros. There is at most one message in it, since
/// nothing but descriptors is asked for on such a socket.
fn taken(control: &[u8; SPACE]) -> Vec<OwnedFd> {
    numbers(control)
        .into_iter()
        .map(|fd| {
            // SAFETY: the kernel made this descriptor for the call whose buffer this is, and nobody else has its number;
            // each buffer is read once.
            unsafe { OwnedFd::from_raw_fd(fd) }
        })
        .collect()
}

/// Their numbers, or none if there is no such message.
fn numbers(control: &[u8; SPACE]) -> Vec<RawFd> {
    let field = |at: usize| {
        let bytes = control.get(at..)?.first_chunk()?;
        Some(i32::from_ne_bytes(*bytes))
    };
    let len = control
        .first_chunk()
        .map_or(0, |word| usize::from_ne_bytes(*word));
    let level = field(WORD);
    let kind = field(WORD.saturating_add(4));
    if level != Some(libc::SOL_SOCKET) || kind != Some(libc::SCM_RIGHTS) {
        return Vec::new();
    }
    let Some(body) = control.get(CMSG_HEADER..len) else {
        return Vec::new();
    };
    body.chunks_exact(size_of::<RawFd>())
        .filter_map(|four| Some(RawFd::from_ne_bytes(four.try_into().ok()?)))
        .filter(|fd| *fd >= 0)
        .collect()
}
