//! Stop and resume of the whole device, and the state that can be moved then.
//!
//! ```text
//!   Device::suspend ─▶ by_owner ───┐
//!                                  ├─ either: begin, poll ─▶ Stopped      neither: resume ─▶ Running
//!   status byte ─────▶ by_driver ──┘
//! ```

use std::task::Poll;

use vdpa_mem::Deadline;
use vdpa_ring::{Format, Pos, QueueState};

use super::{Begun, Control, Device, wait};
use crate::{ClassState, Error, QueueIndex, Result, Status, Step, Suspend};

/// Who wants the device stopped as a whole, and how far that is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Suspension {
    phase: Phase,
    /// By [`Device::begin_suspend`].
    by_owner: bool,
    /// By the status byte, where it shows once it is complete.
    by_driver: bool,
}

/// What the device does. It is stopped while anybody holds it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Phase {
    #[default]
    Running,
    Stopping,
    Stopped,
    /// As a device that was stopped and moved here: the parent has not heard of DRIVER_OK yet.
    Restored,
}

/// Who can hold a device: two, who know nothing of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Owner,
    Driver,
}

impl Suspension {
    pub(super) fn is_running(self) -> bool {
        self.phase == Phase::Running
    }

    pub(super) fn is_stopped(self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Restored)
    }

    pub(super) fn is_restored(self) -> bool {
        self.phase == Phase::Restored
    }

    fn is_held_by(self, who: Who) -> bool {
        match who {
            Who::Owner => self.by_owner,
            Who::Driver => self.by_driver,
        }
    }

    fn set_held(&mut self, who: Who, held: bool) {
        match who {
            Who::Owner => self.by_owner = held,
            Who::Driver => self.by_driver = held,
        }
    }
}

impl Device {
    /// Stops the device as a whole: on return it touches nothing, and keeps everything. The driver does not see it.
    ///
    /// # Errors
    /// When the device cannot suspend, does not run, or is not stopped at the deadline; the stop then goes on and can
    /// be waited for again.
    pub fn suspend(&self, by: Deadline) -> Result<()> {
        let begun = self.begin_hold()?;
        wait::until(begun.what, by, || self.poll_hold(Some(begun)))
    }

    /// Begins to stop the device as a whole. Suspending twice changes nothing.
    ///
    /// # Errors
    /// When the device cannot suspend, or does not run.
    pub fn begin_suspend(&self) -> Result<()> {
        self.begin_hold().map(drop)
    }

    /// Whether the device is stopped.
    ///
    /// # Errors
    /// When no suspend was begun.
    pub fn poll_suspend(&self) -> Result<Poll<()>> {
        self.poll_hold(None)
    }

    fn begin_hold(&self) -> Result<Begun> {
        let mut held = self.enter_settled("suspend")?;
        self.hold(&mut held.control, Who::Owner)?;
        Ok(held.begun("the suspend"))
    }

    fn poll_hold(&self, begun: Option<Begun>) -> Result<Poll<()>> {
        let held = self.enter_since("suspend", begun)?;
        if !held.control.suspend.is_held_by(Who::Owner) {
            return Err(held.control.wrong_state("suspend", "begin it first"));
        }
        let stopped = held.control.suspend.is_stopped();
        Ok(wait::ready(stopped.then_some(())))
    }

    /// Lets a suspended device go on where it stood, unless the driver has suspended it as well: then it goes on when
    /// the driver resumes it.
    ///
    /// # Errors
    /// When the device is not suspended, is not stopped yet, or cannot go on.
    pub fn resume(&self) -> Result<()> {
        let mut held = self.enter_settled("resume")?;
        if !held.control.suspend.is_held_by(Who::Owner) {
            let need = "suspend the device first";
            return Err(held.control.wrong_state("resume", need));
        }
        self.release(&mut held.control, Who::Owner)
    }

    /// Where queue `q` stands, while the device is suspended.
    ///
    /// # Errors
    /// When the device is not suspended, or the queue does not run.
    pub fn queue_state(&self, q: QueueIndex) -> Result<QueueState> {
        let mut held = self.enter_settled("queue_state")?;
        if !held.control.suspend.is_stopped() {
            let need = "suspend the device first";
            return Err(held.control.wrong_state("queue_state", need));
        }
        let restored = held.control.suspend.is_restored();
        let packed = held.control.format();
        let slot = held.control.slot(q)?;
        slot.check_started(q)?;
        if restored {
            let state = slot.config.and_then(|config| config.state);
            return Ok(state.unwrap_or_else(|| fresh(packed)));
        }
        self.heard(self.suspend_cap()?.state(q))
    }

