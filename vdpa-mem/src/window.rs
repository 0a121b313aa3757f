//! An owned span of memory.
#![allow(unsafe_code, reason = "makes spans from memory that it keeps alive")]

use alloc::sync::Arc;
use core::ptr::NonNull;

use crate::{Bytes, DmaMemory, MemError};

/// An owned span of memory: what a driver half works on, since the memory is its own side's.
#[derive(Clone)]
pub struct Window {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    memory: Arc<dyn DmaMemory>,
}

// SAFETY: the pointer is into `memory`, which is `Send + Sync` and kept alive; it is only used through `Bytes`.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// The `len` bytes of `memory` from `offset` on.
    ///
    /// # Errors
    /// [`MemError::Outside`] when they are not all inside the memory.
    pub fn new(memory: Arc<dyn DmaMemory>, offset: u64, len: u64) -> Result<Self, MemError> {
        let outside = MemError::Outside {
            offset,
            len,
            memory: memory.len(),
        };
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= memory.len());
        let (true, Ok(at), Ok(len)) = (inside, usize::try_from(offset), usize::try_from(len))
        else {
            return Err(outside);
        };
        // SAFETY: `offset + len` is inside the memory.
        let base = unsafe { memory.hva().add(at) };
        let writable = memory.is_writable();
        Ok(Self {
            base,
            len,
            writable,
            memory,
        })
    }

    /// The span.
    #[inline]
    pub fn bytes(&self) -> Bytes<'_> {
        // SAFETY: inside the memory, which `self` keeps alive; `DmaMemory` promises that no references exist.
        unsafe { Bytes::new(self.base, self.len, self.writable, None) }
    }

    /// The memory that the window is into.
    pub fn memory(&self) -> &Arc<dyn DmaMemory> {
        &self.memory
    }
}
