//! The core of a simulated device: the contract's calls, turned into commands for the workers.

mod attrs;
mod caps;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use vdpa_core::faults::Plan;
use vdpa_core::{
    Asid, Attr, Bell, Call, CallCell, CallKind, Caps, DeviceInfo, Dma, Doorbell, Error, Event,
    Features, GroupIndex, Host, Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, Result,
    Status, VdpaDevice, bits,
};
use vdpa_mem::{AddressSpace, Reader};
use vdpa_ring::QueueState;

use crate::class::{Class, QueueChange, Role};
use crate::crew::{Crew, Left};
use crate::error::SimError;
use crate::kicks::Kicks;
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::shared::{Reset, Shared, lock};
use crate::team::{Command, Joint, Post, Seat, Stop, Team};

/// The vendor of simulated devices, as virtio's own PCI vendor id.
const VENDOR: u32 = 0x1af4;

/// A device in software: a class, workers, and what the contract needs in between.
///
/// Made by [`SimMgmt`](crate::SimMgmt), or from a class of one's own with [`new`](Self::new). Its workers are threads
/// that start when the device is opened and end when it is dropped, or those of a [`Crew`] that it shares with others.
///
/// Dropping it waits for what its backend has in flight, up to 30 s; what takes longer is kept until it ends.
pub struct SimDevice {
    info: DeviceInfo,
    shared: Arc<Shared>,
    options: Options,
    faults: Option<Plan>,
    attached: AtomicBool,
    /// The crew that it shares; `None`: one of its own.
    crew: Option<Arc<Crew>>,
    service: Mutex<Option<Service>>,
    suspension: Mutex<Suspension>,
}

/// How a device is served, whatever its class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How many threads serve it; at least one, and no more than there are units. Those of a shared crew are as many as
    /// it has.
    pub workers: usize,
    /// How long a worker polls what is quiet before it sleeps.
    pub patience: Duration,
    /// Whether it waits for addresses that are not mapped, and asks for them: see [`Dma::Software`].
    pub page_requests: bool,
}

impl Default for Options {
    /// One worker that polls for 50 µs, and no page requests.
    fn default() -> Self {
        Self {
            workers: 1,
            patience: Duration::from_micros(50),
            page_requests: false,
        }
    }
}

/// What there is of a device while it is open.
struct Service {
    /// Each worker's team.
    hands: Vec<Hand>,
    /// The device's number at its crew.
    berth: usize,
    left: Arc<Left>,
    /// Ends after everything else is gone.
    crew: Arc<Crew>,
    bells: Arc<[Arc<Bell>]>,
    spaces: Arc<[AddressSpace]>,
    /// For checks of queues before they start, one for each address space.
    readers: Vec<Reader>,
    /// The address space of each group.
    assigned: Vec<Asid>,
    /// Whether the teams were told to leave: nothing else is asked of them.
    leaving: bool,
    /// Has every unit served when something was mapped that may be waited for.
    _watcher: Option<Arc<dyn Send + Sync>>,
}

/// A team, from outside.
struct Hand {
    mailbox: Arc<Mailbox<Command>>,
    kicks: Arc<Kicks>,
}

#[derive(Default)]
struct Suspension {
    /// The suspend that was begun.
    joint: Option<Arc<Joint>>,
    /// Changes of attributes that came meanwhile, the last one of each kind: a suspended device changes no
    /// configuration.
    attrs: Vec<Attr>,
}

impl SimDevice {
    /// A device of this class, with workers of its own.
    ///
    /// * `name`: what errors and listings call it
    /// * `options`: how it is served
    pub fn new(name: &str, class: Box<dyn Class>, options: Options) -> Self {
        let workers = options.workers.clamp(1, class.units().max(1));
        let options = Options { workers, ..options };
        Self::made(name, class, options, None)
    }

