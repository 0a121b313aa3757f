//! Memory between pages that nobody may touch: an access outside ends the process.
#![allow(
    unsafe_code,
    reason = "maps pages, and takes rights on some of them away"
)]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use vdpa_mem::{Access, Bytes, DmaMemory, Iova, IovaRange, Mapping, Window};

/// Bytes of what stands on either side.
const GUARD: usize = 64 << 10;
/// What memory is filled with: no zero that somebody might have written.
pub const FILL: u8 = 0xc5;
/// Bytes that are compared at a time.
const CHUNK: usize = 256;

/// Pages of ours with unmapped ones on both sides.
pub struct Guarded {
    whole: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the memory is owned, and only used through `Bytes`.
unsafe impl Send for Guarded {}
// SAFETY: as above.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// `len` bytes, a multiple of 4096, filled with [`FILL`]. Where they are not `writable`, a write ends the process.
    pub fn new(len: usize, writable: bool) -> Self {
        assert!(
            len != 0 && len.is_multiple_of(4096),
            "{len} bytes are no pages"
        );
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let all = len + 2 * GUARD;
        // SAFETY: a new mapping at an address of the kernel's choosing touches nothing that exists.
        let whole = unsafe { libc::mmap(std::ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(
            whole,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        let whole = NonNull::new(whole.cast::<u8>()).expect("nothing is mapped at 0");
        let guarded = Self {
            whole,
            len,
            writable,
        };
        guarded.protect(libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: `len` bytes that were just made writable.
        unsafe { std::ptr::write_bytes(guarded.hva().as_ptr(), FILL, len) };
        if !writable {
            guarded.protect(libc::PROT_READ);
        }
        guarded
    }

    fn protect(&self, rights: i32) {
        // SAFETY: inside the mapping.
        let done = unsafe { libc::mprotect(self.hva().as_ptr().cast(), self.len, rights) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

// SAFETY: mapped until drop; nothing makes references into it.
unsafe impl DmaMemory for Guarded {
    fn hva(&self) -> NonNull<u8> {
        // SAFETY: inside the mapping.
        unsafe { self.whole.add(GUARD) }
    }

    fn len(&self) -> u64 {
        self.len as u64
    }

    fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped with this length by `new`; nothing points into it any more.
        unsafe { libc::munmap(self.whole.as_ptr().cast(), self.len + 2 * GUARD) };
    }
}

/// Guarded memory as a device sees it, and as it should look: what nobody was allowed to write must not have changed.
pub struct Arena {
    iova: u64,
    access: Access,
    memory: Arc<dyn DmaMemory>,
    window: Window,
    book: Mutex<Book>,
}

/// What memory should hold.
struct Book {
    /// What was written through the arena.
    shadow: Vec<u8>,
    /// Where the device may write, or somebody who does not use the arena.
    open: Vec<Range<usize>>,
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arena({:#x}..{:#x})", self.iova, self.end())
    }
}

impl Arena {
    /// `len` bytes that the device sees at `iova`.
    pub fn new(iova: u64, len: usize, access: Access) -> Arc<Self> {
        let guarded = Guarded::new(len, access != Access::DeviceReads);
        Self::over(iova, Arc::new(guarded), access)
    }

    /// All of `memory`, which is filled as guarded memory is.
    pub fn over(iova: u64, memory: Arc<dyn DmaMemory>, access: Access) -> Arc<Self> {
        let len = memory.len();
        let window = Window::new(Arc::clone(&memory), 0, len).expect("all of it");
        let shadow = vec![FILL; len as usize];
        if memory.is_writable() {
            window.bytes().write(0, &shadow);
        }
        let book = Book {
            shadow,
            open: Vec::new(),
        };
        Arc::new(Self {
            iova,
            access,
            memory,
            window,
            book: Mutex::new(book),
        })
    }

    /// The entry of an address space.
    pub fn mapping(&self) -> Mapping {
        Mapping {
            iova: self.range(),
            memory: Arc::clone(&self.memory),
            offset: 0,
            access: self.access,
            dirty: None,
        }
    }

    /// Where the device sees it.
    pub fn range(&self) -> IovaRange {
        IovaRange::new(Iova::new(self.iova), self.memory.len()).expect("a range")
    }

    /// The device's address of a byte.
    pub fn at(&self, offset: usize) -> u64 {
        self.iova + offset as u64
    }

    /// The device's address behind the last byte.
    pub fn end(&self) -> u64 {
        self.iova + self.memory.len()
    }

    /// The offset of the device's address, if it is in here.
    pub fn offset(&self, at: u64) -> Option<usize> {
        let offset = at.checked_sub(self.iova)?;
        (offset < self.memory.len()).then_some(offset as usize)
    }

    /// The memory itself. Who writes through it opens it first, or the canaries say so.
    pub fn bytes(&self) -> Bytes<'_> {
        self.window.bytes()
    }

    /// A window onto it, for another thread.
    pub fn window(&self) -> Window {
        self.window.clone()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, offset: usize, bytes: &[u8]) {
        self.book().shadow[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes bytes.
    pub fn put(&self, offset: usize, bytes: &[u8]) {
        self.note(offset, bytes);
        assert_eq!(self.bytes().write(offset, bytes), bytes.len());
    }

    /// Writes a word of a ring.
    pub fn put_u16(&self, offset: usize, value: u16) {
        self.note(offset, &value.to_le_bytes());
        self.bytes().store_u16(offset as u32, value);
    }

    /// Writes a word of a descriptor.
    pub fn put_u64(&self, offset: usize, value: u64) {
        self.note(offset, &value.to_le_bytes());
        self.bytes().store_u64(offset as u32, value);
    }

    /// Reads bytes.
    pub fn get(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert_eq!(self.bytes().read(offset, &mut bytes), len);
        bytes
    }

    /// From now on these bytes may change.
    pub fn open(&self, offset: usize, len: usize) {
        self.book().open.push(offset..offset + len);
    }

    /// Everything as at first.
    pub fn renew(&self) {
        let mut book = self.book();
        book.open.clear();
        if self.memory.is_writable() {
            book.shadow.fill(FILL);
            self.bytes().write(0, &book.shadow);
        }
    }

    /// Whether what nobody was allowed to write is as it was.
    ///
    /// # Errors
    /// With the first byte that is not.
    pub fn check(&self) -> Result<(), String> {
        let book = self.book();
        let now = self.get(0, book.shadow.len());
        // Most of it is as it was, and is compared many bytes at a time.
        let parts = now.chunks(CHUNK).zip(book.shadow.chunks(CHUNK));
        for (part, (now, was)) in parts.enumerate().filter(|(_, (now, was))| now != was) {
            for (at, (now, was)) in now.iter().zip(was).enumerate() {
                let at = part * CHUNK + at;
                if now != was && !book.open.iter().any(|open| open.contains(&at)) {
                    let at = self.at(at);
                    return Err(format!(
                        "byte {at:#x} is {now:#04x} and was {was:#04x}: nobody may write there"
                    ));
                }
            }
        }
        Ok(())
    }
}
