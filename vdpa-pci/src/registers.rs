//! Registers by name, whichever way they are reached.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vdpa_core::{Doorbell, Error, ErrorKind, Result};

use crate::access::{PciAccess, Width};
use crate::error::PciError;
use crate::layout::{Layout, Reach, Structure};
use crate::life::Life;
use crate::window::Window;

/// A field of the common configuration structure.
#[derive(Clone, Copy)]
pub(crate) struct Register {
    pub(crate) at: u32,
    pub(crate) width: Width,
}

/// virtio 1.4 §4.1.4.3.
pub(crate) mod common {
    use super::{Register, Width};

    const fn register(at: u32, width: Width) -> Register {
        Register { at, width }
    }

    pub(crate) const DEVICE_FEATURE_SELECT: Register = register(0, Width::U32);
    pub(crate) const DEVICE_FEATURE: Register = register(4, Width::U32);
    pub(crate) const DRIVER_FEATURE_SELECT: Register = register(8, Width::U32);
    pub(crate) const DRIVER_FEATURE: Register = register(12, Width::U32);
    pub(crate) const CONFIG_MSIX_VECTOR: Register = register(16, Width::U16);
    pub(crate) const NUM_QUEUES: Register = register(18, Width::U16);
    pub(crate) const DEVICE_STATUS: Register = register(20, Width::U8);
    pub(crate) const CONFIG_GENERATION: Register = register(21, Width::U8);
    pub(crate) const QUEUE_SELECT: Register = register(22, Width::U16);
    pub(crate) const QUEUE_SIZE: Register = register(24, Width::U16);
    pub(crate) const QUEUE_MSIX_VECTOR: Register = register(26, Width::U16);
    pub(crate) const QUEUE_ENABLE: Register = register(28, Width::U16);
    pub(crate) const QUEUE_NOTIFY_OFF: Register = register(30, Width::U16);
    /// 64 bits each, as all addresses.
    pub(crate) const QUEUE_DESC: u32 = 32;
    pub(crate) const QUEUE_DRIVER: u32 = 40;
    pub(crate) const QUEUE_DEVICE: u32 = 48;
    pub(crate) const QUEUE_NOTIF_CONFIG_DATA: Register = register(56, Width::U16);
    pub(crate) const QUEUE_RESET: Register = register(58, Width::U16);
    pub(crate) const ADMIN_QUEUE_INDEX: Register = register(60, Width::U16);
    pub(crate) const ADMIN_QUEUE_NUM: Register = register(62, Width::U16);
}

/// No generation: those have 8 bits.
pub(crate) const NOTHING_SEEN: u32 = 0x100;

/// The registers of a function. Each access is counted, and none is made once the function is gone.
pub(crate) struct Registers {
    access: Arc<dyn PciAccess>,
    pub(crate) layout: Layout,
    pub(crate) life: Arc<Life>,
    window: Option<Arc<Window>>,
    /// The generation of the configuration when it was last told of or began, [`NOTHING_SEEN`] while a reset is under way.
    pub(crate) generation: AtomicU32,
    /// Whether a need for reset was told since the last reset.
    pub(crate) needs_reset: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
    /// Shared with the doorbells through the window that were handed out since the last reset.
    revoked: Mutex<Arc<AtomicBool>>,
    /// Whether the doorbells were revoked after the function was gone.
    buried: AtomicBool,
}

impl Registers {
    pub(crate) fn new(access: Arc<dyn PciAccess>, layout: Layout, life: Arc<Life>) -> Self {
        Self {
            window: layout.window.map(|at| Arc::new(Window::new(at))),
            access,
            layout,
            life,
            generation: AtomicU32::new(NOTHING_SEEN),
            needs_reset: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            revoked: Mutex::default(),
            buried: AtomicBool::new(false),
        }
    }

    pub(crate) fn access(&self) -> &dyn PciAccess {
        &*self.access
    }

    pub(crate) fn name(&self) -> &str {
        self.access.name()
    }

    /// How many reads and writes there were.
    pub(crate) fn counts(&self) -> [u64; 2] {
        [&self.reads, &self.writes].map(|count| count.load(Ordering::Relaxed))
    }

    /// An error once the function is gone.
    pub(crate) fn check(&self) -> Result<()> {
        self.life.check().inspect_err(|_| self.bury())
    }

    /// Reads a field of the common configuration structure.
    pub(crate) fn common(&self, register: Register) -> Result<u32> {
        self.read(&self.layout.common, register.at, register.width)
    }

    /// Writes a field of the common configuration structure.
    pub(crate) fn set_common(&self, register: Register, value: u32) -> Result<()> {
        let Register { at, width } = register;
        self.write(&self.layout.common, at, width, value)
    }

    /// Reads a register of a structure; [`Error::Busy`] while a reset keeps the function from answering.
    pub(crate) fn read(&self, structure: &Structure, at: u32, width: Width) -> Result<u32> {
        let answer = self.answer(structure, at, width)?;
        answer.ok_or(Error::Busy { what: "a reset" })
    }

