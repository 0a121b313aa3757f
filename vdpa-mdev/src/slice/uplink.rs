//! An uplink: one device, and the slices of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use vdpa_core::config::Mac;
use vdpa_core::{
    Attr, Bell, Device, DeviceType, Error, LinkState, MgmtEntry, Result, Sleeper, VdpaDevice, graph,
};
use vdpa_sim::net::{Net, Settings};
use vdpa_sim::offload::LONGEST;
use vdpa_sim::port::vlan::TAG_BYTES;
use vdpa_sim::port::{Membership, Presence};
use vdpa_sim::{Counters, Crew, Options, SimDevice};

use super::end::End;
use super::error::SliceError;
use super::hall::Hall;
use super::line::{Facts, Line};
use super::port::SlicePort;
use super::worker::Worker;
use super::{LIMITS, MAX_QUEUE_SIZE, SliceConfig, SliceType, UplinkConfig, Vlan};

/// What is counted for the uplink as a whole, by its worker alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stray {
    /// Frames that came from the wire.
    Arrived,
    /// Those of a slice's own that the wire gave back.
    Reflected,
    /// Those for an address that no slice of the VLAN has.
    Unknown,
    /// Those that are none, or for the next switch on the cable.
    Refused,
    /// Resets of the device for its slices to go on.
    Restarts,
}

/// The names of these counters.
const COUNTERS: &[&str] = &["arrived", "reflected", "unknown", "refused", "restarts"];

/// What the worker of an uplink, its slices and its owner share.
pub(super) struct Core {
    pub(super) name: String,
    pub(super) sleeper: Arc<Sleeper>,
    pub(super) bell: Arc<Bell>,
    roster: Mutex<Roster>,
    /// Counts changes of the roster, so that it is looked at only then.
    pub(super) version: AtomicU64,
    /// Whether the device has a carrier.
    carrier: AtomicBool,
    /// Why it is of no use any more.
    lost: OnceLock<String>,
    /// The worker is to end.
    pub(super) exits: AtomicBool,
    counters: Counters,
}

#[derive(Default)]
struct Roster {
    seats: Vec<Seat>,
    /// How many slices there were.
    made: u32,
    /// How many names there were: more, where some were other uplinks'.
    named: u32,
}

struct Seat {
    end: Arc<End>,
    spec: String,
    /// Weak: it lives as long as its user wants.
    device: Weak<SimDevice>,
}

impl Core {
    /// Of the device of this name, without slices.
    pub(super) fn new(name: &str, carrier: bool) -> Result<Self> {
        let sleeper = Sleeper::new()?;
        Ok(Self {
            name: name.to_owned(),
            bell: Bell::new(&sleeper),
            sleeper,
            roster: Mutex::default(),
            version: AtomicU64::new(0),
            carrier: AtomicBool::new(carrier),
            lost: OnceLock::new(),
            exits: AtomicBool::new(false),
            counters: Counters::new(COUNTERS),
        })
    }

