//! Registers of a device, mapped from a file.
//!
//! ```text
//!   Registers::map ─▶ read, write         checked at each access: set-up
//!        │ register(at)
//!        ▼
//!   Register ─▶ write                     checked once: doorbells
//!
//!   revoke: memory of this process in place of the device, at the same addresses: who still writes there does nothing
//! ```
//!
//! # Ordering
//! A write comes after everything that this thread stored to memory before, as the device sees it: a driver's release
//! store of an index, then the doorbell, is enough (virtio 1.4 §2.7.13.4). On x86 the mapping is uncached, and such stores
//! are ordered by themselves; on arm64 a barrier is before each write. A read comes before everything that follows it.
//! Accesses of one thread keep their order.
#![allow(
    unsafe_code,
    reason = "maps device registers, and accesses them by raw pointer"
)]

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{SysconfVar, ftruncate, sysconf};

use crate::shrink::Looked;
use crate::{MemError, barrier};

/// Registers of a device, mapped from a file that stands for it. Little-endian, in values as in memory.
///
/// Every access is one of its width. Where nobody answers any more, a read gives all ones and a write does nothing: after
/// [`revoke`](Self::revoke), or once the system took the device away under the mapping and
/// [`survive_shrinking`](crate::survive_shrinking) caught that.
pub struct Registers {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    offset: u64,
    revoked: AtomicBool,
    /// Held while the device is taken away.
    revoking: Mutex<()>,
    looked: Option<Looked>,
}

// SAFETY: the pointer is into a mapping that is owned; it is only used for volatile accesses, for which a device's registers,
// and the page that takes their place, need no exclusion.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

mod word {
    /// What a register can hold; there are no others.
    pub trait Word: Copy {
        /// What a read gives when nobody answers.
        const ALL_ONES: Self;
        /// From or to the byte order of devices.
        #[must_use]
        fn little_endian(self) -> Self;
    }

    macro_rules! words {
        ($($int:ty)*) => { $(
            impl Word for $int {
                const ALL_ONES: Self = <$int>::MAX;
                #[inline(always)]
                fn little_endian(self) -> Self {
                    self.to_le()
                }
            }
        )* };
    }
    words!(u8 u16 u32);
}

use word::Word;

