//! The management side: what makes devices, and who knows it by name.

use std::fmt;
use std::sync::Arc;

use crate::config::Mac;
use crate::faults::Kind;
use crate::{Device, DeviceSpec, DeviceType, Error, Features, Relay, Result, VdpaDevice};

/// What a management device can make of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MgmtClass {
    /// How a device string asks for it: `net`.
    pub what: &'static str,
    /// The virtio device type.
    pub device_type: DeviceType,
    /// The most features that such a device offers.
    pub features: Features,
    /// The most queues that it has.
    pub max_queues: u16,
    /// The keys that a device string may give.
    pub keys: &'static [Key],
}

/// A key of a device string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its name: `mtu`.
    pub name: &'static str,
    /// What it takes, in a few words: `68 to 65535`.
    pub values: &'static str,
    /// What it does, with its default.
    pub about: &'static str,
}

/// A device that a management device made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MgmtEntry {
    /// Its name.
    pub name: String,
    /// Its virtio device type.
    pub device_type: DeviceType,
    /// The device string that it was made from.
    pub spec: String,
}

/// Whether a network device has a carrier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinkState {
    /// It has none: nothing is sent or received.
    Down,
    /// It has one.
    Up,
}

/// What can be changed of a device from the management side, while a driver uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Attr {
    /// The carrier of a network device. The driver is told by a change of its configuration.
    Link(LinkState),
    /// The address of a network device, also after its next reset. The driver is told.
    Mac(Mac),
    /// Asks the driver of a network device to announce itself to its neighbours (GUEST_ANNOUNCE).
    Announce,
    /// The capacity of a block device, in sectors of 512 bytes. The driver is told.
    Capacity(u64),
}

/// The factory of a parent's devices.
pub trait MgmtDevice: Send + Sync {
    /// The name of the parent: the part of a device string before the colon.
    ///
    /// # For parents
    /// One lower-case word.
    fn name(&self) -> &str;

    /// What can be made here.
    fn classes(&self) -> &[MgmtClass];

    /// Makes the device that a device string describes, or opens it where the parent's devices exist by themselves.
    ///
    /// * `spec`: a parsed device string of this parent
    ///
    /// # Errors
    /// When something in the string is unknown or out of range, with what is legal; or the device cannot be made.
    /// Nothing half-made is left behind.
    ///
    /// # For parents
    /// The device lives until it is dropped by its user; it is then no longer listed.
    fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>>;

    /// Takes a device away. Its user sees [`Event::Gone`](crate::Event::Gone).
    ///
    /// * `name`: as [`devices`](Self::devices) lists it
    ///
    /// # Errors
    /// [`Error::DeviceUnknown`].
    fn dev_del(&self, name: &str) -> Result<()>;

    /// Changes a device under its driver.
    ///
    /// * `name`: as [`devices`](Self::devices) lists it
    /// * `attr`: what to change
    ///
    /// # Errors
    /// [`Error::DeviceUnknown`]; [`Error::Unsupported`] for a device without such an attribute; [`Error::Attr`] for a
    /// value that it cannot take.
    ///
    /// # For parents
    /// Setting what is set already changes nothing and tells nobody.
    fn dev_set(&self, name: &str, attr: Attr) -> Result<()>;

    /// The devices that there are.
    fn devices(&self) -> Vec<MgmtEntry>;

    /// The faults that a device of this kind can be told to make by itself, in [`DeviceSpec::faults`]. None, unless the
    /// parent says so.
    ///
    /// * `what`: as in [`MgmtClass::what`]
    fn faults(&self, what: &str) -> &[Kind] {
        let _ = what;
        &[]
    }
}

/// Puts a layer around a device: see [`Layer::wrap`].
pub type Wrap = Box<dyn FnOnce(Arc<dyn VdpaDevice>) -> Arc<dyn VdpaDevice>>;

/// What can stand between any parent's devices and their users: it wraps a [`VdpaDevice`] in another.
pub trait Layer: Send + Sync {
    /// One lower-case word.
    fn name(&self) -> &str;

    /// The keys of a device string that are this layer's, whichever parent it names.
    fn keys(&self) -> &[Key];

    /// Reads the layer's keys. `None`: a device of this string is not wrapped.
    ///
    /// * `spec`: the layer takes its keys [out](DeviceSpec::without), or the parent does not know them
    /// * `parent`: who will make the device
    ///
    /// # Errors
    /// When a value is not legal.
    fn wrap(&self, spec: &mut DeviceSpec, parent: &dyn MgmtDevice) -> Result<Option<Wrap>>;
}

