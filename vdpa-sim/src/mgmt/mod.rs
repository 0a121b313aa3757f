//! The management device `sim`: makes simulated devices from device strings.

mod blk;
mod net;
mod pci;
mod pf;
mod port;
mod rng;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use vdpa_core::faults;
use vdpa_core::spec::{DeviceSpec, Keys, SpecError, Value};
use vdpa_core::{Attr, Error, Key, MgmtClass, MgmtDevice, MgmtEntry, Result, VdpaDevice};
use vdpa_pci::{PciAccess, PciParent, VirtioPci};

use crate::class::Class;
use crate::crew::Crew;
use crate::device::{Options, SimDevice};
use crate::error::SimError;
use crate::pci::Setup;
use crate::pf::sriov::SrIov;
use crate::port::{Mirrors, Switches, Wires};
use crate::shared::lock;

use pci::Shown;

/// Keys of every class.
const POLL_US: Key = key(
    "poll_us",
    "0 to 1000000",
    "microseconds of polling before sleep; default 50",
);
const CREW: Key = key(
    "crew",
    "a name",
    "whose 'workers' threads it shares; default: threads of its own",
);
const PAGE_REQUESTS: Key = key(
    "page_requests",
    "on or off",
    "ask for addresses that are not mapped; default off",
);

const fn key(name: &'static str, values: &'static str, about: &'static str) -> Key {
    Key {
        name,
        values,
        about,
    }
}

/// A kind of device: what a device string may say of it, and what makes it of the keys that are the class's own.
struct Kind {
    class: MgmtClass,
    /// As many as it has units.
    max_workers: u16,
    make: fn(&SimMgmt, Keys<'_>, u32) -> Result<Box<dyn Class>>,
}

/// The kinds, in the order they are listed.
const KINDS: [Kind; 3] = [
    Kind {
        class: net::CLASS,
        max_workers: net::MAX_WORKERS,
        make: net::make,
    },
    Kind {
        class: blk::CLASS,
        max_workers: blk::MAX_WORKERS,
        make: blk::make,
    },
    Kind {
        class: rng::CLASS,
        max_workers: 1,
        make: rng::make,
    },
];

/// Makes simulated devices. Devices made by one value, or by its clones, find each other by `port=wire:NAME` and
/// `port=switch:NAME`.
#[derive(Clone)]
pub struct SimMgmt {
    classes: [MgmtClass; KINDS.len()],
    wires: Wires,
    switches: Switches,
    mirrors: Mirrors,
    /// Those that live, by name.
    crews: Arc<Mutex<HashMap<String, Weak<Crew>>>>,
    devices: Arc<Mutex<Devices>>,
}

#[derive(Default)]
struct Devices {
    made: u32,
    list: Vec<(MgmtEntry, Weak<SimDevice>)>,
    /// Physical functions, by the name of their device.
    owners: Vec<(String, Weak<SrIov>)>,
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
            classes: KINDS.map(|kind| kind.class),
            wires: Wires::new(),
            switches: Switches::new(),
            mirrors: Mirrors::new(),
            crews: Arc::default(),
            devices: Arc::default(),
        }
    }

    /// Devices that are made with `crew=NAME` from here on are served by `crew`, for as long as it lives.
    ///
    /// * `name`: in place of an older one of the same name
    pub fn add_crew(&self, name: &str, crew: &Arc<Crew>) {
        lock(&self.crews).insert(name.to_owned(), Arc::downgrade(crew));
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

    /// Reads what a device string says of a device.
    ///
    /// * `number`: nobody else's
    /// * `member`: it is for a virtual function, of the physical one that the string is of
    fn recipe(
        &self,
        kind: &'static Kind,
        spec: &DeviceSpec,
        number: u32,
        member: bool,
    ) -> Result<Recipe> {
        let mut keys = spec.keys();
        let shown = pci::shown(&mut keys)?;
        let setup = match shown {
            Shown::Vdpa | Shown::Vf => None,
            Shown::Pci | Shown::Pf => Some(pci::setup(&mut keys)?),
        };
        let vfs = match shown {
            Shown::Pf => pf::vfs(&mut keys)?,
            Shown::Vdpa | Shown::Pci | Shown::Vf => 0,
        };
        if member {
            let _its_owners = [keys.value("mac"), keys.value("mirror")];
        }
        if let Some(missing) = keys.value("page_requests")
            && setup.is_some()
            && missing.text() != "off"
        {
            return Err(missing
                .malformed("off, with as=pci: a function asks for no page")
                .into());
        }
        let crew = keys.value("crew");
        let workers = keys.value("workers");
        let options = options(&mut keys, kind.max_workers)?;
        let crew = match &crew {
            Some(name) => Some(self.crew(name, workers.as_ref(), options.workers)?),
            None => None,
        };
        Ok(Recipe {
            class: (kind.make)(self, keys, number)?,
            served: Served {
                options,
                crew,
                faults: spec.faults().cloned(),
            },
            setup,
            vfs,
        })
    }

    /// A number that no other device has.
    fn number(&self) -> u32 {
        self.list(|devices| {
            let number = devices.made;
            devices.made = devices.made.wrapping_add(1);
            number
        })
    }

    /// Lists a device.
    fn enter(&self, kind: &'static Kind, text: &str, device: &Arc<SimDevice>) {
        let entry = MgmtEntry {
            name: device.info().name.clone(),
            device_type: kind.class.device_type,
            spec: text.to_owned(),
        };
        self.list(|devices| devices.list.push((entry, Arc::downgrade(device))));
    }

    /// Makes the device that a device string describes, or finds it, and lists it.
    fn add(&self, spec: &DeviceSpec) -> Result<Added> {
        let kind = KINDS
            .iter()
            .find(|kind| kind.class.what == spec.what())
            .ok_or_else(|| spec.unknown_what(KINDS.map(|kind| kind.class.what)))?;
        let mut keys = spec.keys();
        if pci::shown(&mut keys)? == Shown::Vf {
            return self.member(kind, keys).map(Added::Function);
        }
        let number = self.number();
        let recipe = self.recipe(kind, spec, number, false)?;
        let name = format!("{}{number}", self.name());
        if recipe.vfs != 0 {
            return self
                .physical(kind, spec, &name, recipe)
                .map(Added::Function);
        }
        let device = Arc::new(recipe.served.device(&name, recipe.class));
        self.enter(kind, spec.text(), &device);
        Ok(match recipe.setup {
            None => Added::Device(device),
            Some(setup) => Added::Function(Arc::new(pci::function(device, setup)?)),
        })
    }

    /// The crew of this name, which is made if there is none.
    ///
    /// * `given`: where the device string says how many workers it has, if it does
    fn crew(
        &self,
        name: &Value<'_>,
        given: Option<&Value<'_>>,
        workers: usize,
    ) -> Result<Arc<Crew>, SpecError> {
        if name.text().is_empty() {
            return Err(name.malformed("the name of a crew"));
        }
        let mut crews = lock(&self.crews);
        crews.retain(|_, crew| crew.strong_count() != 0);
        let Some(crew) = crews.get(name.text()).and_then(Weak::upgrade) else {
            let crew = Crew::new(name.text(), workers);
            crews.insert(name.text().to_owned(), Arc::downgrade(&crew));
            return Ok(crew);
        };
        if let Some(given) = given.filter(|_| workers != crew.workers()) {
            let (name, has) = (name.text(), crew.workers());
            let expected = format!("{has}, as many as crew {name} has, or another crew");
            return Err(given.malformed(expected));
        }
        Ok(crew)
    }
}