    /// Reads a register; `None` while a reset keeps the function from answering.
    pub(crate) fn answer(
        &self,
        structure: &Structure,
        at: u32,
        width: Width,
    ) -> Result<Option<u32>> {
        let value = self.raw_read(structure, at, width)?;
        if value != width.all_ones() {
            return Ok(Some(value));
        }
        if self.answers()? {
            return match self.life.in_reset() {
                // It may have come back between the two, and never said this.
                true => self.raw_read(structure, at, width).map(Some),
                false => Ok(Some(value)),
            };
        }
        match self.life.in_grace() {
            true => Ok(None),
            false => Err(self.lose()),
        }
    }

    /// Whether all ones are what the function says, rather than that nobody says anything. The status has bits that no
    /// device sets, and so has the selector, which this side wrote.
    fn answers(&self) -> Result<bool> {
        let ones = |register: Register| {
            let value = self.raw_read(&self.layout.common, register.at, register.width)?;
            Ok::<_, Error>(value == register.width.all_ones())
        };
        if !ones(common::DEVICE_STATUS)? {
            return Ok(true);
        }
        // A device may lie in one register; configuration space may be emulated, and answer for a device that is gone.
        match self.access.read_config(0, Width::U16) {
            Ok(vendor) if vendor == u32::from(u16::MAX) => Ok(false),
            Ok(_) => Ok(!ones(common::DEVICE_FEATURE_SELECT)?),
            Err(e) if e.kind() == ErrorKind::Gone => Err(self.lose()),
            // Whatever keeps configuration space from answering: nobody does.
            Err(_) => Ok(false),
        }
    }

    /// Writes a register of a structure.
    pub(crate) fn write(
        &self,
        structure: &Structure,
        at: u32,
        width: Width,
        value: u32,
    ) -> Result<()> {
        self.check()?;
        let place = place(structure, at, width)?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        let written = match (structure.reach, &self.window) {
            (Reach::Window, Some(window)) => {
                // Checked with the layout: a structure behind the window is in the first 4 GiB.
                let at = u32::try_from(place).unwrap_or(u32::MAX);
                window.write(self.access(), structure.bar, at, (width, value), || true)
            }
            _ => self.access.write(structure.bar, place, width, value),
        };
        written.map_err(|e| self.failed(e))
    }

    fn raw_read(&self, structure: &Structure, at: u32, width: Width) -> Result<u32> {
        self.check()?;
        let place = place(structure, at, width)?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let read = match (structure.reach, &self.window) {
            (Reach::Window, Some(window)) => {
                let at = u32::try_from(place).unwrap_or(u32::MAX);
                window.read(self.access(), structure.bar, at, width)
            }
            _ => self.access.read(structure.bar, place, width),
        };
        // What an access leaves in the upper bits means nothing.
        read.map(|value| value & width.all_ones())
            .map_err(|e| self.failed(e))
    }

    /// A doorbell at `at` of the notification structure.
    pub(crate) fn doorbell(&self, at: u64, width: Width, name: u16) -> Result<Doorbell> {
        self.check()?;
        let notify = &self.layout.notify;
        let place = notify.offset + at;
        let Some(window) = self
            .window
            .clone()
            .filter(|_| notify.reach == Reach::Window)
        else {
            let doorbell = self.access.doorbell(notify.bar, place, width, name);
            return doorbell.map_err(|e| self.failed(e));
        };
        // Weak: what is reached through the access is free once nobody drives it, whoever keeps a doorbell.
        let (access, bar, life) = (
            Arc::downgrade(&self.access),
            notify.bar,
            Arc::clone(&self.life),
        );
        let revoked = Arc::clone(&self.revoked.lock().unwrap_or_else(PoisonError::into_inner));
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Ok(Doorbell::from_fn(move |data| {
            let data = match width {
                Width::U32 => data & 0xffff_0000 | u32::from(name),
                Width::U8 | Width::U16 => u32::from(name),
            };
            let legal = || !revoked.load(Ordering::Acquire) && !life.is_gone();
            let Some(access) = access.upgrade() else {
                return;
            };
            // A kick that fails finds its reason at the next control call.
            let _failed = window.write(&*access, bar, place, (width, data), legal);
        }))
    }

    /// Makes every doorbell that was handed out a no-op.
    pub(crate) fn revoke_doorbells(&self) {
        self.access.revoke_doorbells();
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::take(&mut *revoked);
        drop(revoked);
        if let Some(window) = &self.window {
            window.between(|| old.store(true, Ordering::Release));
        }
    }

    /// The function is gone: says so, and gives the error for it.
    pub(crate) fn lose(&self) -> Error {
        self.life.lose();
        self.bury();
        Error::Gone
    }

    /// Revokes the doorbells of a function that is gone, once.
    fn bury(&self) {
        if !self.buried.swap(true, Ordering::AcqRel) {
            self.revoke_doorbells();
        }
    }

    /// The error of an access; one that knows that the function is gone says so.
    pub(crate) fn failed(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Gone => self.lose(),
            _ => error,
        }
    }
}

/// Where a register is in its BAR.
fn place(structure: &Structure, at: u32, width: Width) -> Result<u64> {
    let end = u64::from(at) + u64::from(width.bytes());
    if end > structure.len {
        return Err(PciError::PastEnd {
            at,
            len: width.bytes(),
            size: structure.len,
        }
        .into());
    }
    Ok(structure.offset + u64::from(at))
}
