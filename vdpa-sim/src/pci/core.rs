//! What a function does with an access: configuration space with its consequences, and BARs.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_core::Result;
use vdpa_pci::Width;

use crate::pci::assemble::{
    COMMAND, COMMAND_LINE_OFF, COMMAND_MASTER, COMMAND_MEMORY, EXPRESS_CONTROL, EXPRESS_RESET,
    MSIX_ALL_MASKED, MSIX_ON, Places, STATUS, STATUS_LINE, WINDOW_BAR, WINDOW_DATA, WINDOW_LENGTH,
    WINDOW_OFFSET,
};
use crate::pci::config_space::ConfigSpace;
use crate::pci::interrupts::Msix;
use crate::pci::iommu::Iommu;
use crate::pci::layout::Layout;
use crate::pci::life::Life;
use crate::pci::notify::Handed;
use crate::pci::region::{Regions, Structure};
use crate::pci::setup::{After, Extension};
use crate::pci::shared_memory::SharedMemory;
use crate::pci::transport::Transport;
use crate::shared::lock;

pub(super) struct Core {
    pub(super) layout: Layout,
    pub(super) regions: Regions,
    pub(super) shared: SharedMemory,
    pub(super) config: Mutex<Config>,
    pub(super) transport: Transport,
    pub(super) iommu: Iommu,
    pub(super) life: Arc<Life>,
    /// Memory decoding.
    pub(super) decoding: AtomicBool,
    /// How many vectors the host has switched on.
    pub(super) vectors: AtomicU16,
    pub(super) handed: Mutex<Handed>,
    pub(super) extension: Option<Arc<dyn Extension>>,
}

/// Configuration space, and how it is after a reset.
pub(super) struct Config {
    pub(super) space: ConfigSpace,
    pub(super) pristine: ConfigSpace,
    pub(super) places: Places,
}

/// Where the PCI_CFG window points to.
struct Target {
    bar: u8,
    at: u64,
    width: Width,
}

impl Config {
    /// virtio 1.4 §4.1.4.9.1. `None`: the driver did not make it point to a register.
    fn target(&self, window: u16, regions: &Regions) -> Option<Target> {
        let field = |at: u16, width| self.space.read(window.saturating_add(at), width);
        let width = match field(WINDOW_LENGTH, Width::U32) {
            1 => Width::U8,
            2 => Width::U16,
            4 => Width::U32,
            _ => return None,
        };
        let bar = u8::try_from(field(WINDOW_BAR, Width::U8)).ok()?;
        let at = u64::from(field(WINDOW_OFFSET, Width::U32));
        let len = u64::from(width.bytes());
        let inside = at.checked_add(len)? <= regions.bar_len(bar);
        (inside && at.is_multiple_of(len)).then_some(Target { bar, at, width })
    }

    /// Whether an access is to the data of the PCI_CFG window.
    fn is_window(&self, at: u16) -> Option<u16> {
        let window = self.places.window?;
        (at == window.saturating_add(WINDOW_DATA)).then_some(window)
    }
}

/// Whether an access reaches one of two bytes at `register`.
fn touches(register: Option<u16>, at: u16, width: Width) -> bool {
    register.is_some_and(|register| {
        let end = at.saturating_add(width.bytes().into());
        at < register.saturating_add(2) && register < end
    })
}

impl Core {
    pub(super) fn read_config(&self, at: u16, width: Width) -> u32 {
        let config = lock(&self.config);
        if let Some(window) = config.is_window(at) {
            let target = config.target(window, &self.regions);
            // A register that is read may interrupt, and that may read this space.
            drop(config);
            let Some(target) = target else {
                self.transport
                    .ignore("a PCI_CFG window that points nowhere");
                return width.all_ones();
            };
            return self.read(target.bar, target.at, target.width) & width.all_ones();
        }
        let mut value = config.space.read(at, width);
        // Its bit is in the lower byte.
        if at <= STATUS
            && touches(Some(STATUS), at, width)
            && self.transport.interrupts.is_asserted()
        {
            let shift = u32::from(STATUS.saturating_sub(at)).saturating_mul(8);
            value |= STATUS_LINE.checked_shl(shift).unwrap_or(0) & width.all_ones();
        }
        value
    }

