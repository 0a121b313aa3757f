//! Who is judged.

use std::sync::Arc;

use vdpa_core::{Attr, DeviceSpec, Registry, Result, VdpaDevice};
use vdpa_pci::{PciAccess, VirtioPci};

type Make = dyn Fn() -> Result<Arc<dyn VdpaDevice>> + Send + Sync;
type Manage = dyn Fn(&str, Attr) -> Result<()> + Send + Sync;
type Function = dyn Fn() -> Result<Arc<dyn PciAccess>> + Send + Sync;
type Members = dyn Fn(&str, u16) -> Result<Arc<dyn PciAccess>> + Send + Sync;
type Drive = dyn Fn(Arc<dyn PciAccess>) -> Result<Arc<dyn VdpaDevice>> + Send + Sync;

/// What makes the devices that are judged, and what they are known not to keep.
pub struct Target {
    name: String,
    make: Box<Make>,
    manage: Option<Box<Manage>>,
    function: Option<Box<Function>>,
    members: Option<Box<Members>>,
    drive: Box<Drive>,
    exceptions: Vec<Exception>,
}

/// A statement that the devices are known not to keep. One that they do keep is a failure: the list is then stale.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exception {
    /// The statement.
    pub id: u16,
    /// Why it is not kept.
    pub reason: String,
}

impl Target {
    /// Devices that a closure makes: one after the other, and sometimes a few at once.
    ///
    /// * `name`: what stands in the report
    pub fn new(
        name: impl Into<String>,
        make: impl Fn() -> Result<Arc<dyn VdpaDevice>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            make: Box::new(make),
            manage: None,
            function: None,
            members: None,
            drive: Box::new(|function| Ok(Arc::new(VirtioPci::open(function)?))),
            exceptions: Vec::new(),
        }
    }

    /// Devices that a device string names: `sim:net,mtu=9000`.
    ///
    /// # Errors
    /// When the string cannot be parsed. Whether a device can be made of it is seen when it is.
    pub fn named(registry: &Registry, spec: &str) -> Result<Self> {
        let parsed = DeviceSpec::parse(spec)?;
        let parent = parsed.parent().to_owned();
        let (maker, manager) = (registry.clone(), registry.clone());
        let target = Self::new(spec, move || maker.make(&parsed));
        Ok(target.managed(move |name, attr| manager.dev_set(&parent, name, attr)))
    }

    /// What changes a device from the management side, as [`MgmtDevice::dev_set`](vdpa_core::MgmtDevice::dev_set) does.
    /// Statements that need it are skipped where there is none.
    #[must_use]
    pub fn managed(
        mut self,
        manage: impl Fn(&str, Attr) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.manage = Some(Box::new(manage));
        self
    }

    /// The devices are PCI functions: what one of them is reached through, while nobody drives it. Statements about
    /// registers are skipped where there is none.
    ///
    /// * `function`: the same function each time, or one that is made like the others. At most one is out at a time, and no
    ///   device beside it
    #[must_use]
    pub fn with_function(
        mut self,
        function: impl Fn() -> Result<Arc<dyn PciAccess>> + Send + Sync + 'static,
    ) -> Self {
        self.function = Some(Box::new(function));
        self
    }

    /// The function owns a group of others: what a member of it is reached through, while nobody drives it. Statements about
    /// members are skipped where there is none.
    ///
    /// * `members`: of the [name](PciAccess::name) of an owner that `function` has made, and that lives; and of a member's
    ///   number in its group, from 1: for the SR-IOV group, of a virtual function. The same function each time
    #[must_use]
    pub fn with_members(
        mut self,
        members: impl Fn(&str, u16) -> Result<Arc<dyn PciAccess>> + Send + Sync + 'static,
    ) -> Self {
        self.members = Some(Box::new(members));
        self
    }

    /// The driver of functions that rules for drivers are asserted on, in place of [`VirtioPci`].
    #[must_use]
    pub fn driven_by(
        mut self,
        drive: impl Fn(Arc<dyn PciAccess>) -> Result<Arc<dyn VdpaDevice>> + Send + Sync + 'static,
    ) -> Self {
        self.drive = Box::new(drive);
        self
    }

    /// Statement `id` is known not to be kept.
    #[must_use]
    pub fn except(mut self, id: u16, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        self.exceptions.push(Exception { id, reason });
        self
    }

    /// What stands in the report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known not to be kept.
    pub fn exceptions(&self) -> &[Exception] {
        &self.exceptions
    }

    /// Makes a device.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self) -> Result<Arc<dyn VdpaDevice>> {
        (self.make)()
    }

    /// Whether the devices are PCI functions.
    pub fn has_function(&self) -> bool {
        self.function.is_some()
    }

    /// The function of a device, driven by nobody. `None`: the devices are no PCI functions.
    pub fn function(&self) -> Option<Result<Arc<dyn PciAccess>>> {
        self.function.as_ref().map(|function| function())
    }

    /// The function of a member of a group, driven by nobody. `None`: the functions have no members that can be had.
    ///
    /// * `owner`: the name of its owner's function, which lives
    /// * `number`: from 1
    pub fn member(&self, owner: &str, number: u16) -> Option<Result<Arc<dyn PciAccess>>> {
        let members = self.members.as_ref()?;
        Some(members(owner, number))
    }

    /// Drives a function.
    ///
    /// # Errors
    /// When it cannot be driven.
    pub fn drive(&self, function: Arc<dyn PciAccess>) -> Result<Arc<dyn VdpaDevice>> {
        (self.drive)(function)
    }

    /// Changes a device from the management side. `None`: the target cannot do that.
    pub fn manage(&self, name: &str, attr: Attr) -> Option<Result<()>> {
        self.manage.as_ref().map(|manage| manage(name, attr))
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("exceptions", &self.exceptions)
            .finish_non_exhaustive()
    }
}
