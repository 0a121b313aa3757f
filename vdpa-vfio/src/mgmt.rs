//! The management device `vfio`: opens functions that are bound to `vfio-pci`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vdpa_core::spec::{DeviceSpec, Value};
use vdpa_core::{
    Attr, DeviceType, Error, Key, MgmtClass, MgmtDevice, MgmtEntry, Relay, Result, VdpaDevice, bits,
};
use vdpa_pci::{PciAccess, PciParent, VirtioPci};

use crate::function::Lease;
use crate::open::Via;
use crate::sysfs::{self, Address, Host};
use crate::{Function, VfioError};

const KEYS: &[Key] = &[Key {
    name: "via",
    values: "group or cdev",
    about: "how it is opened; default: by its group, where that has a file",
}];

/// Any function is opened by its address, and says itself what it is; these are the usual ones.
const CLASSES: &[MgmtClass] = &[class(DeviceType::Net), class(DeviceType::Block)];

const fn class(device_type: DeviceType) -> MgmtClass {
    MgmtClass {
        what: "DOMAIN:BUS:DEVICE.FUNCTION",
        device_type,
        features: bits::VERSION_1.mask(),
        max_queues: u16::MAX,
        keys: KEYS,
    }
}

/// Opens PCI functions through VFIO: `vfio:0000:01:00.1`, `vfio:01:00.1,via=cdev`.
///
/// A function is there by itself, so adding a device opens one, and one that is open is opened by nobody else. All of a
/// value's functions report through one thread, which is started with the first.
pub struct VfioMgmt {
    root: PathBuf,
    relay: Relay,
    open: Mutex<Vec<Opened>>,
}

/// A function that is open, or being opened or closed.
struct Opened {
    address: Address,
    /// Gone once the function is closed, which is after the last who had it let go.
    lease: Weak<Lease>,
    /// Nothing before it is open.
    function: Weak<Function>,
    /// As what it is listed; `None` where somebody looks at its registers.
    entry: Option<MgmtEntry>,
}

impl Default for VfioMgmt {
    fn default() -> Self {
        Self::new()
    }
}

impl VfioMgmt {
    /// The functions of the running system.
    pub fn new() -> Self {
        Self::at(Path::new("/"))
    }

    /// The functions of the system that is below `root`: `/`, or a directory that shows one, of which nothing can be opened.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            relay: Relay::new(),
            open: Mutex::default(),
        }
    }

    /// The functions that can be opened, and those that could be, were they bound to `vfio-pci`: virtio devices, as far as
    /// their ids say.
    ///
    /// # Errors
    /// When the bus cannot be looked at.
    pub fn functions(&self) -> Result<Vec<sysfs::Function>> {
        let mut functions = Host::new(&self.root).functions()?;
        functions.retain(|function| function.identity().is_virtio());
        Ok(functions)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Opened>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|opened| opened.lease.strong_count() != 0);
        open
    }

    /// Opens what a device string names. Nobody waits for it: others are told that it is being opened.
    fn open(&self, spec: &DeviceSpec) -> Result<Arc<Function>> {
        let address = address(&spec.what_value())?;
        let mut keys = spec.keys();
        let ways = [("group", Via::Group), ("cdev", Via::Cdev)];
        let via = keys.take_one_of("via", &ways)?;
        let legal: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        keys.finish(&legal)?;
        let lease = self.reserve(address)?;
        let mut function = Function::open(&self.root, address, via, self.relay.clone())?;
        function.hold(lease);
        let function = Arc::new(function);
        self.set(address, |opened| {
            opened.function = Arc::downgrade(&function)
        });
        Ok(function)
    }

    /// Keeps others from opening a function, until this and the function that holds it are dropped.
    fn reserve(&self, address: Address) -> Result<Arc<Lease>, VfioError> {
        let mut open = self.lock();
        if let Some(opened) = open.iter().find(|opened| opened.address == address) {
            let name = address.to_string();
            return Err(match opened.function.strong_count() {
                0 => VfioError::Unsettled { name },
                _ => VfioError::Open { name },
            });
        }
        let lease = Arc::new(Lease);
        open.push(Opened {
            address,
            lease: Arc::downgrade(&lease),
            function: Weak::new(),
            entry: None,
        });
        Ok(lease)
    }

    /// Changes what is known of a function whose lease the caller has.
    fn set(&self, address: Address, change: impl FnOnce(&mut Opened)) {
        let mut open = self.lock();
        if let Some(opened) = open.iter_mut().find(|opened| opened.address == address) {
            change(opened);
        }
    }

    /// A device that is listed.
    fn find(&self, name: &str) -> Result<Arc<Function>> {
        let open = self.lock();
        let entries = || {
            open.iter()
                .filter_map(|opened| Some((opened.entry.as_ref()?, opened)))
        };
        entries()
            .find(|(entry, _)| entry.name == name)
            .and_then(|(_, opened)| opened.function.upgrade())
            .ok_or_else(|| Error::DeviceUnknown {
                parent: self.name().to_owned(),
                name: name.to_owned(),
                known: entries().map(|(entry, _)| entry.name.clone()).collect(),
            })
    }
}

/// Which function a device string names.
fn address(what: &Value<'_>) -> Result<Address> {
    let address = what.text().parse();
    Ok(address.map_err(|_| what.malformed("the address of a PCI function (0000:01:00.1)"))?)
}