    pub(super) fn write_config(&self, at: u16, width: Width, value: u32) -> Result<()> {
        let mut config = lock(&self.config);
        if let Some(window) = config.is_window(at) {
            let target = config.target(window, &self.regions);
            drop(config);
            match target {
                Some(to) => self.write(to.bar, to.at, to.width, value & to.width.all_ones()),
                None => self
                    .transport
                    .ignore("a PCI_CFG window that points nowhere"),
            }
            return Ok(());
        }
        config.space.write(at, width, value);
        let mut after = [None, None];
        let [reset, written] = &mut after;
        let Places { express, msix, .. } = config.places;
        let control = express.map(|express| express.saturating_add(EXPRESS_CONTROL));
        if touches(control, at, width) {
            let shift = u32::from(control.unwrap_or(0).saturating_sub(at)).saturating_mul(8);
            let before = u32::from(at.saturating_sub(control.unwrap_or(0))).saturating_mul(8);
            let written = value.checked_shr(shift).unwrap_or(0).checked_shl(before);
            if written.unwrap_or(0) & EXPRESS_RESET != 0 {
                *reset = self.reset_function(&mut config);
            }
        }
        if at >= 0x100
            && let Some(extension) = &self.extension
        {
            *written = extension.written(&mut config.space, at, width);
        }
        let mut done = Ok(());
        let mut switched = false;
        if touches(Some(COMMAND), at, width) {
            done = self.apply_command(&config);
            switched = true;
        }
        if touches(msix.map(|msix| msix.saturating_add(2)), at, width) {
            self.apply_msix(&config);
            switched = true;
        }
        drop(config);
        for after in after.into_iter().flatten() {
            after();
            switched = true;
        }
        // Only what this let through: another thread's interrupt is that thread's to make. Whoever aims the window at a
        // register holds what the interrupt would need to look at its own.
        if switched {
            self.transport.interrupts.deliver();
        }
        done
    }

    /// Does what the command register says now.
    pub(super) fn apply_command(&self, config: &Config) -> Result<()> {
        let command = config.space.read(COMMAND, Width::U16);
        let decoding = command & COMMAND_MEMORY != 0;
        self.decoding.store(decoding, Ordering::Release);
        let bus_master = command & COMMAND_MASTER != 0;
        let Transport {
            notify, interrupts, ..
        } = &self.transport;
        notify.set_live(decoding);
        interrupts.set_command(bus_master, command & COMMAND_LINE_OFF != 0);
        // Afterwards: whoever takes it away meanwhile switches these off before or after this looks.
        if self.life.is_gone() {
            notify.set_live(false);
            interrupts.set_command(false, true);
        }
        self.iommu.set_bus_master(bus_master)
    }

    /// Does what the message control of MSI-X says now.
    pub(super) fn apply_msix(&self, config: &Config) {
        let Some(msix) = config.places.msix else {
            return;
        };
        let control = config.space.read(msix.saturating_add(2), Width::U16);
        self.transport.interrupts.set_msix(Msix {
            on: control & MSIX_ON != 0,
            all_masked: control & MSIX_ALL_MASKED != 0,
        });
    }

    /// A function level reset, PCI Express 4.0 §6.6.2. Who asked for it restores configuration space.
    fn reset_function(&self, config: &mut Config) -> After {
        self.transport.reset();
        config.space = config.pristine.clone();
        self.transport.interrupts.reset_table();
        self.vectors.store(0, Ordering::Release);
        if let Err(e) = self.apply_command(config) {
            tracing::warn!("a function that was reset still reaches memory: {e}");
        }
        let extension = self.extension.as_ref()?;
        extension.reset(&mut config.space)
    }

    /// Reads a register, decoding on or off.
    pub(super) fn read(&self, bar: u8, at: u64, width: Width) -> u32 {
        let transport = &self.transport;
        match self.regions.find(bar, at, width.bytes()) {
            Some((Structure::Common, at)) => transport.read_common(at, width) & width.all_ones(),
            Some((Structure::Device, at)) => transport.read_config(at, width) & width.all_ones(),
            Some((Structure::Isr, _)) => transport.interrupts.take_isr().into(),
            Some((Structure::Table, at)) if width == Width::U32 => {
                transport.interrupts.read_table(at)
            }
            Some((Structure::Pending, at)) if width == Width::U32 => {
                transport.interrupts.read_pending(at)
            }
            Some((Structure::Table | Structure::Pending, _)) => {
                transport.ignore("a read of the MSI-X table that has not 32 bits");
                width.all_ones()
            }
            Some((Structure::Shared(id), at)) => self.shared.read(id, at, width),
            // virtio 1.4 §4.1.4.4: nothing is said of a read.
            Some((Structure::Notify, _)) | None => 0,
        }
    }

    /// Writes a register, decoding on or off.
    pub(super) fn write(&self, bar: u8, at: u64, width: Width, value: u32) {
        let transport = &self.transport;
        match self.regions.find(bar, at, width.bytes()) {
            Some((Structure::Common, at)) => transport.write_common(at, width, value),
            Some((Structure::Device, at)) => transport.write_config(at, width, value),
            Some((Structure::Notify, at)) => transport.notify.write(at, width, value),
            Some((Structure::Table, at)) if width == Width::U32 => {
                transport.interrupts.write_table(at, value);
            }
            Some((Structure::Shared(id), at)) => self.shared.write(id, at, width, value),
            Some((Structure::Isr | Structure::Table | Structure::Pending, _)) | None => {
                transport.ignore("a write to what cannot be written");
            }
        }
    }
}
