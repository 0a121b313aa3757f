//! Device strings from anywhere.
//!
//! What is taken apart is put together again as it was, an error points into the string, and a device that comes of one
//! offers what a device may offer. No file, interface or thread is opened: strings that ask for one are only taken
//! apart.

use std::sync::Arc;

use vdpa_core::{DeviceSpec, Error, MgmtDevice, Registry, SpecError, VdpaDevice, graph};
use vdpa_layer::{FaultsLayer, TraceLayer};
use vdpa_sim::SimMgmt;

use crate::Input;

/// Keys, good ones and some that there are not.
const KEYS: &[&str] = &[
    "mac",
    "mtu",
    "queue_pairs",
    "max_vqp",
    "queue_size",
    "features",
    "device_features",
    "port",
    "speed",
    "workers",
    "poll_us",
    "crew",
    "page_requests",
    "size",
    "ro",
    "queues",
    "blk_size",
    "serial",
    "io",
    "io_threads",
    "trace",
    "fault",
    "seed",
    "times",
    "sise",
    "",
    "MTU",
    "file",
    "mirror",
];

/// Values of all kinds.
const VALUES: &[&str] = &[
    "1",
    "0",
    "4",
    "16",
    "128",
    "1500",
    "65535",
    "65536",
    "4294967296",
    "18446744073709551616",
    "-1",
    "0x10",
    "64K",
    "1M",
    "3",
    "on",
    "off",
    "52:54:00:00:00:01",
    "ff:ff:ff:ff:ff:ff",
    "+MRG_RXBUF-CTRL_VQ",
    "VERSION_1+MAC",
    "-VERSION_1",
    "bit-32",
    "bit-999",
    "+RSS",
    "loopback",
    "null",
    "wire:a",
    "switch:b:7",
    "switch:b:all",
    "wire:",
    "tap:t",
    "pcap:x",
    "auto",
    "threads",
    "trace",
    "debug",
    "kick-lost:3",
    "call-lost",
    "reset-hangs:2+kick-lost",
    "a b",
    "\u{e9}",
    "=",
];

thread_local! {
    static LAB: Lab = Lab::new();
}

/// The target `device_string`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let text = match input.u8() & 3 {
        0 => String::from_utf8_lossy(input.rest()).into_owned(),
        _ => made(&mut input),
    };
    LAB.with(|lab| lab.run(&text));
}

/// A string of parts that mean something.
fn made(input: &mut Input<'_>) -> String {
    let parent = input.pick(&["sim", "sim", "sim", "sym", "", "vfio"]);
    let what = input.pick(&["net", "blk", "rng", "net", "blk", "gpu", ""]);
    let mut text = format!("{parent}:{what}");
    while !input.is_empty() && text.len() < 400 {
        let (key, value) = (input.pick(KEYS), input.u8());
        text.push(',');
        text.push_str(key);
        text.push('=');
        match value {
            // Text of its own.
            200.. => {
                let len = usize::from(value % 16);
                text.push_str(&String::from_utf8_lossy(input.bytes(len)));
            }
            150..200 => text.push_str(&input.u16().to_string()),
            _ => text.push_str(VALUES[usize::from(value) % VALUES.len()]),
        }
    }
    text
}

struct Lab {
    sim: Arc<SimMgmt>,
    registry: Registry,
}

impl Lab {
    fn new() -> Self {
        let sim = Arc::new(SimMgmt::new());
        let mut registry = Registry::new();
        registry.add(Arc::clone(&sim) as _);
        registry.add_layer(Arc::new(FaultsLayer));
        registry.add_layer(Arc::new(TraceLayer));
        Self { sim, registry }
    }

    fn run(&self, text: &str) {
        let spec = match DeviceSpec::parse(text) {
            Ok(spec) => spec,
            Err(error) => return points_into(&error, text),
        };
        assert_eq!(spec.to_string(), text);
        assert_eq!(spec.text().parse().as_ref(), Ok(&spec));
        let mut again = format!("{}:{}", spec.parent(), spec.what());
        for (key, value) in spec.pairs() {
            assert_eq!(
                spec.value(key).map(|found| found.text().to_owned()),
                Some(value.into())
            );
            again.push_str(&format!(",{key}={value}"));
        }
        assert_eq!(again, text, "its parts are not the whole");
        let known = spec
            .pairs()
            .fold(spec.clone(), |spec, (key, _)| spec.without(&[key]));
        assert_eq!(known.pairs().count(), 0);
        if !is_harmless(&spec) {
            return;
        }
        match self.make(&spec) {
            Ok(device) => self.look_at(&*device, &spec),
            Err(error) => {
                self.check(&error, text);
                // All of the way: it makes nothing.
                let opened = self.registry.open(text);
                let error = opened.expect_err("what cannot be made cannot be opened");
                self.check(&error, text);
            }
        }
    }

    /// Makes a device, with its layers, and does not open it.
    fn make(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>, Error> {
        let parent = self.registry.parent(spec.parent());
        let known = self.registry.parents().map(MgmtDevice::name);
        let parent = parent.ok_or_else(|| spec.unknown_parent(known))?;
        let mut own = spec.clone();
        let mut wraps = Vec::new();
        for layer in self.registry.layers() {
            wraps.extend(layer.wrap(&mut own, parent)?);
        }
        let made = parent.dev_add(&own)?;
        Ok(wraps.into_iter().fold(made, |device, wrap| wrap(device)))
    }

    fn look_at(&self, device: &dyn VdpaDevice, spec: &DeviceSpec) {
        let info = device.info();
        assert!(info.queues >= 1 && info.groups >= 1 && info.asids >= 1);
        let offered = device.offered();
        let legal = graph::check_offered(info.device_type, offered);
        assert!(legal.is_ok(), "{spec} offers {legal:?}");
        let mut space = vec![0; info.config_size as usize];
        assert!(device.read_config(0, &mut space).is_ok());
        let listed = self.sim.devices();
        let entry = listed.iter().find(|entry| entry.name == info.name);
        let entry = entry.expect("it is listed");
        assert_eq!(entry.device_type, info.device_type);
        assert!(
            entry.spec.starts_with(spec.text()),
            "{} of {spec}",
            entry.spec
        );
        assert!(
            DeviceSpec::parse(&entry.spec).is_ok(),
            "{} cannot be parsed",
            entry.spec
        );
    }

    fn check(&self, error: &Error, text: &str) {
        let told = error.to_string();
        assert!(!told.is_empty());
        if let Error::Spec(error) = error {
            points_into(error, text);
        }
    }
}

/// An error names a part of the string.
fn points_into(error: &SpecError, text: &str) {
    let rendered = error.render();
    assert!(!rendered.is_empty() && !error.to_string().is_empty());
    assert!(
        text.contains(error.part()),
        "{:?} is no part of {text:?}",
        error.part()
    );
    if let Some(suggestion) = error.problem().suggestion() {
        let legal = error.problem().legal();
        assert!(
            legal.iter().any(|legal| legal == suggestion),
            "{suggestion:?} is not legal"
        );
    }
}

/// Whether making the device opens nothing, and takes little memory.
fn is_harmless(spec: &DeviceSpec) -> bool {
    let opens = |value: &str| value.starts_with("tap") || value.starts_with("pcap");
    spec.pairs().all(|(key, value)| match key {
        "file" | "mirror" => false,
        "port" => !opens(value),
        // Up to some megabytes, whatever the unit.
        "size" => value.len() <= 4,
        "queue_pairs" | "max_vqp" | "queues" => value.len() <= 1,
        _ => true,
    })
}
