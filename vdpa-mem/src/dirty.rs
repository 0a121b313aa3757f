//! Which guest pages a device wrote.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::Gpa;

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