    /// A device of this class that is served by the threads of `crew`, as others are.
    ///
    /// * `name`, `options`: as in [`new`](Self::new)
    pub fn in_crew(name: &str, class: Box<dyn Class>, options: Options, crew: Arc<Crew>) -> Self {
        let workers = crew.workers();
        let options = Options { workers, ..options };
        Self::made(name, class, options, Some(crew))
    }

    fn made(name: &str, class: Box<dyn Class>, options: Options, crew: Option<Arc<Crew>>) -> Self {
        let groups = class.groups().max(1);
        let info = DeviceInfo {
            name: name.to_owned(),
            device_type: class.device_type(),
            vendor: VENDOR,
            queues: class.queues(),
            groups,
            // So that each can have its own.
            asids: groups,
            config_size: class.config_size(),
            kicks: KickKind::Given,
            calls: CallKind::Any,
        };
        Self {
            info,
            options,
            shared: Shared::new(class, options.page_requests),
            faults: None,
            attached: AtomicBool::new(false),
            crew,
            service: Mutex::new(None),
            suspension: Mutex::default(),
        }
    }

    /// The same, which makes these [faults](crate::faults) by itself.
    #[must_use]
    pub fn with_faults(mut self, faults: Option<Plan>) -> Self {
        self.faults = faults;
        self
    }

    /// Takes the device away from its user, who is told that it is gone once its workers have let go of it. Waits for them
    /// as a drop does.
    pub fn remove(&self) {
        self.shared.class.set_live(false);
        self.dismiss();
        self.shared.raise(Event::Gone);
    }

    /// Ends the service: the teams leave, and the crew ends if it has no other device.
    fn dismiss(&self) {
        let wait = lock(&self.service).as_mut().map(Service::end);
        let left = wait.is_some_and(|wait| wait.until_left(&self.info.name));
        // Not before: a reset that is asked for meanwhile is complete when they have let go.
        let service = lock(&self.service).take();
        drop(service);
        if left && self.shared.is_resetting() {
            self.shared.finish_reset();
        }
    }

    fn serve(&self, host: &Host) -> Result<Service, SimError> {
        let (name, workers) = (&self.info.name, self.options.workers);
        let own = || Crew::new(name, workers);
        let crew = self.crew.clone().unwrap_or_else(own);
        let berth = crew.berth()?;
        let class = &self.shared.class;
        let bell = |unit| {
            let place = berth.places.get(self.worker(berth.number, unit));
            place.map(|(sleeper, _)| Bell::marking(sleeper, berth.number))
        };
        let bells: Arc<[Arc<Bell>]> = (0..class.units()).filter_map(bell).collect();
        let home = host.spaces.first().cloned().unwrap_or_default();
        let mut service = Service {
            hands: Vec::new(),
            berth: berth.number,
            left: Arc::clone(&berth.left),
            crew: Arc::clone(&crew),
            bells: Arc::clone(&bells),
            readers: host.spaces.iter().map(AddressSpace::reader).collect(),
            spaces: Arc::clone(&host.spaces),
            assigned: (0..self.info.groups).map(|_| Asid::new(0)).collect(),
            leaving: false,
            _watcher: self
                .options
                .page_requests
                .then(|| watch(&host.spaces, &bells)),
        };
        let mut made: Vec<Vec<_>> = berth.places.iter().map(|_| Vec::new()).collect();
        for (unit, bell) in bells.iter().enumerate() {
            if let Some(own) = made.get_mut(self.worker(berth.number, unit)) {
                let (made, group) = (class.unit(unit, &bells), class.group(unit));
                own.push(Post::new(made, Arc::clone(bell), group, home.reader()));
            }
        }
        let mut teams = Vec::new();
        for (worker, ((sleeper, kicks), posts)) in berth.places.iter().zip(made).enumerate() {
            let mailbox = Arc::new(Mailbox::marking(sleeper, berth.number));
            let team = Team::new(
                Arc::clone(&self.shared),
                &berth,
                Arc::clone(&mailbox),
                Arc::clone(kicks),
                posts,
                home.clone(),
                self.options.patience,
            );
            teams.push(team.map_err(|source| SimError::Worker {
                name: name.clone(),
                worker,
                source,
            })?);
            let kicks = Arc::clone(kicks);
            service.hands.push(Hand { mailbox, kicks });
        }
        // All of them, or none.
        for (worker, team) in teams.into_iter().enumerate() {
            crew.join(worker, team);
        }
        Ok(service)
    }

