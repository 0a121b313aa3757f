//! Huge pages for all peers, or for none: reserved for the time of a run, where that may be done.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use vdpa_mem::{HugePage, MemError, Region};

use super::testpmd;

const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
const RESERVED: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// What is needed at most: two testpmds, and the memory of a disk's driver.
const NEEDED: u64 = testpmd::HUGE_PAGES + 8;

static HUGE: AtomicBool = AtomicBool::new(false);

/// How many were reserved before, if more were reserved.
static BEFORE: Mutex<Option<u64>> = Mutex::new(None);

/// Pages that are given back in the end.
pub(crate) struct Pages(());

impl Pages {
    /// Reserves what is missing; without the right to, or the memory, all peers have small pages.
    pub(crate) fn reserve() -> Self {
        let pages = Self(());
        let (Some(free), Some(reserved)) = (number(FREE), number(RESERVED)) else {
            return pages;
        };
        if let Some(more) = NEEDED.checked_sub(free).filter(|more| *more != 0)
            && fs::write(RESERVED, (reserved + more).to_string()).is_ok()
            && let Ok(mut before) = BEFORE.lock()
        {
            *before = Some(reserved);
        }
        let is_enough = number(FREE).is_some_and(|free| free >= NEEDED);
        HUGE.store(is_enough, Ordering::Relaxed);
        if !is_enough {
            give_back();
        }
        pages
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        give_back();
    }
}

/// Reserves as many as before.
pub(crate) fn give_back() {
    if let Ok(mut before) = BEFORE.lock()
        && let Some(reserved) = before.take()
        && let Err(e) = fs::write(RESERVED, reserved.to_string())
    {
        eprintln!("{RESERVED} was {reserved} before, and cannot be set back: {e}");
    }
}

/// Whether the peers' memory is of huge pages. Without them it is of small pages for all, and all rows are slower.
pub(crate) fn are_huge() -> bool {
    HUGE.load(Ordering::Relaxed)
}

/// What a child is told of it.
pub(crate) fn word() -> &'static str {
    match are_huge() {
        true => "huge",
        false => "small",
    }
}

/// Shared memory of such pages as the word says.
pub(crate) fn region(word: &str, bytes: u64) -> Result<Region, MemError> {
    match word {
        "huge" => Region::huge(bytes, HugePage::Size2M),
        _ => Region::memfd(bytes),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
