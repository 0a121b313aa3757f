//! The layer that makes faults: of contract calls, kicks and calls, by a seed.
//!
//! ```text
//!   Device ─▶ control.* config.storm ─▶ the device below
//!   driver ─▶ device.* kick.*        ─▶ its doorbell
//!   driver ◀─ call.*                 ◀─ the device below
//! ```
//!
//! Which kinds there are is in [`kinds`]; `docs/faults.md` says of each what a conformant driver makes of it. How often
//! each was made is a counter of the device, `fault.KIND`.
//!
//! Where occasions are counted: `control.error` on each contract call that may fail and be tried again;
//! `control.slow` when a reset, a stop or a suspend begins; `map.*` on each mapping that a device has to be told of; `kick.*` and `call.*` on each kick and call of a queue, each
//! queue apart; `device.*` and `config.storm` on each kick of the device, the latter also when the generation of the
//! configuration is read. How often a driver kicks, and a device calls, is a matter of timing, since both may ask for
//! silence: a count of kicks is then as repeatable as the driver and the device are.
//!
//! What is lost is lost: the layer does not make up for it.

mod caps;
mod control;
mod core;
pub mod kinds;
mod layer;
mod timer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use vdpa_core::faults::Plan;
use vdpa_core::{
    Call, CallCell, Caps, DeviceInfo, Doorbell, Error, ErrorKind, Features, Host, IovaRange, Kick,
    ParentError, QueueConfig, QueueIndex, QueueLimits, Relayed, Result, Status, VdpaDevice,
};

use self::control::{Control, Maps, Resetting, Run, is_before};
use self::core::{Calls, Core, Kicks};
use self::timer::{Lane, Timer};
use crate::line::{self, Relays, lock};

pub use self::kinds::KINDS;
pub use self::layer::FaultsLayer;

/// A call that failed on purpose. The same call may succeed when it is made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{call} fails on purpose, by fault=control.error")]
pub struct InjectedError {
    /// The contract call.
    pub call: &'static str,
}

impl ParentError for InjectedError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Busy
    }
}

/// A mapping that was refused on purpose. The same may be taken when it comes again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("mapping {range} is refused on purpose, by fault=map.refused")]
pub struct RefusedMapError {
    /// Where it was to be mapped.
    pub range: IovaRange,
}

impl ParentError for RefusedMapError {
    /// As of a system that has no entry left.
    fn kind(&self) -> ErrorKind {
        ErrorKind::Io
    }
}

/// A device with faults.
pub struct Faults {
    below: Arc<dyn VdpaDevice>,
    plan: Plan,
    core: Arc<Core>,
    maps: Mutex<Maps>,
}

impl Faults {
    /// Makes the faults of `plan` that are of [`KINDS`] around `below`.
    pub fn new(below: Arc<dyn VdpaDevice>, plan: Plan) -> Self {
        Self {
            core: Arc::new(Core::new(&below, &plan)),
            maps: Mutex::new(Maps::new(&plan)),
            plan,
            below,
        }
    }

    /// An error once the device is gone.
    fn check(&self) -> Result<()> {
        match self.core.is_gone() {
            true => Err(Error::Gone),
            false => Ok(()),
        }
    }

    /// Makes a control call that may fail on purpose.
    fn control<T>(
        &self,
        call: &'static str,
        make: impl FnOnce(&dyn VdpaDevice, &mut Control) -> Result<T>,
    ) -> Result<T> {
        let mut control = lock(&self.core.control);
        // Under the lock: once the device is gone its reset is the last call that it gets.
        self.check()?;
        if control.fails() {
            return Err(InjectedError { call }.into());
        }
        make(&*self.below, &mut control)
    }

    /// A queue has stopped.
    fn end(&self, q: QueueIndex) {
        let mut control = lock(&self.core.control);
        let run = slot(&mut control, q).map(|slot| slot.run.end());
        drop(control);
        // A late one may have begun since the device was asked whether it has stopped.
        if let Some(calls) = run.as_ref().and_then(|run| run.calls.as_ref()) {
            calls.end_and_wait();
        }
        drop(run);
        self.forget(|lane| matches!(lane, Lane::Kick(n) | Lane::Call(n) if n == q.get()));
    }

    fn forget(&self, which: impl Fn(Lane) -> bool) {
        if let Some(timer) = self.core.timer() {
            timer.forget(which);
        }
    }

    /// Whether a late kick or call is being made at the moment.
    fn is_at_it(&self) -> bool {
        self.core.timer().is_some_and(Timer::is_at_it)
    }

    /// Pending for as long as a stop is slow, or something late is under way.
    fn unless_slow<T>(
        &self,
        until: Option<std::time::Instant>,
        poll: impl FnOnce(&dyn VdpaDevice) -> Result<Poll<T>>,
    ) -> Result<Poll<T>> {
        self.check()?;
        if is_before(until) || self.is_at_it() {
            return Ok(Poll::Pending);
        }
        poll(&*self.below)
    }

    /// The call, led through the layer if that has to be, as the device below can make it.
    fn led(
        &self,
        control: &mut Control,
        q: QueueIndex,
        call: Call,
    ) -> Result<(Call, Option<Arc<Calls>>, Option<Relayed>)> {
        let mishaps = slot(control, q).and_then(|slot| slot.call_mishaps.clone());
        let (Some(mishaps), Some(host)) = (mishaps, self.core.host()) else {
            return Ok((call, None, None));
        };
        if matches!(call, Call::None) {
            return Ok((call, None, None));
        }
        let calls = Arc::new(Calls {
            core: Arc::clone(&self.core),
            queue: q.get(),
            to: CallCell::new(call),
            mishaps,
            live: AtomicBool::new(true),
        });
        let led = Call::from_fn({
            let calls = Arc::clone(&calls);
            move || calls.raise()
        });
        let (call, relayed) = line::fit(self.below.info(), host, led)?;
        Ok((call, Some(calls), relayed))
    }
}

