//! Slices by device strings: `mdev:slice,of=sim:net;mtu=9000,vlan=7`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vdpa_core::config::Mac;
use vdpa_core::spec::{DeviceSpec, Keys, SpecError, Value};
use vdpa_core::{Attr, Device, DeviceType, Error, Key, MgmtClass, MgmtEntry, Result, VdpaDevice};
use vdpa_sim::net::MAX_PAIRS;

use super::error::SliceError;
use super::uplink::Uplink;
use super::{FEATURES, LIMITS, MAX_QUEUE_SIZE, SliceConfig, UplinkConfig, Vlan};

/// Opens the device that a device string names, to be shared.
pub type Opener = Box<dyn Fn(&DeviceSpec) -> Result<Device> + Send + Sync>;

const fn key(name: &'static str, values: &'static str, about: &'static str) -> Key {
    Key {
        name,
        values,
        about,
    }
}

const KEYS: &[Key] = &[
    key(
        "of",
        "DEVICE",
        "the device to share, with ; for its commas; slices of one text share one",
    ),
    key(
        "mac",
        "52:54:00:00:00:01",
        "address; default: one made of the device's",
    ),
    key(
        "vlan",
        "1 to 4094, or any",
        "its VLAN, or tags as they are; default none",
    ),
    key(
        "mtu",
        "68 to the device's",
        "longest payload in bytes; default the device's",
    ),
    key("queue_pairs", "1 to 128", "queue pairs; default 1"),
    key(
        "queue_size",
        "1 to 32768",
        "largest queue size; default 1024",
    ),
    key(
        "features",
        "A+B or +A-B",
        "what is offered; default everything",
    ),
    key("speed", "0 to 2147483647", "speed in Mb/s; default unknown"),
    key("link", "up or down", "carrier at first; default up"),
    key(
        "limit",
        "1 to 128",
        "queue pairs of all slices together; default 64, or what there is",
    ),
];

/// The uplinks of one text.
#[derive(Default)]
struct Place {
    /// Held by who opens the device, while it does: that is somebody else's code, and takes what time it takes.
    opening: Mutex<()>,
    /// Those that somebody has: at most one that is of use, and lost ones that have slices still. Held for a moment only.
    known: Mutex<Vec<Weak<Uplink>>>,
}

impl Place {
    /// Whether nobody has one.
    fn is_empty(&self) -> bool {
        lock(&self.known)
            .iter()
            .all(|uplink| uplink.strong_count() == 0)
    }

