//! A little device that does what its script says: for rules about what a slow or strange device must not achieve.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use vdpa_core::{
    Call, CallKind, Caps, DeviceInfo, DeviceType, Doorbell, Error, Features, GroupIndex, Host,
    Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, QueueReset, QueueState, Result, Status,
    Suspend, VdpaDevice, bits,
};

/// How many looks something takes; `None`: it never comes.
pub(crate) type Looks = Option<u32>;

/// What the puppet does.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) device_type: DeviceType,
    pub(crate) offered: Features,
    pub(crate) config_size: u32,
    /// How often the status is read before a reset is complete.
    pub(crate) resets_after: Looks,
    /// Whether FEATURES_OK sticks.
    pub(crate) agrees: bool,
    /// Whether queues can be started.
    pub(crate) starts: bool,
    /// How many reads of the configuration find it changing.
    pub(crate) changes: u32,
    pub(crate) has_generation: bool,
    pub(crate) suspends_after: Looks,
    /// How often the status is read after a resume before DRIVER_OK shows.
    pub(crate) resumes_after: u32,
    pub(crate) queue_resets_after: Looks,
}

impl Script {
    /// A device of this type that does everything at once.
    pub(crate) fn plain(device_type: DeviceType) -> Self {
        Self {
            device_type,
            offered: Features::of(&[bits::VERSION_1, bits::RING_RESET, bits::SUSPEND]),
            config_size: 128,
            resets_after: Some(0),
            agrees: true,
            starts: true,
            changes: 0,
            has_generation: true,
            suspends_after: Some(0),
            resumes_after: 0,
            queue_resets_after: Some(0),
        }
    }

    pub(crate) fn make(self) -> Arc<dyn VdpaDevice> {
        let info = DeviceInfo {
            name: "puppet".to_owned(),
            device_type: self.device_type,
            vendor: 0,
            queues: 3,
            groups: 1,
            asids: 1,
            config_size: self.config_size,
            kicks: KickKind::Taken,
            calls: CallKind::Any,
        };
        let kept = Mutex::new(Kept {
            changes: self.changes,
            ..Kept::default()
        });
        Arc::new(Puppet {
            script: self,
            info,
            kept,
        })
    }
}

struct Puppet {
    script: Script,
    info: DeviceInfo,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    status: Status,
    /// What a reset that is under way still takes.
    resetting: Option<Looks>,
    resuming: u32,
    suspend: Looks,
    queue_reset: Looks,
    generation: u32,
    changes: u32,
}

/// One look at something that takes so many. `true`: it has come.
fn look(left: &mut Looks) -> bool {
    match left {
        None => false,
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

impl Puppet {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VdpaDevice for Puppet {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn attach(&self, _: Host) -> Result<()> {
        Ok(())
    }

    fn caps(&self) -> Caps<'_> {
        Caps {
            queue_reset: Some(self),
            suspend: Some(self),
            ..Caps::NONE
        }
    }

    fn offered(&self) -> Features {
        self.script.offered
    }

    fn accept(&self, _: Features) -> Result<()> {
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let mut kept = self.kept();
        if let Some(left) = &mut kept.resetting {
            if look(left) {
                kept.resetting = None;
                kept.status = Status::empty();
            }
            return Ok(kept.status);
        }
        if kept.resuming > 0 {
            kept.resuming -= 1;
            return Ok(kept.status - Status::DRIVER_OK);
        }
        Ok(kept.status)
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        let taken = match self.script.agrees {
            true => bits,
            false => bits - Status::FEATURES_OK,
        };
        self.kept().status |= taken;
        Ok(())
    }

    fn begin_reset(&self) -> Result<()> {
        self.kept().resetting = Some(self.script.resets_after);
        Ok(())
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        let generation = self.kept().generation;
        Ok(self.script.has_generation.then_some(generation))
    }

    /// Every byte is the generation. While it changes, a read sees both sides of the change.
    fn read_config(&self, _: u32, to: &mut [u8]) -> Result<()> {
        let mut kept = self.kept();
        let half = to.len() / 2;
        let (first, second) = to.split_at_mut(half);
        first.fill(kept.generation as u8);
        if kept.changes > 0 {
            kept.changes -= 1;
            kept.generation += 1;
        }
        second.fill(kept.generation as u8);
        Ok(())
    }

    fn write_config(&self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> {
        Ok(QueueLimits {
            max_size: 256,
            group: GroupIndex::new(0),
        })
    }

    fn start_queue(&self, q: QueueIndex, _: &QueueConfig, _: Kick, _: Call) -> Result<Doorbell> {
        match self.script.starts {
            true => Ok(Doorbell::NONE),
            false => Err(Error::QueueBusy {
                queue: q,
                what: "a script",
            }),
        }
    }

    fn replace_call(&self, _: QueueIndex, call: Call) -> Result<()> {
        call.raise();
        Ok(())
    }
}

impl QueueReset for Puppet {
    fn begin(&self, _: QueueIndex) -> Result<()> {
        self.kept().queue_reset = self.script.queue_resets_after;
        Ok(())
    }

    fn poll(&self, _: QueueIndex) -> Result<Poll<()>> {
        Ok(match look(&mut self.kept().queue_reset) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }
}

impl Suspend for Puppet {
    fn begin(&self) -> Result<()> {
        self.kept().suspend = self.script.suspends_after;
        Ok(())
    }

    fn poll(&self) -> Result<Poll<()>> {
        Ok(match look(&mut self.kept().suspend) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }

    fn state(&self, _: QueueIndex) -> Result<QueueState> {
        Ok(QueueState::Split {
            avail: 0,
            used: Some(0),
        })
    }

    fn resume(&self) -> Result<()> {
        self.kept().resuming = self.script.resumes_after;
        Ok(())
    }
}
