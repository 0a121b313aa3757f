//! Features, the status byte, and reset.

use vdpa_mem::Deadline;

use super::suspend::{Suspension, Who};
use super::{Control, Device, Held, Reset, wait};
use crate::{Asid, Dma, Error, Features, Reach, Result, Status, Step, SuspendBit, bits, graph};

impl Device {
    /// Takes the features that a driver chose. Comes before FEATURES_OK, perhaps several times; the last one counts,
    /// also when it is refused.
    ///
    /// # Errors
    /// When a feature is not offered, features do not go together, or the device cannot work with them.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, step 4.
    pub fn accept(&self, f: Features) -> Result<()> {
        self.accept_beside(f, Features::NONE)
    }

    /// Takes the features that a driver chose, while the caller handles `handled` itself and the device does not see
    /// them: a VMM that keeps the control queue to itself sets MQ without CTRL_VQ, which no graph allows.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept); the features are checked together with `handled`.
    pub fn accept_beside(&self, f: Features, handled: Features) -> Result<()> {
        let mut held = self.enter_settled("accept")?;
        let control = &mut *held.control;
        if control.machine.status().contains(Status::FEATURES_OK) {
            return Err(control.wrong_state("accept", "reset the device first"));
        }
        control.accepted = None;
        let parent = &self.inner.parent;
        let (device_type, offered) = (self.inner.info.device_type, self.offered());
        if !offered.contains_all(f) {
            graph::check_accepted(device_type, offered, f)?;
        }
        graph::check_accepted(device_type, offered.union(handled), f.union(handled))?;
        // virtio 1.4 §6.1: without it a device is given physical addresses, and would take ours for such.
        let translated =
            matches!(parent.caps().dma, Dma::Map(dma) if dma.limits().reach == Reach::Platform);
        if translated && !f.contains(bits::ACCESS_PLATFORM) {
            let device = self.inner.info.name.clone();
            return Err(Error::Untranslated { device });
        }
        self.heard(parent.accept(f))?;
        control.accepted = Some(f);
        control.handled = handled;
        Ok(())
    }

    /// The status byte, as a driver reads it. 0 once a reset is complete.
    ///
    /// # Errors
    /// When the device is broken or gone.
    pub fn status(&self) -> Result<Status> {
        let mut held = self.enter("status")?;
        self.settle(&mut held)
    }

    /// Writes the status byte, as a driver does: any byte, in any order. Never waits: a guest's processor may be behind
    /// it. A reset or a suspend that it begins is complete when [`status`](Self::status) says so.
    ///
    /// A suspend of the driver's shows as SUSPEND without DRIVER_OK, and one of [`suspend`](Self::suspend) does not show:
    /// the device runs when neither holds it. So a driver that resumes sees DRIVER_OK at once, while the other may still
    /// hold.
    ///
    /// # Errors
    /// When the byte asks for something that is not legal, or the device refuses; the driver sees it in the bits that
    /// are not set. While a reset is under way only 0 is legal.
    ///
    /// # Spec
    /// virtio 1.4 §2.1.
    pub fn write_status(&self, written: u8) -> Result<()> {
        let mut held = self.enter("write_status")?;
        if written == 0 {
            return self.begin_reset(&mut held);
        }
        self.settle(&mut held)?;
        held.check_settled()?;
        let control = &mut *held.control;
        loop {
            let before = control.machine;
            let step = control.machine.write(written);
            let recorded = control.machine.status() - before.status();
            if !recorded.is_empty()
                && let Err(e) = self.heard(self.inner.parent.add_status(recorded))
            {
                // The device does not have them: written again, they are new to it.
                control.machine = before;
                return Err(e);
            }
            match step {
                Step::None => return self.withdraw(control, written),
                Step::Reset => return Ok(()),
                Step::Refused => {
                    return Err(Error::StatusRefused {
                        written,
                        status: control.machine.status(),
                    });
                }
                Step::Negotiate => self.negotiate(control)?,
                Step::Start => self.heard(self.inner.parent.add_status(Status::DRIVER_OK))?,
                // Both end their byte, which may ask for the other one again. A suspend is recorded when it is complete.
                Step::Suspend => return self.hold(control, Who::Driver),
                Step::Resume => return self.release(control, Who::Driver),
            }
            control.machine.done(step);
        }
    }

