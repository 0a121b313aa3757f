//! The network device: queue pairs, a control queue, a port.
//!
//! ```text
//!                 control queue ─▶ control ─▶ Settled: filter, hashing, offloads        (replaced as a whole)
//!                                                  │ looked at once a batch
//!  transmit queue ─▶ transmit ─▶ FrameBatch ─▶ port lane ─▶ FrameBatch ─▶ receive ─▶ receive queue
//!                                                                            │ steered by a hash: sorter, exchange
//!                                                                            └──────▶ another pair's receive queue
//! ```
//! Each pair is a unit, and the control queue is one more, the last.
//!
//! What a driver leaves unfinished of what it sends (a checksum, segmentation) is checked when it is taken, goes through
//! the port as it is, and is finished where the receiving driver does not take it so: see [`offload`](crate::offload).
//! Not offered: HOST_UFO and GUEST_UFO (IP fragments), RSC_EXT, the bits for UDP tunnels, HASH_TUNNEL and RSS_CONTEXT.

mod announcement;
mod coalesce;
mod config;
mod control;
mod count;
mod exchange;
mod filter;
mod flow;
mod hashing;
mod receive;
mod saved;
mod settled;
mod sorter;
mod switched;
mod toeplitz;
mod transmit;
mod waiting;

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use vdpa_core::config::net::NetStatus;
use vdpa_core::{
    Attr, Bell, DeviceType, FeatureBit, Features, GroupIndex, LinkState, QueueIndex,
    bits::net,
    config::{Mac, NetConfig},
};

use crate::class::{Class, Desk, QueueChange, Role, Served, SetError, Station, Stations, Unit};
use crate::frames::BATCH_FRAMES;
use crate::port::{Lane, Port, Presence};

pub use config::{MAX_PAIRS, POSSIBLE, Settings};
pub use count::{RECEIVE_COUNTERS, TRANSMIT_COUNTERS};
pub use filter::{Addresses, Filter, Modes};

use announcement::Announcement;
use coalesce::Coalescing;
use control::Control;
use count::PairCounters;
use exchange::Exchange;
use hashing::Hashing;
use receive::{Receiver, Seat};
use saved::Saved;
use settled::Settled;
use switched::Switched;
use transmit::Transmitter;

/// The place of the receive queue in its unit; the other one is the transmit queue's.
const RECEIVE: usize = 0;

/// The pair that says what the device has to say itself: it is always there.
const ANNOUNCER: u16 = 0;

/// The group of the control queue, which its owner may keep to itself; the pairs are in group 0.
const CONTROL_GROUP: u32 = 1;

/// A network device, virtio 1.4 §5.1.
pub struct Net {
    shared: Arc<NetShared>,
    port: Arc<dyn Port>,
}

/// What the units of a network device share.
pub(crate) struct NetShared {
    pub(crate) settings: Settings,
    pub(crate) settled: Settled,
    pub(crate) presence: Arc<Presence>,
    pub(crate) counters: Box<[PairCounters]>,
    coalescing: Coalescing,
    switched: Switched,
    announcement: Announcement,
    /// How pairs hand frames to each other; made when a driver first chooses steering.
    exchange: OnceLock<Exchange>,
    pub(crate) control: crate::stats::Counters,
    /// Frames that came with a state.
    stow: waiting::Stow,
    /// Frames that pairs had in hand when the device was suspended.
    hands: waiting::Hands,
}

impl Net {
    /// A network device with these settings, at this port.
    ///
    /// * `presence`: the one that the port was made with
    pub fn new(settings: Settings, presence: Arc<Presence>, port: Arc<dyn Port>) -> Self {
        let shared = NetShared {
            settled: Settled::new(settings.mac),
            coalescing: Coalescing::new(settings.pairs),
            switched: Switched::new(settings.pairs),
            announcement: Announcement::default(),
            exchange: OnceLock::new(),
            counters: (0..settings.pairs).map(|_| PairCounters::new()).collect(),
            control: crate::stats::Counters::new(control::COUNTERS),
            settings,
            presence,
            stow: waiting::Stow::default(),
            hands: waiting::Hands::default(),
        };
        Self {
            shared: Arc::new(shared),
            port,
        }
    }

    /// The number of the control queue: behind all pairs that there may be, virtio 1.4 §5.1.2.
    fn control_queue(&self, features: Features) -> Option<u16> {
        features
            .contains(net::CTRL_VQ)
            .then_some(self.shared.pairs(features).saturating_mul(2))
    }

