//! What a driver does to a function, written down.

use std::sync::{Arc, Mutex, PoisonError};

use vdpa_core::{Doorbell, Result};
use vdpa_pci::{PciAccess, Width};

use super::{Between, COMMON, Register, Registers, Structure, Through};
use crate::Checked;

/// One thing that reached the function, in the order in which it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Read {
        bar: u8,
        at: u64,
        width: Width,
        value: u32,
    },
    Write {
        bar: u8,
        at: u64,
        width: Width,
        value: u32,
    },
    /// A doorbell was asked for.
    Bell {
        bar: u8,
        at: u64,
        width: Width,
        name: u16,
    },
    /// It was rung with this.
    Rung { bar: u8, at: u64, data: u32 },
    /// MSI-X was switched on with so many.
    Vectors(u16),
}

/// An access to the common configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Common {
    /// The field; `None` for bytes that are none's.
    pub(crate) register: Option<Register>,
    /// Offset in the structure.
    pub(crate) at: u64,
    pub(crate) width: Width,
    pub(crate) value: u32,
    pub(crate) is_write: bool,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Writes down.
#[derive(Default)]
pub(crate) struct Tape {
    log: Log,
}

impl Tape {
    /// A tape, and the function that it is in front of.
    pub(crate) fn around(function: Arc<dyn PciAccess>) -> (Arc<Self>, Arc<dyn PciAccess>) {
        let tape = Arc::new(Self::default());
        (Arc::clone(&tape), Through::around(function, tape))
    }

    /// All of it until now.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What came since there was so much.
    pub(crate) fn since(&self, from: usize) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.split_off(from.min(seen.len()))
    }

    /// How much there is until now.
    pub(crate) fn len(&self) -> usize {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

fn note(log: &Log, seen: Seen) {
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(seen);
}

impl Between for Tape {
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        let value = to.read(bar, at, width)?;
        note(
            &self.log,
            Seen::Read {
                bar,
                at,
                width,
                value,
            },
        );
        Ok(value)
    }
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        note(
            &self.log,
            Seen::Write {
                bar,
                at,
                width,
                value,
            },
        );
        to.write(bar, at, width, value)
    }
    fn doorbell(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        at: u64,
        width: Width,
        name: u16,
    ) -> Result<Doorbell> {
        let bell = to.doorbell(bar, at, width, name)?;
        note(
            &self.log,
            Seen::Bell {
                bar,
                at,
                width,
                name,
            },
        );
        let log = Arc::clone(&self.log);
        Ok(Doorbell::from_fn(move |data| {
            note(&log, Seen::Rung { bar, at, data });
            bell.ring(data);
        }))
    }
    fn enable_vectors(&self, to: &dyn PciAccess, count: u16) -> Result<()> {
        to.enable_vectors(count)?;
        note(&self.log, Seen::Vectors(count));
        Ok(())
    }
}

/// Where the structures of a function are, for what a tape says.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub(crate) common: Structure,
    pub(crate) notify: Structure,
    pub(crate) isr: Structure,
    pub(crate) config: Option<Structure>,
}

impl Places {
    /// Those of a function that nobody drives at the moment.
    pub(crate) fn of(function: &Arc<dyn PciAccess>) -> Checked<Self> {
        let registers = Registers::of(Arc::clone(function))?;
        Ok(Self {
            common: registers.common,
            notify: registers.notify,
            isr: registers.isr,
            config: registers.config,
        })
    }

    /// The accesses to the common configuration.
    pub(crate) fn common(&self, seen: &[Seen]) -> Vec<Common> {
        let inside = seen.iter().filter_map(|seen| inside(&self.common, seen));
        inside
            .map(|(at, width, value, is_write)| Common {
                register: COMMON.iter().find(|r| r.covers(at)).copied(),
                at,
                width,
                value,
                is_write,
            })
            .collect()
    }

    /// The accesses to the configuration of the device's type: offset, width, whether it is a write.
    pub(crate) fn config(&self, seen: &[Seen]) -> Vec<(u64, Width, bool)> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let inside = seen.iter().filter_map(|seen| inside(config, seen));
        inside
            .map(|(at, width, _, is_write)| (at, width, is_write))
            .collect()
    }

    /// Writes to the ISR status.
    pub(crate) fn isr_writes(&self, seen: &[Seen]) -> usize {
        let inside = seen.iter().filter_map(|seen| inside(&self.isr, seen));
        inside.filter(|(.., is_write)| *is_write).count()
    }
}

/// Offset in a structure, width, value, whether it is a write; `None` for what goes elsewhere.
fn inside(structure: &Structure, seen: &Seen) -> Option<(u64, Width, u32, bool)> {
    let (bar, at, width, value, is_write) = match *seen {
        Seen::Read {
            bar,
            at,
            width,
            value,
        } => (bar, at, width, value, false),
        Seen::Write {
            bar,
            at,
            width,
            value,
        } => (bar, at, width, value, true),
        Seen::Bell { .. } | Seen::Rung { .. } | Seen::Vectors(_) => return None,
    };
    let offset = at.checked_sub(structure.offset)?;
    let there = bar == structure.bar && offset < structure.length;
    there.then_some((offset, width, value, is_write))
}
