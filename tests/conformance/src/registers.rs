//! A PCI function, seen as its registers: for statements about what is below the contract.
//!
//! ```text
//!   D   Plain ─────────────────────▶ Registers ─▶ PciAccess      a driver that makes each access by itself
//!   R   VirtioPci ─▶ Through<Tape> ─▶ Through<...> ─▶ PciAccess   the driver that is judged, written down and misled
//! ```
//!
//! [`Through`] stands between a driver and a function, and does what a [`Between`] says: write down, misbehave, lie. It is
//! public, since whoever tries a driver or a statement of their own needs the same.

mod between;
mod fields;
mod fold;
mod overlay;
mod plain;
mod tape;
mod walk;

use std::sync::Arc;

use vdpa_core::{DeviceType, Features, Result};
use vdpa_pci::{PciAccess, Width};

use crate::Checked;
use crate::checked::{ensure, fail};

pub use between::{Between, Through};
pub(crate) use fields::{COMMON, Register, reg};
pub(crate) use fold::{fold, folded, unfold};
pub(crate) use overlay::{Overlay, Planned};
pub(crate) use plain::{Bells, NO_VECTOR, Plain};
pub(crate) use tape::{Common, Places, Seen, Tape};
pub(crate) use walk::{Structure, capabilities, extended, kind, structures};

/// Offset of the command register; its bits for memory and bus mastering.
const COMMAND: u16 = 4;
const MEMORY_AND_MASTER: u32 = 0b110;

/// The registers of a function.
pub(crate) struct Registers {
    pub(crate) function: Arc<dyn PciAccess>,
    pub(crate) device_type: DeviceType,
    /// The first of each kind that lies inside its BAR.
    pub(crate) common: Structure,
    pub(crate) notify: Structure,
    pub(crate) isr: Structure,
    pub(crate) config: Option<Structure>,
    window: Option<Structure>,
}

impl Registers {
    /// Finds the structures, and has the function decode memory and reach it.
    pub(crate) fn of(function: Arc<dyn PciAccess>) -> Checked<Self> {
        let command = function.read_config(COMMAND, Width::U16)?;
        function.write_config(COMMAND, Width::U16, command | MEMORY_AND_MASTER)?;
        let structures = structures(&*function)?;
        let first = |wanted: u8| {
            let mut usable = structures.iter();
            usable.find(|s| s.cfg_type == wanted && s.bar < vdpa_pci::BARS)
        };
        let (Some(common), Some(notify), Some(isr)) =
            (first(kind::COMMON), first(kind::NOTIFY), first(kind::ISR))
        else {
            fail!("a structure is missing: the function has {structures:?}");
        };
        Ok(Self {
            device_type: device_type(&*function)?,
            common: *common,
            notify: *notify,
            isr: *isr,
            config: first(kind::DEVICE).copied(),
            window: structures
                .iter()
                .find(|s| s.cfg_type == kind::PCI_CFG)
                .copied(),
            function,
        })
    }

    /// Reads `at` bytes into a structure, through its BAR or, where that cannot be reached, through the window in
    /// configuration space.
    pub(crate) fn read(&self, of: &Structure, at: u64, width: Width) -> Result<u32> {
        let place = of.offset.saturating_add(at);
        match self.window_for(of) {
            None => self.function.read(of.bar, place, width),
            Some(window) => {
                self.aim(window, of.bar, place, width)?;
                self.function.read_config(window.at + 16, width)
            }
        }
    }

    /// The same for a write.
    pub(crate) fn write(&self, of: &Structure, at: u64, width: Width, value: u32) -> Result<()> {
        let place = of.offset.saturating_add(at);
        match self.window_for(of) {
            None => self.function.write(of.bar, place, width, value),
            Some(window) => {
                self.aim(window, of.bar, place, width)?;
                self.function.write_config(window.at + 16, width, value)
            }
        }
    }

    /// What writes 16 bits of the notify structure, and does not hold the function.
    pub(crate) fn bell(&self, at: u64, value: u16) -> impl Fn() + Send + Sync + use<> {
        let function = Arc::downgrade(&self.function);
        let (bar, place) = (self.notify.bar, self.notify.offset.saturating_add(at));
        let window = self.window_for(&self.notify).copied();
        move || {
            let Some(function) = function.upgrade() else {
                return;
            };
            let _gone = match &window {
                None => function.write(bar, place, Width::U16, value.into()),
                Some(window) => aim(&*function, window, bar, place, Width::U16)
                    .and_then(|()| function.write_config(window.at + 16, Width::U16, value.into())),
            };
        }
    }

