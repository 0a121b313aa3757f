//! A span of memory shared with a peer.
#![allow(
    unsafe_code,
    reason = "the one place where shared memory is touched: raw copies and atomic cells"
)]

use alloc::sync::Arc;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::copy::{copy_between, copy_in, copy_out};
use crate::{DirtyLog, Gpa};

/// A span of memory shared with a peer: an address and a length, never a reference.
///
/// The peer may change the bytes at any time, so nothing here hands out a reference: payload is *copied*, once, into
/// memory of our own ([`read`](Self::read), [`write`](Self::write)); ring fields are *cells*: relaxed atomics, in
/// virtio's little-endian order. Whoever uses a location as a cell keeps to one width there, on all threads: mixed
/// widths would be values that nobody stored.
///
/// A span that was translated for reading only cannot be written through: there is no room in it.
///
/// The lifetime is that of the read section ([`Section`](crate::Section)) or of the owner
/// ([`Region`](crate::Region), [`Window`](crate::Window)) that keeps the memory mapped.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    base: NonNull<u8>,
    len: usize,
    /// Bytes that may be written and need not be logged: all of them, or none. So one check finds out all that a
    /// store has to know, and what has to be logged is found behind it.
    room: usize,
    /// Where writes are logged; none in a span that may not be written.
    log: Option<&'a Logged>,
    owner: PhantomData<&'a ()>,
}

/// Memory whose writes are logged: which log, and where the memory is there.
pub(crate) struct Logged {
    to: Arc<dyn DirtyLog>,
    host: NonNull<u8>,
    gpa: Gpa,
}

// SAFETY: the pointer is only measured from, never followed.
unsafe impl Send for Logged {}
// SAFETY: as above.
unsafe impl Sync for Logged {}

impl Logged {
    /// The memory from `host` on, which the log knows from `gpa` on.
    #[cfg(feature = "std")]
    pub(crate) fn new(to: Arc<dyn DirtyLog>, host: NonNull<u8>, gpa: Gpa) -> Self {
        Self { to, host, gpa }
    }

    /// `len` bytes were written at `at`, which is in the memory.
    fn mark(&self, at: *mut u8, len: usize) {
        let offset = at.addr().wrapping_sub(self.host.as_ptr().addr());
        if let Some(gpa) = self.gpa.checked_add(offset as u64) {
            self.to.mark(gpa, len as u64);
        }
    }
}

impl<'a> Bytes<'a> {
    /// # Safety
    /// `len` bytes from `base` on are mapped for `'a`, writable too if `writable`, and no Rust reference into them
    /// exists.
    #[inline]
    pub(crate) unsafe fn new(
        base: NonNull<u8>,
        len: usize,
        writable: bool,
        log: Option<&'a Logged>,
    ) -> Self {
        let log = if writable { log } else { None };
        Self {
            base,
            len,
            room: if writable && log.is_none() { len } else { 0 },
            log,
            owner: PhantomData,
        }
    }

    /// The length in bytes.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it may be written through.
    #[inline]
    pub const fn is_writable(&self) -> bool {
        self.room == self.len || self.log.is_some()
    }

    /// The address of the first byte in this process. A number, for diagnostics and for handing to the system.
    pub fn hva(&self) -> crate::Hva {
        crate::Hva::new(self.base.as_ptr() as u64)
    }

