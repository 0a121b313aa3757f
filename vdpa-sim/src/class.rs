//! What makes a device a network card, or a disk: everything that the core and the workers do not know.
//!
//! A class cuts its queues into *units*: queues that are served together by one worker. A network card has a unit for
//! each queue pair and one for the control queue; a disk has one for each queue. A unit is given its queues while they
//! run, and is asked to serve them; threads, kicks, pauses, resets and suspends are the worker's.
//!
//! What a unit has taken from a queue and not given back when it returns is *in flight*: a disk's requests that its
//! backend works on. The worker waits for it before a queue counts as stopped, suspended or reset.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::config::Mac;
use vdpa_core::{Attr, Bell, DeviceType, Features, GroupIndex, QueueIndex};
use vdpa_mem::{Access, Iova, Reader};

use crate::mailbox::Mailbox;
use crate::queue::{Halt, Queue};
use crate::rounds::Rounds;
use crate::team::Command;

/// How many queues a unit has at most.
pub const UNIT_QUEUES: usize = 2;

/// Where a queue belongs, with the features of the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role {
    /// The unit, below [`Class::units`].
    pub unit: usize,
    /// Its place in the unit, below [`UNIT_QUEUES`].
    pub place: usize,
    /// How many chains are taken at once at most.
    pub chains: usize,
    /// Whether the device writes nothing in this queue.
    pub reads_all: bool,
}

/// A kind of device.
///
/// Control calls come one at a time; [`read_config`](Self::read_config) and [`stats`](Self::stats) beside anything.
pub trait Class: Send + Sync {
    /// What kind of virtio device it is.
    fn device_type(&self) -> DeviceType;

    /// How many queues it has at most.
    fn queues(&self) -> u16;

    /// The largest queue size.
    fn max_size(&self) -> u16;

    /// Bytes of configuration space.
    fn config_size(&self) -> u32;

    /// All features offered, those of the rings too. Constant.
    fn offered(&self) -> Features;

    /// How many units it has. Constant.
    fn units(&self) -> usize;

    /// Makes unit `unit`: called once for each.
    ///
    /// * `bells`: one for each unit; ringing one has that unit served
    fn unit(&self, unit: usize, bells: &Arc<[Arc<Bell>]>) -> Box<dyn Unit>;

    /// How many queue groups it has, at least 1. Constant.
    fn groups(&self) -> u32;

    /// The group that the queues of unit `unit` are in, below [`groups`](Self::groups). Constant.
    fn group(&self, unit: usize) -> GroupIndex;

    /// The role of queue `q`; `None` for one that does not exist with these features.
    ///
    /// * `accepted`: `None` before features were accepted
    fn role(&self, q: QueueIndex, accepted: Option<Features>) -> Option<Role>;

    /// Takes the features that the driver chose.
    fn accept(&self, features: Features);

    /// The driver is ready, or (`false`) a reset begins.
    fn set_live(&self, live: bool);

    /// Back to the beginning: no worker is at a queue any more.
    fn reset(&self);

    /// A queue begins to run, or has stopped. For a class whose settings are a queue's own; others need not care. A
    /// reset of the whole device is told by [`reset`](Self::reset) alone.
    fn queue_changed(&self, q: QueueIndex, change: QueueChange) {
        let _ = (q, change);
    }

    /// A queue is told to have effects or none, as it starts or later: see [`QueueEnable`](vdpa_core::QueueEnable). For a
    /// class whose other queues do its work instead; that it has none is seen to by its unit. When it is to have none,
    /// this comes before the unit is told, else after.
    fn queue_enabled(&self, q: QueueIndex, on: bool) {
        let _ = (q, on);
    }

    /// A number that changes with the configuration.
    fn generation(&self) -> u32;

    /// Reads configuration space; what is beyond its end reads 0.
    fn read_config(&self, at: u32, to: &mut [u8]);

    /// Writes configuration space; fields that are the device's own stay as they are.
    fn write_config(&self, at: u32, from: &[u8]);

    /// Whether an attribute can be changed so, as far as that can be said beforehand.
    ///
    /// # Errors
    /// When the class has no such attribute, or it cannot have this value.
    fn check(&self, attr: Attr) -> Result<(), SetError>;

    /// Changes an attribute that was checked. Answers whether that changed what the driver sees of the configuration.
    ///
    /// # Errors
    /// When it cannot be done now; nothing is changed then.
    fn set(&self, attr: Attr) -> Result<bool, SetError>;

    /// The state besides the queues.
    fn save(&self) -> Vec<u8>;

    /// Takes over a saved state. The bytes are hostile. Answers whether the driver will find another configuration than
    /// where the state was saved.
    ///
    /// # Errors
    /// With what is wrong; nothing is taken over then.
    fn restore(&self, from: &[u8]) -> Result<bool, String>;

    /// Whether it has a network to say something in. Constant.
    fn announces(&self) -> bool {
        false
    }

    /// Says in its network that `mac` is reached here, soon: see [`Announce`](vdpa_core::Announce).
    fn announce(&self, mac: Mac) {
        let _ = mac;
    }

    /// Calls `to` for each counter.
    fn stats(&self, to: &mut dyn FnMut(&str, u64));
}

/// What became of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueChange {
    /// It runs.
    Started,
    /// It was stopped with its state.
    Paused,
    /// It was reset alone.
    Reset,
}