    /// Which worker serves a unit. The control queue of one device, which is its last unit, is where a data queue of
    /// another is.
    fn worker(&self, berth: usize, unit: usize) -> usize {
        let turn = unit.wrapping_add(berth);
        turn.checked_rem(self.options.workers).unwrap_or(0)
    }

    /// Runs `with` for the address spaces of the groups, if the device is open.
    fn with_assigned(&self, with: impl FnOnce(&mut [Asid])) {
        if let Some(service) = &mut *lock(&self.service) {
            with(&mut service.assigned);
        }
    }

    fn not_open(&self) -> SimError {
        let name = self.info.name.clone();
        SimError::NotOpen { name }
    }

    fn with_service<T>(&self, then: impl FnOnce(&mut Service) -> Result<T>) -> Result<T> {
        match &mut *lock(&self.service) {
            Some(service) if !service.leaving => then(service),
            _ => Err(self.not_open().into()),
        }
    }

    /// Tells all teams.
    fn tell_all(&self, command: impl Fn() -> Command) -> Result<()> {
        self.with_service(|service| {
            for hand in &service.hands {
                hand.mailbox.post(command());
            }
            Ok(())
        })
    }

    /// Tells the team of a queue.
    fn tell(&self, q: QueueIndex, command: impl FnOnce(Seat) -> Command) -> Result<()> {
        let (role, seat) = self.seat(q)?;
        self.with_service(|service| {
            let worker = self.worker(service.berth, role.unit);
            if let Some(hand) = service.hands.get(worker) {
                hand.mailbox.post(command(seat));
            }
            Ok(())
        })
    }

    /// Where a queue sits in its team.
    fn seat(&self, q: QueueIndex) -> Result<(Role, Seat)> {
        let role = self
            .shared
            .class
            .role(q, self.shared.accepted())
            .ok_or(Error::QueueAbsent { queue: q })?;
        // Of so many units in a row each worker has one.
        let unit = role.unit.checked_div(self.options.workers).unwrap_or(0);
        let seat = Seat {
            queue: q.place(),
            unit,
            place: role.place,
        };
        Ok((role, seat))
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
        let service = self.serve(&host)?;
        *lock(&self.service) = Some(service);
        Ok(())
    }

