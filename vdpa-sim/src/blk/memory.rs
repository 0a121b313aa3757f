//! A disk in memory: sparse, of this device alone, gone with it.
//!
//! ```text
//!   bytes of the disk:  0 ............ first | first .... 2 first | 2 first .......... 4 first | ...
//!   memory:             part 0               | part 1             | part 2                     | made when it is needed
//! ```
//! Each part is a memory file, so that what nobody wrote takes no memory, and what is discarded gives it back. A disk that
//! grows gets further parts; none ever moves, so that nothing is locked on the way to them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::fcntl::{FallocateFlags, fallocate};
use vdpa_core::Bell;
use vdpa_mem::{Bytes, DmaMemory, Region};

use super::backend::{Backend, Inline, Lane};

/// Parts that there can be: the size doubles with each.
const PARTS: usize = 48;

/// The largest disk in memory, in bytes: more address space than that a process has hardly left.
pub const MAX_BYTES: u64 = 16 << 40;

/// The memory of a disk.
#[derive(Debug)]
pub struct Memory {
    parts: Arc<Parts>,
    /// Bytes of the disk.
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Parts {
    /// Bytes of part 0: whole pages.
    first: u64,
    parts: [OnceLock<Region>; PARTS],
}

impl Memory {
    /// Zeroed memory for `bytes` bytes.
    ///
    /// # Errors
    /// When there is no address space or file for it.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let first = bytes.clamp(1, MAX_BYTES).next_multiple_of(4096);
        let parts = Parts {
            first,
            parts: [const { OnceLock::new() }; PARTS],
        };
        parts.make(bytes)?;
        Ok(Self {
            parts: Arc::new(parts),
            bytes: AtomicU64::new(bytes),
        })
    }
}

impl Backend for Memory {
    fn lane(&self, _: usize, _: &Arc<Bell>) -> Lane {
        Lane::Inline(Box::new(MemoryLane(Arc::clone(&self.parts))))
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.parts.make(bytes)?;
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        // What is beyond the end is nothing any more. When the disk grows again, too: a write that was judged by the
        // size of before may have come after it was cut.
        let end = bytes.min(before);
        self.parts.punch(end, u64::MAX.saturating_sub(end))
    }
}

impl Parts {
    /// Which part byte `at` is in, where that begins, and how long it is.
    fn place(&self, at: u64) -> (usize, u64, u64) {
        match at.checked_div(self.first).unwrap_or(0).checked_ilog2() {
            None => (0, 0, self.first),
            // `first * 2^n` is at most `at`, or the length of a part.
            Some(n) => {
                let begin = self.first.checked_shl(n).unwrap_or(0);
                ((n as usize).saturating_add(1), begin, begin)
            }
        }
    }

    /// Has memory for `bytes` bytes.
    fn make(&self, bytes: u64) -> io::Result<()> {
        if bytes > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (last, _, _) = self.place(bytes.saturating_sub(1));
        let mut begin = 0_u64;
        for part in self.parts.iter().take(last.saturating_add(1)) {
            let len = if begin == 0 { self.first } else { begin };
            if part.get().is_none() {
                let region = Region::memfd(len).map_err(io::Error::other)?;
                let _made = part.set(region);
            }
            begin = begin.saturating_add(len);
        }
        Ok(())
    }

    /// Calls `each` with the memory of each part of `len` bytes from `at` on, with the offset there and its length.
    fn each(
        &self,
        mut at: u64,
        mut len: u64,
        mut each: impl FnMut(&Region, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        while len != 0 {
            let (number, begin, size) = self.place(at);
            let Some(region) = self.parts.get(number).and_then(OnceLock::get) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let offset = at.saturating_sub(begin);
            let here = len.min(size.saturating_sub(offset));
            each(region, offset, here)?;
            at = at.saturating_add(here);
            len = len.saturating_sub(here);
        }
        Ok(())
    }

    /// Gives the memory of `len` bytes from `at` on back, as far as there is any: they read as zeroes.
    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        let mut begin = 0_u64;
        let end = at.saturating_add(len);
        for region in self.parts.iter().filter_map(OnceLock::get) {
            let size = if begin == 0 { self.first } else { begin };
            let from = at.max(begin);
            let to = end.min(begin.saturating_add(size));
            if let (Some((file, _)), true) = (region.file(), from < to) {
                let flags =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                // Below `MAX_BYTES`.
                let offset = from.saturating_sub(begin) as i64;
                fallocate(file, flags, offset, to.saturating_sub(from) as i64)?;
            }
            begin = begin.saturating_add(size);
        }
        Ok(())
    }
}

