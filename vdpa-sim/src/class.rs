//! What makes a device a network card, or a disk: everything that the core and the workers do not know.
//!
//! A class cuts its queues into *units*: queues that are served together by one worker. A network card has a unit for
//! each queue pair and one for the control queue; a disk has one for each queue. A unit is given its queues while they
//! run, and is asked to serve them; threads, kicks, pauses, resets and suspends are the worker's.

use std::sync::Arc;

use vdpa_core::{Bell, DeviceType, Features, QueueIndex};
use vdpa_mem::{Access, Iova, Reader};

use crate::queue::{Lost, Queue};
use crate::rounds::Rounds;

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

    /// A number that changes with the configuration.
    fn generation(&self) -> u32;

    /// Reads configuration space; what is beyond its end reads 0.
    fn read_config(&self, at: u32, to: &mut [u8]);

    /// Writes configuration space; fields that are the device's own stay as they are.
    fn write_config(&self, at: u32, from: &[u8]);

    /// Changes the carrier. Answers whether that changed what the driver sees; `None` for a device that has none.
    fn set_link(&self, up: bool) -> Option<bool>;

    /// The state besides the queues.
    fn save(&self) -> Vec<u8>;

    /// Takes over a saved state. The bytes are hostile. Answers whether the driver will find another configuration than
    /// where the state was saved.
    ///
    /// # Errors
    /// With what is wrong; nothing is taken over then.
    fn restore(&self, from: &[u8]) -> Result<bool, String>;

    /// Calls `to` for each counter.
    fn stats(&self, to: &mut dyn FnMut(&str, u64));
}

/// A queue of a unit, as its worker has it.
#[derive(Default)]
pub enum Station {
    /// There is none: not started, reset, or lost.
    #[default]
    Stopped,
    /// It runs.
    Running(Box<Queue>),
    /// It was stopped with its state, to go on here or elsewhere: what comes for it waits.
    Paused,
}

impl Station {
    /// The queue, if it runs.
    #[inline]
    pub fn running(&mut self) -> Option<&mut Queue> {
        match self {
            Self::Running(queue) => Some(queue),
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

    /// The device is reset, and the queues are gone: forgets what is under way.
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
    pub(crate) lost: Vec<(QueueIndex, Lost)>,
    pub(crate) fault: Option<(Iova, Access)>,
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
        }
    }

    /// Queue `queue` cannot go on: the worker takes it away, and the device needs a reset.
    #[cold]
    pub fn lose(&mut self, queue: QueueIndex, why: Lost) {
        // A pass may come upon it twice, serving and asking for kicks: the first reason counts.
        if self.lost.iter().all(|(lost, _)| *lost != queue) {
            self.lost.push((queue, why));
        }
    }

    /// A buffer is at an address that may not be used so. The first of a pass is reported.
    #[cold]
    pub fn fault(&mut self, at: Iova, want: Access) {
        self.fault.get_or_insert((at, want));
    }
}
