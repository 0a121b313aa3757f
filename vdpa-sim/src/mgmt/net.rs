//! `sim:net`: a network card from a device string.

use vdpa_core::config::Mac;
use vdpa_core::spec::{Keys, SpecError};
use vdpa_core::{DeviceType, Features, Key, MgmtClass, Result, graph};

use super::{CREW, PAGE_REQUESTS, POLL_US, SimMgmt, key, pci, pf, port};
use crate::class::Class;
use crate::net::{MAX_PAIRS, Net, POSSIBLE, Settings};
use crate::port::Presence;

/// What is made here.
pub(super) const CLASS: MgmtClass = MgmtClass {
    what: "net",
    device_type: DeviceType::Net,
    features: POSSIBLE,
    max_queues: MAX_PAIRS.saturating_mul(2).saturating_add(1),
    keys: KEYS,
};

/// A thread for each pair, and one for the control queue.
pub(super) const MAX_WORKERS: u16 = MAX_PAIRS.saturating_add(1);

const KEYS: &[Key] = &[
    key(
        "mac",
        "52:54:00:00:00:01",
        "address; default: one of the device's own",
    ),
    key(
        "mtu",
        "68 to 65535",
        "longest payload in bytes; default 1500",
    ),
    key("queue_pairs", "1 to 128", "queue pairs; default 1"),
    key(
        "max_vqp",
        "1 to 128",
        "queue_pairs, as the kernel's vdpa tool has it",
    ),
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
    key(
        "device_features",
        "0x300020020",
        "features as a number, as the kernel's vdpa tool has them",
    ),
    key("port", port::PORTS, "where frames go; default loopback"),
    key(
        "mirror",
        "FILE",
        "capture of all that is sent and received; default none",
    ),
    key("workers", "1 to 129", "threads; default 1"),
    key("speed", "0 to 2147483647", "speed in Mb/s; default unknown"),
    key("link", "up or down", "carrier at first; default up"),
    CREW,
    POLL_US,
    PAGE_REQUESTS,
    pci::AS,
    pci::LAYOUT,
    pci::VECTORS,
    pci::MULTIPLIER,
    pci::NOTIFY_DATA,
    pci::DMA_ENTRIES,
    pf::VFS,
    pf::OF,
    pf::NUMBER,
];

/// Makes the network card that the keys describe; `number` is nobody else's.
pub(super) fn make(mgmt: &SimMgmt, mut keys: Keys<'_>, number: u32) -> Result<Box<dyn Class>> {
    let settings = settings(&mut keys, number)?;
    let (port, mirror) = (keys.value("port"), keys.value("mirror"));
    // All that can be wrong with the string, before anything is made.
    super::finish(keys, KEYS)?;
    let presence = Presence::new(settings.link);
    let port = port::open(mgmt, port.as_ref(), &settings, &presence)?;
    let port = port::mirrored(mgmt, port, mirror.as_ref(), &settings, &presence)?;
    Ok(Box::new(Net::new(settings, presence, port)))
}

/// Reads what a network device is made with.
fn settings(keys: &mut Keys<'_>, number: u32) -> Result<Settings, SpecError> {
    let link = [("up", true), ("down", false)];
    let mac = keys.take_with("mac", |value| {
        let unicast = |mac: &Mac| mac.is_unicast();
        let mac = value.text().parse().ok().filter(unicast);
        mac.ok_or_else(|| value.malformed("the address of one card (52:54:00:00:00:01)"))
    })?;
    let speed = keys.take_in("speed", 0..=0x7fff_ffff_u32)?;
    Ok(Settings {
        mac: mac.unwrap_or_else(|| own_mac(number)),
        mtu: keys.take_in("mtu", 68..=u16::MAX)?.unwrap_or(1500),
        pairs: pairs(keys)?.unwrap_or(1),
        queue_size: keys.take_in("queue_size", 1..=32768_u16)?.unwrap_or(1024),
        features: features(keys)?.unwrap_or(POSSIBLE),
        speed,
        link: keys.take_one_of("link", &link)?.unwrap_or(true),
    })
}

/// By either name; by both, one is left over, and that is an error.
fn pairs(keys: &mut Keys<'_>) -> Result<Option<u16>, SpecError> {
    let range = || 1..=MAX_PAIRS;
    Ok(match keys.take_in("queue_pairs", range())? {
        None => keys.take_in("max_vqp", range())?,
        pairs => pairs,
    })
}

/// As [`pairs`].
fn features(keys: &mut Keys<'_>) -> Result<Option<Features>, SpecError> {
    let named = keys.take_features("features", DeviceType::Net, POSSIBLE, POSSIBLE)?;
    if named.is_some() {
        return Ok(named);
    }
    keys.take_with("device_features", |value| {
        let set = Features::from_u64(value.integer(0..=u64::MAX)?);
        if !POSSIBLE.contains_all(set) {
            let more = set.difference(POSSIBLE);
            let possible = POSSIBLE.low_u64();
            let more = more.display(DeviceType::Net);
            let legal = format!("some of {possible:#x}, of which {more} is no part");
            return Err(value.malformed(legal));
        }
        match graph::check_offered(DeviceType::Net, set) {
            Ok(()) => Ok(set),
            Err(refusal) => Err(value.malformed(format!("features that go together: {refusal}"))),
        }
    })
}

/// A locally administered address for a device that was given none.
fn own_mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac::new([0x52, 0x54 ^ a, b, 0x5d, c, d])
}