struct MemoryLane(Arc<Parts>);

impl Inline for MemoryLane {
    fn read(&mut self, at: u64, to: &Bytes<'_>) -> io::Result<()> {
        let mut done = 0_usize;
        self.0.each(at, to.len() as u64, |region, offset, len| {
            let copied = region
                .bytes()
                .copy_to(offset as usize, to, done, len as usize);
            done = done.saturating_add(copied);
            Ok(())
        })
    }

    fn write(&mut self, at: u64, from: &Bytes<'_>) -> io::Result<()> {
        let mut done = 0_usize;
        self.0.each(at, from.len() as u64, |region, offset, len| {
            let copied = from.copy_to(done, &region.bytes(), offset as usize, len as usize);
            done = done.saturating_add(copied);
            Ok(())
        })
    }

    fn zero(&mut self, at: u64, len: u64, _unmap: bool) -> io::Result<()> {
        // Memory that is given back is zeroes, and costs less than zeroes that are kept.
        self.0.punch(at, len)
    }

    fn discard(&mut self, at: u64, len: u64) -> io::Result<()> {
        self.0.punch(at, len)
    }

    fn erase(&mut self, at: u64, len: u64) -> io::Result<()> {
        self.0.each(at, len, |region, offset, len| {
            region.bytes().zero(offset as usize, len as usize);
            Ok(())
        })?;
        self.0.punch(at, len)
    }

    fn flush(&mut self) -> io::Result<()> {
        // It lasts as long as the device, and no longer.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(region: &Region, len: usize) -> Bytes<'_> {
        region.bytes().slice(0, len).unwrap()
    }

    #[test]
    fn data_crosses_from_part_to_part_and_holes_are_zeroes() {
        let memory = Memory::new(8192).unwrap();
        let mut lane = MemoryLane(Arc::clone(&memory.parts));
        let region = Region::anonymous(16384).unwrap();
        assert!(lane.read(8000, &span(&region, 512)).is_err());
        memory.resize(100_000).unwrap();
        let data: Vec<u8> = (0..10_000).map(|i| (i * 7) as u8).collect();
        region.bytes().write(0, &data);
        for at in [0, 8000, 8192, 30_000, 90_000] {
            lane.write(at, &span(&region, 10_000)).unwrap();
            let back = Region::anonymous(16384).unwrap();
            lane.read(at, &span(&back, 10_000)).unwrap();
            let mut got = vec![0; 10_000];
            back.bytes().read(0, &mut got);
            assert_eq!(got, data, "at {at}");
        }
        lane.zero(8100, 200, true).unwrap();
        lane.read(8099, &span(&region, 202)).unwrap();
        let mut got = [0; 202];
        region.bytes().read(0, &mut got);
        assert_eq!(got[1..201], [0; 200]);
        assert!(got[0] != 0 && got[201] != 0);
        memory.resize(512).unwrap();
        memory.resize(100_000).unwrap();
        lane.read(512, &span(&region, 10_000)).unwrap();
        let mut got = vec![1; 10_000];
        region.bytes().read(0, &mut got);
        assert_eq!(got, vec![0; 10_000], "what was cut off is gone");
    }

    #[test]
    fn a_large_disk_takes_no_memory() {
        let memory = Memory::new(1 << 40).unwrap();
        let mut lane = MemoryLane(Arc::clone(&memory.parts));
        let region = Region::anonymous(4096).unwrap();
        region.bytes().write(0, &[7; 512]);
        lane.write((1 << 40) - 512, &span(&region, 512)).unwrap();
        lane.discard(0, 1 << 40).unwrap();
        lane.read((1 << 40) - 512, &span(&region, 512)).unwrap();
        let mut got = [1; 512];
        region.bytes().read(0, &mut got);
        assert_eq!(got, [0; 512]);
        assert!(memory.resize(MAX_BYTES + 1).is_err());
    }
}