    /// The state of the device's class, portable to another device of the type.
    ///
    /// # Errors
    /// When the device cannot save it, or runs: suspend it first.
    pub fn save_class_state(&self) -> Result<Vec<u8>> {
        let held = self.enter_settled("save_class_state")?;
        let class = self.class_state_cap()?;
        if held.control.is_live() && !held.control.suspend.is_stopped() {
            let need = "suspend the device first";
            return Err(held.control.wrong_state("save_class_state", need));
        }
        self.heard(class.save())
    }

    /// Takes over a saved state, between FEATURES_OK and DRIVER_OK.
    ///
    /// * `from`: from anywhere; the device treats it as hostile
    ///
    /// # Errors
    /// When the device cannot take one over, it is too early or too late, or the bytes are not such a state.
    pub fn restore_class_state(&self, from: &[u8]) -> Result<()> {
        let held = self.enter_settled("restore_class_state")?;
        let class = self.class_state_cap()?;
        held.control.check_negotiated("restore_class_state")?;
        if held.control.is_live() {
            let need = "reset the device first";
            return Err(held.control.wrong_state("restore_class_state", need));
        }
        self.heard(class.restore(from))
    }

    /// `who` holds the device from here on. Holding twice changes nothing.
    pub(super) fn hold(&self, control: &mut Control, who: Who) -> Result<()> {
        if !control.suspend.is_held_by(who) {
            let suspend = self.suspend_cap()?;
            control.check_negotiated("suspend")?;
            if !control.is_live() {
                return Err(control.wrong_state("suspend", "start the device first"));
            }
            if control.suspend.is_running() {
                self.heard(suspend.begin())?;
                control.suspend.phase = Phase::Stopping;
            }
            control.suspend.set_held(who, true);
        }
        self.settle_suspend(control)
    }

    /// `who` holds the device no more. It goes on when nobody does.
    pub(super) fn release(&self, control: &mut Control, who: Who) -> Result<()> {
        let other = match who {
            Who::Owner => Who::Driver,
            Who::Driver => Who::Owner,
        };
        if !control.suspend.is_held_by(other) {
            match control.suspend.phase {
                Phase::Running => {}
                // It can be told to go on only once it has stopped.
                Phase::Stopping => {
                    return Err(Error::Busy {
                        what: "the suspend",
                    });
                }
                Phase::Stopped => self.heard(self.suspend_cap()?.resume())?,
                Phase::Restored => self.heard(self.inner.parent.add_status(Status::DRIVER_OK))?,
            }
            control.suspend.phase = Phase::Running;
        }
        control.suspend.set_held(who, false);
        if who == Who::Driver && control.machine.status().contains(Status::SUSPEND) {
            control.machine.done(Step::Resume);
        }
        Ok(())
    }

    /// A byte that asks for no step takes back a suspend of the driver's that is not complete, if it says so.
    pub(super) fn withdraw(&self, control: &mut Control, written: u8) -> Result<()> {
        let asked = Status::from_bits_truncate(written);
        let pending = control.suspend.is_held_by(Who::Driver) && !control.suspend.is_stopped();
        let lost = Status::FAILED | Status::DEVICE_NEEDS_RESET;
        if pending && !asked.contains(Status::SUSPEND) && !control.machine.status().intersects(lost)
        {
            return self.release(control, Who::Driver);
        }
        Ok(())
    }

    /// A device that was just restored is live for its driver, and stopped by its owner, and perhaps by its driver too.
    pub(super) fn stand_still(&self, control: &mut Control, by_driver: bool) -> Result<()> {
        // What cannot be suspended cannot have been.
        self.suspend_cap()?;
        control.machine.done(Step::Start);
        control.suspend = Suspension {
            phase: Phase::Restored,
            by_owner: true,
            by_driver,
        };
        self.settle_suspend(control)
    }

    /// Notices that a suspend is complete.
    pub(super) fn settle_suspend(&self, control: &mut Control) -> Result<()> {
        let stopping = control.suspend.phase == Phase::Stopping;
        if stopping && self.heard(self.suspend_cap()?.poll())?.is_ready() {
            control.suspend.phase = Phase::Stopped;
        }
        if control.suspend.is_stopped() && control.suspend.is_held_by(Who::Driver) {
            control.machine.done(Step::Suspend);
        }
        Ok(())
    }

    pub(super) fn suspend_cap(&self) -> Result<&dyn Suspend> {
        let suspend = self.inner.parent.caps().suspend;
        suspend.ok_or_else(|| self.unsupported("suspend"))
    }

    fn class_state_cap(&self) -> Result<&dyn ClassState> {
        let class = self.inner.parent.caps().class_state;
        class.ok_or_else(|| self.unsupported("class state"))
    }
}

/// Where a queue stands at its start.
fn fresh(format: Format) -> QueueState {
    match format {
        Format::Split => QueueState::Split {
            avail: 0,
            used: Some(0),
        },
        Format::Packed => QueueState::Packed {
            avail: Pos::START,
            used: Pos::START,
        },
    }
}
