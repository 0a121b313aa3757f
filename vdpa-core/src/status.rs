//! The device status byte, and the machine that takes any byte in any order.
//!
//! ```text
//!            ACKNOWLEDGE, DRIVER          FEATURES_OK              DRIVER_OK
//!   reset ──────────────────────▶ set up ─────────────▶ negotiated ───────────▶ running
//!     ▲   (any order, at any time)         Negotiate                  Start      │   ▲
//!     │                                                                  Suspend ▼   │ Resume
//!     └───────────────── 0 written: Reset, from everywhere ◀──────────────── suspended
//!
//!   FAILED or DEVICE_NEEDS_RESET set: nothing but 0 moves the device any more.
//! ```
//!
//! Guests and front ends in the wild do not write these bits in the order of virtio 1.4 §3.1.1: QEMU writes FEATURES_OK
//! before ACKNOWLEDGE, others write several bits at once. So ACKNOWLEDGE and DRIVER are recorded and gate nothing, and
//! one written byte may ask for several steps: the machine names them one by one.

use bitflags::bitflags;

bitflags! {
    /// The device status byte, virtio 1.4 §2.1.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Status: u8 {
        /// The guest has found the device.
        const ACKNOWLEDGE = 0x01;
        /// The guest has a driver for the device.
        const DRIVER = 0x02;
        /// The driver is set up: the device is live. Reads 0 while SUSPEND reads 1.
        const DRIVER_OK = 0x04;
        /// Features are negotiated. The driver reads it back: the device may refuse.
        const FEATURES_OK = 0x08;
        /// The device is suspended by the driver; known only where the feature SUSPEND is negotiated, virtio 1.4 §3.4.
        const SUSPEND = 0x10;
        /// The device is lost until it is reset. Set by the device alone.
        const DEVICE_NEEDS_RESET = 0x40;
        /// The driver has given up on the device.
        const FAILED = 0x80;
    }
}

impl Status {
    /// The bits that a driver sets; the other known one is the device's.
    const DRIVERS: Status = Status::all().difference(Status::DEVICE_NEEDS_RESET);
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("0");
        }
        bitflags::parser::to_writer(self, f)
    }
}

/// What a written status byte asks the device to do next.
#[must_use = "a step has to be carried out, or the device stays where it is"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: the byte is taken.
    None,
    /// Reset the device.
    Reset,
    /// Check the features that the driver chose; FEATURES_OK is set once that went well.
    Negotiate,
    /// Go live.
    Start,
    /// Stop processing, keep the state. The last step of its byte.
    Suspend,
    /// Go on after a suspend. The last step of its byte.
    Resume,
    /// The byte asks for something that is not legal now. Nothing but ACKNOWLEDGE, DRIVER and FAILED was taken from it.
    Refused,
}

/// Whether the SUSPEND bit means anything on this device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SuspendBit {
    /// The feature SUSPEND is not negotiated: the bit is refused.
    #[default]
    Unknown,
    /// The feature is negotiated.
    Negotiated,
}

/// Which step a status byte asks for. Total: any byte, in any order, from any state.
///
/// [`write`](Self::write) only says what is due; [`done`](Self::done) records that it was carried out, and only then is
/// the bit set. So a refused FEATURES_OK is never visible as accepted, and a bit is never cleared but by a reset. Only
/// SUSPEND and DRIVER_OK take turns: one is set and the other is not, from a suspend to a resume.
#[derive(Clone, Copy, Default, Debug)]
pub struct StatusMachine {
    status: Status,
    suspend: SuspendBit,
}

impl StatusMachine {
    /// A machine in reset.
    pub const fn new() -> Self {
        Self {
            status: Status::empty(),
            suspend: SuspendBit::Unknown,
        }
    }

    /// The bits as they stand.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// Says whether the SUSPEND bit is known from here on; a reset forgets it.
    pub fn set_suspend_bit(&mut self, suspend: SuspendBit) {
        self.suspend = suspend;
    }

    /// The device needs a reset: sets DEVICE_NEEDS_RESET.
    pub fn needs_reset(&mut self) {
        self.status |= Status::DEVICE_NEEDS_RESET;
    }

    /// The next step that `written` asks for. Write the same byte again after [`done`](Self::done): a byte can ask for
    /// more than one step, and has asked for all of them after [`Step::Suspend`] or [`Step::Resume`], or when the answer
    /// is [`Step::None`] or [`Step::Refused`]. A byte with a bit that is not legal now is refused before its first step.
    ///
    /// While suspended, DRIVER_OK resumes whether SUSPEND is in the same byte or not: it is the bit that reads 0 and is
    /// set. A suspend may be asked for with DRIVER_OK or without; the byte without it can be written again at any time.
    ///
    /// # Spec
    /// virtio 1.4 §2.1.1 (driver), §2.1.2 (device) and §3.4 (suspend); bits the driver left out stay set.
    pub fn write(&mut self, written: u8) -> Step {
        if written == 0 {
            return Step::Reset;
        }
        let asked = Status::from_bits_truncate(written);
        // Gates nothing: QEMU writes FEATURES_OK before these two.
        self.status |= asked & (Status::ACKNOWLEDGE | Status::DRIVER | Status::FAILED);
        let fresh = asked - self.status;

        // DEVICE_NEEDS_RESET is the device's: fresh here only if the driver made it up.
        let foreign = fresh.contains(Status::DEVICE_NEEDS_RESET);
        let unknown = Status::from_bits(written).is_none() || foreign;
        let dead = Status::FAILED | Status::DEVICE_NEEDS_RESET;
        if self.status.intersects(dead) {
            return if fresh.is_empty() && !unknown {
                Step::None
            } else {
                Step::Refused
            };
        }
        let suspends = fresh.contains(Status::SUSPEND);
        let resumes = self.status.contains(Status::SUSPEND) && asked.contains(Status::DRIVER_OK);
        let mut cleared = (self.status & Status::DRIVERS) - asked;
        // These two take turns: the one may be left out where the other is set.
        cleared.remove(match (suspends, resumes) {
            (true, _) => Status::DRIVER_OK,
            (_, true) => Status::SUSPEND,
            (false, false) => Status::empty(),
        });
        let running = self.status.contains(Status::DRIVER_OK);
        let may_suspend = running && self.suspend == SuspendBit::Negotiated;
        // Before any step: a byte that is refused must not have made the device live.
        if unknown || !cleared.is_empty() || (suspends && !may_suspend) {
            return Step::Refused;
        }
        if fresh.contains(Status::FEATURES_OK) {
            return Step::Negotiate;
        }
        if resumes {
            return Step::Resume;
        }
        if fresh.contains(Status::DRIVER_OK) {
            let negotiated = self.status.contains(Status::FEATURES_OK);
            return if negotiated {
                Step::Start
            } else {
                Step::Refused
            };
        }
        if suspends { Step::Suspend } else { Step::None }
    }

    /// Records that `step` was carried out. Steps that were refused or failed are not recorded.
    pub fn done(&mut self, step: Step) {
        match step {
            Step::None | Step::Refused => {}
            Step::Reset => *self = Self::new(),
            Step::Negotiate => self.status |= Status::FEATURES_OK,
            Step::Start => self.status |= Status::DRIVER_OK,
            Step::Suspend => {
                self.status.insert(Status::SUSPEND);
                self.status.remove(Status::DRIVER_OK);
            }
            Step::Resume => {
                self.status.remove(Status::SUSPEND);
                self.status.insert(Status::DRIVER_OK);
            }
        }
    }
}

#[cfg(test)]
mod tests;
