//! The SR-IOV capability, and the virtual functions that it makes and takes away.
//!
//! ```text
//!   NumVFs n, then VF Enable 1 ─▶ n fresh functions     VF Enable 0, a reset, or the owner gone ─▶ they are gone
//! ```
//! What the bus does with them is not here: BARs of virtual functions are where their own registers say, and VF MSE switches
//! nothing.

use std::sync::{Arc, Mutex};

use vdpa_core::{Error, Result};
use vdpa_pci::{BARS, Width};

use super::group::{Group, Member};
use crate::pci::{After, ConfigSpace, Extension, Function};
use crate::shared::lock;

/// The capability, as PCI Express numbers them; offsets in it, PCI Express 4.0 §9.3.3.
pub const CAPABILITY: u16 = 0x10;
/// The control register: VF Enable is bit 0.
pub const CONTROL: u16 = 0x08;
/// How many there can be at first, and at all.
pub const INITIAL_VFS: u16 = 0x0c;
/// How many there can be.
pub const TOTAL_VFS: u16 = 0x0e;
/// How many there are to be.
pub const NUM_VFS: u16 = 0x10;
/// How far the first one's routing id is from the owner's.
const FIRST_OFFSET: u16 = 0x14;
/// How far the others' are from the one before them.
const STRIDE: u16 = 0x16;
/// The device id of all of them.
pub const VF_DEVICE_ID: u16 = 0x1a;
/// Page sizes that there are, and the one that is used: a bit for each, the lowest for 4096.
const SUPPORTED_PAGES: u16 = 0x1c;
const SYSTEM_PAGES: u16 = 0x20;
/// The first VF BAR.
pub const VF_BAR: u16 = 0x24;
const LENGTH: u16 = 0x40;

/// Bits of the control register.
pub const VF_ENABLE: u16 = 1 << 0;
/// VF MSE: their memory is decoded.
const VF_MEMORY: u16 = 1 << 3;

/// Makes a virtual function: its number, from 1.
pub type Maker = Box<dyn Fn(u16) -> Result<Function> + Send + Sync>;

/// The virtual functions of a physical one.
pub struct SrIov {
    total: u16,
    /// How long the BARs of each are; 0 for none.
    bars: [u64; BARS as usize],
    make: Maker,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// Where the capability is.
    at: Option<u16>,
    num: u16,
    /// `None`: VF Enable is clear.
    made: Option<Vec<Arc<Function>>>,
    /// How often they came or went.
    generation: u64,
    /// Why they did not come when they were last to.
    failure: Option<Error>,
    /// The owner is gone, and none comes any more.
    over: bool,
}

impl SrIov {
    /// Up to `total` virtual functions.
    ///
    /// * `bars`: how long the BARs of each are, powers of two; 0 for none
    pub fn new(total: u16, bars: [u64; BARS as usize], make: Maker) -> Self {
        Self {
            total,
            bars,
            make,
            now: Mutex::default(),
        }
    }

    /// How many there can be: TotalVFs.
    pub fn total(&self) -> u16 {
        self.total
    }

    /// Virtual function `number`, from 1, if there is one now.
    pub fn vf(&self, number: u16) -> Option<Arc<Function>> {
        let now = lock(&self.now);
        let place = usize::from(number).checked_sub(1)?;
        now.made.as_ref()?.get(place).cloned()
    }

    /// Where the capability is in configuration space, once the owner is made.
    pub fn capability(&self) -> Option<u16> {
        lock(&self.now).at
    }

    /// Why they did not come when VF Enable was last set, if they did not.
    pub fn take_failure(&self) -> Option<Error> {
        lock(&self.now).failure.take()
    }

    /// Makes them. What that needs locks of its own, so none is held here.
    fn make_all(&self, num: u16) {
        let made: Result<Vec<_>> = (1..=num)
            .map(|number| (self.make)(number).map(Arc::new))
            .collect();
        let mut now = lock(&self.now);
        let mut late = None;
        match made {
            Ok(made) if now.over => {
                late = Some(made);
                now.failure = Some(Error::Gone);
            }
            Ok(made) => now.made = Some(made),
            Err(e) => {
                tracing::warn!("no virtual functions: {e}");
                now.failure = Some(e);
            }
        }
        now.generation = now.generation.wrapping_add(1);
        drop(now);
        // Nobody has seen these.
        drop(late);
    }
}

impl Now {
    /// Lets go of them, for [`remove`].
    fn disable(&mut self) -> Vec<Arc<Function>> {
        self.generation = self.generation.wrapping_add(1);
        self.made.take().unwrap_or_default()
    }
}

