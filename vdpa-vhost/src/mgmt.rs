//! The management device `vhost-user`: opens back ends by their sockets.

use std::collections::BTreeSet;
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
    /// The names of those that are being opened.
    opening: Mutex<BTreeSet<String>>,
}

/// A back end that is being opened, and by nobody else, until dropped.
struct Opening<'m> {
    mgmt: &'m VhostUserMgmt,
    name: String,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.mgmt.opening().remove(&self.name);
    }
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
            opening: Mutex::default(),
        }
    }

    /// What is open. A device that its user let go of is not.
    fn open(&self) -> MutexGuard<'_, Vec<Opened>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|opened| opened.device.strong_count() > 0);
        open
    }

    fn opening(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on nobody else opens it. `None`: somebody does, or has.
    fn begin(&self, name: &str) -> Option<Opening<'_>> {
        let mut opening = self.opening();
        let is_open = self.open().iter().any(|opened| opened.entry.name == name);
        let first = !is_open && opening.insert(name.to_owned());
        first.then(|| Opening {
            mgmt: self,
            name: name.to_owned(),
        })
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
        let Some(_opening) = self.begin(&name) else {
            return Err(VhostError::Open { path: options.path }.into());
        };
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_back_end_that_is_being_opened_is_not_connected_to_twice() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("back");
        let listener = UnixListener::bind(&path).unwrap();
        let spec = format!("vhost-user:{},type=blk,timeout=60", path.display());
        let spec = DeviceSpec::parse(&spec).unwrap();
        let mgmt = VhostUserMgmt::new();
        let open = || mgmt.dev_add(&spec).err().unwrap().to_string();
        std::thread::scope(|scope| {
            let first = scope.spawn(open);
            // It waits for an answer.
            let (connection, _) = listener.accept().unwrap();
            let twice = VhostError::Open { path: path.clone() };
            assert_eq!(open(), Error::from(twice).to_string());
            drop(connection);
            assert!(first.join().is_ok());
        });
        assert!(mgmt.opening().is_empty());
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody else came");
    }
}