    /// Seats a slice that is no device.
    #[cfg(test)]
    pub(super) fn seat(&self, end: &Arc<End>) {
        self.roster().seats.push(Seat {
            end: Arc::clone(end),
            spec: String::new(),
            device: Weak::new(),
        });
        self.change();
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is there.
    pub(super) fn ends(&self) -> Vec<Arc<End>> {
        let roster = self.roster();
        roster
            .seats
            .iter()
            .map(|seat| Arc::clone(&seat.end))
            .collect()
    }

    fn change(&self) {
        // Release pairs with the acquire in `Hall::refresh`.
        self.version.fetch_add(1, Ordering::Release);
        self.bell.ring();
    }

    #[inline]
    pub(super) fn count(&self, what: Stray) {
        self.add(what, 1);
    }

    #[inline]
    pub(super) fn add(&self, what: Stray, more: u64) {
        self.counters.add(what as usize, more);
    }

    /// A slice is not there any more.
    pub(super) fn leave(&self, end: &Arc<End>) {
        let mut roster = self.roster();
        let before = roster.seats.len();
        let own = |seat: &mut Seat| Arc::ptr_eq(&seat.end, end);
        let left: Vec<Seat> = roster.seats.extract_if(.., own).collect();
        if roster.seats.len() != before {
            self.change();
        }
        drop(roster);
        drop(left);
    }

    /// The links of all slices follow the device's.
    pub(super) fn set_carrier(&self, up: bool) {
        let up = up && self.lost.get().is_none();
        // Under the lock: a slice that comes meanwhile has the carrier of before and is told, or that of after.
        let roster = self.roster();
        self.carrier.store(up, Ordering::Release);
        for seat in &roster.seats {
            let wanted = seat.end.wanted.load(Ordering::Relaxed);
            seat.end.presence.set_carrier(up && wanted);
        }
    }

    /// What the management side wants of a slice's link. Answers whether there is a carrier; without one, whoever finds
    /// it sees this.
    fn want(&self, end: &End, up: bool) -> bool {
        let roster = self.roster();
        end.wanted.store(up, Ordering::Relaxed);
        let carrier = self.carrier.load(Ordering::Acquire);
        drop(roster);
        carrier
    }

    /// Takes a link down that was put up while the carrier was lost.
    fn settle(&self, end: &End) {
        let roster = self.roster();
        if !self.carrier.load(Ordering::Acquire) {
            end.presence.set_carrier(false);
        }
        drop(roster);
    }

    /// The device is of no use any more: no slice has a link.
    pub(super) fn lose(&self, why: &str) {
        if self.lost.set(why.to_owned()).is_ok() && !self.exits.load(Ordering::Relaxed) {
            tracing::warn!("{}: lost to its slices: {why}", self.name);
        }
        self.set_carrier(false);
    }
}

/// A network device, driven for the slices of it.
///
/// It lives as long as somebody has it, or a slice does: with the last of them it is reset and closed.
pub struct Uplink {
    core: Arc<Core>,
    facts: Facts,
    limit: u16,
    crew: Arc<Crew>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Uplink {
    /// Takes a network device of any parent, to be shared. One thread drives it, which sleeps while nothing moves.
    ///
    /// # Errors
    /// When it is no network device, its events were taken, it does not become promiscuous, it fails, or `config` is out
    /// of range; it is reset and closed then.
    pub fn open(device: Device, config: UplinkConfig) -> Result<Arc<Self>> {
        let name = device.info().name.clone();
        if !LIMITS.contains(&config.limit) {
            return Err(range(&name, "limit", config.limit, *LIMITS.start(), *LIMITS.end()).into());
        }
        let events = device.events().map_err(|source| SliceError::Events {
            device: name.clone(),
            source,
        })?;
        let line = Line::up(device)?;
        let (facts, carrier) = (line.facts, line.has_carrier()?);
        let core = Arc::new(Core::new(&name, carrier)?);
        let longest = usize::from(facts.mtu).max(LONGEST);
        let longest = longest.saturating_add(TAG_BYTES.saturating_mul(4));
        let hall = Hall::new(Arc::clone(&core), longest);
        let worker = Worker::new(Arc::clone(&core), hall, line, events);
        worker.watch()?;
        let thread = std::thread::Builder::new()
            // The system's names have no NUL.
            .name(format!("uplink-{name}").replace('\0', "?"))
            .spawn(move || worker.run());
        let thread = thread.map_err(|source| SliceError::Worker {
            device: name.clone(),
            source,
        })?;
        Ok(Arc::new(Self {
            core,
            facts,
            limit: config.limit,
            crew: Crew::new(&format!("slices-{name}"), config.workers.into()),
            worker: Mutex::new(Some(thread)),
        }))
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The longest payload of a frame that the device takes, in bytes.
    pub fn mtu(&self) -> u16 {
        self.facts.mtu
    }

    /// How many queue pairs all slices together may have.
    pub fn limit(&self) -> u16 {
        self.limit
    }

    /// Why the device is lost to its slices, if it is. They have no link, and there are no more of them.
    pub fn lost(&self) -> Option<&str> {
        self.core.lost.get().map(String::as_str)
    }

    /// The kinds of slices, with how many of each can be made now.
    pub fn types(&self) -> Vec<SliceType> {
        let left = self.left(&self.core.roster());
        SliceType::of(left, self.limit)
    }

    /// Makes a slice. It lives as long as somebody has it, and keeps the uplink.
    ///
    /// # Errors
    /// When there are not as many queue pairs left, the address is another slice's in the same VLAN, a number is out of
    /// range, or the device is lost. Nothing is half-made, and no other slice sees anything of it.
    pub fn slice(self: &Arc<Self>, config: SliceConfig) -> Result<Arc<dyn VdpaDevice>> {
        Ok(self.make(config, String::new(), &|_| false)?)
    }

    /// The same for a device string.
    ///
    /// * `taken`: whether a slice of another uplink has a name
    pub(super) fn make(
        self: &Arc<Self>,
        config: SliceConfig,
        spec: String,
        taken: &dyn Fn(&str) -> bool,
    ) -> Result<Arc<SimDevice>, SliceError> {
        let name = || self.core.name.clone();
        if let Some(why) = self.lost() {
            let (device, why) = (name(), why.to_owned());
            return Err(SliceError::Lost { device, why });
        }
        let mtu = config.mtu.unwrap_or(self.facts.mtu);
        let within = |what, given: u16, least: u16, most: u16| {
            if (least..=most).contains(&given) {
                Ok(())
            } else {
                Err(range(&self.core.name, what, given, least, most))
            }
        };
        within("mtu", mtu, 68, self.facts.mtu)?;
        within("queue_size", config.queue_size, 1, MAX_QUEUE_SIZE)?;
        within("queue_pairs", config.queue_pairs, 1, *LIMITS.end())?;
        if let Vlan::Of(vlan) = config.vlan {
            within("vlan", vlan, 1, 4094)?;
        }
        let place = config.vlan.membership();

        let mut roster = self.core.roster();
        let left = self.left(&roster);
        if config.queue_pairs > left {
            return Err(SliceError::Full {
                device: name(),
                wanted: config.queue_pairs,
                left,
                limit: self.limit,
            });
        }
        let mac = match config.mac {
            Some(mac) => {
                self.check_mac(&roster, None, mac, place)?;
                mac
            }
            None => self.free_mac(&roster, place),
        };
        let settings = Settings {
            mac,
            mtu,
            pairs: config.queue_pairs,
            queue_size: config.queue_size,
            features: graph::close_down(DeviceType::Net, config.features & config.vlan.features()),
            speed: config.speed,
            link: config.link,
        };
        let up = config.link && self.core.carrier.load(Ordering::Acquire);
        let presence = Presence::new(up);
        let own = loop {
            let own = format!("{}-slice{}", self.core.name, roster.named);
            roster.named = roster.named.wrapping_add(1);
            if !taken(&own) {
                break own;
            }
        };
        let end = Arc::new(End::new(
            roster.made,
            own.clone(),
            place,
            mac,
            config.link,
            Arc::clone(&presence),
            config.queue_pairs,
        ));
        let port = Arc::new(SlicePort {
            uplink: Arc::clone(self),
            end: Arc::clone(&end),
            longest: settings.longest(),
        });
        let class = Box::new(Net::new(settings, presence, port));
        let crew = Arc::clone(&self.crew);
        let device = SimDevice::in_crew(&own, class, Options::default(), crew);
        let device = Arc::new(device);
        roster.made = roster.made.wrapping_add(1);
        roster.seats.push(Seat {
            end,
            spec,
            device: Arc::downgrade(&device),
        });
        self.core.change();
        drop(roster);
        Ok(device)
    }

    /// The slices there are.
    pub fn slices(&self) -> Vec<MgmtEntry> {
        let roster = self.core.roster();
        let entry = |seat: &Seat| MgmtEntry {
            name: seat.end.name.clone(),
            device_type: DeviceType::Net,
            spec: seat.spec.clone(),
        };
        roster.seats.iter().map(entry).collect()
    }

    /// Takes a slice away from its user, who is told that it is gone. Its place is free at once.
    ///
    /// # Errors
    /// [`Error::DeviceUnknown`].
    pub fn remove(&self, name: &str) -> Result<()> {
        let (end, device) = self.find(name)?;
        self.leave(&end);
        device.remove();
        Ok(())
    }

    /// Changes a slice under its driver.
    ///
    /// # Errors
    /// [`Error::DeviceUnknown`]; [`SliceError::MacTaken`] for an address that another slice has; as for
    /// [`SimDevice::set`].
    pub fn set(&self, name: &str, attr: Attr) -> Result<()> {
        let (end, device) = self.find(name)?;
        match attr {
            Attr::Link(state) => {
                let up = state == LinkState::Up;
                // What has no carrier has no link, and gets it with the carrier.
                if self.core.want(&end, up) || !up {
                    device.set(attr)?;
                    self.core.settle(&end);
                }
                Ok(())
            }
            Attr::Mac(mac) => {
                let roster = self.core.roster();
                self.check_mac(&roster, Some(&end), mac, end.place)?;
                end.set_mac(mac);
                self.core.change();
                drop(roster);
                device.set(attr)
            }
            other => device.set(other),
        }
    }

    /// Whether the device has a carrier.
    pub(super) fn has_carrier(&self) -> bool {
        self.core.carrier.load(Ordering::Acquire)
    }

    /// What wakes the worker.
    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.core.bell
    }

    pub(super) fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        for (place, name) in COUNTERS.iter().enumerate() {
            to(&format!("uplink.{name}"), self.core.counters.value(place));
        }
    }