/// Takes them away: whoever still has one finds it gone. Those who watch it are told, so no lock is held.
fn remove(gone: Vec<Arc<Function>>) {
    for function in gone {
        function.remove();
    }
}

/// The same, later.
fn removal(gone: Vec<Arc<Function>>) -> After {
    (!gone.is_empty()).then(|| Box::new(move || remove(gone)) as _)
}

impl Extension for SrIov {
    fn install(&self, space: &mut ConfigSpace) {
        let mut body = [0; LENGTH as usize - 4];
        let mut writable = body;
        let mut put = |at: u16, bytes: &[u8], mask: &[u8]| {
            // Offsets count the header, which is put in front.
            let from = usize::from(at.saturating_sub(4));
            for (to, from) in body.iter_mut().skip(from).zip(bytes) {
                *to = *from;
            }
            for (to, from) in writable.iter_mut().skip(from).zip(mask) {
                *to = *from;
            }
        };
        put(CONTROL, &[0, 0], &(VF_ENABLE | VF_MEMORY).to_le_bytes());
        put(INITIAL_VFS, &self.total.to_le_bytes(), &[]);
        put(TOTAL_VFS, &self.total.to_le_bytes(), &[]);
        put(NUM_VFS, &[0, 0], &[0xff, 0xff]);
        put(FIRST_OFFSET, &[1, 0], &[]);
        put(STRIDE, &[1, 0], &[]);
        let device = space.read(2, Width::U16).to_le_bytes();
        put(VF_DEVICE_ID, device.get(..2).unwrap_or_default(), &[]);
        put(SUPPORTED_PAGES, &1_u32.to_le_bytes(), &[]);
        put(SYSTEM_PAGES, &1_u32.to_le_bytes(), &[]);
        for (len, at) in self.bars.into_iter().zip((VF_BAR..).step_by(4)) {
            if len != 0 {
                // 32 bits, where the functions' own are wide too: nobody decodes them here.
                let mask = len.wrapping_neg().to_le_bytes();
                put(at, &[0; 4], mask.get(..4).unwrap_or_default());
            }
        }
        let at = space.add_extended(CAPABILITY, 1, &body, &writable);
        lock(&self.now).at = at;
    }

    fn written(&self, space: &mut ConfigSpace, _: u16, _: Width) -> After {
        let mut now = lock(&self.now);
        let at = now.at?;
        // Whatever was written: the registers are compared with what holds.
        let number = at.saturating_add(NUM_VFS);
        let [low, high, ..] = space.read(number, Width::U16).to_le_bytes();
        let num = u16::from_le_bytes([low, high]);
        if num != now.num {
            // PCI Express 4.0 §9.3.3.7: not above TotalVFs, and not while they are enabled.
            if now.made.is_none() && num <= self.total {
                now.num = num;
            }
            space.set(number, &now.num.to_le_bytes());
        }
        let control = at.saturating_add(CONTROL);
        let [flags, ..] = space.read(control, Width::U8).to_le_bytes();
        let [enable, ..] = VF_ENABLE.to_le_bytes();
        let (num, is) = (now.num, now.made.is_some());
        drop(now);
        // Nobody else writes `made` meanwhile: configuration space is locked.
        let gone = match (flags & enable != 0, is) {
            (true, false) => {
                self.make_all(num);
                Vec::new()
            }
            (false, true) => lock(&self.now).disable(),
            _ => Vec::new(),
        };
        if lock(&self.now).made.is_none() {
            space.set(control, &[flags & !enable]);
        }
        removal(gone)
    }

    fn reset(&self, space: &mut ConfigSpace) -> After {
        let mut now = lock(&self.now);
        let gone = now.disable();
        now.num = 0;
        if let Some(at) = now.at {
            space.set(at.saturating_add(CONTROL), &[0, 0]);
            space.set(at.saturating_add(NUM_VFS), &[0, 0]);
        }
        removal(gone)
    }

    fn gone(&self) {
        let mut now = lock(&self.now);
        now.over = true;
        let gone = now.disable();
        drop(now);
        remove(gone);
    }
}

impl Group for SrIov {
    fn members(&self) -> Option<u16> {
        let now = lock(&self.now);
        now.made.is_some().then_some(now.num)
    }

    fn generation(&self) -> u64 {
        lock(&self.now).generation
    }

    fn member(&self, number: u16) -> Option<Arc<dyn Member>> {
        Some(self.vf(number)?)
    }
}

impl Drop for SrIov {
    fn drop(&mut self) {
        let gone = lock(&self.now).disable();
        remove(gone);
    }
}
