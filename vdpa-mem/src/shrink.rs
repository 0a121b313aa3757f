//! Files that shrink while they are mapped.
//!
//! Touching a page behind the end of a mapped file raises SIGBUS, which ends the process. A file with the seal against
//! shrinking cannot come to that; one without can be cut by whoever else has it, at any moment. [`survive_shrinking`] has
//! the process live on: the page is replaced by zeroes of this process's own, the region is [lost], and whoever watches is
//! told, so that the device is reset and that memory let go of.
//!
//! ```text
//!   a load or store ─▶ SIGBUS ─▶ in a region of the table? ── no ─▶ the handler of before
//!                                      │ yes
//!                                      ▼
//!                        mmap zeroes over the page, mark the region, wake the thread ─▶ watchers
//! ```
//!
//! [lost]: crate::DmaMemory::is_lost
#![allow(
    unsafe_code,
    reason = "a signal handler, and what it may do: loads, stores, mmap and write"
)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::pipe2;

use crate::MemError;

/// Regions that are looked after at a time. Those beyond are as if nothing had been installed.
const MANY: usize = 4096;

/// A region that is looked after. `start` is 0 while the slot is free, and 1 while it is being filled.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    page: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; MANY] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; MANY];

/// The writing end of the pipe to the thread that tells; -1 before.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// What handled the signal before; leaked, since the handler may run at any time.
static BEFORE: AtomicPtr<SigAction> = AtomicPtr::new(ptr::null_mut());

type Watcher = dyn Fn() + Send + Sync;
static WATCHERS: Mutex<Vec<Weak<Watcher>>> = Mutex::new(Vec::new());

/// From here on the process survives that a file which it has mapped with [`Region::shared`](crate::Region::shared) is cut
/// under its hands: see the module. For as long as it runs; asking again changes nothing. It takes the signal SIGBUS, of
/// which what is not about such a region goes to the handler of before, and a thread.
///
/// Up to 4096 such regions at a time are looked after. Memory that somebody else mapped is not.
///
/// # Errors
/// [`MemError::File`] when the system does not give a pipe or a thread, or refuses the handler.
pub fn survive_shrinking() -> Result<(), MemError> {
    static ONCE: Mutex<bool> = Mutex::new(false);
    let mut installed = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    let failed = |source: std::io::Error| MemError::File { source };
    let flags = nix::fcntl::OFlag::O_CLOEXEC;
    let (reading, writing): (OwnedFd, OwnedFd) = pipe2(flags).map_err(|e| failed(e.into()))?;
    // A full pipe wakes the thread all the same, and must not stop the handler.
    let nonblocking = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&writing, nonblocking).map_err(|e| failed(e.into()))?;
    std::thread::Builder::new()
        .name("vdpa-shrink".into())
        .spawn(move || tell_of_losses(File::from(reading)))
        .map_err(failed)?;
    WAKE.store(writing.as_raw_fd(), Ordering::Release);
    // For the life of the process, as the handler is.
    std::mem::forget(writing);
    let action = SigAction::new(
        SigHandler::SigAction(handle),
        SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing but what is allowed in one.
    let before = unsafe { sigaction(Signal::SIGBUS, &action) }.map_err(|e| failed(e.into()))?;
    BEFORE.store(Box::into_raw(Box::new(before)), Ordering::Release);
    *installed = true;
    Ok(())
}

/// Calls `watcher` after each loss of memory of a file that shrank, from a thread of its own, for as long as it lives.
pub fn watch_losses(watcher: &Arc<impl Fn() + Send + Sync + 'static>) {
    let mut all = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|watcher| watcher.strong_count() > 0);
    let watcher: Arc<Watcher> = Arc::clone(watcher) as _;
    all.push(Arc::downgrade(&watcher));
}

/// A region in the table. Leaves it when dropped, which comes before its memory is unmapped.
pub(crate) struct Looked(&'static Slot);

impl Looked {
    /// Looks after `len` bytes from `base` on, of a file with pages of `page` bytes. `None`: the table is full.
    pub(crate) fn after(base: NonNull<u8>, len: usize, page: usize) -> Option<Self> {
        let start = base.as_ptr() as usize;
        let free = |slot: &&Slot| {
            let taken = slot
                .start
                .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        };
        let slot = SLOTS.iter().find(free)?;
        slot.end.store(start.saturating_add(len), Ordering::Relaxed);
        slot.page.store(page, Ordering::Relaxed);
        slot.lost.store(false, Ordering::Relaxed);
        // Pairs with the acquire in `handle`.
        slot.start.store(start, Ordering::Release);
        Some(Self(slot))
    }

    /// Whether something of it was replaced by zeroes.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
    }
}

fn tell_of_losses(mut pipe: File) {
    let mut bytes = [0; 64];
    // It ends with the process.
    while pipe.read(&mut bytes).is_ok_and(|read| read > 0) {
        let all = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
        let living: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        // Outside of the lock: a watcher may be the last to hold one.
        drop(all);
        for watcher in living {
            watcher();
        }
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid one to a handler with SA_SIGINFO.
    let said = unsafe { info.as_ref() };
    // One that somebody sent has no address.
    let at = said.filter(|said| said.si_code > 0).map(|said| {
        // SAFETY: a SIGBUS of the kernel's has an address.
        let at = unsafe { said.si_addr() };
        at as usize
    });
    let holds = |slot: &&Slot, at| {
        let start = slot.start.load(Ordering::Acquire);
        start > 1 && start <= at && at < slot.end.load(Ordering::Relaxed)
    };
    let ours = at.and_then(|at| {
        SLOTS
            .iter()
            .find(|slot| holds(slot, at))
            .map(|slot| (slot, at))
    });
    if !ours.is_some_and(|(slot, at)| replace(slot, at)) {
        pass_on(signal, info, context);
    }
}

/// Puts zeroes in place of the page at `at`.
fn replace(slot: &Slot, at: usize) -> bool {
    let page = slot.page.load(Ordering::Relaxed).max(1);
    let begin = at - at % page;
    // SAFETY: errno is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above. What was interrupted may be about to read it.
    let before = unsafe { *errno };
    // SAFETY: the page is one of a mapping of ours, which nothing but the region unmaps, and the thread that faulted holds
    // it. Nobody can have read anything there since the file was cut.
    let mapped = unsafe {
        libc::mmap(
            begin as *mut libc::c_void,
            page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    let done = mapped != libc::MAP_FAILED;
    if done {
        slot.lost.store(true, Ordering::Release);
        let wake = WAKE.load(Ordering::Acquire);
        // SAFETY: one byte of the stack; a pipe that is full has woken the thread before.
        let _full = unsafe { libc::write(wake, [1u8].as_ptr().cast(), 1) };
    }
    // SAFETY: as above.
    unsafe { *errno = before };
    done
}

/// What the handler of before would have done.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.load(Ordering::Acquire);
    // SAFETY: null, or leaked by `survive_shrinking`.
    let before = unsafe { before.as_ref() };
    match before.map(SigAction::handler) {
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        Some(SigHandler::Handler(handler)) => handler(signal),
        // SAFETY: allowed in a handler. The instruction is tried again, and ends the process.
        Some(SigHandler::SigDfl | SigHandler::SigIgn) | None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}