    /// Changes the carrier. Answers whether the driver sees that.
    fn set_link(&self, up: bool) -> bool {
        let changed = self.shared.presence.set_link(up);
        let seen = changed && self.shared.shows(net::STATUS);
        if seen {
            self.shared.settled.changed();
        }
        if changed {
            self.port.changed();
            // Frames may wait in the transmit queues.
            self.shared.presence.ring_all();
        }
        seen
    }
}

impl NetShared {
    /// Whether the driver can see what is in the configuration with `bit`: virtio 1.4 §5.1.4.
    fn shows(&self, bit: FeatureBit) -> bool {
        let accepted = self.settled.features();
        let features = if accepted == Features::NONE {
            self.settings.features
        } else {
            accepted
        };
        features.contains(bit)
    }

    /// How many pairs there are with these features: virtio 1.4 §5.1.2.
    fn pairs(&self, features: Features) -> u16 {
        if config::has_pairs(features) {
            self.settings.pairs
        } else {
            1
        }
    }

    /// Whether pairs are switched on and off queue by queue: the driver has several, and no control queue.
    fn is_switched(&self) -> bool {
        let features = self.settled.features();
        features.contains(net::MQ) && !features.contains(net::CTRL_VQ)
    }

    /// Has frames hashed and steered in another way, from the next batch of each worker on.
    fn set_hashing(&self, hashing: Hashing) {
        if let Some(steering) = hashing.steering() {
            // Before workers can see the steering.
            let (presence, settings) = (&self.presence, &self.settings);
            self.exchange
                .get_or_init(|| Exchange::new(presence, settings.pairs, settings.longest()));
            presence.set_active(steering.reach());
        }
        self.settled.set_hashing(hashing);
    }
}

impl Class for Net {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn queues(&self) -> u16 {
        self.shared
            .settings
            .pairs
            .saturating_mul(2)
            .saturating_add(1)
    }

    fn max_size(&self) -> u16 {
        self.shared.settings.queue_size
    }

    fn config_size(&self) -> u32 {
        NetConfig::SIZE as u32
    }

    fn offered(&self) -> Features {
        self.shared.settings.features
    }

    fn units(&self) -> usize {
        usize::from(self.shared.settings.pairs).saturating_add(1)
    }

    fn unit(&self, unit: usize, bells: &Arc<[Arc<Bell>]>) -> Box<dyn Unit> {
        let pairs = usize::from(self.shared.settings.pairs);
        let shared = Arc::clone(&self.shared);
        if unit >= pairs {
            return Box::new(Control::new(shared, Arc::clone(&self.port)));
        }
        if unit == 0 {
            self.shared
                .presence
                .set_bells(&bells.iter().take(pairs).cloned().collect());
        }
        // Below the number of pairs, which fits.
        let pair = unit as u16;
        Box::new(Pair {
            lane: self.port.lane(pair),
            transmitter: Transmitter::new(self.shared.settings.longest()),
            receiver: Receiver::default(),
            shared,
            pair,
        })
    }

    fn groups(&self) -> u32 {
        if self.offered().contains(net::CTRL_VQ) {
            2
        } else {
            1
        }
    }

    fn group(&self, unit: usize) -> GroupIndex {
        let pairs = usize::from(self.shared.settings.pairs);
        GroupIndex::new(if unit >= pairs && self.groups() == 2 {
            CONTROL_GROUP
        } else {
            0
        })
    }

    fn role(&self, q: QueueIndex, accepted: Option<Features>) -> Option<Role> {
        let features = accepted.unwrap_or(self.shared.settings.features);
        let pairs = usize::from(self.shared.settings.pairs);
        if self.control_queue(features) == Some(q.get()) {
            return Some(Role {
                unit: pairs,
                place: 0,
                chains: control::BATCH,
                reads_all: false,
            });
        }
        let unit = q.place() >> 1;
        let place = q.place() & 1;
        let used = usize::from(self.shared.pairs(features));
        // A frame may need every buffer of the queue.
        let merged = place == RECEIVE && features.contains(net::MRG_RXBUF);
        let chains = if merged {
            usize::from(self.max_size()).max(BATCH_FRAMES)
        } else {
            BATCH_FRAMES
        };
        (unit < used).then_some(Role {
            unit,
            place,
            chains,
            reads_all: place != RECEIVE,
        })
    }

    fn accept(&self, features: Features) {
        self.shared.settled.set_features(features);
        let switched = self
            .shared
            .is_switched()
            .then(|| self.shared.switched.reach());
        self.shared.presence.set_active(switched.unwrap_or(1));
    }

