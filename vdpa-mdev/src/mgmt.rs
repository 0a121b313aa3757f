//! The management device `mdev`: opens mediated devices that are virtio functions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use vdpa_core::spec::{DeviceSpec, Value};
use vdpa_core::{
    Attr, DeviceType, Error, Key, MgmtClass, MgmtDevice, MgmtEntry, Relay, Result, VdpaDevice, bits,
};
use vdpa_pci::pci::Header;
use vdpa_pci::{Identity, PciAccess, PciError, PciParent};
use vdpa_vfio::{Function, Openings, Via};

#[cfg(feature = "slices")]
use crate::slice::Slicer;
use crate::{Host, MdevError, Mediated, uuid};

const KEYS: &[Key] = &[Via::KEY];

/// Any device is opened by its UUID, and says itself what it is; these are the usual ones.
const CLASSES: &[MgmtClass] = &[
    class(DeviceType::Net),
    class(DeviceType::Block),
    #[cfg(feature = "slices")]
    Slicer::CLASS,
];

const fn class(device_type: DeviceType) -> MgmtClass {
    MgmtClass {
        what: "UUID",
        device_type,
        features: bits::VERSION_1.mask(),
        max_queues: u16::MAX,
        keys: KEYS,
    }
}

/// Opens mediated devices through VFIO: `mdev:83b8f4f2-509f-382f-3c1e-e6bfe0fa1001`, `mdev:UUID,via=cdev`.
///
/// A mediated device is made beforehand, so adding a device opens one, and one that is open is opened by nobody else. All
/// of a value's devices report through one thread, which is started with the first.
pub struct MdevMgmt {
    root: PathBuf,
    relay: Relay,
    open: Openings,
    #[cfg(feature = "slices")]
    slices: Option<Slicer>,
}

impl Default for MdevMgmt {
    fn default() -> Self {
        Self::new()
    }
}

impl MdevMgmt {
    /// The mediated devices of the running system.
    pub fn new() -> Self {
        Self::at(Path::new("/"))
    }

    /// Those of the system that is below `root`: `/`, or a directory that shows one, of which nothing can be opened.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            relay: Relay::new(),
            open: Openings::new(),
            #[cfg(feature = "slices")]
            slices: None,
        }
    }

    /// The same, which makes slices too: `mdev:slice,of=sim:net;mtu=9000`.
    #[cfg(feature = "slices")]
    #[must_use]
    pub fn with_slices(mut self, slices: Slicer) -> Self {
        self.slices = Some(slices);
        self
    }

    /// Who makes slices, if it was told to.
    #[cfg(feature = "slices")]
    pub fn slices(&self) -> Option<&Slicer> {
        self.slices.as_ref()
    }

    /// Slices are devices of this parent too.
    #[cfg(feature = "slices")]
    fn know_slices(&self, error: Error) -> Error {
        match error {
            Error::DeviceUnknown {
                parent,
                name,
                mut known,
            } => {
                let slices = self.slices().into_iter().flat_map(Slicer::devices);
                known.extend(slices.map(|slice| slice.name));
                Error::DeviceUnknown {
                    parent,
                    name,
                    known,
                }
            }
            other => other,
        }
    }

    #[cfg(not(feature = "slices"))]
    fn know_slices(&self, error: Error) -> Error {
        error
    }

    /// Opens what a device string names.
    fn open(&self, spec: &DeviceSpec) -> Result<(Mediated, Arc<Function>)> {
        let uuid = named(&spec.what_value())?;
        let mut keys = spec.keys();
        let via = Via::of(&mut keys)?;
        let legal: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        keys.finish(&legal)?;
        let device = Host::new(&self.root).device(uuid)?;
        let found = device.found(&self.root)?;
        let function = self.open.open(&uuid.to_string(), || {
            Ok(found.open(via, self.relay.clone())?)
        })?;
        Ok((device, function))
    }
}

/// Which device a device string names.
fn named(what: &Value<'_>) -> Result<Uuid> {
    let named = uuid(what.text());
    Ok(named.map_err(|_| what.malformed("the UUID of a mediated device"))?)
}

/// Refuses what is no virtio function, by name.
fn refuse_others(device: &Mediated, function: &dyn PciAccess) -> Result<()> {
    let header = Header::read(function)?;
    match Identity::of(function.name(), &header) {
        Err(PciError::NotVirtio {
            vendor,
            device: number,
            ..
        }) => Err(MdevError::NotVirtio {
            uuid: device.uuid,
            kind: device.kind_name(),
            what: what_is(header.class),
            vendor,
            device: number,
        }
        .into()),
        // Whatever else is wrong, who drives it says.
        _ => Ok(()),
    }
}

/// What a PCI function is, by its class.
///
/// # Spec
/// PCI Code and ID Assignment Specification 1.11 §1.
const fn what_is(class: u32) -> &'static str {
    match class >> 8 {
        0x0700 => "a serial port",
        of => match of >> 8 {
            0x01 => "a disk's controller",
            0x02 => "a network card",
            0x03 => "a display",
            0x04 => "a multimedia device",
            0x05 => "memory",
            0x06 => "a bridge",
            0x07 => "a communication device",
            0x08 => "a part of the system",
            0x0c => "a serial bus",
            0x10 => "a cipher device",
            0x12 => "an accelerator",
            _ => "another device",
        },
    }
}

impl MgmtDevice for MdevMgmt {
    fn name(&self) -> &str {
        "mdev"
    }

    fn classes(&self) -> &[MgmtClass] {
        CLASSES
    }

    fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        #[cfg(feature = "slices")]
        if let Some(slices) = self.slices().filter(|_| spec.what() == Slicer::WHAT) {
            return slices.dev_add(spec);
        }
        let (device, function) = self.open(spec)?;
        refuse_others(&device, &*function)?;
        self.open.drive(spec, function)
    }

    fn dev_del(&self, name: &str) -> Result<()> {
        #[cfg(feature = "slices")]
        if let Some(slices) = self.slices().filter(|slices| slices.has(name)) {
            return slices.dev_del(name);
        }
        let removed = self.open.remove(self.name(), name);
        removed.map_err(|e| self.know_slices(e))
    }

    fn dev_set(&self, name: &str, attr: Attr) -> Result<()> {
        #[cfg(feature = "slices")]
        if let Some(slices) = self.slices().filter(|slices| slices.has(name)) {
            return slices.dev_set(name, attr);
        }
        let _others_cannot = attr;
        let found = self.open.find(self.name(), name);
        found.map_err(|e| self.know_slices(e))?;
        Err(Error::Unsupported {
            device: name.to_owned(),
            what: "attribute that can be changed from here: its owner is the parent's driver",
        })
    }

    fn devices(&self) -> Vec<MgmtEntry> {
        #[cfg_attr(
            not(feature = "slices"),
            expect(unused_mut, reason = "slices come behind")
        )]
        let mut all = self.open.entries();
        #[cfg(feature = "slices")]
        all.extend(self.slices().into_iter().flat_map(Slicer::devices));
        all
    }
}

impl PciParent for MdevMgmt {
    fn function(&self, spec: &DeviceSpec) -> Result<Arc<dyn PciAccess>> {
        Ok(self.open(spec)?.1)
    }
}