    /// A slice is not there any more. What it sent before is sent still.
    pub(super) fn leave(&self, end: &Arc<End>) {
        self.core.leave(end);
    }

    fn find(&self, name: &str) -> Result<(Arc<End>, Arc<SimDevice>)> {
        let roster = self.core.roster();
        let mut seats = roster.seats.iter();
        let found = seats.find(|seat| seat.end.name == name);
        let found = found.and_then(|seat| Some((Arc::clone(&seat.end), seat.device.upgrade()?)));
        found.ok_or_else(|| Error::DeviceUnknown {
            parent: self.core.name.clone(),
            name: name.to_owned(),
            known: roster
                .seats
                .iter()
                .map(|seat| seat.end.name.clone())
                .collect(),
        })
    }

    fn left(&self, roster: &Roster) -> u16 {
        let used = roster.seats.iter().map(|seat| seat.end.pairs());
        self.limit.saturating_sub(used.fold(0, u16::saturating_add))
    }

    /// Whether a slice may have this address.
    fn check_mac(
        &self,
        roster: &Roster,
        own: Option<&Arc<End>>,
        mac: Mac,
        place: Membership,
    ) -> Result<(), SliceError> {
        let device = || self.core.name.clone();
        if !mac.is_unicast() {
            return Err(SliceError::Mac {
                device: device(),
                mac,
            });
        }
        let others = roster.seats.iter().map(|seat| &seat.end);
        let mut others = others.filter(|end| own.is_none_or(|own| !Arc::ptr_eq(own, end)));
        match others.find(|end| end.mac() == mac && end.meets(place)) {
            Some(end) => Err(SliceError::MacTaken {
                device: device(),
                mac,
                owner: end.name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// A locally administered address, made of the device's own, that no slice has.
    fn free_mac(&self, roster: &Roster, place: Membership) -> Mac {
        let own = self
            .facts
            .mac
            .unwrap_or(Mac::new([0x52, 0x54, 0, 0x51, 0x1c, 0xe0]));
        let [a, b, c, d, e, f] = own.octets();
        // More than there can be slices. Devices that follow each other differ in the last bytes: these are left alone.
        let all = (0..=u8::MAX).map(|number| Mac::new([a | 2, b ^ 0x80, c ^ number, d, e, f]));
        let mut all = all.chain([own]);
        let free = all.find(|mac| self.check_mac(roster, None, *mac, place).is_ok());
        free.unwrap_or(own)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.core.exits.store(true, Ordering::Release);
        self.core.bell.ring();
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = worker.take()
            && worker.join().is_err()
        {
            tracing::warn!(
                "{}: the thread that served its slices panicked",
                self.core.name
            );
        }
    }
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink")
            .field("device", &self.core.name)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

fn range(device: &str, what: &'static str, given: u16, least: u16, most: u16) -> SliceError {
    SliceError::Range {
        device: device.to_owned(),
        what,
        given: given.into(),
        least: least.into(),
        most: most.into(),
    }
}
