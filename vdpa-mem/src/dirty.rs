//! Which guest pages a device wrote.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{Gpa, MemError, Window};

/// Told of every write that a device makes through an address space, after the bytes are written.
///
/// A log is shared by the workers of a device and by whoever reads it.
pub trait DirtyLog: Send + Sync {
    /// `len` bytes at guest-physical address `at` were written.
    fn mark(&self, at: Gpa, len: u64);
}

/// A bitmap with one bit a page, from guest-physical address 0 on: the simplest [`DirtyLog`].
pub struct DirtyPages {
    page_shift: u32,
    pages: u64,
    words: Box<[AtomicU64]>,
}

impl DirtyPages {
    /// A clean log of `pages` pages of 2^`page_shift` bytes each. Writes beyond the last page are not logged.
    pub fn new(page_shift: u32, pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(0);
        Self {
            page_shift: page_shift.min(63),
            pages,
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Takes the pages marked since the last call: their numbers, ascending. Each is reported once.
    pub fn take(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for (word, index) in self.words.iter().zip(0u64..) {
            // Acquire pairs with the release in `mark`: who sees the bit sees the bytes.
            let bits = word.swap(0, Ordering::Acquire);
            let set = (0..64).filter(|bit| bits >> bit & 1 == 1);
            pages.extend(set.map(|bit| index * 64 + bit));
        }
        pages
    }
}

/// Bits of a page number in vhost's log: pages of 4 KiB, `VHOST_PAGE_SIZE` in `linux/vhost.h`.
const VHOST_PAGE_SHIFT: u32 = 12;

/// A log in memory shared with whoever reads it, laid out as vhost has it: a bit for each page of 4 KiB from
/// guest-physical address 0 on, page `n` in bit `n % 8` of byte `n / 8`, set atomically. The reader takes bits by
/// exchanging what holds them for 0, of whatever width.
///
/// Its memory may be a file that another process maps ([`Region::shared`](crate::Region)). It is not marked itself.
///
/// # Spec
/// `linux/vhost.h`, VHOST_SET_LOG_BASE; vhost-user's VHOST_USER_SET_LOG_BASE.
pub struct VhostLog(Window);

impl VhostLog {
    /// A log in these bytes; those that are set already stay. Writes beyond the last page that they have a bit for are
    /// not logged: make it [`bytes_for`](Self::bytes_for) the guest's memory.
    ///
    /// # Errors
    /// [`MemError::ReadOnlyLog`] when the bytes may not be written.
    pub fn new(bytes: Window) -> Result<Self, MemError> {
        if !bytes.memory().is_writable() {
            let len = bytes.bytes().len() as u64;
            return Err(MemError::ReadOnlyLog { len });
        }
        Ok(Self(bytes))
    }

    /// How many bytes a log needs in which all guest-physical addresses below `end` have a bit: a multiple of 8.
    pub const fn bytes_for(end: Gpa) -> u64 {
        end.get().div_ceil(64 << VHOST_PAGE_SHIFT) * 8
    }
}

impl DirtyLog for VhostLog {
    fn mark(&self, at: Gpa, len: u64) {
        let Some(last) = len.checked_sub(1) else {
            return;
        };
        let bytes = self.0.bytes();
        let end = at.get().saturating_add(last) >> VHOST_PAGE_SHIFT;
        let mut page = at.get() >> VHOST_PAGE_SHIFT;
        while page <= end {
            // All pages of the write that share the byte, at once.
            let byte = page / 8;
            let upto = end.min(byte * 8 + 7);
            let mask = (page..=upto).fold(0_u8, |mask, page| mask | 1 << (page % 8));
            let at = usize::try_from(byte).unwrap_or(usize::MAX);
            if !bytes.set_bits(at, mask) {
                return;
            }
            page = upto + 1;
        }
    }
}

impl DirtyLog for DirtyPages {
    fn mark(&self, at: Gpa, len: u64) {
        if len == 0 {
            return;
        }
        let first = at.get() >> self.page_shift;
        let end = (at.get().saturating_add(len - 1) >> self.page_shift).saturating_add(1);
        for page in first..end.min(self.pages) {
            let word = usize::try_from(page / 64)
                .ok()
                .and_then(|i| self.words.get(i));
            let Some(word) = word else { return };
            word.fetch_or(1 << (page % 64), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_every_page_of_a_write_once() {
        let log = DirtyPages::new(12, 130);
        log.mark(Gpa::new(0xfff), 2);
        log.mark(Gpa::new(129 << 12), 1);
        log.mark(Gpa::new(0), 0);
        assert_eq!(log.take(), [0, 1, 129]);
        assert!(log.take().is_empty());
    }

    fn log(bytes: u64) -> (VhostLog, Window) {
        let (_, window) = crate::Region::anonymous(bytes).unwrap().into_shared();
        let window = Window::new(window.memory().clone(), 0, bytes).unwrap();
        (VhostLog::new(window.clone()).unwrap(), window)
    }

    #[test]
    fn a_vhost_log_has_page_n_in_bit_n_of_its_bytes() {
        let (log, bytes) = log(4);
        log.mark(Gpa::new(0x3fff), 2);
        log.mark(Gpa::new(0x1_0000), 0x1_0000);
        log.mark(Gpa::new(0x1_0000), 0);
        let mut all = [0; 4];
        bytes.bytes().read(0, &mut all);
        assert_eq!(all, [0b0001_1000, 0, 0xff, 0xff]);
        // What lies beyond it is not logged, and what does not fit ends there.
        log.mark(Gpa::new(32 << 12), 1);
        log.mark(Gpa::new(u64::MAX), u64::MAX);
        log.mark(Gpa::new(15 << 12), u64::MAX);
        bytes.bytes().read(0, &mut all);
        assert_eq!(all, [0b0001_1000, 0x80, 0xff, 0xff]);
    }

    #[test]
    #[allow(unsafe_code, reason = "memory that promises less than a region")]
    fn a_vhost_log_that_cannot_be_written_is_refused() {
        struct ReadOnly(crate::Region);

        // SAFETY: the region's promises, and one less.
        unsafe impl crate::DmaMemory for ReadOnly {
            fn hva(&self) -> core::ptr::NonNull<u8> {
                self.0.hva()
            }
            fn len(&self) -> u64 {
                crate::DmaMemory::len(&self.0)
            }
            fn is_writable(&self) -> bool {
                false
            }
        }

        let memory = alloc::sync::Arc::new(ReadOnly(crate::Region::anonymous(64).unwrap()));
        let window = Window::new(memory, 0, 64).unwrap();
        let refused = VhostLog::new(window).err();
        assert!(matches!(refused, Some(MemError::ReadOnlyLog { len: 64 })));
    }

    #[test]
    fn a_vhost_log_is_large_enough_for_the_last_page() {
        for (end, bytes) in [(0, 0), (1, 8), (64 << 12, 8), ((64 << 12) + 1, 16)] {
            assert_eq!(VhostLog::bytes_for(Gpa::new(end)), bytes, "{end:#x}");
        }
        assert_eq!(VhostLog::bytes_for(Gpa::new(u64::MAX)), 1 << 49);
    }

    /// The bitmap that rust-vmm's backends log to.
    #[cfg(feature = "vm-memory")]
    #[test]
    fn both_logs_mark_what_vm_memory_marks() {
        use std::num::NonZeroUsize;
        use vm_memory::bitmap::{AtomicBitmap, Bitmap};

        const PAGES: u64 = 200;
        let theirs = AtomicBitmap::new(PAGES as usize * 4096, NonZeroUsize::new(4096).unwrap());
        let (vhost, bytes) = log(PAGES / 8);
        let pages = DirtyPages::new(12, PAGES);
        let mut x = 88_172_645_463_325_252_u64;
        for _ in 0..if cfg!(miri) { 15 } else { 300 } {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let (at, len) = (x % (PAGES << 12), (x >> 40) % 20_000);
            let len = len.min((PAGES << 12) - at);
            theirs.mark_dirty(at as usize, len as usize);
            vhost.mark(Gpa::new(at), len);
            pages.mark(Gpa::new(at), len);
            if x.is_multiple_of(7) {
                let dirty: Vec<u64> = (0..PAGES)
                    .filter(|page| theirs.dirty_at(*page as usize * 4096))
                    .collect();
                let mut all = [0; PAGES as usize / 8];
                bytes.bytes().read(0, &mut all);
                let own = |page: &u64| all[*page as usize / 8] >> (page % 8) & 1 == 1;
                assert_eq!((0..PAGES).filter(own).collect::<Vec<_>>(), dirty);
                assert_eq!(pages.take(), dirty);
                theirs.reset();
                bytes.bytes().zero(0, all.len());
            }
        }
    }

    #[test]
    fn ignores_what_lies_beyond_the_last_page() {
        for pages in [64, 70] {
            let log = DirtyPages::new(12, pages);
            log.mark(Gpa::new(u64::MAX - 1), u64::MAX);
            log.mark(Gpa::new(pages << 12), 1);
            log.mark(Gpa::new((pages - 1) << 12), u64::MAX);
            assert_eq!(log.take(), [pages - 1]);
        }
    }
}