/// Why an attribute is not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetError {
    /// The class has no such attribute.
    #[error("no such attribute")]
    Unsupported,
    /// It cannot have this value: what is wrong with it, and what is legal.
    #[error("{0}")]
    Illegal(String),
}

/// A queue of a unit, as its worker has it.
#[derive(Default)]
pub enum Station {
    /// There is none: not started, reset, or lost.
    #[default]
    Stopped,
    /// It runs.
    Running(Box<Queue>),
    /// It stops once nothing of it is in flight: nothing more is taken from it, and what ends is given back to it.
    Draining(Box<Queue>),
    /// It was stopped with its state, to go on here or elsewhere: what comes for it waits.
    Paused,
}

impl Station {
    /// The queue, if it runs.
    #[inline]
    pub fn running(&mut self) -> Option<&mut Queue> {
        match self {
            Self::Running(queue) => Some(queue),
            Self::Draining(_) | Self::Stopped | Self::Paused => None,
        }
    }

    /// The queue, if what ends can be given back to it.
    #[inline]
    pub fn open(&mut self) -> Option<&mut Queue> {
        match self {
            Self::Running(queue) | Self::Draining(queue) => Some(queue),
            Self::Stopped | Self::Paused => None,
        }
    }
}

/// The queues of a unit.
pub type Stations = [Station; UNIT_QUEUES];

/// What serving a unit came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// Something was done; there may be more.
    Work,
    /// There was nothing to do.
    Nothing,
}

/// Queues that are served together.
pub trait Unit: Send {
    /// Serves each queue once: a batch at most.
    fn serve(&mut self, queues: &mut Stations, desk: &mut Desk) -> Served;

    /// The worker will look away: asks for kicks where they matter. `true`: there is work already.
    fn arm(&mut self, queues: &mut Stations, desk: &mut Desk) -> bool;

    /// How many chains taken from the queue at `place` are in flight, between two calls of [`serve`](Self::serve).
    /// Those of a queue that is stopped by now are served on too: they are given back to nobody.
    fn in_flight(&self, place: usize) -> usize;

    /// Files whose becoming ready, for reading or for writing, has the unit served: what outlives a call of
    /// [`serve`](Self::serve), or comes from outside. Asked for once. They are watched edge-triggered: a unit that is
    /// served reads what is there.
    fn sources(&self) -> Vec<Arc<OwnedFd>>;

    /// The device is suspended, and nothing is in flight: its state may be saved from here on, until it is resumed or
    /// reset. What the unit alone knows of that is put where [`Class::save`] finds it.
    fn suspended(&mut self) {}

    /// The device is reset, the queues are gone and nothing is in flight: forgets everything else that is under way.
    fn reset(&mut self);
}

/// What a worker lends to the unit that it serves.
pub struct Desk {
    /// The way into the device's memory.
    pub reader: Reader,
    /// For changes of settings that all workers have to see.
    pub rounds: Arc<Rounds>,
    /// Which worker this is.
    pub worker: usize,
    pub(crate) lost: Vec<(QueueIndex, Halt)>,
    pub(crate) fault: Option<(Iova, Access)>,
    pub(crate) config: bool,
    /// Where commands for the device come, while it is served.
    pub(crate) mailbox: Option<Arc<Mailbox<Command>>>,
}

impl Desk {
    /// A desk of worker `worker`: for whoever serves units without threads, as benches do.
    pub fn new(reader: Reader, rounds: Arc<Rounds>, worker: usize) -> Self {
        Self {
            reader,
            rounds,
            worker,
            // A unit loses each of its queues once.
            lost: Vec::with_capacity(UNIT_QUEUES),
            fault: None,
            config: false,
            mailbox: None,
        }
    }

    /// Whether a command has come that is not carried out yet: a queue that does not run may be meant to by now.
    #[cold]
    pub(crate) fn has_orders(&self) -> bool {
        self.mailbox
            .as_ref()
            .is_some_and(|mailbox| mailbox.is_pending())
    }

    /// The configuration has changed by itself, and the driver is to be told.
    #[cold]
    pub fn config_changed(&mut self) {
        self.config = true;
    }

    /// `queue` does not go on. One that only waits goes on later; any other is taken away by the worker, and the device
    /// needs a reset.
    #[cold]
    pub fn halt(&mut self, queue: &Queue, why: Halt) {
        if why == Halt::Waiting {
            return;
        }
        let queue = queue.index();
        // A pass may come upon it twice, serving and asking for kicks: the first reason counts.
        if self.lost.iter().all(|(lost, _)| *lost != queue) {
            self.lost.push((queue, why));
        }
    }

    /// Asks the driver of `queue` for kicks. `true`: there are buffers already.
    pub fn arm(&mut self, queue: &mut Queue) -> bool {
        let armed = {
            let section = self.reader.enter();
            queue.open(&section).and_then(|mem| queue.arm(&mem))
        };
        armed.unwrap_or_else(|halt| {
            self.halt(queue, halt);
            false
        })
    }

    /// A buffer is at an address that may not be used so. The first of a pass is reported.
    #[cold]
    pub fn fault(&mut self, at: Iova, want: Access) {
        self.fault.get_or_insert((at, want));
    }
}
