//! The core of a simulated device: the contract's calls, turned into commands for the workers.

mod caps;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use vdpa_core::{
    Bell, Call, CallCell, CallKind, Caps, DeviceInfo, Doorbell, Error, Event, Features, GroupIndex,
    Host, Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, Result, Sleeper, Status,
    VdpaDevice,
};
use vdpa_mem::Reader;
use vdpa_ring::QueueState;

use crate::class::{Class, Desk, Role};
use crate::error::SimError;
use crate::kicks::Kicks;
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::rounds::Rounds;
use crate::shared::{Reset, Shared, lock};
use crate::worker::{Command, Joint, Seat, Stop, Worker};

/// The vendor of simulated devices, as virtio's own PCI vendor id.
const VENDOR: u32 = 0x1af4;

/// A device in software: a class, workers, and what the contract needs in between.
///
/// Made by [`SimMgmt`](crate::SimMgmt), or from a class of one's own with [`new`](Self::new). Its workers are threads
/// that start when the device is opened and end when it is dropped.
pub struct SimDevice {
    info: DeviceInfo,
    shared: Arc<Shared>,
    workers: usize,
    patience: Duration,
    attached: AtomicBool,
    crew: Mutex<Option<Crew>>,
    suspension: Mutex<Suspension>,
}

/// What there is of a device while it is open.
struct Crew {
    hands: Vec<Hand>,
    bells: Arc<[Arc<Bell>]>,
    /// For checks of queues before they start.
    reader: Reader,
}

/// A worker, from outside.
struct Hand {
    mailbox: Arc<Mailbox<Command>>,
    kicks: Arc<Kicks>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Suspension {
    /// The suspend that was begun.
    joint: Option<Arc<Joint>>,
    /// A change of the carrier that came meanwhile: a suspended device changes no configuration.
    link: Option<bool>,
}

impl SimDevice {
    /// A device of this class.
    ///
    /// * `name`: what errors and listings call it
    /// * `workers`: how many threads serve it; at least one, and no more than there are units
    /// * `patience`: how long a worker polls what is quiet before it sleeps
    pub fn new(name: &str, class: Box<dyn Class>, workers: usize, patience: Duration) -> Self {
        let info = DeviceInfo {
            name: name.to_owned(),
            device_type: class.device_type(),
            vendor: VENDOR,
            queues: class.queues(),
            groups: 1,
            asids: 1,
            config_size: class.config_size(),
            kicks: KickKind::Given,
            calls: CallKind::Any,
        };
        Self {
            info,
            workers: workers.clamp(1, class.units().max(1)),
            shared: Shared::new(class),
            patience,
            attached: AtomicBool::new(false),
            crew: Mutex::new(None),
            suspension: Mutex::default(),
        }
    }

    /// Changes the carrier. The driver is told, if that changes anything. A suspended device is told when it goes on.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device without a carrier.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let mut suspension = lock(&self.suspension);
        if suspension.joint.is_some() {
            suspension.link = Some(up);
            return Ok(());
        }
        self.change_link(up, suspension)
    }

    /// Changes the carrier of a device that is not suspended, and is not before this is done: the lock says so.
    fn change_link(&self, up: bool, suspension: MutexGuard<'_, Suspension>) -> Result<()> {
        let changed = self.shared.class.set_link(up);
        // The owner may do anything when it is told.
        drop(suspension);
        match changed {
            Some(true) => self.shared.raise(Event::Config),
            Some(false) => {}
            None => {
                return Err(Error::Unsupported {
                    device: self.info.name.clone(),
                    what: "carrier",
                });
            }
        }
        Ok(())
    }

    /// Takes the device away from its user, who is told that it is gone.
    pub fn remove(&self) {
        self.shared.class.set_live(false);
        self.dismiss();
        self.shared.raise(Event::Gone);
    }

    /// Ends the workers.
    fn dismiss(&self) {
        let crew = lock(&self.crew).take();
        let Some(mut crew) = crew else { return };
        for hand in &crew.hands {
            hand.mailbox.post(Command::Exit);
        }
        let own = std::thread::current().id();
        for thread in crew.hands.iter_mut().filter_map(|hand| hand.thread.take()) {
            // A call closure that drops the device runs on a worker, which cannot wait for itself.
            if thread.thread().id() != own {
                let _panicked = thread.join();
            }
        }
    }

