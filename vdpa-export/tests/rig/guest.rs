//! A guest with one memory region, one disk queue in it, and a driver of a few lines: one request at a time.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use vdpa_mem::{DmaMemory, Region, Window};
use vhost::{VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::until;

/// Where the region is for the guest.
pub const GPA: u64 = 0x10_0000;
/// Where the front end claims to have it: never a guest address.
pub const USER: u64 = 0x7f00_0000_0000;
/// Its length in bytes.
pub const LEN: u64 = 1 << 20;
/// Entries of the ring.
pub const SIZE: u16 = 8;

/// Offsets in the region, a page each.
pub const DESCRIPTORS: u64 = 0x1000;
pub const AVAIL: u64 = 0x2000;
pub const USED: u64 = 0x3000;
pub const HEADER: u64 = 0x4000;
pub const STATUS: u64 = 0x5000;
pub const DATA: u64 = 0x6000;

pub struct Guest {
    pub memory: Arc<dyn DmaMemory>,
    pub window: Window,
    pub kick: EventFd,
    pub call: EventFd,
    /// Where its addresses begin for the device.
    pub base: u64,
    avail: u16,
}

impl Guest {
    pub fn new() -> Self {
        let (memory, window) = Region::memfd(LEN).unwrap().into_shared();
        Self {
            memory,
            window,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
            base: GPA,
            avail: 0,
        }
    }

    pub fn file(&self) -> OwnedFd {
        self.memory.file().unwrap().0.try_clone_to_owned().unwrap()
    }

    pub fn raw_file(&self) -> RawFd {
        self.memory.file().unwrap().0.as_raw_fd()
    }

    /// What the front end says of it.
    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: GPA,
            memory_size: LEN,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.raw_file(),
        }
    }

    /// What the front end says of its ring.
    pub fn ring(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: USER + DESCRIPTORS,
            used_ring_addr: USER + USED,
            avail_ring_addr: USER + AVAIL,
            log_addr: None,
        }
    }

    fn store(&self, at: u64, bytes: &[u8]) {
        assert_eq!(self.window.bytes().write(at as usize, bytes), bytes.len());
    }

    pub fn load(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut to = vec![0; bytes];
        assert_eq!(self.window.bytes().read(at as usize, &mut to), bytes);
        to
    }

    pub fn used_index(&self) -> u16 {
        self.window.bytes().load_u16(USED as u32 + 2)
    }

    /// The ring as a driver begins it.
    pub fn clear(&mut self) {
        self.window.bytes().zero(DESCRIPTORS as usize, 0x3000);
        self.avail = 0;
    }

    /// Makes a request available and kicks: `kind` 0 reads a sector, 1 writes it. All three descriptors of it are those of
    /// the ring's first.
    pub fn submit(&mut self, kind: u32, sector: u64) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.store(HEADER, &header);
        self.store(STATUS, &[0xff]);
        let written = if kind == 0 { 2 } else { 0 };
        let chain = [
            (HEADER, 16, 1, 1),
            (DATA, 512, 1 | written, 2),
            (STATUS, 1, 2, 0),
        ];
        for ((at, len, flags, next), slot) in chain.into_iter().zip(0u64..) {
            let mut raw = (self.base + at).to_le_bytes().to_vec();
            raw.extend(u32::to_le_bytes(len));
            raw.extend(u16::to_le_bytes(flags));
            raw.extend(u16::to_le_bytes(next));
            self.store(DESCRIPTORS + slot * 16, &raw);
        }
        let slot = u64::from(self.avail % SIZE);
        self.store(AVAIL + 4 + slot * 2, &[0, 0]);
        self.avail = self.avail.wrapping_add(1);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.window.bytes().store_u16(AVAIL as u32 + 2, self.avail);
        self.kick.write(1).unwrap();
    }

    /// Whether the device has given back all requests.
    pub fn is_done(&self) -> bool {
        self.used_index() == self.avail
    }

    /// Waits until the device has given back all requests, and answers how the last one ended.
    pub fn finish(&self) -> u8 {
        until("the end of a request", || self.is_done());
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.load(STATUS, 1)[0]
    }

    /// Writes a sector and reads it back.
    pub fn round(&mut self, sector: u64, fill: u8) {
        self.store(DATA, &[fill; 512]);
        self.submit(1, sector);
        assert_eq!(self.finish(), 0);
        self.store(DATA, &[!fill; 512]);
        self.submit(0, sector);
        assert_eq!(self.finish(), 0);
        assert_eq!(self.load(DATA, 512), [fill; 512]);
    }
}