    fn caps(&self) -> Caps<'_> {
        Caps {
            dma: Dma::Software {
                misses: self.options.page_requests,
            },
            spaces: Some(self),
            queue_reset: Some(self),
            queue_pause: Some(self),
            queue_enable: Some(self),
            suspend: Some(self),
            in_flight: Some(self),
            class_state: Some(self),
            announce: self.shared.class.announces().then_some(self as _),
            stats: Some(self),
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
        let attrs = std::mem::take(&mut suspension.attrs);
        self.catch_up(&attrs, suspension);
        self.with_assigned(|assigned| assigned.fill(Asid::new(0)));
        if reset == Reset::Begun
            && let Some(service) = &*lock(&self.service)
        {
            // One that leaves is in reset once it has left.
            if !service.leaving {
                let all = Joint::new(self.options.workers);
                for hand in &service.hands {
                    hand.mailbox.post(Command::Reset(Arc::clone(&all)));
                }
            }
            return Ok(());
        }
        // In reset already, or closed: no worker is at anything.
        self.shared.finish_reset();
        Ok(())
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
        let role = class.role(q, self.shared.accepted());
        let accepted = self.shared.accepted();
        let split = accepted.is_some_and(|f| !f.contains(bits::RING_PACKED));
        let most = match class.max_size().checked_ilog2() {
            // virtio 1.4 §4.1.4.3.1: a power of two, once it is known that rings are split.
            Some(log) if split => 1 << log,
            _ => class.max_size(),
        };
        Ok(QueueLimits {
            max_size: role.map_or(0, |_| most),
            group: role.map_or(GroupIndex::new(0), |role| class.group(role.unit)),
        })
    }

    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let (role, at) = self.seat(q)?;
        let call = Arc::new(CallCell::new(call));
        let features = self.shared.accepted().unwrap_or(Features::NONE);
        let mut queue = Queue::new(q, c, features, Arc::clone(&call), role)
            .map_err(|why| SimError::Ring { queue: q, why })?
            .with_faults(self.faults.as_ref());
        if self.options.page_requests {
            queue = queue.with_page_requests();
        }
        let group = self.shared.class.group(role.unit);
        self.with_service(|service| {
            let asid = service.assigned.get(group.place());
            let reader = asid.and_then(|asid| service.readers.get_mut(asid.place()));
            if let Some(reader) = reader {
                queue
                    .check(&reader.enter())
                    .map_err(|why| SimError::Area { queue: q, why })?;
                let cells = self.shared.record(q.place()).and_then(|r| r.track.clone());
                if let Some(cells) = cells {
                    queue
                        .track(cells, &reader.enter())
                        .map_err(|source| SimError::Track { queue: q, source })?;
                }
            }
            let hand = service.hands.get(self.worker(service.berth, role.unit));
            // Here, where it can still be refused. A kick before the worker has the queue heats an empty seat; the
            // queue is looked at when it starts.
            let kick = match (kick, hand) {
                (Kick::Given(event), Some(hand)) => {
                    let watched = hand.kicks.watch(event, at.token(service.berth));
                    Some(watched.map_err(|source| SimError::Kick { queue: q, source })?)
                }
                (Kick::Given(_), None) | (Kick::Taken, _) => None,
            };
            if let Some(mut record) = self.shared.record(q.place()) {
                record.call = Some(call);
                record.state = None;
            }
            self.shared.class.queue_changed(q, QueueChange::Started);
            if let Some(hand) = hand {
                let queue = Box::new(queue);
                hand.mailbox.post(Command::Start { at, queue, kick });
            }
            self.shared.class.queue_enabled(q, c.enabled);
            let bell = service.bells.get(role.unit).cloned();
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

impl Service {
    /// The teams leave. Answers with what to wait by, without the lock.
    fn end(&mut self) -> Leaving {
        self.leaving = true;
        for hand in &self.hands {
            hand.mailbox.post(Command::Exit);
        }
        Leaving {
            left: Arc::clone(&self.left),
            crew: Arc::clone(&self.crew),
        }
    }
}

/// The teams of a device that leave.
struct Leaving {
    left: Arc<Left>,
    crew: Arc<Crew>,
}

impl Leaving {
    /// Waits until none of them is served any more. `false`: one still is, since its backend does not come to an end, or
    /// since the caller is served itself: what runs on a worker waits for none.
    fn until_left(self, name: &str) -> bool {
        if self.crew.is_own(std::thread::current().id()) {
            return false;
        }
        let left = self.left.wait();
        if !left {
            tracing::warn!("{name}: requests in flight do not end; what they need is kept");
        }
        left
    }
}

/// Has every unit served whenever one of the address spaces changes, until what it answers is dropped.
fn watch(spaces: &[AddressSpace], bells: &Arc<[Arc<Bell>]>) -> Arc<dyn Send + Sync> {
    let bells = Arc::clone(bells);
    let watcher = Arc::new(move || bells.iter().for_each(|bell| bell.ring()));
    for space in spaces {
        space.watch(&watcher);
    }
    watcher
}
