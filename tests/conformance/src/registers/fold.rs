//! A function whose registers are reached through the window in its configuration space alone, virtio 1.4 §4.1.4.9.
//!
//! ```text
//!   driver ─ window ─▶ Fold ─ BARs ─▶ what writes down and bends ─ BARs ─▶ Unfold ─ window ─▶ function
//! ```
//! So what stands between sees accesses to registers, whichever way they go.

use std::sync::{Arc, Mutex, PoisonError};

use vdpa_core::{Doorbell, Result};
use vdpa_pci::{BARS, PciAccess, Width};

use super::walk::{Structure, kind};
use super::{Between, Through, aim, structures};
use crate::Checked;

/// Where the window's fields are in its capability.
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
const DATA: u16 = 16;

/// Shows BARs, and goes through the window.
struct Unfold {
    window: Structure,
    lens: [u64; BARS as usize],
    aimed: Arc<Mutex<()>>,
}

/// Shows a window, and goes to BARs.
struct Fold {
    window: Structure,
    aimed: Mutex<(u8, u64)>,
}

/// The window, where a structure of the function cannot be reached without it.
pub(crate) fn folded(function: &dyn PciAccess) -> Checked<Option<Structure>> {
    let all = structures(function)?;
    let needed = [kind::COMMON, kind::NOTIFY, kind::ISR, kind::DEVICE];
    let hidden = all
        .iter()
        .any(|s| needed.contains(&s.cfg_type) && s.bar < BARS && !s.is_inside(function));
    let window = all.iter().find(|s| s.cfg_type == kind::PCI_CFG);
    Ok(window.copied().filter(|_| hidden))
}

/// The same function, with BARs.
pub(crate) fn unfold(
    function: Arc<dyn PciAccess>,
    window: Structure,
) -> Checked<Arc<dyn PciAccess>> {
    let mut lens = [0; BARS as usize];
    for s in structures(&*function)? {
        if let Some(len) = lens.get_mut(usize::from(s.bar)) {
            *len = s.offset.saturating_add(s.length).max(*len);
        }
    }
    let unfold = Unfold {
        window,
        lens,
        aimed: Arc::default(),
    };
    Ok(Through::around(function, Arc::new(unfold)))
}

/// The same function, with a window and no BARs.
pub(crate) fn fold(function: Arc<dyn PciAccess>, window: Structure) -> Arc<dyn PciAccess> {
    let fold = Fold {
        window,
        aimed: Mutex::default(),
    };
    Through::around(function, Arc::new(fold))
}

impl Between for Unfold {
    fn bar_len(&self, _: &dyn PciAccess, bar: u8) -> u64 {
        self.lens.get(usize::from(bar)).copied().unwrap_or(0)
    }
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        let _aimed = self.aimed.lock().unwrap_or_else(PoisonError::into_inner);
        aim(to, &self.window, bar, at, width)?;
        to.read_config(self.window.at + DATA, width)
    }
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        let _aimed = self.aimed.lock().unwrap_or_else(PoisonError::into_inner);
        aim(to, &self.window, bar, at, width)?;
        to.write_config(self.window.at + DATA, width, value)
    }
    /// Nobody asks for one: a driver rings through the window.
    fn doorbell(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        at: u64,
        width: Width,
        name: u16,
    ) -> Result<Doorbell> {
        to.doorbell(bar, at, width, name)
    }
}

impl Between for Fold {
    fn bar_len(&self, _: &dyn PciAccess, _: u8) -> u64 {
        0
    }
    fn read_config(&self, to: &dyn PciAccess, at: u16, width: Width) -> Result<u32> {
        if at != self.window.at + DATA {
            return to.read_config(at, width);
        }
        let (bar, place) = *self.aimed.lock().unwrap_or_else(PoisonError::into_inner);
        to.read(bar, place, width)
    }
    fn write_config(&self, to: &dyn PciAccess, at: u16, width: Width, value: u32) -> Result<()> {
        let mut aimed = self.aimed.lock().unwrap_or_else(PoisonError::into_inner);
        match at.checked_sub(self.window.at) {
            Some(BAR) => aimed.0 = value as u8,
            Some(OFFSET) => aimed.1 = value.into(),
            Some(LENGTH) => {}
            Some(DATA) => {
                let (bar, place) = *aimed;
                drop(aimed);
                return to.write(bar, place, width, value);
            }
            _ => {
                drop(aimed);
                return to.write_config(at, width, value);
            }
        }
        Ok(())
    }
}
