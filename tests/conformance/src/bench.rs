//! What a statement is given: devices, and how long to wait.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use vdpa_core::{Attr, Device, DeviceInfo, DeviceType, FeatureBit, Features, Relay, VdpaDevice};
use vdpa_mem::Deadline;
use vdpa_pci::PciAccess;

use crate::chapters::{MEMBER, REGISTERS};
use crate::checked::{ensure, fail, skip};
use crate::lane::Traffic;
use crate::registers::{Plain, Structure, fold, folded, structures, unfold};
use crate::{Checked, Effort, Rig, Selection, Stop, Target};

/// How long something that has to happen may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same on machines for which the effort is quick.
const SLOW_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take once much was waited for in vain.
const LEAST_PATIENCE: Duration = Duration::from_millis(200);
/// How long something that must not happen is given to happen.
const QUIET: Duration = Duration::from_millis(10);

/// Makes devices of the target, and waits.
pub struct Bench<'t> {
    target: &'t Target,
    effort: Effort,
    patience: Duration,
    known: OnceLock<(DeviceInfo, Features, Vec<&'static str>)>,
    in_vain: AtomicU32,
    loops: OnceLock<bool>,
    is_hardware: OnceLock<bool>,
    /// The next frame's of a hardware card.
    number: AtomicU32,
    /// Frames that were sent to be received, and did not come yet.
    away: Mutex<HashSet<Vec<u8>>>,
    /// Through which the function's registers are reached, where it has no BARs for them.
    window: OnceLock<Structure>,
}

impl<'t> Bench<'t> {
    pub(crate) fn new(target: &'t Target, selection: &Selection) -> Self {
        let effort = selection.effort;
        let usual = match effort {
            Effort::Full => PATIENCE,
            Effort::Quick => SLOW_PATIENCE,
        };
        Self {
            target,
            effort,
            patience: selection.patience.unwrap_or(usual),
            known: OnceLock::new(),
            in_vain: AtomicU32::new(0),
            loops: OnceLock::new(),
            is_hardware: OnceLock::new(),
            number: AtomicU32::new(1),
            away: Mutex::default(),
            window: OnceLock::new(),
        }
    }

    /// Finds out what is asked of a device of its own, before a statement has one: there may be one at a time. What goes
    /// wrong here goes wrong again where it is told.
    pub(crate) fn prepare(&self) {
        let _unknown = catch_unwind(AssertUnwindSafe(|| {
            let _untold = self.traffic();
        }));
        self.begin(true);
    }

    /// How hard to try.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// How often to repeat something.
    pub fn times(&self, full: u32, quick: u32) -> u32 {
        match self.effort {
            Effort::Full => full,
            Effort::Quick => quick,
        }
    }

    /// A device of the target, not opened.
    pub fn make(&self) -> Checked<Arc<dyn VdpaDevice>> {
        self.rinse();
        self.make_as_it_is()
    }

    /// A hardware card whose port gives back what is sent keeps it for those that come later: the frames of one statement
    /// are not to be seen by the next.
    fn rinse(&self) {
        if self.loops.get() != Some(&true) || self.is_hardware.get() == Some(&false) {
            return;
        }
        // Where it fails, with another device of the target alive, say, the statement sees to what it gets.
        let _unclean = self.make_as_it_is().and_then(|parent| {
            let rig = self.rig(parent)?;
            let is_hardware = *self.is_hardware.get_or_init(|| rig.dma.limits().is_some());
            match is_hardware.then(|| self.unique()).flatten() {
                Some(number) => crate::chapters::net::rinse(rig, number),
                None => Ok(()),
            }
        });
    }

    fn make_as_it_is(&self) -> Checked<Arc<dyn VdpaDevice>> {
        let made = self.target.make();
        made.map_err(|e| Stop::failed(format!("no device was made: {e}")))
    }

