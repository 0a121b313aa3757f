//! Whoever waits by poll(2) on a thread has its peer take a turn instead, on the same thread: so two that talk to each other
//! are one order of things, and nobody waits for the other to run.
//!
//! The executable's own `poll` comes before the C library's, and this is it. Threads without a peer wait as ever.
#![allow(
    unsafe_code,
    reason = "defines poll(2), which the code under test calls"
)]

use std::cell::RefCell;

/// Who is waited for.
pub trait Peer {
    /// Does what comes next. `false`: there is nothing that it does by itself, and the wait is one.
    fn turn(&mut self) -> bool;
}

thread_local! {
    static PEER: RefCell<Option<Box<dyn Peer>>> = const { RefCell::new(None) };
}

/// From here on whoever waits on this thread waits for this one.
pub fn attend(peer: Box<dyn Peer>) {
    PEER.set(Some(peer));
}

fn turn() -> bool {
    // A peer that waits itself has none, nor has a thread that ends.
    let turned = PEER.try_with(|peer| match peer.try_borrow_mut() {
        Ok(mut peer) => peer.as_mut().is_some_and(|peer| peer.turn()),
        Err(_) => false,
    });
    turned.unwrap_or(false)
}

/// As poll(2), which may return early with nothing.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn poll(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: libc::c_int,
) -> libc::c_int {
    let looks = timeout == 0 || turn();
    let millis = if looks { 0 } else { timeout };
    let time = libc::timespec {
        tv_sec: (millis / 1000).into(),
        tv_nsec: (millis % 1000 * 1_000_000).into(),
    };
    let time = if millis < 0 {
        std::ptr::null()
    } else {
        &raw const time
    };
    // SAFETY: the caller answers for `fds`, as it does to the C library; `time` is on the stack, and no mask is given.
    unsafe { libc::ppoll(fds, count, time, std::ptr::null()) }
}
