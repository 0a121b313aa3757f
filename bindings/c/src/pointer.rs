//! What C hands over by pointer, but for what a reference stands for.
#![allow(
    unsafe_code,
    reason = "reads and writes strings and buffers that C points to, and frees handles"
)]

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use crate::failure::Failure;

/// What has to be there.
pub(crate) fn given<T>(value: Option<T>, argument: &'static str) -> Result<T, Failure> {
    value.ok_or(Failure::Null { argument })
}

/// A handle that C gives up, not NULL, of a `Box` that became a pointer. Made of what C alone hands over, which promises that
/// the handle is valid. It is C's until it is freed: a call that is refused leaves it.
pub(crate) struct GivenUp<T>(NonNull<T>);

impl<T> GivenUp<T> {
    pub(crate) fn new(handle: *mut T, argument: &'static str) -> Result<Self, Failure> {
        Ok(Self(given(NonNull::new(handle), argument)?))
    }

    /// What it stands for.
    pub(crate) fn get(&self) -> &T {
        // SAFETY: C promises that it is valid; it is freed by nobody but `free`, which takes this.
        unsafe { self.0.as_ref() }
    }

    /// Frees it. The handle is no more then, also if something panicked on the way, of which the panic hook has told: what C
    /// were to try again would be of memory that is not there.
    pub(crate) fn free(self) {
        // SAFETY: it came of a `Box`, and C promises that no other call uses it, nor any later one.
        let owned = unsafe { Box::from_raw(self.0.as_ptr()) };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(owned))) {
            // It may own anything, and panic in turn.
            std::mem::forget(payload);
        }
    }
}

/// A string of C's, copied. C alone calls what calls this, and promises that it ends with a NUL and stays as it is meanwhile.
pub(crate) fn text(from: *const c_char, argument: &'static str) -> Result<String, Failure> {
    if from.is_null() {
        return Err(Failure::Null { argument });
    }
    // SAFETY: it is not NULL, and C promises that it ends with a NUL.
    let text = unsafe { CStr::from_ptr(from) };
    let text = text.to_str().map_err(|e| Failure::NotUtf8 {
        argument,
        at: e.valid_up_to(),
    })?;
    Ok(text.to_owned())
}

/// Bytes of C's to read, not NULL. Made of what C alone hands over, which promises as many as it says, unchanged during the
/// call.
pub(crate) struct Bytes(NonNull<u8>);

impl Bytes {
    pub(crate) fn new(from: *const c_void, argument: &'static str) -> Result<Self, Failure> {
        let from = NonNull::new(from.cast_mut().cast());
        Ok(Self(given(from, argument)?))
    }

    /// `len` bytes, copied: few enough to be worth nothing more.
    pub(crate) fn read(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: C promises that there are `len` bytes, which nobody changes during the call; bytes need no alignment,
        // and `bytes` is new.
        unsafe {
            self.0
                .copy_to_nonoverlapping(NonNull::from(bytes.as_mut_slice()).cast(), len)
        };
        bytes
    }
}

/// Room of C's for bytes, not NULL. Made of what C alone hands over, which promises as much as it says, and that it is nobody
/// else's during the call.
pub(crate) struct Room(NonNull<u8>);

impl Room {
    pub(crate) fn new(to: *mut c_void, argument: &'static str) -> Result<Self, Failure> {
        Ok(Self(given(NonNull::new(to.cast()), argument)?))
    }

    /// Copies `from` there: no more than C says that it has room for.
    pub(crate) fn write(&self, from: &[u8]) {
        // SAFETY: C promises room for `from`, which cannot overlap what is borrowed here; bytes need no alignment.
        unsafe {
            self.0
                .copy_from_nonoverlapping(NonNull::from(from).cast(), from.len())
        };
    }
}