    /// A device of the target, in reset, with memory mapped.
    pub fn open(&self) -> Checked<Rig<'_>> {
        self.rig(self.make()?)
    }

    /// Whether the devices are PCI functions.
    pub fn has_function(&self) -> bool {
        self.target.has_function()
    }

    /// The function of a device, driven by nobody; skips where the target has none.
    pub fn function(&self) -> Checked<Arc<dyn PciAccess>> {
        match self.target.function() {
            None => skip!("{REGISTERS}"),
            Some(Ok(function)) => self.unfolded(function),
            Some(Err(e)) => fail!("no function was had: {e}"),
        }
    }

    /// The function of a member, driven by nobody; skips where none can be had.
    ///
    /// * `owner`: the name of its owner's function, which lives
    /// * `number`: its number in the group, from 1
    pub fn member(&self, owner: &str, number: u16) -> Checked<Arc<dyn PciAccess>> {
        match self.target.member(owner, number) {
            None => skip!("{MEMBER}"),
            Some(Ok(function)) => self.unfolded(function),
            Some(Err(e)) => fail!("the function of member {number} of {owner} was not had: {e}"),
        }
    }

    fn unfolded(&self, function: Arc<dyn PciAccess>) -> Checked<Arc<dyn PciAccess>> {
        match folded(&*function)? {
            None => Ok(function),
            Some(window) => {
                let _again = self.window.set(window);
                unfold(function, window)
            }
        }
    }

    /// The same under the plainest driver there is.
    pub(crate) fn registers(&self) -> Checked<Arc<Plain>> {
        Plain::of(self.function()?)
    }

    /// A function under the driver that is judged.
    pub fn drive(&self, function: Arc<dyn PciAccess>) -> Checked<Arc<dyn VdpaDevice>> {
        let function = match self.window.get() {
            None => function,
            Some(own) => {
                // Where it is shown, which may be elsewhere.
                let shown = structures(&*function).unwrap_or_default();
                let shown = shown.into_iter().find(|s| s.cfg_type == own.cfg_type);
                fold(function, shown.unwrap_or(*own))
            }
        };
        Ok(self.target.drive(function)?)
    }

    /// The same around a device that the caller made, or wrapped.
    pub fn rig(&self, parent: Arc<dyn VdpaDevice>) -> Checked<Rig<'_>> {
        let device = Device::new(parent, Relay::new())?;
        Rig::new(self, device)
    }

    /// What the target's devices are; the first one that is asked for is made for it.
    pub fn info(&self) -> Checked<&DeviceInfo> {
        self.known().map(|(info, _, _)| info)
    }

    /// Their type; `Net` where none can be made, which is a failure elsewhere.
    pub fn device_type(&self) -> DeviceType {
        self.info().map_or(DeviceType::Net, |info| info.device_type)
    }

    /// The requests that statements send: what is received only where a card gives back what is sent.
    pub(crate) fn traffic(&self) -> Checked<&'static [Traffic]> {
        let all = Traffic::of(self.device_type())?;
        let receives = all.contains(&Traffic::Receive);
        Ok(match receives && !crate::chapters::net::loops(self)? {
            true => &[Traffic::Transmit],
            false => all,
        })
    }

    /// What they offer.
    pub fn offered(&self) -> Checked<Features> {
        self.known().map(|(_, offered, _)| *offered)
    }

    /// Skips unless the devices are of this type.
    pub fn require_type(&self, wanted: DeviceType) -> Checked {
        let is = self.info()?.device_type;
        if is != wanted {
            skip!("the device is of type {is}, not {wanted}");
        }
        Ok(())
    }

    /// Skips unless this feature is offered.
    pub fn require(&self, bit: FeatureBit) -> Checked {
        if !self.offered()?.contains(bit) {
            skip!("{} is not offered", bit.display(self.device_type()));
        }
        Ok(())
    }

    /// Skips unless this capability is declared: a name of [`Caps::names`](vdpa_core::Caps::names).
    pub fn require_cap(&self, name: &str) -> Checked {
        if !self.has_cap(name)? {
            skip!("the capability {name} is not declared");
        }
        Ok(())
    }

    /// Whether this capability is declared.
    pub fn has_cap(&self, name: &str) -> Checked<bool> {
        self.known().map(|(_, _, caps)| caps.contains(&name))
    }

    /// Changes a device from the management side; skips where the target or the device cannot do that.
    pub fn manage(&self, rig: &Rig<'_>, attr: Attr) -> Checked {
        let name = &rig.device.info().name;
        match self.target.manage(name, attr) {
            None => skip!("the target has no management side"),
            // Without the device's name, which is another one each time.
            Some(Err(vdpa_core::Error::Unsupported { what, .. })) => {
                skip!("the management side does not support {what}")
            }
            Some(Err(vdpa_core::Error::DeviceUnknown { .. })) => {
                skip!("the management side does not know the device")
            }
            Some(set) => Ok(set?),
        }
    }

    /// Begins another statement: what was waited for in vain counts for little, and for nothing where the last one `kept`.
    pub(crate) fn begin(&self, kept: bool) {
        /// So much of it is remembered.
        const MOST: u32 = 2;
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        let remembered = if kept { 0 } else { in_vain.min(MOST) };
        self.in_vain.store(remembered, Ordering::Relaxed);
    }

    /// How long something that has to happen may take. It is less once much was waited for in vain, so that a device
    /// that does nothing is judged in reasonable time.
    pub fn patience(&self) -> Duration {
        let in_vain = self.in_vain.load(Ordering::Relaxed).min(8);
        (self.patience / (1 << in_vain)).max(LEAST_PATIENCE)
    }

    /// When a call to the device has to be done: always as long as the patience was at first.
    pub fn by(&self) -> Deadline {
        Deadline::after(self.patience)
    }

    /// Waits until `done`; a failure that names `what` if it does not come to that.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> Checked<bool>) -> Checked {
        let (begun, patience) = (Instant::now(), self.patience());
        let mut looked = 0u32;
        while !done()? {
            let waited = begun.elapsed();
            if waited >= patience {
                self.in_vain.fetch_add(1, Ordering::Relaxed);
            }
            ensure!(
                waited < patience,
                "{what} did not happen within {patience:?}"
            );
            looked = looked.saturating_add(1);
            // A device in another process, or on the only processor, needs a chance.
            match looked {
                0..256 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
        Ok(())
    }

    /// Gives what must not happen time to happen. Prefer something that has to happen after it.
    pub fn quiet(&self) {
        std::thread::sleep(QUIET);
    }

    /// Whether a network card gives back what is sent; `probe` finds it out, once for all statements.
    pub(crate) fn loops(&self, probe: impl FnOnce() -> Checked<bool>) -> Checked<bool> {
        if let Some(loops) = self.loops.get() {
            return Ok(*loops);
        }
        let loops = probe()?;
        Ok(*self.loops.get_or_init(|| loops))
    }

    /// A number that no frame has yet, where one may be seen again by those that did not send it.
    pub(crate) fn unique(&self) -> Option<u32> {
        let seen_again = self.is_hardware.get() == Some(&true);
        seen_again.then(|| self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// A frame was sent.
    pub(crate) fn went(&self, frame: &[u8]) {
        if self.is_hardware.get() == Some(&true) {
            self.away().insert(frame.to_vec());
        }
    }

    /// A frame came. Whether it is one that may come late, sent by somebody else, and comes for the first time.
    pub(crate) fn came(&self, frame: &[u8]) -> bool {
        self.away().remove(frame)
    }

    fn away(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Checked<&(DeviceInfo, Features, Vec<&'static str>)> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let parent = self.make()?;
        let known = (
            parent.info().clone(),
            parent.offered(),
            parent.caps().names(),
        );
        Ok(self.known.get_or_init(|| known))
    }
}
