//! A span of memory shared with a peer.
#![allow(
    unsafe_code,
    reason = "the one place where shared memory is touched: raw copies and atomic cells"
)]

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

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
    /// Bytes that may be written: all of them, or none.
    room: usize,
    log: Option<(&'a dyn DirtyLog, Gpa)>,
    owner: PhantomData<&'a ()>,
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
        log: Option<(&'a dyn DirtyLog, Gpa)>,
    ) -> Self {
        Self {
            base,
            len,
            room: if writable { len } else { 0 },
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
        self.room == self.len
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
        let log = match self.log {
            Some((log, gpa)) => Some((log, gpa.checked_add(at as u64)?)),
            None => None,
        };
        // SAFETY: `at` is inside the span or one past it, so the pointer stays inside the allocation.
        let base = unsafe { self.base.add(at) };
        // SAFETY: a part of a valid span is one.
        Some(unsafe { Bytes::new(base, len, self.is_writable(), log) })
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
            self.mark(at, len);
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

    #[inline]
    fn mark(&self, at: usize, len: usize) {
        if let Some((log, gpa)) = self.log {
            mark_slow(log, gpa, at, len);
        }
    }

    /// The `N` cells of type `T` from `at` on, if they are in the first `len` bytes and aligned in host memory.
    #[inline(always)]
    fn cells<T, const N: usize>(&self, at: u32, len: usize) -> Option<NonNull<[T; N]>> {
        let at = at as usize;
        if at.checked_add(size_of::<[T; N]>())? > len {
            return None;
        }
        // SAFETY: `at` and the bytes of the cells behind it are inside, checked above.
        let first = unsafe { self.base.add(at) };
        let aligned = first.as_ptr() as usize & (size_of::<T>() - 1) == 0;
        aligned.then_some(first.cast())
    }
}

/// Defines one width of ring cell, and two such cells side by side.
macro_rules! cell {
    ($load:ident, $store:ident, $load_pair:ident, $store_pair:ident, $int:ty, $atomic:ty) => {
        #[doc = concat!("The little-endian `", stringify!($int), "` cell at byte `at`: a relaxed atomic load.")]
        ///
        /// `at` is inside the span and aligned: whoever set the ring up checked it. Elsewhere the answer is 0.
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
        /// `at` is inside the span and aligned: whoever set the ring up checked it. Elsewhere nothing happens.
        #[inline(always)]
        pub fn $store(&self, at: u32, value: $int) {
            if let Some(cell) = self.cells::<$atomic, 1>(at, self.room) {
                // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race with.
                let [cell] = unsafe { cell.as_ref() };
                cell.store(value.to_le(), Ordering::Relaxed);
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
        pub fn $store_pair(&self, at: u32, values: [$int; 2]) {
            if let Some(pair) = self.cells::<$atomic, 2>(at, self.room) {
                // SAFETY: inside the span and aligned, and no reference to it but atomics, which a peer may race with.
                let [first, second] = unsafe { pair.as_ref() };
                first.store(values[0].to_le(), Ordering::Relaxed);
                second.store(values[1].to_le(), Ordering::Relaxed);
                self.mark(at as usize, 2 * size_of::<$int>());
            }
        }
    };
}

impl Bytes<'_> {
    cell!(
        load_u16,
        store_u16,
        load_u16_pair,
        store_u16_pair,
        u16,
        AtomicU16
    );
    cell!(
        load_u32,
        store_u32,
        load_u32_pair,
        store_u32_pair,
        u32,
        AtomicU32
    );
    cell!(
        load_u64,
        store_u64,
        load_u64_pair,
        store_u64_pair,
        u64,
        AtomicU64
    );
}

#[cold]
fn mark_slow(log: &dyn DirtyLog, gpa: Gpa, at: usize, len: usize) {
    if let Some(gpa) = gpa.checked_add(at as u64) {
        log.mark(gpa, len as u64);
    }
}

impl core::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Bytes({:p}, {:#x} bytes)", self.base, self.len)
    }
}

/// Copies out of shared memory.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap.
#[inline]
unsafe fn copy_out(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(not(any(miri, loom)))]
    // SAFETY: as promised by the caller. The peer may write meanwhile: the copy then holds old or new bytes, and only
    // the copy is ever looked at.
    unsafe {
        copy(from, to, len);
    }
    // The same, said so that a checker of data races understands it.
    #[cfg(any(miri, loom))]
    for i in 0..len {
        // SAFETY: inside both ranges, as promised by the caller.
        let byte = unsafe { &*from.add(i).cast::<core::sync::atomic::AtomicU8>() };
        let byte = byte.load(Ordering::Relaxed);
        // SAFETY: inside both ranges, as promised by the caller.
        unsafe { to.add(i).write(byte) };
    }
}

/// Copies into shared memory.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap.
#[inline]
unsafe fn copy_in(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(not(any(miri, loom)))]
    // SAFETY: as promised by the caller. A peer that reads meanwhile sees old or new bytes; the ring tells it when
    // they are its own.
    unsafe {
        copy(from, to, len);
    }
    #[cfg(any(miri, loom))]
    for i in 0..len {
        // SAFETY: inside both ranges, as promised by the caller.
        let value = unsafe { from.add(i).read() };
        // SAFETY: inside both ranges, as promised by the caller.
        let byte = unsafe { &*to.add(i).cast::<core::sync::atomic::AtomicU8>() };
        byte.store(value, Ordering::Relaxed);
    }
}

/// Copies; a header or a small packet without a call.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap.
#[cfg(not(any(miri, loom)))]
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    match len {
        // SAFETY: as promised by the caller; `len` is in the range.
        8..=16 => unsafe { ends::<8>(from, to, len) },
        // SAFETY: as above.
        17..=32 => unsafe { ends::<16>(from, to, len) },
        // SAFETY: as above.
        33..=64 => unsafe { ends::<32>(from, to, len) },
        // SAFETY: as above.
        65..=128 => unsafe { ends::<64>(from, to, len) },
        // SAFETY: as promised by the caller.
        _ => unsafe { core::ptr::copy_nonoverlapping(from, to, len) },
    }
}