    fn hire(&self, host: &Host) -> Result<Crew, SimError> {
        let failed = |worker| {
            let name = self.info.name.clone();
            move |source| SimError::Worker {
                name,
                worker,
                source,
            }
        };
        let class = &self.shared.class;
        let units = class.units();
        let mut sleepers = Vec::new();
        for worker in 0..self.workers {
            let sleeper = Sleeper::new().map_err(|e| failed(worker)(std::io::Error::other(e)))?;
            sleepers.push(sleeper);
        }
        let bells: Arc<[Arc<Bell>]> = sleepers.iter().cycle().take(units).map(Bell::new).collect();
        let space = host.spaces.first().cloned().unwrap_or_default();
        let rounds = Arc::new(Rounds::new(self.workers));
        let mut crew = Crew {
            hands: Vec::new(),
            bells: Arc::clone(&bells),
            reader: space.reader(),
        };
        let mut made: Vec<Vec<_>> = sleepers.iter().map(|_| Vec::new()).collect();
        for (unit, bell) in bells.iter().enumerate() {
            let worker = unit.checked_rem(self.workers).unwrap_or(0);
            if let Some(own) = made.get_mut(worker) {
                own.push((class.unit(unit, &bells), Arc::clone(bell)));
            }
        }
        let kicks = sleepers
            .iter()
            .enumerate()
            .map(|(worker, sleeper)| {
                let kicks = Kicks::new(Arc::clone(sleeper));
                kicks.map(Arc::new).map_err(failed(worker))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let outfits = sleepers.into_iter().zip(kicks).enumerate().zip(made);
        for ((number, (sleeper, kicks)), units) in outfits {
            let mailbox = Arc::new(Mailbox::new(&sleeper));
            let worker = Worker::new(
                Arc::clone(&self.shared),
                number,
                Arc::clone(&mailbox),
                Arc::clone(&kicks),
                units,
                Desk::new(space.reader(), Arc::clone(&rounds), number),
                self.patience,
            );
            let spawned = std::thread::Builder::new()
                .name(format!("{}-{number}", self.info.name))
                .spawn(move || worker.run());
            match spawned {
                Ok(thread) => crew.hands.push(Hand {
                    mailbox,
                    kicks,
                    thread: Some(thread),
                }),
                Err(e) => {
                    *lock(&self.crew) = Some(crew);
                    self.dismiss();
                    return Err(failed(number)(e));
                }
            }
        }
        Ok(crew)
    }

    fn not_open(&self) -> SimError {
        let name = self.info.name.clone();
        SimError::NotOpen { name }
    }

    fn with_crew<T>(&self, then: impl FnOnce(&mut Crew) -> Result<T>) -> Result<T> {
        match &mut *lock(&self.crew) {
            Some(crew) => then(crew),
            None => Err(self.not_open().into()),
        }
    }

    /// Tells all workers.
    fn tell_all(&self, command: impl Fn() -> Command) -> Result<()> {
        self.with_crew(|crew| {
            for hand in &crew.hands {
                hand.mailbox.post(command());
            }
            Ok(())
        })
    }

    /// Tells the worker of a queue.
    fn tell(&self, q: QueueIndex, command: impl FnOnce(Seat) -> Command) -> Result<()> {
        let (seat, worker) = self.seat(q)?.1;
        self.with_crew(|crew| {
            if let Some(hand) = crew.hands.get(worker) {
                hand.mailbox.post(command(seat));
            }
            Ok(())
        })
    }

    /// Where a queue sits, and at which worker.
    fn seat(&self, q: QueueIndex) -> Result<(Role, (Seat, usize))> {
        let role = self
            .shared
            .class
            .role(q, self.shared.accepted())
            .ok_or(Error::QueueAbsent { queue: q })?;
        let unit = role.unit.checked_div(self.workers).unwrap_or(0);
        let worker = role.unit.checked_rem(self.workers).unwrap_or(0);
        let seat = Seat {
            queue: q.place(),
            unit,
            place: role.place,
        };
        Ok((role, (seat, worker)))
    }

    /// Begins to stop a queue in one way or the other.
    fn begin_stop(&self, q: QueueIndex, how: Stop) -> Result<()> {
        if let Some(mut record) = self.shared.record(q.place()) {
            record.stopping = true;
        }
        self.tell(q, |at| Command::Stop { at, how })
    }

    fn poll_stop(&self, q: QueueIndex) -> Poll<Option<QueueState>> {
        match self.shared.record(q.place()) {
            Some(record) if record.stopping => Poll::Pending,
            Some(record) => Poll::Ready(record.state),
            None => Poll::Ready(None),
        }
    }
}

impl VdpaDevice for SimDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn attach(&self, host: Host) -> Result<()> {
        if self.attached.swap(true, Ordering::AcqRel) {
            let name = self.info.name.clone();
            return Err(SimError::Open { name }.into());
        }
        self.shared.set_events(Arc::clone(&host.events));
        let crew = self.hire(&host)?;
        *lock(&self.crew) = Some(crew);
        Ok(())
    }

    fn caps(&self) -> Caps<'_> {
        Caps {
            queue_reset: Some(self),
            queue_pause: Some(self),
            queue_enable: Some(self),
            suspend: Some(self),
            class_state: Some(self),
            stats: Some(self),
            ..Caps::NONE
        }
    }