    fn window_for(&self, of: &Structure) -> Option<&Structure> {
        let reached = self.function.bar_len(of.bar) > of.offset;
        self.window.as_ref().filter(|_| !reached)
    }

    /// Points the window to a register, virtio 1.4 §4.1.4.9.
    pub(crate) fn aim(&self, window: &Structure, bar: u8, at: u64, width: Width) -> Result<()> {
        aim(&*self.function, window, bar, at, width)
    }

    /// The window in configuration space, if there is one.
    pub(crate) fn window(&self) -> Option<&Structure> {
        self.window.as_ref()
    }

    /// Reads a field of the common configuration. Of 64 bits it is read as two of 32.
    pub(crate) fn get(&self, register: Register) -> Result<u64> {
        let at = u64::from(register.at);
        match register.width() {
            Some(width) => self.read(&self.common, at, width).map(u64::from),
            None => {
                let low = self.read(&self.common, at, Width::U32)?;
                let high = self.read(&self.common, at + 4, Width::U32)?;
                Ok(u64::from(low) | u64::from(high) << 32)
            }
        }
    }

    /// Writes a field of the common configuration.
    pub(crate) fn set(&self, register: Register, value: u64) -> Result<()> {
        let at = u64::from(register.at);
        match register.width() {
            Some(width) => self.write(&self.common, at, width, value as u32),
            None => {
                self.write(&self.common, at, Width::U32, value as u32)?;
                self.write(&self.common, at + 4, Width::U32, (value >> 32) as u32)
            }
        }
    }

    /// A field of queue `q`.
    pub(crate) fn get_of(&self, q: u16, register: Register) -> Result<u64> {
        self.set(reg::QUEUE_SELECT, q.into())?;
        self.get(register)
    }

    /// Sets a field of queue `q`.
    pub(crate) fn set_of(&self, q: u16, register: Register, value: u64) -> Result<()> {
        self.set(reg::QUEUE_SELECT, q.into())?;
        self.set(register, value)
    }

    /// All features that are offered, known ones or not.
    pub(crate) fn offered(&self) -> Result<Features> {
        let mut words = [0; 4];
        for (select, word) in words.iter_mut().enumerate() {
            self.set(reg::DEVICE_FEATURE_SELECT, select as u64)?;
            *word = self.get(reg::DEVICE_FEATURE)? as u32;
        }
        Ok(Features::from_words(words))
    }

    /// Offset of the register that a kick of queue `q` is written to, in the notify structure.
    pub(crate) fn notify_at(&self, q: u16) -> Result<u64> {
        let off = self.get_of(q, reg::QUEUE_NOTIFY_OFF)?;
        Ok(off.saturating_mul(self.notify.multiplier.into()))
    }

    /// How many MSI-X vectors the function's own table has; `None` where it has none.
    pub(crate) fn table_size(&self) -> Checked<Option<u16>> {
        const MSIX: u8 = 0x11;
        let all = capabilities(&*self.function)?;
        let Some(msix) = all.iter().find(|cap| cap.id == MSIX) else {
            return Ok(None);
        };
        let control = self.function.read_config(msix.at + 2, Width::U16)?;
        Ok(Some((control as u16 & 0x7ff) + 1))
    }
}

fn aim(f: &dyn PciAccess, window: &Structure, bar: u8, at: u64, width: Width) -> Result<()> {
    f.write_config(window.at + 4, Width::U8, bar.into())?;
    f.write_config(window.at + 8, Width::U32, at as u32)?;
    f.write_config(window.at + 12, Width::U32, width.bytes().into())
}

/// What kind of device a function is, virtio 1.4 §4.1.2.
pub(crate) fn device_type(function: &dyn PciAccess) -> Checked<DeviceType> {
    const VENDOR: u32 = 0x1af4;
    let vendor = function.read_config(0, Width::U16)?;
    let device = function.read_config(2, Width::U16)?;
    ensure!(
        vendor == VENDOR || device >= 0x1040,
        "a function of vendor {vendor:#06x} and device {device:#06x} is no virtio device"
    );
    let id = match device {
        // A transitional one says it beside.
        0x1000..0x1040 => function.read_config(0x2e, Width::U16)?,
        _ => device.wrapping_sub(0x1040),
    };
    Ok(DeviceType::from_id(id))
}