/// Copies `len` bytes, `N` to 2 `N`, as the first and the last `N`, which meet or overlap.
///
/// # Safety
/// Both pointers are valid for `len` bytes and do not overlap; `len` is at least `N` and at most 2 `N`.
#[cfg(not(any(miri, loom)))]
#[inline(always)]
unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    let (first, to_first) = (from.cast::<[u8; N]>(), to.cast::<[u8; N]>());
    let last = from.wrapping_add(len - N).cast::<[u8; N]>();
    let to_last = to.wrapping_add(len - N).cast::<[u8; N]>();
    // SAFETY: the first `N <= len` bytes.
    let head = unsafe { first.read() };
    // SAFETY: the last `N <= len` bytes.
    let tail = unsafe { last.read() };
    // SAFETY: the first `N <= len` bytes.
    unsafe { to_first.write(head) };
    // SAFETY: the last `N <= len` bytes.
    unsafe { to_last.write(tail) };
}

#[cfg(test)]
mod tests {
    use crate::Region;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn copies_stop_at_the_end() {
        let region = Region::anonymous(4096).unwrap();
        let bytes = region.bytes().slice(0, 10).unwrap();
        assert_eq!(bytes.write(8, &[1, 2, 3]), 2);
        let mut back = [9; 4];
        assert_eq!(bytes.read(7, &mut back), 3);
        assert_eq!(back, [0, 1, 2, 9]);
        assert_eq!(bytes.read(10, &mut back), 0);
        assert_eq!(bytes.read(usize::MAX, &mut back), 0);
        assert_eq!(bytes.zero(0, 100), 10);
    }

    #[test]
    fn copies_of_every_small_length_are_whole() {
        let region = Region::anonymous(4096).unwrap();
        let bytes = region.bytes();
        for len in 0..300 {
            let from: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8 | 1).collect();
            bytes.zero(0, 400);
            assert_eq!(bytes.write(3, &from), len);
            let mut back = vec![0; len + 2];
            assert_eq!(bytes.read(3, &mut back), len + 2);
            assert_eq!(back[..len], from);
            assert_eq!(back[len..], [0, 0], "{len} bytes ran over");
            let mut exact = vec![0; len];
            bytes.read(3, &mut exact);
            assert_eq!(exact, from);
        }
    }

    #[test]
    fn pairs_are_two_cells() {
        let region = Region::anonymous(4096).unwrap();
        let bytes = region.bytes().slice(0, 24).unwrap();
        bytes.store_u64_pair(8, [1, 2]);
        assert_eq!((bytes.load_u64(8), bytes.load_u64(16)), (1, 2));
        assert_eq!(bytes.load_u64_pair(8), [1, 2]);
        // Half outside, and misaligned: nothing happens.
        bytes.store_u64_pair(16, [3, 4]);
        bytes.store_u32_pair(2, [5, 6]);
        assert_eq!(bytes.load_u64_pair(16), [0, 0]);
        assert_eq!(bytes.load_u64_pair(0), [0, 1]);
    }

    #[test]
    fn slices_stay_inside() {
        let region = Region::anonymous(4096).unwrap();
        let bytes = region.bytes();
        assert!(bytes.slice(4096, 0).is_some());
        assert!(bytes.slice(4096, 1).is_none());
        assert!(bytes.slice(usize::MAX, 2).is_none());
    }

    #[test]
    fn cells_are_little_endian_and_bounded() {
        let region = Region::anonymous(4096).unwrap();
        let bytes = region.bytes().slice(0, 16).unwrap();
        bytes.store_u32(4, 0x0403_0201);
        let mut back = [0; 4];
        bytes.read(4, &mut back);
        assert_eq!(back, [1, 2, 3, 4]);
        assert_eq!(bytes.load_u16(6), 0x0403);
        assert_eq!(bytes.load_u64(0), 0x0403_0201_0000_0000);
        // Beyond the end, and misaligned: nothing happens.
        bytes.store_u64(12, u64::MAX);
        bytes.store_u16(3, u16::MAX);
        bytes.store_u16(u32::MAX, 1);
        assert_eq!(bytes.load_u64(8), 0);
        assert_eq!(bytes.load_u16(15), 0);
    }
}