/// A device that was added.
enum Added {
    Device(Arc<SimDevice>),
    Function(Arc<dyn PciAccess>),
}

/// What a device string says.
struct Recipe {
    class: Box<dyn Class>,
    served: Served,
    /// How it is shown as a function, if it is.
    setup: Option<Setup>,
    /// How many virtual functions it has.
    vfs: u16,
}

/// By whom a device is served, and with which faults.
struct Served {
    options: Options,
    crew: Option<Arc<Crew>>,
    faults: Option<faults::Plan>,
}

impl Served {
    /// Makes the device.
    fn device(self, name: &str, class: Box<dyn Class>) -> SimDevice {
        let device = match self.crew {
            Some(crew) => SimDevice::in_crew(name, class, self.options, crew),
            None => SimDevice::new(name, class, self.options),
        };
        device.with_faults(self.faults)
    }
}

/// Reads how a device of any class is served.
fn options(keys: &mut Keys<'_>, max_workers: u16) -> Result<Options, SpecError> {
    let default = Options::default();
    let workers = keys.take_in("workers", 1..=max_workers)?;
    let poll_us = keys.take_in("poll_us", 0..=1_000_000_u32)?;
    let switch = [("on", true), ("off", false)];
    let page_requests = keys.take_one_of("page_requests", &switch)?;
    Ok(Options {
        workers: workers.map_or(default.workers, usize::from),
        patience: poll_us.map_or(default.patience, |us| Duration::from_micros(us.into())),
        page_requests: page_requests.unwrap_or(default.page_requests),
    })
}

/// Nothing may be left in the string that the class, whose keys are `legal`, does not know.
fn finish(keys: Keys<'_>, legal: &[Key]) -> Result<(), SpecError> {
    let legal: Vec<_> = legal.iter().map(|key| key.name).collect();
    keys.finish(&legal)
}

impl MgmtDevice for SimMgmt {
    fn name(&self) -> &str {
        "sim"
    }

    fn classes(&self) -> &[MgmtClass] {
        &self.classes
    }

    fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        Ok(match self.add(spec)? {
            Added::Device(device) => device,
            Added::Function(function) => Arc::new(VirtioPci::open(function)?),
        })
    }

    fn dev_del(&self, name: &str) -> Result<()> {
        let device = self.find(name)?;
        self.list(|devices| devices.list.retain(|(entry, _)| entry.name != name));
        device.remove();
        Ok(())
    }

    fn dev_set(&self, name: &str, attr: Attr) -> Result<()> {
        self.find(name)?.set(attr)
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

    fn faults(&self, what: &str) -> &[faults::Kind] {
        match what {
            "net" => crate::faults::NET,
            _ => crate::faults::ANY,
        }
    }
}

impl PciParent for SimMgmt {
    fn function(&self, spec: &DeviceSpec) -> Result<Arc<dyn PciAccess>> {
        if pci::shown(&mut spec.keys())? == Shown::Vdpa {
            let name = spec.text().to_owned();
            return Err(SimError::NoFunction { name }.into());
        }
        match self.add(spec)? {
            Added::Function(function) => Ok(function),
            Added::Device(device) => Ok(Arc::new(pci::function(device, pci::usual())?)),
        }
    }
}