    /// The uplinks that somebody has.
    fn live(&self) -> Vec<Arc<Uplink>> {
        let mut known = lock(&self.known);
        known.retain(|uplink| uplink.strong_count() != 0);
        known.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Makes slices from device strings. Those whose `of` is the same text share a device: the first one opens it, and the
/// last one closes it.
pub struct Slicer {
    open: Opener,
    /// By text.
    uplinks: Mutex<BTreeMap<String, Arc<Place>>>,
    /// Held by who makes a slice, so that no two get one name.
    making: Mutex<()>,
}

impl Slicer {
    /// How a device string asks for a slice.
    pub const WHAT: &'static str = "slice";

    /// What is made here, of a parent that lists it.
    pub const CLASS: MgmtClass = MgmtClass {
        what: Self::WHAT,
        device_type: DeviceType::Net,
        features: FEATURES,
        max_queues: MAX_PAIRS.saturating_mul(2).saturating_add(1),
        keys: KEYS,
    };

    /// Without slices yet.
    ///
    /// * `open`: opens the devices to be shared
    pub fn new(open: Opener) -> Self {
        Self {
            open,
            uplinks: Mutex::default(),
            making: Mutex::default(),
        }
    }

    /// Makes the slice that a device string describes: see [`MgmtDevice::dev_add`](vdpa_core::MgmtDevice::dev_add).
    ///
    /// # Errors
    /// When something in the string is unknown or out of range, the device to be shared cannot be opened, or it has no
    /// room for the slice: [`SliceError`].
    pub fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        if spec.what() != Self::WHAT {
            return Err(spec.unknown_what([Self::WHAT]).into());
        }
        let mut keys = spec.keys();
        let of = keys.value("of");
        let limit = keys.take_in("limit", LIMITS)?;
        let config = config(&mut keys)?;
        let legal: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        // All that can be wrong with the string, before anything is opened.
        keys.finish(&legal)?;
        let of = of.ok_or_else(|| {
            let what = spec.what_value();
            what.malformed("of a device: add of=DEVICE, as in of=sim:net;mtu=9000")
        })?;
        let uplink = self.shared(&of, limit)?;
        let _making = lock(&self.making);
        let all = self.devices();
        let taken = |name: &str| all.iter().any(|slice| slice.name == name);
        Ok(uplink.make(config, spec.text().to_owned(), &taken)?)
    }

    /// Takes a slice away: see [`MgmtDevice::dev_del`](vdpa_core::MgmtDevice::dev_del).
    ///
    /// # Errors
    /// [`Error::DeviceUnknown`].
    pub fn dev_del(&self, name: &str) -> Result<()> {
        self.owner(name)?.remove(name)
    }

    /// Changes a slice under its driver: see [`MgmtDevice::dev_set`](vdpa_core::MgmtDevice::dev_set).
    ///
    /// # Errors
    /// As for [`Uplink::set`].
    pub fn dev_set(&self, name: &str, attr: Attr) -> Result<()> {
        self.owner(name)?.set(name, attr)
    }

    /// Whether there is a slice of this name.
    pub fn has(&self, name: &str) -> bool {
        self.owner(name).is_ok()
    }

    /// The slices that there are.
    pub fn devices(&self) -> Vec<MgmtEntry> {
        let uplinks = self.live();
        uplinks.iter().flat_map(|uplink| uplink.slices()).collect()
    }

    /// The uplink that `of` names: one that there is, or a new one.
    fn shared(&self, of: &Value<'_>, limit: Option<u16>) -> Result<Arc<Uplink>> {
        let text = of.text().replace(';', ",");
        let parent = DeviceSpec::parse(&text)
            .map_err(|e| of.malformed(format!("a device, with ; for its commas: {e}")))?;
        if parent.what() == Self::WHAT {
            let why = "a device, and no slice: that sends from its own address alone, so share its device";
            return Err(of.malformed(why).into());
        }
        let place = {
            let mut uplinks = lock(&self.uplinks);
            // One that somebody opens just now has two owners.
            uplinks.retain(|_, place| Arc::strong_count(place) > 1 || !place.is_empty());
            Arc::clone(uplinks.entry(text).or_default())
        };
        // While a device is opened, only who wants that very one waits for it.
        let _opening = lock(&place.opening);
        let mut live = place.live().into_iter();
        if let Some(uplink) = live.find(|uplink| uplink.lost().is_none()) {
            return match limit {
                Some(given) if given != uplink.limit() => Err(SliceError::Limit {
                    device: uplink.name().to_owned(),
                    given,
                    has: uplink.limit(),
                }
                .into()),
                _ => Ok(uplink),
            };
        }
        let default = UplinkConfig::default();
        let config = UplinkConfig {
            limit: limit.unwrap_or(default.limit),
            ..default
        };
        let uplink = Uplink::open((self.open)(&parent)?, config)?;
        lock(&place.known).push(Arc::downgrade(&uplink));
        Ok(uplink)
    }

    /// The uplinks that somebody has.
    fn live(&self) -> Vec<Arc<Uplink>> {
        let places: Vec<Arc<Place>> = lock(&self.uplinks).values().cloned().collect();
        places.iter().flat_map(|place| place.live()).collect()
    }

    fn owner(&self, name: &str) -> Result<Arc<Uplink>> {
        let mut known = Vec::new();
        for uplink in self.live() {
            let names = uplink.slices().into_iter().map(|slice| slice.name);
            let before = known.len();
            known.extend(names);
            if known
                .get(before..)
                .is_some_and(|own| own.iter().any(|own| own == name))
            {
                return Ok(uplink);
            }
        }
        Err(Error::DeviceUnknown {
            parent: "mdev".to_owned(),
            name: name.to_owned(),
            known,
        })
    }
}

impl std::fmt::Debug for Slicer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.live()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads what a slice is made with.
fn config(keys: &mut Keys<'_>) -> Result<SliceConfig, SpecError> {
    let default = SliceConfig::default();
    let link = [("up", true), ("down", false)];
    let mac = keys.take_with("mac", |value| {
        let mac = value
            .text()
            .parse()
            .ok()
            .filter(|mac: &Mac| mac.is_unicast());
        mac.ok_or_else(|| value.malformed("the address of one card (52:54:00:00:00:01)"))
    })?;
    let vlan = keys.take_with("vlan", |value| match value.text() {
        "any" => Ok(Vlan::Any),
        _ => value.integer(1..=4094).map(Vlan::Of),
    })?;
    let pairs = keys.take_in("queue_pairs", LIMITS)?;
    let size = keys.take_in("queue_size", 1..=MAX_QUEUE_SIZE)?;
    let vlan = vlan.unwrap_or(default.vlan);
    let possible = vlan.features();
    let features = keys.take_features("features", DeviceType::Net, possible, possible)?;
    Ok(SliceConfig {
        mac,
        vlan,
        mtu: keys.take_in("mtu", 68..=u16::MAX)?,
        queue_pairs: pairs.unwrap_or(default.queue_pairs),
        queue_size: size.unwrap_or(default.queue_size),
        features: features.unwrap_or(default.features),
        speed: keys.take_in("speed", 0..=0x7fff_ffff_u32)?,
        link: keys.take_one_of("link", &link)?.unwrap_or(default.link),
    })
}