    /// The `len` bytes from `at` on, or `None` if they are not all inside.
    #[inline]
    pub fn slice(&self, at: usize, len: usize) -> Option<Bytes<'a>> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `at` is inside the span or one past it, so the pointer stays inside the allocation.
        let base = unsafe { self.base.add(at) };
        Some(Bytes {
            base,
            len,
            room: len.min(self.room),
            ..*self
        })
    }

    /// Asks for the first bytes (two cache lines) to be brought near, for reading soon: a hint, which changes nothing
    /// and does nothing where the processor has no such thing.
    ///
    /// Memory that another core wrote last takes long to come. Hint at all of a batch before copying the first.
    #[inline(always)]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
        {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

            let first: *const i8 = self.base.as_ptr().cast();
            // SAFETY: a prefetch reads nothing and faults nowhere.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first) };
            if self.len > 64 {
                // SAFETY: as above.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(64)) };
            }
        }
    }

    /// Copies bytes from `at` on into `to`. Answers how many there were: fewer than asked for at the end of the span.
    #[inline]
    pub fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let len = to.len().min(self.len.saturating_sub(at));
        if len != 0 {
            // SAFETY: `at < self.len` as `len` is not 0.
            let from = unsafe { self.base.add(at) };
            // SAFETY: `len` is bounded by both sides; `to` is exclusive, so the two cannot overlap.
            unsafe { copy_out(from.as_ptr(), to.as_mut_ptr(), len) };
        }
        len
    }

    /// Copies `from` to the bytes from `at` on. Answers how many there was room for: none in a span that may only be
    /// read.
    #[inline]
    pub fn write(&self, at: usize, from: &[u8]) -> usize {
        let len = from.len().min(self.room.saturating_sub(at));
        if len != 0 {
            // SAFETY: `at < self.len` as `len` is not 0.
            let to = unsafe { self.base.add(at) };
            // SAFETY: `len` is bounded by both sides; no reference into the span exists, so `from` is elsewhere.
            unsafe { copy_in(from.as_ptr(), to.as_ptr(), len) };
            return len;
        }
        match self.log {
            Some(_) => self.write_logged(at, from),
            None => 0,
        }
    }

    /// Copies all of `from` to the bytes from `at` on. Answers whether it had room; otherwise nothing is written.
    ///
    /// For what is small and of a length that the compiler knows: constants become stores of constants, with no load from
    /// memory that was just written piece by piece. Such a load waits until every store before it is done, those to lines
    /// of another core too.
    #[inline(always)]
    pub fn write_array<const N: usize>(&self, at: usize, from: &[u8; N]) -> bool {
        match at.checked_add(N) {
            Some(end) if end <= self.room => {
                // SAFETY: `at` is inside the span, or at its end where `N` is 0.
                let to = unsafe { self.base.add(at) };
                // SAFETY: the `N` bytes are inside; no reference into the span exists, so `from` is elsewhere.
                unsafe { copy_in(from.as_ptr(), to.as_ptr(), N) };
                true
            }
            Some(end) if end <= self.len && self.log.is_some() => self.write_logged(at, from) == N,
            _ => false,
        }
    }

    #[cold]
    fn write_logged(&self, at: usize, from: &[u8]) -> usize {
        let len = self.unlogged().write(at, from);
        self.mark(at, len);
        len
    }

    /// Sets the bits of `mask` in the byte at `at`, and no others, whoever else sets or clears some meanwhile. What was
    /// written before is visible to who sees them and acquires. `false`: there is no such byte, or it may not be
    /// written.
    pub(crate) fn set_bits(&self, at: usize, mask: u8) -> bool {
        if at >= self.room {
            return false;
        }
        // SAFETY: `at` is inside.
        let byte = unsafe { self.base.add(at) }.cast::<AtomicU8>();
        // SAFETY: inside the span, one byte is aligned, and there is no reference to it but atomics.
        unsafe { byte.as_ref() }.fetch_or(mask, Ordering::Release);
        true
    }

    /// Copies `len` bytes from `at` on to the bytes of `to` from `to_at` on, between two spans of shared memory. Answers
    /// how many there were: fewer at the end of either, none where `to` may only be read. Overlapping spans of one memory
    /// end up as copied in one order or the other.
    pub fn copy_to(&self, at: usize, to: &Bytes<'_>, to_at: usize, len: usize) -> usize {
        if !to.is_writable() {
            return 0;
        }
        let there = self.len.saturating_sub(at);
        let len = len.min(there).min(to.len.saturating_sub(to_at));
        if len != 0 {
            // SAFETY: `at < self.len` as `len` is not 0.
            let from = unsafe { self.base.add(at) };
            // SAFETY: `to_at < to.len` as `len` is not 0.
            let base = unsafe { to.base.add(to_at) };
            // SAFETY: `len` is bounded by both sides, and `to` may be written.
            unsafe { copy_between(from.as_ptr(), base.as_ptr(), len) };
            to.mark(to_at, len);
        }
        len
    }

    /// Sets `len` bytes from `at` on to zero. Answers how many there were.
    pub fn zero(&self, at: usize, len: usize) -> usize {
        const ZEROES: [u8; 256] = [0; 256];
        let mut done = 0;
        while done < len {
            let chunk = &ZEROES[..ZEROES.len().min(len - done)];
            match self.write(at.saturating_add(done), chunk) {
                0 => break,
                n => done += n,
            }
        }
        done
    }

    /// A span that may be written and is logged, as one that is not logged: who writes through it tells the log.
    fn unlogged(&self) -> Self {
        let (room, log) = (self.len, None);
        Self { room, log, ..*self }
    }

    /// Tells the log of `len` bytes that were written at `at`.
    pub(crate) fn mark(&self, at: usize, len: usize) {
        if let Some(log) = self.log
            && len != 0
        {
            log.mark(self.base.as_ptr().wrapping_add(at), len);
        }
    }

    /// The `N` cells of type `T` from `at` on, if they are in the first `len` bytes, and `at` and the span are aligned.
    #[inline(always)]
    fn cells<T, const N: usize>(&self, at: u32, len: usize) -> Option<NonNull<[T; N]>> {
        let at = at as usize;
        if at.checked_add(size_of::<[T; N]>())? > len {
            return None;
        }
        // Apart, so that the compiler looks at the span once for a whole ring, and at `at` not at all where it knows.
        let off = |address: usize| address & (size_of::<T>() - 1) != 0;
        if off(at) || off(self.base.as_ptr() as usize) {
            return None;
        }
        // SAFETY: `at` and the bytes of the cells behind it are inside, checked above.
        Some(unsafe { self.base.add(at) }.cast())
    }
}