impl Registers {
    /// Maps the `len` bytes of `file` from `offset` on.
    ///
    /// * `file`: open for reading and writing; a handle of its own is kept
    /// * `offset`: in bytes, a multiple of the page size
    /// * `len`: in bytes, not 0
    ///
    /// # Errors
    /// When the file cannot be mapped, or is a regular one that ends before.
    pub fn map(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Self> {
        let misuse = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let page = page_bytes();
        if !offset.is_multiple_of(page) {
            return Err(misuse(format!(
                "registers at {offset:#x} of a file: the offset has to be a multiple of {page:#x}"
            )));
        }
        let length = usize::try_from(len).ok().and_then(NonZeroUsize::new);
        let end = offset.checked_add(len);
        let at = libc::off_t::try_from(offset).ok();
        let (Some(length), Some(end), Some(at)) = (length, end, at) else {
            return Err(misuse(format!(
                "cannot map {len:#x} bytes of registers at {offset:#x} of a file"
            )));
        };
        let stat = fstat(file)?;
        let is_regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if is_regular && end > size {
            return Err(misuse(format!(
                "registers need {end:#x} bytes of their file, which has {size:#x}"
            )));
        }
        let file = file.try_clone_to_owned()?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choosing touches nothing that exists.
        let base = unsafe { mmap(None, length, prot, MapFlags::MAP_SHARED, &file, at) }?.cast();
        let unit = usize::try_from(page).unwrap_or(usize::MAX);
        Ok(Self {
            base,
            len: length.get(),
            file,
            offset,
            revoked: AtomicBool::new(false),
            revoking: Mutex::new(()),
            looked: Looked::after(base, length.get(), unit),
        })
    }

    /// How many bytes there are.
    #[allow(
        clippy::len_without_is_empty,
        reason = "nothing is mapped where there are none"
    )]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// The file that they are mapped from, and the offset in it of the first byte. After [`revoke`](Self::revoke) it is
    /// memory of this process's own.
    pub fn file(&self) -> (BorrowedFd<'_>, u64) {
        (self.file.as_fd(), self.offset)
    }

    /// Reads 8 bits.
    ///
    /// * `at`: offset in bytes
    ///
    /// # Errors
    /// [`MemError::Register`] when it is out of bounds.
    pub fn read_u8(&self, at: u64) -> Result<u8, MemError> {
        self.read(at)
    }

    /// Reads 16 bits.
    ///
    /// * `at`: offset in bytes, a multiple of 2
    ///
    /// # Errors
    /// [`MemError::Register`] when it is out of bounds or not aligned.
    pub fn read_u16(&self, at: u64) -> Result<u16, MemError> {
        self.read(at)
    }

    /// Reads 32 bits.
    ///
    /// * `at`: offset in bytes, a multiple of 4
    ///
    /// # Errors
    /// [`MemError::Register`] when it is out of bounds or not aligned.
    pub fn read_u32(&self, at: u64) -> Result<u32, MemError> {
        self.read(at)
    }

    /// Writes 8 bits.
    ///
    /// * `at`: offset in bytes
    ///
    /// # Errors
    /// [`MemError::Register`] when it is out of bounds.
    pub fn write_u8(&self, at: u64, value: u8) -> Result<(), MemError> {
        self.write(at, value)
    }

    /// Writes 16 bits.
    ///
    /// * `at`: offset in bytes, a multiple of 2
    ///
    /// # Errors
    /// [`MemError::Register`] when it is out of bounds or not aligned.
    pub fn write_u16(&self, at: u64, value: u16) -> Result<(), MemError> {
        self.write(at, value)
    }

    /// Writes 32 bits.
    ///
    /// * `at`: offset in bytes, a multiple of 4
    ///
    /// # Errors
    /// [`MemError::Register`] when it is out of bounds or not aligned.
    pub fn write_u32(&self, at: u64, value: u32) -> Result<(), MemError> {
        self.write(at, value)
    }

    /// One register, for writing often.
    ///
    /// * `at`: offset in bytes, a multiple of the width
    ///
    /// # Errors
    /// [`MemError::Register`] when it is out of bounds or not aligned.
    pub fn register<W: Word>(self: &Arc<Self>, at: u64) -> Result<Register<W>, MemError> {
        Ok(Register {
            cell: self.cell(at)?,
            at,
            registers: Arc::clone(self),
        })
    }

    /// Takes the device away, for good: maps memory of this process in place of all registers, in one step. A write that
    /// another thread is at has reached the device before, or does nothing. Nothing of this keeps the file open then,
    /// unless the system had no file descriptor to spare. Revoking again changes nothing; while another thread is at it, this
    /// waits for that.
    ///
    /// # Errors
    /// When the system has no memory; the device is still there.
    pub fn revoke(&self) -> io::Result<()> {
        // Whoever comes second may go on once the device is taken away, and not before.
        let _one = self.revoking.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the page: who reads from that sees this afterwards.
        if self.revoked.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.replace().inspect_err(|_| {
            self.revoked.store(false, Ordering::SeqCst);
        })
    }

    /// Whether the device was taken away.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    fn replace(&self) -> io::Result<()> {
        let length = NonZeroUsize::new(self.len).unwrap_or(NonZeroUsize::MIN);
        let at = NonZeroUsize::new(self.base.as_ptr() as usize);
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
        // SAFETY: exactly the mapping of `map`, which nothing but `self` unmaps; every access to it is volatile, through a
        // pointer, and at home in either memory. The kernel replaces it in one step.
        unsafe { mmap_anonymous(at, length, prot, flags) }?;
        let _kept_open = self.let_go_of_file();
        Ok(())
    }

    /// Puts an empty file in place of the device's, behind the same number: others may have borrowed that.
    fn let_go_of_file(&self) -> io::Result<()> {
        let empty = memfd_create("revoked", MFdFlags::MFD_CLOEXEC)?;
        let end = self
            .offset
            .saturating_add(self.len().next_multiple_of(page_bytes()));
        ftruncate(
            &empty,
            libc::off_t::try_from(end).unwrap_or(libc::off_t::MAX),
        )?;
        // SAFETY: both numbers are open files of ours, and the second one stays one.
        let number =
            unsafe { libc::dup3(empty.as_raw_fd(), self.file.as_raw_fd(), libc::O_CLOEXEC) };
        match number {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Whether nobody answers any more.
    fn is_lost(&self) -> bool {
        self.is_revoked() || self.looked.as_ref().is_some_and(Looked::is_lost)
    }

    fn read<W: Word>(&self, at: u64) -> Result<W, MemError> {
        let cell = self.cell::<W>(at)?;
        // SAFETY: `cell` checked bounds and alignment; the mapping lives as long as `self`.
        let value = unsafe { cell.as_ptr().read_volatile() };
        barrier::after_register();
        // What took the place of the device is no answer. The look comes after the read: see `revoke`.
        Ok(match self.is_lost() {
            true => W::ALL_ONES,
            false => value.little_endian(),
        })
    }

    fn write<W: Word>(&self, at: u64, value: W) -> Result<(), MemError> {
        let cell = self.cell::<W>(at)?;
        // SAFETY: `cell` checked bounds and alignment; the mapping lives as long as `self`.
        unsafe { store(cell, value) };
        Ok(())
    }

    /// The place of the register of width `W` at `at`.
    fn cell<W>(&self, at: u64) -> Result<NonNull<W>, MemError> {
        let width = size_of::<W>() as u64;
        let end = at.checked_add(width).filter(|end| *end <= self.len());
        let place = usize::try_from(at)
            .ok()
            .filter(|_| at.is_multiple_of(width));
        let (Some(_), Some(place)) = (end, place) else {
            return Err(MemError::Register {
                at,
                width,
                len: self.len(),
            });
        };
        // SAFETY: inside the mapping, which begins on a page.
        let cell = unsafe { self.base.add(place) };
        Ok(cell.cast())
    }
}

/// # Safety
/// `cell` is an aligned register of a mapping that lives.
#[inline(always)]
unsafe fn store<W: Word>(cell: NonNull<W>, value: W) {
    barrier::before_register();
    // SAFETY: the caller's promise.
    unsafe { cell.as_ptr().write_volatile(value.little_endian()) };
}

impl Drop for Registers {
    fn drop(&mut self) {
        // Before: the addresses may be somebody else's afterwards.
        drop(self.looked.take());
        // SAFETY: mapped by `map`, or by `replace` in its place, with this length; who has a pointer into it has an `Arc` of
        // this. It cannot fail for a mapping that exists.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registers({:#x} bytes at {:#x})", self.len, self.offset)
    }
}

/// One register of `W`: `u8`, `u16` or `u32`. Keeps the mapping alive.
#[derive(Clone)]
pub struct Register<W> {
    cell: NonNull<W>,
    at: u64,
    registers: Arc<Registers>,
}

// SAFETY: as for `Registers`, which it keeps alive.
unsafe impl<W> Send for Register<W> {}
// SAFETY: as above.
unsafe impl<W> Sync for Register<W> {}

impl<W: Word> Register<W> {
    /// Writes it: one store, and what orders it after earlier stores to memory.
    #[inline(always)]
    pub fn write(&self, value: W) {
        // SAFETY: `cell` was checked when this was made; `registers` keeps the mapping alive.
        unsafe { store(self.cell, value) };
    }
}

impl<W> Register<W> {
    /// Its offset in the registers, in bytes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The registers that it is one of.
    pub fn registers(&self) -> &Arc<Registers> {
        &self.registers
    }

    /// The page of the file that it is in: where that begins in the file, and where the register is in the page, in bytes.
    pub fn page(&self) -> (u64, u32) {
        let page = page_bytes();
        let within = self.at % page;
        let begin = self.registers.offset.saturating_add(self.at - within);
        (begin, u32::try_from(within).unwrap_or(u32::MAX))
    }
}

impl<W> fmt::Debug for Register<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Register({:#x} of {:?})", self.at, self.registers)
    }
}

/// Bytes in a page of this system.
fn page_bytes() -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|page| u64::try_from(page).ok())
        .filter(|page| page.is_power_of_two())
        .unwrap_or(4096)
}
