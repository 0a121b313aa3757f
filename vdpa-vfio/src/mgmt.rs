//! The management device `vfio`: opens functions that are bound to `vfio-pci`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vdpa_core::spec::{DeviceSpec, Value};
use vdpa_core::{
    Attr, DeviceType, Error, Key, MgmtClass, MgmtDevice, MgmtEntry, Relay, Result, VdpaDevice,
};
use vdpa_pci::{PciAccess, PciParent, VirtioPci};

use crate::open::Via;
use crate::sysfs::{self, Address, Host};
use crate::{Function, Openings};

const KEYS: &[Key] = &[Via::KEY];

/// Any function is opened by its address, and says itself what it is; these are the usual ones. What one has is the card's
/// matter, so the limits are those of the way to it: all features of its type that the driver of virtio functions can use,
/// and as many queues as can be counted.
const TYPES: [DeviceType; 2] = [DeviceType::Net, DeviceType::Block];

fn class(device_type: DeviceType) -> MgmtClass {
    MgmtClass {
        what: "DOMAIN:BUS:DEVICE.FUNCTION",
        device_type,
        features: VirtioPci::usable(device_type),
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
    classes: Vec<MgmtClass>,
    relay: Relay,
    open: Openings,
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
            classes: TYPES.map(class).to_vec(),
            relay: Relay::new(),
            open: Openings::new(),
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

    /// Opens what a device string names.
    fn open(&self, spec: &DeviceSpec) -> Result<Arc<Function>> {
        let address = address(&spec.what_value())?;
        let mut keys = spec.keys();
        let via = Via::of(&mut keys)?;
        let legal: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        keys.finish(&legal)?;
        self.open.open(&address.to_string(), || {
            Ok(Function::open(
                &self.root,
                address,
                via,
                self.relay.clone(),
            )?)
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
        &self.classes
    }

    fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        self.open.drive(spec, self.open(spec)?)
    }

    fn dev_del(&self, name: &str) -> Result<()> {
        self.open.remove(self.name(), name)
    }

    fn dev_set(&self, name: &str, _: Attr) -> Result<()> {
        self.open.find(self.name(), name)?;
        Err(Error::Unsupported {
            device: name.to_owned(),
            what: "attribute that can be changed from here: its owner is the card",
        })
    }

    fn devices(&self) -> Vec<MgmtEntry> {
        self.open.entries()
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
    use crate::open::tests::Tree;
    use vdpa_core::{ErrorKind, LinkState};

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
        assert!(mgmt.devices().is_empty());
    }

    #[test]
    fn a_class_names_every_feature_that_a_card_may_have_here() {
        use vdpa_core::bits::{self, block, net};
        let tree = tree();
        let mgmt = VfioMgmt::at(tree.root());
        for (of, device_type, own) in [
            (0, DeviceType::Net, net::CTRL_VQ),
            (1, DeviceType::Block, block::FLUSH),
        ] {
            let class = &mgmt.classes()[of];
            assert_eq!(class.device_type, device_type);
            let features = class.features;
            assert!(features.contains(own) && features.contains(bits::RING_PACKED));
            assert!(!features.contains(bits::SUSPEND), "it could not be used");
        }
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
}
