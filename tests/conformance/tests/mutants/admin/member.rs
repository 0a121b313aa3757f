//! Members that do not heed what their owner was told, or that are not reset when they say so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_conformance::registers::{Between, Through};
use vdpa_core::{Call, Result};
use vdpa_mem::{Access, AddressSpace, Hint, Mapping};
use vdpa_pci::{PciAccess, Width};

use super::{Kept, Wrong, asks_well, op, says_well, status};
use crate::registers::at;

/// In QEMU's layout: the common configuration is at the beginning, and notifications are behind the rest.
const BAR: u8 = 4;
const NOTIFY: u64 = 0x3000;

/// Nothing wrong.
struct Right;

impl Between for Right {}

pub fn around_nothing(to: Arc<dyn PciAccess>, _: Arc<Kept>) -> Arc<dyn PciAccess> {
    Through::around(to, Arc::new(Right))
}

fn is_kick(bar: u8, place: u64) -> bool {
    bar == BAR && place >= NOTIFY
}

/// Calls its driver for every kick, stopped or not.
struct Calls {
    kept: Arc<Kept>,
    calls: Mutex<Vec<Call>>,
}

impl Between for Calls {
    fn set_vector(&self, to: &dyn PciAccess, vector: u16, call: Call) -> Result<()> {
        self.calls.lock().unwrap().push(call.clone());
        to.set_vector(vector, call)
    }
    fn write(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        place: u64,
        width: Width,
        value: u32,
    ) -> Result<()> {
        if is_kick(bar, place) && self.kept.is_stopped() {
            self.calls.lock().unwrap().iter().for_each(Call::raise);
        }
        to.write(bar, place, width, value)
    }
}

/// Writes to memory for every kick while it is stopped.
struct Writes {
    kept: Arc<Kept>,
    memory: AddressSpace,
}

impl Between for Writes {
    fn dma_map(&self, to: &dyn PciAccess, m: &Mapping) -> Result<()> {
        to.dma_map(m)?;
        Ok(self.memory.map(vec![m.clone()])?)
    }
    fn dma_unmap(&self, to: &dyn PciAccess, m: &Mapping) -> Result<()> {
        self.memory.unmap(
            m.iova,
            vdpa_mem::Deadline::after(std::time::Duration::from_secs(5)),
        )?;
        to.dma_unmap(m)
    }
    fn write(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        place: u64,
        width: Width,
        value: u32,
    ) -> Result<()> {
        let first = self.memory.mappings().first().map(|m| m.iova.first());
        if let Some(first) = first.filter(|_| is_kick(bar, place) && self.kept.is_stopped()) {
            let mut reader = self.memory.reader();
            let section = reader.enter();
            let found = section.translate(first, 1, Access::DeviceWrites, &mut Hint::default());
            found.unwrap().write(0, &[0xff]);
        }
        to.write(bar, place, width, value)
    }
}

/// Has lost its registers while it is stopped.
struct Mute(Arc<Kept>);

impl Between for Mute {
    fn read(&self, to: &dyn PciAccess, bar: u8, place: u64, width: Width) -> Result<u32> {
        match self.0.is_stopped() && bar == BAR && place == at::STATUS {
            true => Ok(0),
            false => to.read(bar, place, width),
        }
    }
}

/// Shows that it is reset while it is stopped, and is not.
#[derive(Default)]
struct Pretends {
    kept: Arc<Kept>,
    since: AtomicBool,
}

impl Between for Pretends {
    fn read(&self, to: &dyn PciAccess, bar: u8, place: u64, width: Width) -> Result<u32> {
        match bar == BAR && place == at::STATUS && self.since.load(Ordering::SeqCst) {
            true => Ok(0),
            false => to.read(bar, place, width),
        }
    }
    fn write(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        place: u64,
        width: Width,
        value: u32,
    ) -> Result<()> {
        if bar == BAR && place == at::STATUS && value == 0 && self.kept.is_stopped() {
            self.since.store(true, Ordering::SeqCst);
            return Ok(());
        }
        to.write(bar, place, width, value)
    }
}

/// A reset of the function resets nothing.
struct Firm;

impl Between for Firm {
    fn reset(&self, _: &dyn PciAccess) -> Result<()> {
        Ok(())
    }
}

/// Says when its driver resets it.
struct Tells(Arc<Kept>);

impl Between for Tells {
    fn write(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        place: u64,
        width: Width,
        value: u32,
    ) -> Result<()> {
        if bar == BAR && place == at::STATUS && value == 0 && self.0.is_stopped() {
            self.0.reset.store(true, Ordering::SeqCst);
        }
        to.write(bar, place, width, value)
    }
}

/// Where the second part has its value, and how long that is: what the driver has chosen.
const CHOSEN: std::ops::Range<usize> = 48..64;

pub const WRONG: &[Wrong] = &[
    Wrong {
        name: "calls its driver while it is stopped",
        caught_by: 140,
        ask: asks_well,
        say: says_well,
        member: |to, kept| {
            let calls = Mutex::default();
            Through::around(to, Arc::new(Calls { kept, calls }))
        },
    },
    Wrong {
        name: "writes to memory while it is stopped",
        caught_by: 140,
        ask: asks_well,
        say: says_well,
        member: |to, kept| {
            let memory = AddressSpace::new();
            Through::around(to, Arc::new(Writes { kept, memory }))
        },
    },
    Wrong {
        name: "shows no status while it is stopped",
        caught_by: 140,
        ask: asks_well,
        say: says_well,
        member: |to, kept| Through::around(to, Arc::new(Mute(kept))),
    },
    Wrong {
        name: "does nothing for a reset while it is stopped",
        caught_by: 144,
        ask: asks_well,
        say: says_well,
        member: |to, kept| {
            let since = AtomicBool::new(false);
            Through::around(to, Arc::new(Pretends { kept, since }))
        },
    },
    Wrong {
        name: "does nothing for a reset of the function",
        caught_by: 144,
        ask: asks_well,
        say: says_well,
        member: |to, _| Through::around(to, Arc::new(Firm)),
    },
    Wrong {
        name: "keeps over a reset what its driver has chosen",
        caught_by: 144,
        ask: asks_well,
        say: |kept, asked, answer| {
            if !asked.is(op::PARTS_GET) || answer.status() != status::OK {
                return;
            }
            let chosen = answer.result()[CHOSEN].to_vec();
            match kept.reset.load(Ordering::SeqCst) {
                true => answer.result()[CHOSEN].copy_from_slice(&kept.bytes()),
                false => kept.keep(&chosen),
            }
        },
        member: |to, kept| Through::around(to, Arc::new(Tells(kept))),
    },
];
