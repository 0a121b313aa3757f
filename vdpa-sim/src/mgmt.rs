//! The management device `sim`: makes simulated devices from device strings.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use vdpa_core::config::Mac;
use vdpa_core::spec::{DeviceSpec, Keys, SpecError, Value};
use vdpa_core::{
    Attr, DeviceType, Error, Key, LinkState, MgmtClass, MgmtDevice, MgmtEntry, Result, VdpaDevice,
};

use crate::device::SimDevice;
use crate::error::SimError;
use crate::net::{MAX_PAIRS, Net, POSSIBLE, Settings};
use crate::port::{Loopback, Null, PcapPort, Port, Presence, Wires};
use crate::shared::lock;

/// The keys of `sim:net`.
const NET_KEYS: &[Key] = &[
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
        "queue_size",
        "1 to 32768",
        "largest queue size; default 1024",
    ),
    key(
        "features",
        "A+B or +A-B",
        "what is offered; default everything",
    ),
    key("port", PORTS, "where frames go; default loopback"),
    key("workers", "1 to 129", "threads; default 1"),
    key("speed", "0 to 2147483647", "speed in Mb/s; default unknown"),
    key("link", "up or down", "carrier at first; default up"),
    key(
        "poll_us",
        "0 to 1000000",
        "microseconds of polling before sleep; default 50",
    ),
];

const PORTS: &str = "loopback, null, wire:NAME, pcap:IN[:OUT]";

/// The most workers: a thread for each pair, and one for the control queue.
const MAX_WORKERS: u16 = 129;

const fn key(name: &'static str, values: &'static str, about: &'static str) -> Key {
    Key {
        name,
        values,
        about,
    }
}

/// Makes simulated devices. Devices made by one value find each other by `port=wire:NAME`.
pub struct SimMgmt {
    classes: [MgmtClass; 1],
    wires: Wires,
    devices: Mutex<Devices>,
}

#[derive(Default)]
struct Devices {
    made: u32,
    list: Vec<(MgmtEntry, Weak<SimDevice>)>,
}

impl Default for SimMgmt {
    fn default() -> Self {
        Self::new()
    }
}

impl SimMgmt {
    /// A management device without devices.
    pub fn new() -> Self {
        Self {
            classes: [MgmtClass {
                what: "net",
                device_type: DeviceType::Net,
                features: POSSIBLE,
                max_queues: MAX_PAIRS.saturating_mul(2).saturating_add(1),
                keys: NET_KEYS,
            }],
            wires: Wires::new(),
            devices: Mutex::default(),
        }
    }

    /// Runs `with` for the list of devices that live.
    fn list<T>(&self, with: impl FnOnce(&mut Devices) -> T) -> T {
        let mut devices = lock(&self.devices);
        devices
            .list
            .retain(|(_, device)| device.strong_count() != 0);
        with(&mut devices)
    }

    fn find(&self, name: &str) -> Result<Arc<SimDevice>> {
        self.list(|devices| {
            let found = devices.list.iter().find(|(entry, _)| entry.name == name);
            found
                .and_then(|(_, device)| device.upgrade())
                .ok_or_else(|| Error::DeviceUnknown {
                    parent: self.name().to_owned(),
                    name: name.to_owned(),
                    known: devices
                        .list
                        .iter()
                        .map(|(entry, _)| entry.name.clone())
                        .collect(),
                })
        })
    }

    fn net(&self, spec: &DeviceSpec, number: u32) -> Result<SimDevice> {
        let mut keys = spec.keys();
        let settings = settings(&mut keys, number)?;
        let workers = keys.take_in("workers", 1..=MAX_WORKERS)?.unwrap_or(1);
        let patience = keys.take_in("poll_us", 0..=1_000_000_u32)?.unwrap_or(50);
        let port = keys.value("port");
        let legal: Vec<_> = NET_KEYS.iter().map(|key| key.name).collect();
        // All that can be wrong with the string, before anything is made.
        keys.finish(&legal)?;
        let presence = Presence::new(settings.link);
        let port = self.port(port.as_ref(), &settings, &presence)?;
        let name = format!("{}{number}", self.name());
        let class = Box::new(Net::new(settings, presence, port));
        let patience = Duration::from_micros(patience.into());
        Ok(SimDevice::new(&name, class, workers.into(), patience))
    }