impl MgmtDevice for VfioMgmt {
    fn name(&self) -> &str {
        "vfio"
    }

    fn classes(&self) -> &[MgmtClass] {
        CLASSES
    }

    fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        let function = self.open(spec)?;
        let address = address(&spec.what_value())?;
        // Outside the lock: a device may take its time to be reset.
        let device = Arc::new(VirtioPci::open(function)?);
        let info = device.info();
        let entry = MgmtEntry {
            name: info.name.clone(),
            device_type: info.device_type,
            spec: spec.text().to_owned(),
        };
        self.set(address, |opened| opened.entry = Some(entry));
        Ok(device)
    }

    fn dev_del(&self, name: &str) -> Result<()> {
        // Outside the lock: events are somebody else's.
        self.find(name)?.remove();
        Ok(())
    }

    fn dev_set(&self, name: &str, _: Attr) -> Result<()> {
        self.find(name)?;
        Err(Error::Unsupported {
            device: name.to_owned(),
            what: "attribute that can be changed from here: its owner is the card",
        })
    }

    fn devices(&self) -> Vec<MgmtEntry> {
        self.lock()
            .iter()
            .filter_map(|opened| opened.entry.clone())
            .collect()
    }
}

impl PciParent for VfioMgmt {
    fn function(&self, spec: &DeviceSpec) -> Result<Arc<dyn PciAccess>> {
        Ok(self.open(spec)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::Translator;
    use crate::function::tests::plain;
    use crate::open::tests::Tree;
    use vdpa_core::{ErrorKind, Event, EventSink, LinkState, ParentError};

    fn tree() -> Tree {
        let tree = Tree::new();
        tree.function("0000:01:00.1", Some("virtio-pci"), Some(7));
        tree
    }

    fn add(mgmt: &VfioMgmt, spec: &str) -> Error {
        match mgmt.dev_add(&DeviceSpec::parse(spec).unwrap()) {
            Ok(_) => panic!("a picture has no devices"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_device_string_is_read_and_its_faults_are_pointed_at() {
        let tree = tree();
        let mgmt = VfioMgmt::at(tree.root());
        let part = |spec: &str| match add(&mgmt, spec) {
            Error::Spec(error) => error.part().to_owned(),
            other => panic!("{other}"),
        };
        assert_eq!(part("vfio:eth0"), "eth0");
        assert_eq!(part("vfio:01:00.1,via=uio"), "uio");
        assert_eq!(part("vfio:01:00.1,mtu=1"), "mtu");
        for spec in ["vfio:0000:01:00.1", "vfio:01:00.1", "vfio:01:00.1,via=cdev"] {
            let error = add(&mgmt, spec);
            assert!(
                error.to_string().contains("vdpactl vfio bind 0000:01:00.1"),
                "{error}"
            );
            assert_eq!(error.kind(), ErrorKind::Misuse);
        }
        assert!(mgmt.lock().is_empty(), "nothing half-made is left");
    }

    #[test]
    fn what_is_not_open_is_not_there() {
        let tree = tree();
        let mgmt = VfioMgmt::at(tree.root());
        let unknown = |error| matches!(error, Error::DeviceUnknown { .. });
        assert!(unknown(mgmt.dev_del("0000:01:00.1").unwrap_err()));
        assert!(unknown(
            mgmt.dev_set("x", Attr::Link(LinkState::Up)).unwrap_err()
        ));
    }

    /// Opens a function again while it is being closed: who is told of its events is let go of then.
    struct Reopener {
        mgmt: Arc<VfioMgmt>,
        refused: Arc<Mutex<Option<VfioError>>>,
    }

    impl EventSink for Reopener {
        fn raise(&self, _: Event) {}
    }

    impl Drop for Reopener {
        fn drop(&mut self) {
            let address = "01:00.1".parse().unwrap();
            *self.refused.lock().unwrap() = self.mgmt.reserve(address).err();
        }
    }

    #[test]
    fn a_function_added_again_while_it_closes_is_told_from_one_in_use() {
        let tree = tree();
        let mgmt = Arc::new(VfioMgmt::at(tree.root()));
        let address = "01:00.1".parse().unwrap();
        let unsettled = |error: &VfioError| {
            assert_eq!(error.kind(), ErrorKind::Busy);
            matches!(error, VfioError::Unsettled { .. })
        };
        let lease = mgmt.reserve(address).unwrap();
        assert!(unsettled(&mgmt.reserve(address).err().unwrap()), "opening");
        let error = add(&mgmt, "vfio:01:00.1");
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");

        let (mut function, _file) = plain(Translator::Owner);
        function.hold(lease);
        let refused = Arc::new(Mutex::new(None));
        let sink = Reopener {
            mgmt: Arc::clone(&mgmt),
            refused: Arc::clone(&refused),
        };
        function.watch(Arc::new(sink)).unwrap();
        let function = Arc::new(function);
        mgmt.set(address, |opened| {
            opened.function = Arc::downgrade(&function)
        });
        let open = mgmt.reserve(address).err().unwrap();
        assert!(matches!(open, VfioError::Open { .. }), "{open}");

        drop(function);
        let closing = refused.lock().unwrap().take();
        assert!(unsettled(&closing.unwrap()), "closing");
        mgmt.reserve(address).unwrap();
    }
}