    fn offered(&self) -> Features {
        self.shared.class.offered()
    }

    fn accept(&self, f: Features) -> Result<()> {
        self.shared.accept(f);
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        Ok(self.shared.status())
    }

    fn add_status(&self, bits: Status) -> Result<()> {
        self.shared.add_status(bits);
        if bits.contains(Status::DRIVER_OK) {
            self.shared.class.set_live(true);
            self.tell_all(|| Command::Live)?;
        }
        Ok(())
    }

    fn begin_reset(&self) -> Result<()> {
        let reset = self.shared.begin_reset();
        if reset == Reset::UnderWay {
            return Ok(());
        }
        let mut suspension = lock(&self.suspension);
        suspension.joint = None;
        let link = suspension.link.take();
        let changed = link.map_or(Ok(()), |up| self.change_link(up, suspension));
        // In reset already, or closed: no worker is at anything.
        if reset == Reset::Idle || lock(&self.crew).is_none() {
            self.shared.finish_reset();
            return changed;
        }
        let all = Joint::new(self.workers);
        self.tell_all(|| Command::Reset(Arc::clone(&all)))?;
        changed
    }

    fn config_generation(&self) -> Result<Option<u32>> {
        Ok(Some(self.shared.class.generation()))
    }

    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.shared.class.read_config(at, to);
        Ok(())
    }

    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.shared.class.write_config(at, from);
        Ok(())
    }

    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        let class = &self.shared.class;
        let exists = class.role(q, self.shared.accepted()).is_some();
        Ok(QueueLimits {
            max_size: if exists { class.max_size() } else { 0 },
            group: GroupIndex::new(0),
        })
    }

    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let (role, (at, worker)) = self.seat(q)?;
        let call = Arc::new(CallCell::new(call));
        let features = self.shared.accepted().unwrap_or(Features::NONE);
        let mut queue = Queue::new(q, c, features, Arc::clone(&call), role.chains)
            .map_err(|why| SimError::Ring { queue: q, why })?;
        self.with_crew(|crew| {
            queue
                .check(&crew.reader.enter())
                .map_err(|why| SimError::Area { queue: q, why })?;
            let hand = crew.hands.get(worker);
            // Here, where it can still be refused. A kick before the worker has the queue heats an empty seat; the
            // queue is looked at when it starts.
            let kick = match (kick, hand) {
                (Kick::Given(event), Some(hand)) => {
                    let watched = hand.kicks.watch(event, at.token());
                    Some(watched.map_err(|source| SimError::Kick { queue: q, source })?)
                }
                (Kick::Given(_), None) | (Kick::Taken, _) => None,
            };
            if let Some(mut record) = self.shared.record(q.place()) {
                record.call = Some(call);
                record.state = None;
            }
            if let Some(hand) = hand {
                let queue = Box::new(queue);
                hand.mailbox.post(Command::Start { at, queue, kick });
            }
            let bell = crew.bells.get(role.unit).cloned();
            Ok(bell.map_or(Doorbell::NONE, Doorbell::from))
        })
    }

    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        let cell = self.shared.record(q.place()).and_then(|r| r.call.clone());
        // Outside of the record's lock: the new call is raised here.
        cell.ok_or(Error::QueueNotStarted { queue: q })?
            .replace(call);
        Ok(())
    }
}

impl Drop for SimDevice {
    fn drop(&mut self) {
        self.shared.class.set_live(false);
        self.dismiss();
    }
}