/// The parents that can be named in a device string. A value: made by whoever names concrete parents.
#[derive(Clone, Default)]
pub struct Registry {
    parents: Vec<Arc<dyn MgmtDevice>>,
    layers: Vec<Arc<dyn Layer>>,
    relay: Relay,
}

impl Registry {
    /// A registry without parents, with a relay of its own for the devices opened through it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parent. One of the same name is replaced.
    pub fn add(&mut self, parent: Arc<dyn MgmtDevice>) {
        self.parents.retain(|known| known.name() != parent.name());
        self.parents.push(parent);
    }

    /// Adds a layer, outside of those that were added before. One of the same name is replaced.
    pub fn add_layer(&mut self, layer: Arc<dyn Layer>) {
        self.layers.retain(|known| known.name() != layer.name());
        self.layers.push(layer);
    }

    /// The layers, from the innermost outwards.
    pub fn layers(&self) -> impl Iterator<Item = &dyn Layer> {
        self.layers.iter().map(|layer| &**layer)
    }

    /// The parents, in the order they were added.
    pub fn parents(&self) -> impl Iterator<Item = &dyn MgmtDevice> {
        self.parents.iter().map(|parent| &**parent)
    }

    /// The parent of this name.
    pub fn parent(&self, name: &str) -> Option<&dyn MgmtDevice> {
        self.parents().find(|parent| parent.name() == name)
    }

    /// Makes and opens the device that a device string describes: `sim:net,mtu=9000`.
    ///
    /// # Errors
    /// When the string cannot be parsed, or names an unknown parent, kind, key or value; the error points at the part
    /// and lists what is legal. When the device cannot be made.
    pub fn open(&self, spec: &str) -> Result<Device> {
        self.open_spec(&DeviceSpec::parse(spec)?)
    }

