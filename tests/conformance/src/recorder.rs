//! A layer that writes down what a device is asked, so that a rule for drivers can be asserted on our own driver side.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use vdpa_core::{
    Asid, Call, Caps, ClassState, DeviceInfo, Doorbell, Error, Features, GroupIndex, GroupSpaces,
    Host, InFlight, Kick, QueueConfig, QueueEnable, QueueIndex, QueueLimits, QueuePause,
    QueueReset, QueueState, Result, Stats, Status, Suspend, VdpaDevice, Window,
};

/// One thing that reached the device, in the order in which it did. What was answered stands beside what was asked.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Heard {
    Accept(Features),
    Status(Status),
    AddStatus(Status),
    BeginReset,
    Generation(Option<u32>),
    ReadConfig {
        at: u32,
        len: usize,
    },
    WriteConfig {
        at: u32,
        len: usize,
    },
    Limits(QueueIndex),
    Start(QueueIndex, QueueConfig),
    ReplaceCall(QueueIndex),
    /// Through a doorbell. What comes by an eventfd that the device was given is not seen.
    Kick(QueueIndex),
    Assign(GroupIndex, Asid),
    QueueReset(QueueIndex),
    QueueResetPolled {
        done: bool,
    },
    Pause(QueueIndex),
    PausePolled {
        done: bool,
    },
    Enable(QueueIndex, bool),
    Suspend,
    SuspendPolled {
        done: bool,
    },
    QueueState(QueueIndex),
    Resume,
    Track(QueueIndex),
    SaveClass,
    RestoreClass,
}

type Log = Arc<Mutex<Vec<Heard>>>;

/// A device, with what it was asked.
pub(crate) struct Recorder {
    below: Arc<dyn VdpaDevice>,
    log: Log,
}

impl Recorder {
    pub(crate) fn around(below: Arc<dyn VdpaDevice>) -> Arc<Self> {
        Arc::new(Self {
            below,
            log: Log::default(),
        })
    }

    /// All of it until now.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What came since there were so many.
    pub(crate) fn since(&self, from: usize) -> Vec<Heard> {
        self.heard().split_off(from.min(self.len()))
    }

    /// How much there is until now.
    pub(crate) fn len(&self) -> usize {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn note(&self, heard: Heard) {
        note(&self.log, heard);
    }

    fn lacks<T>(&self, what: &'static str) -> Result<T> {
        let device = self.below.info().name.clone();
        Err(Error::Unsupported { device, what })
    }
}

fn note(log: &Log, heard: Heard) {
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(heard);
}

impl VdpaDevice for Recorder {
    fn info(&self) -> &DeviceInfo {
        self.below.info()
    }

    fn attach(&self, host: Host) -> Result<()> {
        self.below.attach(host)
    }

    fn caps(&self) -> Caps<'_> {
        let Caps {
            dma,
            spaces,
            queue_reset,
            queue_pause,
            queue_enable,
            suspend,
            in_flight,
            class_state,
            announce,
            stats,
        } = self.below.caps();
        Caps {
            dma,
            spaces: spaces.is_some().then_some(self),
            queue_reset: queue_reset.is_some().then_some(self),
            queue_pause: queue_pause.is_some().then_some(self),
            queue_enable: queue_enable.is_some().then_some(self),
            suspend: suspend.is_some().then_some(self),
            in_flight: in_flight.is_some().then_some(self),
            class_state: class_state.is_some().then_some(self),
            announce,
            stats: stats.is_some().then_some(self),
        }
    }

    fn offered(&self) -> Features {
        self.below.offered()
    }

    fn accept(&self, f: Features) -> Result<()> {
        self.note(Heard::Accept(f));
        self.below.accept(f)
    }

    fn status(&self) -> Result<Status> {
        let status = self.below.status()?;
        self.note(Heard::Status(status));
        Ok(status)
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        self.note(Heard::AddStatus(bits));
        self.below.add_status(bits)
    }

