//! Stop and resume of the whole device, and the state that can be moved then.

use std::task::Poll;

use vdpa_mem::Deadline;
use vdpa_ring::QueueState;

use super::{Control, Device, wait};
use crate::{ClassState, Error, QueueIndex, Result, Status, Step, Suspend};

/// Whether the device is stopped as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Suspension {
    Running,
    /// By [`Device::begin_suspend`].
    Begun,
    /// By the driver's status bit, which is set once it is complete.
    BegunByStatus,
    Suspended,
}

impl Device {
    /// Stops the device as a whole: on return it touches nothing, and keeps everything.
    ///
    /// # Errors
    /// When the device cannot suspend, does not run, or is not stopped at the deadline; the stop then goes on and can
    /// be waited for again.
    pub fn suspend(&self, by: Deadline) -> Result<()> {
        self.begin_suspend()?;
        let epoch = self.lock().control.epoch;
        wait::until("the suspend", by, || {
            self.check_epoch(epoch, "the suspend")?;
            self.poll_suspend()
        })
    }

    /// Begins to stop the device as a whole. Suspending twice changes nothing.
    ///
    /// # Errors
    /// When the device cannot suspend, or does not run.
    pub fn begin_suspend(&self) -> Result<()> {
        let mut held = self.enter_settled("suspend")?;
        match held.control.suspend {
            Suspension::Running => self.begin_suspend_now(&mut held.control, Suspension::Begun),
            _ => Ok(()),
        }
    }

    /// Whether the device is stopped.
    ///
    /// # Errors
    /// When no suspend was begun.
    pub fn poll_suspend(&self) -> Result<Poll<()>> {
        let held = self.enter_settled("suspend")?;
        match held.control.suspend {
            Suspension::Suspended => Ok(Poll::Ready(())),
            Suspension::Begun | Suspension::BegunByStatus => Ok(Poll::Pending),
            Suspension::Running => Err(held.control.wrong_state("suspend", "begin it first")),
        }
    }

    /// Lets a suspended device go on where it stood.
    ///
    /// # Errors
    /// When the device is not suspended, or cannot go on.
    pub fn resume(&self) -> Result<()> {
        let mut held = self.enter_settled("resume")?;
        if held.control.suspend != Suspension::Suspended {
            return Err(held
                .control
                .wrong_state("resume", "suspend the device first"));
        }
        self.resume_now(&mut held.control)?;
        held.control.machine.done(Step::Resume);
        Ok(())
    }

    /// Where queue `q` stands, while the device is suspended.
    ///
    /// # Errors
    /// When the device is not suspended, or the queue does not run.
    pub fn queue_state(&self, q: QueueIndex) -> Result<QueueState> {
        let mut held = self.enter_settled("queue_state")?;
        if held.control.suspend != Suspension::Suspended {
            let need = "suspend the device first";
            return Err(held.control.wrong_state("queue_state", need));
        }
        held.control.slot(q)?.check_started(q)?;
        self.suspend_cap()?.state(q)
    }

    /// The state of the device's class, portable to another device of the type.
    ///
    /// # Errors
    /// When the device cannot save it, or runs: suspend it first.
    pub fn save_class_state(&self) -> Result<Vec<u8>> {
        let held = self.enter_settled("save_class_state")?;
        let class = self.class_state_cap()?;
        let running = held.control.machine.status().contains(Status::DRIVER_OK);
        if running && held.control.suspend != Suspension::Suspended {
            let need = "suspend the device first";
            return Err(held.control.wrong_state("save_class_state", need));
        }
        class.save()
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
        if held.control.machine.status().contains(Status::DRIVER_OK) {
            let need = "reset the device first";
            return Err(held.control.wrong_state("restore_class_state", need));
        }
        class.restore(from)
    }

    pub(super) fn begin_suspend_now(&self, control: &mut Control, how: Suspension) -> Result<()> {
        let suspend = self.suspend_cap()?;
        control.check_negotiated("suspend")?;
        if !control.machine.status().contains(Status::DRIVER_OK) {
            return Err(control.wrong_state("suspend", "start the device first"));
        }
        suspend.begin()?;
        control.suspend = how;
        self.settle_suspend(control)
    }

    pub(super) fn resume_now(&self, control: &mut Control) -> Result<()> {
        self.suspend_cap()?.resume()?;
        control.suspend = Suspension::Running;
        Ok(())
    }

    /// Notices that a suspend is complete.
    pub(super) fn settle_suspend(&self, control: &mut Control) -> Result<()> {
        let by_status = match control.suspend {
            Suspension::Begun => false,
            Suspension::BegunByStatus => true,
            Suspension::Running | Suspension::Suspended => return Ok(()),
        };
        if self.suspend_cap()?.poll()?.is_ready() {
            control.suspend = Suspension::Suspended;
            if by_status {
                control.machine.done(Step::Suspend);
            }
        }
        Ok(())
    }

    /// Whoever waits learns that a reset came in between.
    pub(super) fn check_epoch(&self, epoch: u64, what: &'static str) -> Result<()> {
        if self.lock().control.epoch == epoch {
            Ok(())
        } else {
            Err(Error::Interrupted { what })
        }
    }

    fn suspend_cap(&self) -> Result<&dyn Suspend> {
        let suspend = self.inner.parent.caps().suspend;
        suspend.ok_or_else(|| self.unsupported("suspend"))
    }

    fn class_state_cap(&self) -> Result<&dyn ClassState> {
        let class = self.inner.parent.caps().class_state;
        class.ok_or_else(|| self.unsupported("class state"))
    }
}
