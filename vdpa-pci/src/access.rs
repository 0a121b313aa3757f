//! What a PCI function is reached through.

use std::sync::Arc;

use vdpa_core::{Call, CallKind, DeviceSpec, DmaLimits, Doorbell, EventSink, MgmtDevice, Result};
use vdpa_mem::Mapping;

/// How many BARs a function has at most.
pub const BARS: u8 = 6;

/// The width of one register access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Width {
    /// 8 bits.
    U8,
    /// 16 bits.
    U16,
    /// 32 bits. Registers of 64 are accessed as two of these, virtio 1.4 §4.1.3.1.
    U32,
}

impl Width {
    /// How many bytes it has.
    pub const fn bytes(self) -> u8 {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// What a read of this width gives when nobody answers.
    pub const fn all_ones(self) -> u32 {
        match self {
            Self::U8 => 0xff,
            Self::U16 => 0xffff,
            Self::U32 => 0xffff_ffff,
        }
    }
}

/// Which interrupts a function can raise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupts {
    /// How many MSI-X vectors can be used, 0 for none.
    pub msix: u16,
    /// Whether there is an interrupt line.
    pub intx: bool,
    /// Which calls an interrupt can make.
    pub calls: CallKind,
}

/// A PCI function, as something gives access to it: VFIO, a mediated device, a simulator.
///
/// Every access has its natural width and is little-endian; a value is in the low bits of a `u32`. Accesses are not
/// reordered, and come from any thread: a call that an interrupt makes accesses registers too. None waits. A function that
/// was taken away answers reads with all ones, as hardware does, and may answer with an error of kind
/// [`Gone`](vdpa_core::ErrorKind::Gone) where the access can tell.
///
/// Memory decoding and bus mastering are on while nothing else is said in configuration space, also after
/// [`reset`](Self::reset): whoever makes the value has seen to that.
///
/// What is reached through a value of this type is free once the value is dropped, doorbells apart: those do nothing any
/// more.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait PciAccess: Send + Sync {
    /// Its name in its parent: `0000:01:00.1`.
    fn name(&self) -> &str;

    /// Bytes of configuration space: 256, or 4096 with extended configuration space.
    fn config_len(&self) -> u16;

    /// Reads configuration space.
    ///
    /// * `at`: offset in bytes, aligned to `width`
    ///
    /// # Errors
    /// When the access fails, or is out of bounds.
    fn read_config(&self, at: u16, width: Width) -> Result<u32>;

    /// Writes configuration space.
    ///
    /// * `at`: offset in bytes, aligned to `width`
    ///
    /// # Errors
    /// When the access fails, or is out of bounds.
    fn write_config(&self, at: u16, width: Width, value: u32) -> Result<()>;

    /// Bytes of a memory BAR that can be reached, 0 where there is none: the upper half of a 64-bit one, I/O ports, what
    /// was left unmapped.
    ///
    /// * `bar`: below [`BARS`]
    fn bar_len(&self, bar: u8) -> u64;

    /// Reads a register.
    ///
    /// * `bar`: below [`BARS`]
    /// * `at`: offset in bytes, aligned to `width`
    ///
    /// # Errors
    /// When the access fails, is out of bounds, or memory decoding is off.
    fn read(&self, bar: u8, at: u64, width: Width) -> Result<u32>;

    /// Writes a register.
    ///
    /// * `bar`, `at`: as for [`read`](Self::read)
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn write(&self, bar: u8, at: u64, width: Width, value: u32) -> Result<()>;

    /// A doorbell that writes what it is rung with to a register, in the fastest way there is.
    ///
    /// * `bar`, `at`, `width`: the register, as for [`read`](Self::read); 16 or 32 bits
    /// * `name`: what is written in the low 16 bits in place of the queue's index: the index itself, or the value that
    ///   the device asks for, virtio 1.4 §4.1.5.2
    ///
    /// # Errors
    /// When the register cannot be written.
    fn doorbell(&self, bar: u8, at: u64, width: Width, name: u16) -> Result<Doorbell>;

    /// Whether each ring of a doorbell there is a system call, and not a store: where the BAR cannot be mapped.
    ///
    /// * `bar`, `at`: the register, as for [`read`](Self::read)
    fn rings_by_call(&self, bar: u8, at: u64) -> bool;

    /// Makes every doorbell that was handed out a no-op, for good. One that is rung on another thread at this moment is
    /// too, or has reached the register before.
    fn revoke_doorbells(&self);

    /// Which interrupts it can raise.
    fn interrupts(&self) -> Interrupts;

    /// Switches MSI-X on with the first `count` vectors, none of which calls anybody yet; 0 switches it off.
    ///
    /// * `count`: at most [`Interrupts::msix`]
    ///
    /// # Errors
    /// When there are not as many vectors to be had, with how many there are; MSI-X is then off.
    fn enable_vectors(&self, count: u16) -> Result<()>;

    /// Has a vector make a call, in place of the one that it made. On return the old one is not made any more; it may
    /// still run where this is called from inside it.
    ///
    /// * `vector`: one of those enabled
    /// * `call`: of a kind in [`Interrupts::calls`]
    ///
    /// # Errors
    /// When it cannot be done; the old call stays.
    fn set_vector(&self, vector: u16, call: Call) -> Result<()>;

    /// Has the interrupt line make a call, [`Call::None`] switches it off. The line is masked when it calls, until
    /// [`unmask_intx`](Self::unmask_intx).
    ///
    /// # Errors
    /// When there is no line, or it cannot be had while MSI-X is on.
    fn set_intx(&self, call: Call) -> Result<()>;

    /// Lets the interrupt line call again.
    ///
    /// # Errors
    /// When it is not in use.
    fn unmask_intx(&self) -> Result<()>;

    /// Resets the function as a whole. Registers may read as all ones for a while after it.
    ///
    /// # Errors
    /// When it has no such reset, or the reset failed.
    fn reset(&self) -> Result<()>;

    /// What can be mapped for DMA.
    fn dma_limits(&self) -> DmaLimits;

    /// Has the function reach a mapping, as [`DmaMap::map`](vdpa_core::DmaMap::map) says.
    ///
    /// # Errors
    /// When the system refuses; nothing is mapped then.
    fn dma_map(&self, m: &Mapping) -> Result<()>;

    /// Takes a mapping back, as [`DmaMap::unmap`](vdpa_core::DmaMap::unmap) says.
    ///
    /// # Errors
    /// When it is not certain that the function cannot reach it any more.
    fn dma_unmap(&self, m: &Mapping) -> Result<()>;

    /// Reports from now on what happens to the function beside its registers: a request to let go of it, an error of the
    /// bus, its removal. Before it reports the removal it has revoked the doorbells, as
    /// [`revoke_doorbells`](Self::revoke_doorbells) does: whoever is told calls it again, but not at once.
    ///
    /// # Errors
    /// When that cannot be watched.
    fn watch(&self, events: Arc<dyn EventSink>) -> Result<()>;
}

/// A parent whose devices are PCI functions, for who looks at registers: a doctor, a conformance suite.
pub trait PciParent: MgmtDevice {
    /// The function that a device string names, not driven by anybody.
    ///
    /// # Errors
    /// As for [`MgmtDevice::dev_add`], and when the string names a device that is no PCI function.
    fn function(&self, spec: &DeviceSpec) -> Result<Arc<dyn PciAccess>>;
}