    fn begin_reset(&self) -> Result<()> {
        self.note(Heard::BeginReset);
        self.below.begin_reset()
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        let generation = self.below.config_generation()?;
        self.note(Heard::Generation(generation));
        Ok(generation)
    }

    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        let len = to.len();
        self.note(Heard::ReadConfig { at, len });
        self.below.read_config(at, to)
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        let len = from.len();
        self.note(Heard::WriteConfig { at, len });
        self.below.write_config(at, from)
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.note(Heard::Limits(q));
        self.below.queue_limits(q)
    }

    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        self.note(Heard::Start(q, *c));
        let below = self.below.start_queue(q, c, kick, call)?;
        let log = Arc::clone(&self.log);
        Ok(Doorbell::from_fn(move |data| {
            note(&log, Heard::Kick(q));
            below.ring(data);
        }))
    }

    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.note(Heard::ReplaceCall(q));
        self.below.replace_call(q, call)
    }
}

impl GroupSpaces for Recorder {
    fn assign(&self, g: GroupIndex, a: Asid) -> Result<()> {
        self.note(Heard::Assign(g, a));
        match self.below.caps().spaces {
            Some(spaces) => spaces.assign(g, a),
            None => self.lacks("address spaces of queue groups"),
        }
    }
}

impl QueueReset for Recorder {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.note(Heard::QueueReset(q));
        match self.below.caps().queue_reset {
            Some(reset) => reset.begin(q),
            None => self.lacks("queue reset"),
        }
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        let polled = match self.below.caps().queue_reset {
            Some(reset) => reset.poll(q)?,
            None => return self.lacks("queue reset"),
        };
        let done = polled.is_ready();
        self.note(Heard::QueueResetPolled { done });
        Ok(polled)
    }
}

impl QueuePause for Recorder {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.note(Heard::Pause(q));
        match self.below.caps().queue_pause {
            Some(pause) => pause.begin(q),
            None => self.lacks("queue pause"),
        }
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        let polled = match self.below.caps().queue_pause {
            Some(pause) => pause.poll(q)?,
            None => return self.lacks("queue pause"),
        };
        let done = polled.is_ready();
        self.note(Heard::PausePolled { done });
        Ok(polled)
    }
}

impl QueueEnable for Recorder {
    fn set(&self, q: QueueIndex, on: bool) -> Result<()> {
        self.note(Heard::Enable(q, on));
        match self.below.caps().queue_enable {
            Some(enable) => enable.set(q, on),
            None => self.lacks("queue enable"),
        }
    }
}

impl Suspend for Recorder {
    fn begin(&self) -> Result<()> {
        self.note(Heard::Suspend);
        match self.below.caps().suspend {
            Some(suspend) => suspend.begin(),
            None => self.lacks("suspend"),
        }
    }

    fn poll(&self) -> Result<Poll<()>> {
        let polled = match self.below.caps().suspend {
            Some(suspend) => suspend.poll()?,
            None => return self.lacks("suspend"),
        };
        let done = polled.is_ready();
        self.note(Heard::SuspendPolled { done });
        Ok(polled)
    }

    fn state(&self, q: QueueIndex) -> Result<QueueState> {
        self.note(Heard::QueueState(q));
        match self.below.caps().suspend {
            Some(suspend) => suspend.state(q),
            None => self.lacks("suspend"),
        }
    }

    fn resume(&self) -> Result<()> {
        self.note(Heard::Resume);
        match self.below.caps().suspend {
            Some(suspend) => suspend.resume(),
            None => self.lacks("suspend"),
        }
    }
}

impl InFlight for Recorder {
    fn track(&self, q: QueueIndex, record: Window) -> Result<()> {
        self.note(Heard::Track(q));
        match self.below.caps().in_flight {
            Some(in_flight) => in_flight.track(q, record),
            None => self.lacks("a record of what is in flight"),
        }
    }
}

impl ClassState for Recorder {
    fn save(&self) -> Result<Vec<u8>> {
        self.note(Heard::SaveClass);
        match self.below.caps().class_state {
            Some(class) => class.save(),
            None => self.lacks("class state"),
        }
    }

    fn restore(&self, from: &[u8]) -> Result<()> {
        self.note(Heard::RestoreClass);
        match self.below.caps().class_state {
            Some(class) => class.restore(from),
            None => self.lacks("class state"),
        }
    }
}

impl Stats for Recorder {
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        match self.below.caps().stats {
            Some(stats) => stats.read(to),
            None => self.lacks("statistics"),
        }
    }
}
