//! What a parent has open: nothing is opened twice, and what is open can be listed and taken away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vdpa_core::{DeviceSpec, Error, MgmtEntry, Result, VdpaDevice};
use vdpa_pci::{PciAccess, VirtioPci};

use crate::function::Lease;
use crate::{Function, VfioError};

/// The functions that a parent has open, by name.
#[derive(Default)]
pub struct Openings(Mutex<Vec<Opened>>);

/// A function that is open, or being opened or closed.
struct Opened {
    name: String,
    /// Gone once the function is closed, which is after the last who had it let go.
    lease: Weak<Lease>,
    /// Nothing before it is open.
    function: Weak<Function>,
    /// As what it is listed; `None` where somebody looks at its registers.
    entry: Option<MgmtEntry>,
}

impl Openings {
    /// Nothing is open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a function that is not open yet. Nobody waits for it: others are told that it is being opened.
    ///
    /// * `name`: of the function, as it will have it
    /// * `open`: opens it
    ///
    /// # Errors
    /// [`VfioError::Open`] and [`VfioError::Unsettled`]; what `open` fails with, and then it is as it was.
    pub fn open(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<Function>,
    ) -> Result<Arc<Function>> {
        let lease = self.reserve(name)?;
        let mut function = open()?;
        function.hold(lease);
        let function = Arc::new(function);
        self.set(name, |opened| opened.function = Arc::downgrade(&function));
        Ok(function)
    }

    /// Drives the virtio device that is in a function, and lists it.
    ///
    /// * `spec`: the device string that it was opened by
    /// * `function`: what [`open`](Self::open) opened
    ///
    /// # Errors
    /// As for [`VirtioPci::open`].
    pub fn drive(&self, spec: &DeviceSpec, function: Arc<Function>) -> Result<Arc<dyn VdpaDevice>> {
        let name = function.name().to_owned();
        // Outside the lock: a device may take its time to be reset.
        let device = Arc::new(VirtioPci::open(function)?);
        let info = device.info();
        let entry = MgmtEntry {
            name: info.name.clone(),
            device_type: info.device_type,
            spec: spec.text().to_owned(),
        };
        self.set(&name, |opened| opened.entry = Some(entry));
        Ok(device)
    }

    /// Takes a device from its user, who is told that it is gone.
    ///
    /// * `parent`: the name of the parent
    ///
    /// # Errors
    /// [`Error::DeviceUnknown`].
    pub fn remove(&self, parent: &str, name: &str) -> Result<()> {
        // Outside the lock: events are somebody else's.
        self.find(parent, name)?.remove();
        Ok(())
    }

    /// The devices that are listed.
    pub fn entries(&self) -> Vec<MgmtEntry> {
        self.lock()
            .iter()
            .filter_map(|opened| opened.entry.clone())
            .collect()
    }

    /// A device that is listed.
    ///
    /// * `parent`: the name of the parent
    ///
    /// # Errors
    /// [`Error::DeviceUnknown`].
    pub fn find(&self, parent: &str, name: &str) -> Result<Arc<Function>> {
        let open = self.lock();
        let entries = || {
            open.iter()
                .filter_map(|opened| Some((opened.entry.as_ref()?, opened)))
        };
        entries()
            .find(|(entry, _)| entry.name == name)
            .and_then(|(_, opened)| opened.function.upgrade())
            .ok_or_else(|| Error::DeviceUnknown {
                parent: parent.to_owned(),
                name: name.to_owned(),
                known: entries().map(|(entry, _)| entry.name.clone()).collect(),
            })
    }

    /// Keeps others from opening a function, until this and the function that holds it are dropped.
    fn reserve(&self, name: &str) -> Result<Arc<Lease>, VfioError> {
        let mut open = self.lock();
        if let Some(opened) = open.iter().find(|opened| opened.name == name) {
            let name = name.to_owned();
            return Err(match opened.function.strong_count() {
                0 => VfioError::Unsettled { name },
                _ => VfioError::Open { name },
            });
        }
        let lease = Arc::new(Lease);
        open.push(Opened {
            name: name.to_owned(),
            lease: Arc::downgrade(&lease),
            function: Weak::new(),
            entry: None,
        });
        Ok(lease)
    }

    /// Changes what is known of a function whose lease the caller has.
    fn set(&self, name: &str, change: impl FnOnce(&mut Opened)) {
        let mut open = self.lock();
        if let Some(opened) = open.iter_mut().find(|opened| opened.name == name) {
            change(opened);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Opened>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|opened| opened.lease.strong_count() != 0);
        open
    }
}

#[cfg(test)]
mod tests {
    use vdpa_core::{ErrorKind, Event, EventSink, ParentError};

    use super::*;
    use crate::dma::Translator;
    use crate::function::tests::plain;

    const NAME: &str = "0000:01:00.1";

    /// Opens a function again while it is being closed: who is told of its events is let go of then.
    struct Reopener {
        openings: Arc<Openings>,
        refused: Arc<Mutex<Option<VfioError>>>,
    }

    impl EventSink for Reopener {
        fn raise(&self, _: Event) {}
    }

    impl Drop for Reopener {
        fn drop(&mut self) {
            *self.refused.lock().unwrap() = self.openings.reserve(NAME).err();
        }
    }

    #[test]
    fn a_function_added_again_while_it_closes_is_told_from_one_in_use() {
        let openings = Arc::new(Openings::new());
        let unsettled = |error: &VfioError| {
            assert_eq!(error.kind(), ErrorKind::Busy);
            matches!(error, VfioError::Unsettled { .. })
        };
        let lease = openings.reserve(NAME).unwrap();
        assert!(unsettled(&openings.reserve(NAME).err().unwrap()), "opening");
        let again = openings.open(NAME, || unreachable!("it is being opened"));
        assert_eq!(again.err().unwrap().kind(), ErrorKind::Busy);

        let (mut function, _file) = plain(Translator::Owner);
        function.hold(lease);
        let refused = Arc::new(Mutex::new(None));
        let sink = Reopener {
            openings: Arc::clone(&openings),
            refused: Arc::clone(&refused),
        };
        function.watch(Arc::new(sink)).unwrap();
        let function = Arc::new(function);
        openings.set(NAME, |opened| opened.function = Arc::downgrade(&function));
        let open = openings.reserve(NAME).err().unwrap();
        assert!(matches!(open, VfioError::Open { .. }), "{open}");

        drop(function);
        let closing = refused.lock().unwrap().take();
        assert!(unsettled(&closing.unwrap()), "closing");
        openings.reserve(NAME).unwrap();
    }

    #[test]
    fn what_could_not_be_opened_can_be_tried_again() {
        let openings = Openings::new();
        for _ in 0..2 {
            let failed = openings.open(NAME, || {
                Err(VfioError::NoFunction {
                    name: NAME.to_owned(),
                }
                .into())
            });
            assert_eq!(failed.err().unwrap().kind(), ErrorKind::Misuse);
        }
        assert!(openings.lock().is_empty(), "nothing half-made is left");
        let known = openings.remove("vfio", NAME).unwrap_err();
        assert!(matches!(known, Error::DeviceUnknown { .. }), "{known}");
    }
}