    fn set_live(&self, live: bool) {
        self.shared.presence.set_live(live);
        self.port.changed();
    }

    fn reset(&self) {
        self.shared.settled.reset();
        self.shared.coalescing.reset();
        self.shared.switched.reset();
        self.shared.announcement.forget();
        self.shared.presence.set_active(1);
    }

    fn queue_changed(&self, q: QueueIndex, change: QueueChange) {
        let coalescing = &self.shared.coalescing;
        let data = self.shared.pairs(self.shared.settled.features());
        if q.get() >= data.saturating_mul(2) {
            // The control queue has the number of a data queue where the driver uses one pair alone.
            return;
        }
        match change {
            QueueChange::Started => coalescing.started(q.get()),
            QueueChange::Paused => coalescing.stopped(q.get(), false),
            QueueChange::Reset => coalescing.stopped(q.get(), true),
        }
    }

    fn queue_enabled(&self, q: QueueIndex, on: bool) {
        if q.place() & 1 != RECEIVE {
            return;
        }
        self.shared.switched.set(q.get() >> 1, on);
        let reach = self.shared.switched.reach();
        if self.shared.is_switched() && self.shared.presence.active() != reach {
            self.shared.presence.set_active(reach);
            self.port.changed();
        }
    }

    fn generation(&self) -> u32 {
        self.shared.settled.generation()
    }

    fn read_config(&self, at: u32, to: &mut [u8]) {
        let settled = &self.shared.settled;
        let mut status = NetStatus::empty();
        status.set(NetStatus::LINK_UP, self.shared.presence.has_link());
        status.set(NetStatus::ANNOUNCE, settled.announces());
        let space = self.shared.settings.space(settled.filter().mac, status);
        let space = space.to_bytes();
        let from = space.get(at as usize..).unwrap_or_default();
        for (to, from) in to.iter_mut().zip(from.iter().chain(std::iter::repeat(&0))) {
            *to = *from;
        }
    }

    fn write_config(&self, at: u32, from: &[u8]) {
        // All fields are the device's own, virtio 1.4 §5.1.4.
        let _ = (at, from);
    }

    fn check(&self, attr: Attr) -> Result<(), SetError> {
        match attr {
            Attr::Link(_) => Ok(()),
            Attr::Mac(mac) if mac.is_unicast() => Ok(()),
            Attr::Mac(mac) => Err(SetError::Illegal(format!(
                "{mac} is no address of one card: the lowest bit of its first byte is set, or it is all zeroes"
            ))),
            Attr::Announce if self.offered().contains(net::GUEST_ANNOUNCE) => Ok(()),
            Attr::Announce => Err(SetError::Illegal(
                "it does not offer GUEST_ANNOUNCE: add +GUEST_ANNOUNCE to its features".to_owned(),
            )),
            _ => Err(SetError::Unsupported),
        }
    }

    fn set(&self, attr: Attr) -> Result<bool, SetError> {
        self.check(attr)?;
        Ok(match attr {
            Attr::Link(link) => self.set_link(link == LinkState::Up),
            // Workers filter by it from their next batch on.
            Attr::Mac(mac) => self.shared.settled.set_own(mac) && self.shared.shows(net::MAC),
            // A driver that cannot announce itself is not asked to.
            Attr::Announce => {
                let accepted = self.shared.settled.features();
                accepted.contains(net::GUEST_ANNOUNCE) && self.shared.settled.set_announce(true)
            }
            _ => return Err(SetError::Unsupported),
        })
    }

    fn save(&self) -> Vec<u8> {
        let NetShared {
            settled,
            presence,
            coalescing,
            stow,
            hands,
            ..
        } = &*self.shared;
        let state = Saved {
            filter: Filter::clone(&settled.filter()),
            active: presence.active(),
            link: presence.has_link(),
            announce: settled.announces(),
            offloads: Some(settled.offloads()),
            hashing: Hashing::clone(&settled.hashing()),
            coalescing: coalescing.save(self.shared.pairs(settled.features())),
        };
        let epoch = presence.epoch();
        let [began, sorted, came] = hands.waiting(epoch);
        // For each pair in the order in which it would have been given them.
        let waiting = [
            began,
            waiting::steered(self.shared.exchange.get(), epoch),
            sorted,
            stow.waiting(epoch),
            came,
            waiting::of(&*self.port),
        ];
        waiting::pack(state.to_bytes(), &waiting.concat())
    }