    /// Opens the port that the device string names.
    fn port(
        &self,
        value: Option<&Value<'_>>,
        settings: &Settings,
        presence: &Arc<Presence>,
    ) -> Result<Arc<dyn Port>> {
        let (pairs, longest) = (settings.pairs, settings.longest());
        let loopback = || Arc::new(Loopback::new(Arc::clone(presence), pairs, longest));
        let Some(value) = value else {
            return Ok(loopback());
        };
        let (kind, rest) = value.split(':');
        let named = rest.filter(|rest| !rest.text().is_empty());
        Ok(match (kind.text(), named) {
            ("loopback", None) => loopback(),
            ("null", None) => Arc::new(Null),
            ("wire", Some(wire)) => {
                let taken = self
                    .wires
                    .take(wire.text(), Arc::clone(presence), pairs, longest);
                Arc::new(taken.map_err(|e| value.malformed(format!("free: {e}")))?)
            }
            ("wire", None) => return Err(value.malformed("wire:NAME: it has no name").into()),
            ("pcap", Some(files)) => {
                let (input, output) = files.split(':');
                let output = output
                    .as_ref()
                    .map(Value::text)
                    .filter(|path| !path.is_empty());
                let port = PcapPort::open(input.text().as_ref(), output.map(AsRef::as_ref));
                Arc::new(port.map_err(SimError::from)?)
            }
            ("pcap", None) => return Err(value.malformed("pcap:IN[:OUT]: it has no file").into()),
            ("loopback" | "null", Some(_)) => {
                return Err(value.malformed(format!("one of {PORTS}")).into());
            }
            _ => return Err(value.unknown(PORTS.split(", ")).into()),
        })
    }
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
        pairs: keys.take_in("queue_pairs", 1..=MAX_PAIRS)?.unwrap_or(1),
        queue_size: keys.take_in("queue_size", 1..=32768_u16)?.unwrap_or(1024),
        features: keys
            .take_features("features", DeviceType::Net, POSSIBLE, POSSIBLE)?
            .unwrap_or(POSSIBLE),
        speed,
        link: keys.take_one_of("link", &link)?.unwrap_or(true),
    })
}

/// A locally administered address for a device that was given none.
fn own_mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac::new([0x52, 0x54 ^ a, b, 0x5d, c, d])
}

impl MgmtDevice for SimMgmt {
    fn name(&self) -> &str {
        "sim"
    }

    fn classes(&self) -> &[MgmtClass] {
        &self.classes
    }

    fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        let class = self.classes.iter().find(|class| class.what == spec.what());
        let Some(class) = class else {
            let legal = self.classes.iter().map(|class| class.what);
            return Err(spec.unknown_what(legal).into());
        };
        let number = self.list(|devices| {
            let number = devices.made;
            devices.made = devices.made.wrapping_add(1);
            number
        });
        let device = Arc::new(self.net(spec, number)?);
        let entry = MgmtEntry {
            name: device.info().name.clone(),
            device_type: class.device_type,
            spec: spec.text().to_owned(),
        };
        self.list(|devices| devices.list.push((entry, Arc::downgrade(&device))));
        Ok(device)
    }

    fn dev_del(&self, name: &str) -> Result<()> {
        let device = self.find(name)?;
        self.list(|devices| devices.list.retain(|(entry, _)| entry.name != name));
        device.remove();
        Ok(())
    }

    fn dev_set(&self, name: &str, attr: Attr) -> Result<()> {
        let device = self.find(name)?;
        match attr {
            Attr::Link(link) => device.set_link(link == LinkState::Up),
            _ => Err(Error::Unsupported {
                device: name.to_owned(),
                what: "such attribute",
            }),
        }
    }

    fn devices(&self) -> Vec<MgmtEntry> {
        self.list(|devices| {
            devices
                .list
                .iter()
                .map(|(entry, _)| entry.clone())
                .collect()
        })
    }
}
