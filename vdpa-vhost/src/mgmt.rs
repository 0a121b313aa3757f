//! The management device `vhost-user`: opens back ends by their sockets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vdpa_core::{
    Attr, DeviceSpec, DeviceType, Error, MgmtClass, MgmtDevice, MgmtEntry, Result, VdpaDevice,
};

use crate::options::KEYS;
use crate::{Options, VhostError, VhostUser, features};

/// A back end of any type can be opened; these are the usual ones.
const TYPES: [DeviceType; 2] = [DeviceType::Net, DeviceType::Block];

fn class(device_type: DeviceType) -> MgmtClass {
    MgmtClass {
        what: "PATH",
        device_type,
        features: features::usable(device_type),
        max_queues: u16::MAX,
        keys: KEYS,
    }
}

/// Opens back ends of vhost-user: `vhost-user:/run/net.sock,type=net`.
///
/// A back end is there by itself, so adding a device connects to one, and deleting it ends the connection. A back end has
/// one front end at a time: one that is open here is not opened again.
pub struct VhostUserMgmt {
    classes: Vec<MgmtClass>,
    open: Mutex<Vec<Opened>>,
}

struct Opened {
    entry: MgmtEntry,
    device: Weak<VhostUser>,
}

impl VhostUserMgmt {
    /// One that has nothing open.
    pub fn new() -> Self {
        Self {
            classes: TYPES.map(class).to_vec(),
            open: Mutex::default(),
        }
    }

    /// What is open. A device that its user let go of is not.
    fn open(&self) -> MutexGuard<'_, Vec<Opened>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|opened| opened.device.strong_count() > 0);
        open
    }

    fn find(&self, name: &str) -> Result<Arc<VhostUser>> {
        let open = self.open();
        let found = open.iter().find(|opened| opened.entry.name == name);
        found
            .and_then(|opened| opened.device.upgrade())
            .ok_or_else(|| Error::DeviceUnknown {
                parent: self.name().to_owned(),
                name: name.to_owned(),
                known: open
                    .iter()
                    .map(|opened| opened.entry.name.clone())
                    .collect(),
            })
    }
}

impl Default for VhostUserMgmt {
    fn default() -> Self {
        Self::new()
    }
}

impl MgmtDevice for VhostUserMgmt {
    fn name(&self) -> &str {
        "vhost-user"
    }

    fn classes(&self) -> &[MgmtClass] {
        &self.classes
    }

    fn dev_add(&self, spec: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        let options = Options::of(spec)?;
        let name = options.path.display().to_string();
        // A second connection would wait in the socket's queue, for an answer that does not come.
        if self.open().iter().any(|opened| opened.entry.name == name) {
            return Err(VhostError::Open { path: options.path }.into());
        }
        let device_type = options.device_type;
        // Without the lock: a back end takes its time.
        let device = Arc::new(VhostUser::open(options)?);
        let entry = MgmtEntry {
            name,
            device_type,
            spec: spec.text().to_owned(),
        };
        let device_entry = Opened {
            entry,
            device: Arc::downgrade(&device),
        };
        self.open().push(device_entry);
        Ok(device)
    }

    fn dev_del(&self, name: &str) -> Result<()> {
        // Outside the lock: events are somebody else's.
        self.find(name)?.disconnect();
        Ok(())
    }

    fn dev_set(&self, name: &str, _: Attr) -> Result<()> {
        self.find(name)?;
        Err(Error::Unsupported {
            device: name.to_owned(),
            what: "attribute that can be changed from here: its owner is the back end",
        })
    }

    fn devices(&self) -> Vec<MgmtEntry> {
        self.open()
            .iter()
            .map(|opened| opened.entry.clone())
            .collect()
    }
}