    fn restore(&self, from: &[u8]) -> Result<bool, String> {
        let NetShared {
            settled,
            presence,
            coalescing,
            stow,
            ..
        } = &*self.shared;
        let features = settled.features();
        let pairs = self.shared.pairs(features);
        let (from, waiting) = waiting::unpack(from, pairs)?;
        let state = Saved::from_bytes(from, pairs, features)?;
        settled.set_filter(state.filter);
        presence.set_active(state.active);
        self.shared.set_hashing(state.hashing);
        coalescing.restore(&state.coalescing);
        if let Some(offloads) = state.offloads {
            settled.set_offloads(offloads);
        }
        settled.set_announce(state.announce);
        stow.put(waiting, presence.epoch());
        // The carrier is this device's own, whatever it was there; a driver that saw the other one is told.
        let differs = state.link != presence.has_link() && self.shared.shows(net::STATUS);
        if differs {
            settled.changed();
        }
        Ok(differs)
    }

    fn announces(&self) -> bool {
        true
    }

    fn announce(&self, mac: Mac) {
        // Without a link nobody would hear it, and it is not kept until there is one.
        if self.shared.presence.has_link() {
            self.shared.announcement.ask(mac);
            self.shared.presence.ring(ANNOUNCER);
        }
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        for (pair, counters) in self.shared.counters.iter().enumerate() {
            let first = pair.saturating_mul(2);
            counters.receive.read(&format!("queue{first}"), to);
            counters
                .transmit
                .read(&format!("queue{}", first.saturating_add(1)), to);
        }
        // By its role: its number depends on the features.
        self.shared.control.read("control", to);
        self.port.stats(to);
    }
}

/// A receive queue and a transmit queue, and their lane through the port.
struct Pair {
    shared: Arc<NetShared>,
    pair: u16,
    lane: Box<dyn Lane>,
    transmitter: Transmitter,
    receiver: Receiver,
}

impl Unit for Pair {
    fn serve(&mut self, queues: &mut Stations, desk: &mut Desk) -> Served {
        let Self {
            shared,
            pair,
            lane,
            transmitter,
            receiver,
        } = self;
        let Some(counters) = shared.counters.get(usize::from(*pair)) else {
            return Served::Nothing;
        };
        let [receive, transmit] = queues;
        let mut worked = false;
        if let Station::Running(queue) = transmit {
            let hold = shared.coalescing.hold(queue.index().get());
            worked |= transmitter.serve(queue, &mut **lane, shared, &counters.transmit, hold, desk);
        }
        if *pair == ANNOUNCER && shared.announcement.is_asked() {
            let (announcement, presence) = (&shared.announcement, &shared.presence);
            worked |= announcement.say(transmitter, &mut **lane, presence);
        }
        let seat = Seat {
            shared,
            pair: *pair,
            counters: &counters.receive,
            stowed: false,
        };
        // What came with the state goes before what comes now.
        let stowed = shared.stow.is_filled().then(|| {
            let presence = &shared.presence;
            shared.stow.lane(*pair, presence.active(), presence.epoch())
        });
        worked |= match stowed.flatten() {
            Some(mut lane) => {
                let seat = Seat {
                    stowed: true,
                    ..seat
                };
                receiver.serve(receive, &mut lane, seat, desk)
            }
            None => receiver.serve(receive, &mut **lane, seat, desk),
        };
        if shared.presence.take_untold() && shared.shows(net::STATUS) {
            shared.settled.changed();
            desk.config_changed();
        }
        if worked {
            Served::Work
        } else {
            Served::Nothing
        }
    }

    fn arm(&mut self, queues: &mut Stations, desk: &mut Desk) -> bool {
        let [receive, transmit] = queues;
        let mut work = false;
        if let Some(queue) = transmit.running() {
            work |= self.transmitter.arm(queue, desk);
        }
        if let Some(queue) = receive.running() {
            work |= self.receiver.arm(queue, desk);
        }
        work
    }

    fn in_flight(&self, _: usize) -> usize {
        // A packet is copied at once.
        0
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        self.lane.sources()
    }

    fn suspended(&mut self) {
        let seat = Seat {
            shared: &self.shared,
            pair: self.pair,
            counters: match self.shared.counters.get(usize::from(self.pair)) {
                Some(counters) => &counters.receive,
                None => return,
            },
            stowed: false,
        };
        self.receiver.show(&mut *self.lane, seat);
    }

    fn reset(&mut self) {
        self.transmitter.reset();
        self.receiver.reset();
    }
}
