//! Ring cells in memory of our own.

use vdpa_mem::{Barriers, Window};
use vdpa_ring::RingMem;

/// A window as a ring sees it, with the fences that its device needs. It owns its memory, so that a ring in it needs no
/// lifetime.
pub(super) struct Cells(pub(super) Window, pub(super) Barriers);

macro_rules! forward {
    ($($load:ident $store:ident $int:ty),*) => {
        $(
            #[inline(always)]
            fn $load(&self, at: u32) -> $int {
                RingMem::$load(&self.0.bytes(), at)
            }
            #[inline(always)]
            fn $store(&self, at: u32, value: $int) {
                RingMem::$store(&self.0.bytes(), at, value);
            }
        )*
    };
}

impl RingMem for Cells {
    forward!(load_u16 store_u16 u16, load_u32 store_u32 u32, load_u64 store_u64 u64);

    #[inline(always)]
    fn load_descriptor(&self, at: u32) -> [u64; 2] {
        self.0.bytes().load_descriptor(at)
    }
    #[inline(always)]
    fn store_descriptor(&self, at: u32, words: [u64; 2]) {
        self.0.bytes().store_descriptor(at, words);
    }
    #[inline(always)]
    fn load_used(&self, at: u32) -> [u32; 2] {
        self.0.bytes().load_used(at)
    }
    #[inline(always)]
    fn store_used(&self, at: u32, entry: [u32; 2]) {
        self.0.bytes().store_used(at, entry);
    }
    #[inline(always)]
    fn acquire(&self) {
        self.1.acquire();
    }
    #[inline(always)]
    fn release(&self) {
        self.1.release();
    }
    #[inline(always)]
    fn full(&self) {
        self.1.full();
    }
}
