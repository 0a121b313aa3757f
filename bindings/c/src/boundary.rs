//! The edge that every call crosses: no panic passes it, and an error becomes a code and a message.
#![allow(unsafe_code, reason = "exports symbols by name")]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failure::{Failure, VDPA_ERR_PANIC};

/// What [`vdpa_last_error`] says where no message could be kept: the thread is at its end, or memory is.
const NO_MESSAGE: &CStr = c"the message of the last error is lost";

struct Last {
    message: Option<CString>,
    os: c_int,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { message: None, os: 0 }) };
    /// Whether this thread runs a callback of the caller's.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, the thread runs a callback of the caller's, and calls are refused: the callback may stand under a lock.
pub(crate) struct Inside {
    before: bool,
}

impl Inside {
    pub(crate) fn enter() -> Self {
        Self {
            before: INSIDE.replace(true),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}

/// Runs the body of a call. What it returns is the call's: 0, or what the call says that it counts.
pub(crate) fn call(body: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    if INSIDE.get() {
        return remember(&Failure::InsideCallback);
    }
    // What a panic left half-done is behind the device's own locks, which go on after one; the caller is told.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    // Once more around what tells: messages are made by parents, and a payload may own anything.
    let told = catch_unwind(AssertUnwindSafe(|| match outcome {
        Ok(Ok(done)) => done,
        Ok(Err(failure)) => remember(&failure),
        Err(payload) => remember(&Failure::Panic {
            what: said(&*payload),
        }),
    }));
    told.unwrap_or_else(|payload| {
        // Nothing is around its drop, which may panic as well.
        std::mem::forget(payload);
        VDPA_ERR_PANIC
    })
}

/// Runs the body of a call that returns 0.
pub(crate) fn done(body: impl FnOnce() -> Result<(), Failure>) -> c_int {
    call(|| body().map(|()| 0))
}

fn remember(failure: &Failure) -> c_int {
    let message = CString::new(failure.message().replace('\0', "?")).ok();
    let os = failure.os_error();
    // A thread that is at its end has no place for it any more.
    let _kept = LAST.try_with(|last| last.replace(Last { message, os }));
    failure.code()
}

fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

/// The message of the last call on this thread that failed, with the names and numbers that it is about; "" if none did.
/// It is valid until the next call on this thread that fails, or until the thread ends. A call that succeeds leaves it, unless
/// a callback that ran in it made a call, which is refused.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_last_error() -> *const c_char {
    let message = LAST.try_with(|last| match last.try_borrow() {
        Ok(last) => match &last.message {
            Some(message) => message.as_ptr(),
            None => c"".as_ptr(),
        },
        Err(_) => NO_MESSAGE.as_ptr(),
    });
    message.unwrap_or(NO_MESSAGE.as_ptr())
}

/// The errno beneath the last call on this thread that failed; 0 if the system had no part in it.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_last_os_error() -> c_int {
    let os = LAST.try_with(|last| last.try_borrow().map_or(0, |last| last.os));
    os.unwrap_or(0)
}