fn slot(control: &mut Control, q: QueueIndex) -> Option<&mut control::Slot> {
    control.slots.get_mut(usize::from(q.get()))
}

impl VdpaDevice for Faults {
    fn info(&self) -> &DeviceInfo {
        self.below.info()
    }

    fn attach(&self, host: Host) -> Result<()> {
        if self.plan.has(kinds::KICK_LATE) || self.plan.has(kinds::CALL_LATE) {
            self.core.set_timer(Timer::start(&self.info().name)?);
        }
        self.core.set_host(host.clone());
        self.below.attach(host)
    }

    fn caps(&self) -> Caps<'_> {
        caps::around(self)
    }

    fn offered(&self) -> Features {
        self.below.offered()
    }

    fn accept(&self, f: Features) -> Result<()> {
        self.control("accept", |below, _| below.accept(f))
    }

    fn status(&self) -> Result<Status> {
        self.check()?;
        let own = self.below.status()?;
        let mut control = lock(&self.core.control);
        if own.is_empty() {
            let slow = control.resetting.as_ref().filter(|resetting| {
                is_before(resetting.until) || (!resetting.shown.is_empty() && self.is_at_it())
            });
            if let Some(resetting) = slow {
                return Ok(resetting.shown);
            }
            control.resetting = None;
            self.core.forget_needs_reset();
            return Ok(own);
        }
        Ok(match self.core.needs_reset() {
            true => own | Status::DEVICE_NEEDS_RESET,
            false => own,
        })
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        self.control("add_status", |below, control| {
            if bits.contains(Status::FEATURES_OK) && control.refuses() {
                let rest = bits - Status::FEATURES_OK;
                return match rest.is_empty() {
                    true => Ok(()),
                    false => below.add_status(rest),
                };
            }
            below.add_status(bits)
        })
    }

    fn begin_reset(&self) -> Result<()> {
        let mut over: Vec<Run> = Vec::new();
        let begun = self.control("begin_reset", |below, control| {
            let shown = below.status()?;
            below.begin_reset()?;
            over.extend(control.slots.iter_mut().map(|slot| slot.run.end()));
            self.core.forget_needs_reset();
            if control.resetting.is_none() {
                let until = control.slow().filter(|_| !shown.is_empty());
                control.resetting = Some(Resetting { shown, until });
            }
            Ok(())
        });
        // Outside of the lock: relays and calls may own anything.
        drop(over);
        if begun.is_ok() {
            self.forget(|_| true);
        }
        begun
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        self.check()?;
        if lock(&self.core.control).storms() {
            self.core.storm();
        }
        let storms = self.core.storms.load(Ordering::Acquire);
        let own = self.below.config_generation()?;
        Ok(own.map(|own| own.wrapping_add(storms)))
    }

    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.check()?;
        self.below.read_config(at, to)
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.control("write_config", |below, _| below.write_config(at, from))
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.check()?;
        self.below.queue_limits(q)
    }

    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        // What is left of an earlier run.
        self.end(q);
        self.control("start_queue", |below, control| {
            let (call, calls, called) = self.led(control, q, call)?;
            let mishaps = slot(control, q).and_then(|slot| slot.kick_mishaps.clone());
            let Some(host) = self.core.host() else {
                return below.start_queue(q, c, kick, call);
            };
            let mut kicks = None;
            let before = mishaps.map(|mishaps| {
                let kicks = &mut kicks;
                move |to| {
                    let led = Arc::new(Kicks {
                        core: Arc::clone(&self.core),
                        queue: q.get(),
                        to,
                        mishaps,
                        live: AtomicBool::new(true),
                    });
                    *kicks = Some(Arc::clone(&led));
                    Doorbell::from_fn(move |data| led.ring(data))
                }
            });
            let (doorbell, kicked) = line::start(below, host, (q, c), kick, call, before)?;
            if let Some(slot) = slot(control, q) {
                slot.run = Run {
                    kicks,
                    calls,
                    relays: Relays {
                        kick: kicked,
                        call: called,
                    },
                };
            }
            Ok(doorbell)
        })
    }

    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        let led = self.control("replace_call", |_, control| self.led(control, q, call));
        let (call, calls, called) = led?;
        // Without the lock: this runs closures.
        self.below.replace_call(q, call)?;
        let mut control = lock(&self.core.control);
        let old = slot(&mut control, q).map(|slot| {
            let old = std::mem::replace(&mut slot.run.calls, calls);
            (old, std::mem::replace(&mut slot.run.relays.call, called))
        });
        drop(control);
        // One that is late must not come after this has returned.
        if let Some((Some(old), _)) = &old {
            old.end_and_wait();
        }
        drop(old);
        Ok(())
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        if let Some(timer) = self.core.timer() {
            timer.stop();
        }
        // What a reset took back, or would have: runs know the core that they are in.
        let mut control = lock(&self.core.control);
        let over: Vec<_> = control
            .slots
            .iter_mut()
            .map(|slot| slot.run.end())
            .collect();
        drop(control);
        drop(over);
    }
}