    /// Makes and opens the device that a parsed device string describes.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_spec(&self, spec: &DeviceSpec) -> Result<Device> {
        Device::new(self.make(spec)?, self.relay.clone())
    }

    /// Makes the device that a parsed device string describes, with its layers around it, and does not open it: for who
    /// puts something of its own in between.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn make(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        let parent = self
            .parent(spec.parent())
            .ok_or_else(|| spec.unknown_parent(self.parents().map(MgmtDevice::name)))?;
        let mut spec = spec.clone();
        let mut wraps = Vec::new();
        for layer in self.layers() {
            wraps.extend(layer.wrap(&mut spec, parent)?);
        }
        let made = parent.dev_add(&spec).map_err(|e| self.know_more_keys(e))?;
        Ok(wraps.into_iter().fold(made, |device, wrap| wrap(device)))
    }

    /// A parent's list of the keys that are legal lacks those of the layers.
    fn know_more_keys(&self, error: Error) -> Error {
        match error {
            Error::Spec(error) => {
                let keys = self.layers().flat_map(Layer::keys);
                error.with_keys(keys.map(|key| key.name)).into()
            }
            error => error,
        }
    }

    /// Changes a device under its driver, whichever parent made it.
    ///
    /// * `parent`: the parent's name
    /// * `name`: the name of the device, as in [`DeviceInfo::name`](crate::DeviceInfo::name)
    ///
    /// # Errors
    /// As for [`MgmtDevice::dev_set`]; an unknown parent has no device of this name.
    pub fn dev_set(&self, parent: &str, name: &str, attr: Attr) -> Result<()> {
        let unknown = || Error::DeviceUnknown {
            parent: parent.to_owned(),
            name: name.to_owned(),
            known: Vec::new(),
        };
        self.parent(parent).ok_or_else(unknown)?.dev_set(name, attr)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.parents().map(MgmtDevice::name);
        f.debug_list().entries(names).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{ErrorKind, bits};

    /// A parent that makes nothing.
    struct Empty(&'static str);

    impl MgmtDevice for Empty {
        fn name(&self) -> &str {
            self.0
        }
        fn classes(&self) -> &[MgmtClass] {
            const NET: MgmtClass = MgmtClass {
                what: "net",
                device_type: DeviceType::Net,
                features: bits::VERSION_1.mask(),
                max_queues: 2,
                keys: &[],
            };
            &[NET]
        }
        fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
            Err(spec.unknown_what(["net"]).into())
        }
        fn dev_del(&self, name: &str) -> Result<()> {
            Err(self.unknown(name))
        }
        fn dev_set(&self, name: &str, _: Attr) -> Result<()> {
            Err(self.unknown(name))
        }
        fn devices(&self) -> Vec<MgmtEntry> {
            Vec::new()
        }
    }

    impl Empty {
        fn unknown(&self, name: &str) -> Error {
            Error::DeviceUnknown {
                parent: self.0.to_owned(),
                name: name.to_owned(),
                known: vec!["net0".to_owned(), "net1".to_owned()],
            }
        }
    }

    fn registry() -> Registry {
        let mut registry = Registry::new();
        registry.add(Arc::new(Empty("sim")));
        registry.add(Arc::new(Empty("vfio")));
        registry.add(Arc::new(Empty("sim")));
        registry
    }

    #[test]
    fn an_unknown_parent_is_pointed_at_and_the_known_ones_are_listed() {
        let Err(Error::Spec(error)) = registry().open("sym:net") else {
            panic!("it is not known");
        };
        assert_eq!(error.part(), "sym");
        let text = error.to_string();
        assert!(text.contains("sim") && text.contains("vfio"), "{text}");
        let broken = registry().open("sim").unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::Misuse);
    }

    #[test]
    fn a_parent_of_the_same_name_is_replaced() {
        let registry = registry();
        let names: Vec<_> = registry.parents().map(MgmtDevice::name).collect();
        assert_eq!(names, ["vfio", "sim"]);
    }

    /// A layer with one key, that leaves a note and wraps nothing.
    struct Paint;

    impl Layer for Paint {
        fn name(&self) -> &str {
            "paint"
        }
        fn keys(&self) -> &[Key] {
            &[Key {
                name: "paint",
                values: "",
                about: "",
            }]
        }
        fn wrap(&self, spec: &mut DeviceSpec, parent: &dyn MgmtDevice) -> Result<Option<Wrap>> {
            assert!(parent.faults("net").is_empty());
            let Some(colour) = spec.value("paint") else {
                return Ok(None);
            };
            if colour.text() != "red" {
                return Err(colour.unknown(["red"]).into());
            }
            *spec = spec.clone().without(&["paint"]).noted("coats", &2);
            Ok(Some(Box::new(|device| device)))
        }
    }

    /// A parent that says which string it was given.
    struct Echo;

    impl MgmtDevice for Echo {
        fn name(&self) -> &str {
            "echo"
        }
        fn classes(&self) -> &[MgmtClass] {
            &[]
        }
        fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
            spec.keys().finish(&["size"])?;
            Err(spec.what_value().malformed(spec.text()).into())
        }
        fn dev_del(&self, _: &str) -> Result<()> {
            Ok(())
        }
        fn dev_set(&self, _: &str, _: Attr) -> Result<()> {
            Ok(())
        }
        fn devices(&self) -> Vec<MgmtEntry> {
            Vec::new()
        }
    }

    #[test]
    fn a_layer_takes_its_keys_out_and_its_errors_point_into_the_whole_string() {
        let mut registry = Registry::new();
        registry.add(Arc::new(Echo));
        registry.add_layer(Arc::new(Paint));
        registry.add_layer(Arc::new(Paint));
        assert_eq!(registry.layers().count(), 1);
        let open = |spec| match registry.open(spec) {
            Err(Error::Spec(error)) => error,
            other => panic!("{other:?}"),
        };
        let made = open("echo:x,paint=red");
        assert!(
            made.to_string().contains("echo:x,paint=red,coats=2"),
            "{made}"
        );
        assert_eq!(open("echo:x,paint=blue").part(), "blue");
        let unknown = open("echo:x,paint=red,pain=red");
        assert_eq!(unknown.part(), "pain");
        assert_eq!(unknown.problem().legal(), ["size", "paint"]);
        assert_eq!(unknown.problem().suggestion(), Some("paint"));
    }

    #[test]
    fn an_unknown_device_lists_the_known_ones() {
        let down = Attr::Link(LinkState::Down);
        let error = registry().dev_set("sim", "net7", down).unwrap_err();
        assert_eq!(
            error.to_string(),
            "parent sim has no device net7; it has: net0, net1"
        );
        assert!(registry().dev_set("sym", "net0", down).is_err());
    }
}
