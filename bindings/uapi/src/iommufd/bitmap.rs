//! Memory that the kernel sets bits in, and may set more of them than it was asked for.
//!
//! ```text
//!   Vec: │ up to a page │ page │ page │
//!                       ▲ first
//!                       │ asked for │ what the kernel may set beyond that
//! ```
//! The kernel notes a whole page of the IOMMU's when it was written to, also where it goes beyond the range that was asked
//! for. What stops it is the end of the last page of memory that it has pinned for the bitmap, and not the bitmap's.
#![allow(unsafe_code, reason = "sysconf, for the size of a page")]

use nix::libc;

/// A bitmap of whole pages of memory, which begins where one of them does.
#[derive(Debug)]
pub(super) struct Bitmap {
    memory: Vec<u64>,
    first: usize,
    /// What was asked for, and what there is, in words.
    asked: usize,
    whole: usize,
}

impl Bitmap {
    /// One for `asked` words, all 0.
    pub(super) fn new(asked: usize) -> Self {
        Self::of_pages(asked, page())
    }

    /// `page`: how large a page of memory is, in bytes: a power of two.
    fn of_pages(asked: usize, page: usize) -> Self {
        let words = page.div_ceil(size_of::<u64>());
        let whole = asked.max(1).next_multiple_of(words);
        let memory: Vec<u64> = vec![0; whole.saturating_add(words)];
        // How far it is to the next page: the words that were added, at most.
        let bytes = memory.as_ptr().addr().wrapping_neg() & page.saturating_sub(1);
        let first = bytes.div_ceil(size_of::<u64>());
        Self {
            memory,
            first,
            asked,
            whole,
        }
    }

    /// For the kernel to set bits in, to the end of the last page.
    pub(super) fn pages(&mut self) -> &mut [u64] {
        let end = self.first.saturating_add(self.whole);
        self.memory.get_mut(self.first..end).unwrap_or_default()
    }

    /// The words that were asked for.
    pub(super) fn into_words(mut self) -> Vec<u64> {
        self.memory.drain(..self.first);
        self.memory.truncate(self.asked);
        self.memory
    }
}

/// How large a page of memory is, in bytes.
fn page() -> usize {
    /// None is larger on a machine with an IOMMU, and what is whole pages of this size is whole pages of any other.
    const LARGEST: usize = 256 << 10;
    // SAFETY: it takes a number, and touches no memory of the caller's.
    let said = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(said)
        .ok()
        .filter(|page| page.is_power_of_two())
        .unwrap_or(LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A large page of the device's fills the kernel's memory to its end, and 8 bytes were asked for.
    #[test]
    fn bits_beyond_the_range_stay_in_pages_that_are_the_bitmaps_alone() {
        let page = page();
        for asked in [0, 1, 511, 512, 513, 40_000] {
            // More than one at a time, so that not all begin where an allocator's page does.
            let mut several = [(); 3].map(|()| Bitmap::new(asked));
            for bitmap in &mut several {
                let pages = bitmap.pages();
                assert_eq!(pages.as_ptr().addr() % page, 0, "{asked}");
                let len = size_of_val(pages);
                assert!(len > 0 && len % page == 0, "{asked}: {len} bytes");
                assert!(pages.len() >= asked, "{asked}");
                assert!(pages.iter().all(|word| *word == 0), "{asked}");
                pages.fill(u64::MAX);
            }
            for bitmap in several {
                assert_eq!(bitmap.into_words(), vec![u64::MAX; asked]);
            }
        }
    }

    #[test]
    fn words_that_were_asked_for_are_the_first() {
        for page in [4 << 10, 64 << 10] {
            let mut bitmap = Bitmap::of_pages(3, page);
            for (number, word) in bitmap.pages().iter_mut().enumerate() {
                *word = number as u64;
            }
            assert_eq!(bitmap.into_words(), [0, 1, 2]);
        }
    }
}