/// Defines one width of ring cell, and two such cells side by side.
macro_rules! cell {
    (
        $load:ident, $store:ident, $logged:ident, $load_pair:ident, $store_pair:ident, $logged_pair:ident,
        $int:ty, $atomic:ty
    ) => {
        #[doc = concat!("The little-endian `", stringify!($int), "` cell at byte `at`: a relaxed atomic load.")]
        ///
        /// The span and `at` are aligned, and the cell is inside: whoever set the ring up checked it. Elsewhere the
        /// answer is 0.
        #[inline(always)]
        pub fn $load(&self, at: u32) -> $int {
            match self.cells::<$atomic, 1>(at, self.len) {
                // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race with.
                Some(cell) => <$int>::from_le(unsafe { cell.as_ref() }[0].load(Ordering::Relaxed)),
                None => 0,
            }
        }

        #[doc = concat!("Stores a little-endian `", stringify!($int), "` to the cell at byte `at`: a relaxed atomic store.")]
        ///
        /// The span and `at` are aligned, and the cell is inside: whoever set the ring up checked it. Elsewhere
        /// nothing happens.
        #[inline(always)]
        pub fn $store(&self, at: u32, value: $int) {
            match self.cells::<$atomic, 1>(at, self.room) {
                Some(cell) => {
                    // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race
                    // with.
                    let [cell] = unsafe { cell.as_ref() };
                    cell.store(value.to_le(), Ordering::Relaxed);
                }
                None => self.$logged(at, value),
            }
        }

        /// What a store does that found no room: it may have to be logged.
        #[cold]
        #[inline(never)]
        fn $logged(&self, at: u32, value: $int) {
            if self.log.is_some() && self.cells::<$atomic, 1>(at, self.len).is_some() {
                self.unlogged().$store(at, value);
                self.mark(at as usize, size_of::<$int>());
            }
        }

        #[doc = concat!("The two `", stringify!($int), "` cells from byte `at` on, each loaded once: two loads, found with one check.")]
        #[inline(always)]
        pub fn $load_pair(&self, at: u32) -> [$int; 2] {
            match self.cells::<$atomic, 2>(at, self.len) {
                // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race with.
                Some(pair) => unsafe { pair.as_ref() }
                    .each_ref()
                    .map(|cell| <$int>::from_le(cell.load(Ordering::Relaxed))),
                None => [0; 2],
            }
        }

        #[doc = concat!("Stores to the two `", stringify!($int), "` cells from byte `at` on: two stores, found with one check.")]
        #[inline(always)]
        pub fn $store_pair(&self, at: u32, [first, second]: [$int; 2]) {
            match self.cells::<$atomic, 2>(at, self.room) {
                Some(pair) => {
                    // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race
                    // with.
                    let pair = unsafe { pair.as_ref() };
                    pair[0].store(first.to_le(), Ordering::Relaxed);
                    pair[1].store(second.to_le(), Ordering::Relaxed);
                }
                None => self.$logged_pair(at, first, second),
            }
        }

        #[cold]
        #[inline(never)]
        fn $logged_pair(&self, at: u32, first: $int, second: $int) {
            if self.log.is_some() && self.cells::<$atomic, 2>(at, self.len).is_some() {
                self.unlogged().$store_pair(at, [first, second]);
                self.mark(at as usize, 2 * size_of::<$int>());
            }
        }
    };
}

impl Bytes<'_> {
    cell!(
        load_u16,
        store_u16,
        logged_u16,
        load_u16_pair,
        store_u16_pair,
        logged_u16_pair,
        u16,
        AtomicU16
    );
    cell!(
        load_u32,
        store_u32,
        logged_u32,
        load_u32_pair,
        store_u32_pair,
        logged_u32_pair,
        u32,
        AtomicU32
    );
    cell!(
        load_u64,
        store_u64,
        logged_u64,
        load_u64_pair,
        store_u64_pair,
        logged_u64_pair,
        u64,
        AtomicU64
    );

    /// The first or the second (`second`) of the two `u64` cells from byte `at` on: one load, found with the check of
    /// both, which a look at the other need not make again.
    #[inline(always)]
    pub fn load_u64_of_pair(&self, at: u32, second: bool) -> u64 {
        match self.cells::<AtomicU64, 2>(at, self.len) {
            Some(pair) => {
                // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race with.
                let [first, other] = unsafe { pair.as_ref() };
                let cell = if second { other } else { first };
                u64::from_le(cell.load(Ordering::Relaxed))
            }
            None => 0,
        }
    }

    /// Stores to the first or the second (`second`) of the two `u64` cells from byte `at` on, found with the check of
    /// both.
    #[inline(always)]
    pub fn store_u64_of_pair(&self, at: u32, second: bool, value: u64) {
        match self.cells::<AtomicU64, 2>(at, self.room) {
            Some(pair) => {
                // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race with.
                let [first, other] = unsafe { pair.as_ref() };
                let cell = if second { other } else { first };
                cell.store(value.to_le(), Ordering::Relaxed);
            }
            None => self.logged_u64(if second { at.saturating_add(8) } else { at }, value),
        }
    }
}

impl core::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Bytes({:p}, {:#x} bytes)", self.base, self.len)
    }
}

#[cfg(test)]
mod tests;