    /// Resets the device and waits until that is complete. Legal at any time, also while something else is waited for.
    ///
    /// # Errors
    /// When it cannot be begun or is not complete at the deadline; it may still end.
    pub fn reset(&self, by: Deadline) -> Result<()> {
        let mut held = self.enter("reset")?;
        self.begin_reset(&mut held)?;
        drop(held);
        wait::until("the reset", by, || {
            let mut held = self.enter("reset")?;
            self.settle(&mut held)?;
            Ok(wait::ready(
                (held.control.reset == Reset::Complete).then_some(()),
            ))
        })
    }

    fn begin_reset(&self, held: &mut Held<'_>) -> Result<()> {
        self.heard(self.inner.parent.begin_reset())?;
        held.control.reset = Reset::Begun;
        held.control.epoch = held.control.epoch.wrapping_add(1);
        // A device that resets at once is in reset at once.
        self.settle(held)?;
        Ok(())
    }

    /// Sets FEATURES_OK, and looks whether the device left it set.
    fn negotiate(&self, control: &mut Control) -> Result<()> {
        let Some(accepted) = control.accepted else {
            return Err(control.wrong_state("FEATURES_OK", "accept legal features first"));
        };
        let parent = &self.inner.parent;
        self.heard(parent.add_status(Status::FEATURES_OK))?;
        // Read back, always: a device says no by leaving it unset, virtio 1.4 §3.1.1 step 6.
        if !self.read_status()?.contains(Status::FEATURES_OK) {
            return Err(Error::FeaturesRefused {
                features: accepted.display(self.inner.info.device_type).to_string(),
            });
        }
        control.negotiated = accepted;
        let can = self.inner.parent.caps().suspend.is_some();
        if can && accepted.contains(bits::SUSPEND) {
            control.machine.set_suspend_bit(SuspendBit::Negotiated);
        }
        Ok(())
    }

    /// The device's own byte, if there is a device. One that was taken away reads as all ones, which no device says.
    fn read_status(&self) -> Result<Status> {
        let own = self.heard(self.inner.parent.status())?;
        match own.bits() {
            u8::MAX => self.heard(Err(Error::Gone)),
            _ => Ok(own),
        }
    }

    /// Notices what the device did meanwhile: a reset or a suspend that is complete, a need for reset. Returns the
    /// status as the driver sees it.
    pub(super) fn settle(&self, held: &mut Held<'_>) -> Result<Status> {
        let own = self.read_status()?;
        let Held { control, dead, .. } = held;
        if control.reset == Reset::Begun {
            if own.is_empty() {
                control.reset = Reset::Complete;
                control.machine.done(Step::Reset);
                control.accepted = None;
                control.negotiated = Features::NONE;
                control.handled = Features::NONE;
                control.suspend = Suspension::default();
                control.groups.fill(Asid::new(0));
                for slot in &mut control.slots {
                    slot.stop(dead);
                }
                self.inner.channel.forget_needs_reset();
            }
            return Ok(own);
        }
        if own.contains(Status::DEVICE_NEEDS_RESET) || self.inner.channel.needs_reset() {
            control.machine.needs_reset();
        }
        self.settle_suspend(control)?;
        let mut shown = Status::SUSPEND | Status::DEVICE_NEEDS_RESET;
        if control.suspend.is_restored() {
            // The device itself has not heard of it yet.
            shown |= Status::DRIVER_OK;
        }
        let mut status = own | (control.machine.status() & shown);
        if status.contains(Status::SUSPEND) {
            // The device is still live in its own view; to the driver the two bits take turns, virtio 1.4 §3.4.
            status.remove(Status::DRIVER_OK);
        }
        Ok(status)
    }
}
