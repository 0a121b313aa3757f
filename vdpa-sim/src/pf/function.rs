//! A physical function, put together.

use std::fmt;
use std::sync::{Arc, Weak};

use vdpa_core::{Device, Relay, Result};
use vdpa_pci::{PciAccess, Width};

use super::group::Group;
use super::office::Office;
use super::owner::{Owner, QUEUES};
use super::sriov::{self, Maker, SrIov};
use crate::class::Class;
use crate::device::SimDevice;
use crate::pci::{AdminQueues, Function, Setup, bar_lengths};

/// A simulated device that can have virtual functions, and administers them.
pub struct PfFunction {
    function: Arc<Function>,
    device: Arc<SimDevice>,
    sriov: Arc<SrIov>,
    office: Arc<Office>,
}

impl PfFunction {
    /// Makes one, without virtual functions at first.
    ///
    /// * `class`: what it is; its virtual functions are the same
    /// * `setup`: how it looks; its virtual functions look alike
    /// * `total`: how many virtual functions there can be
    /// * `make`: makes one of them
    /// * `serve`: makes its device of the class, to which an administration queue is added
    ///
    /// # Errors
    /// When its device cannot be opened.
    pub fn new(
        class: Box<dyn Class>,
        mut setup: Setup,
        total: u16,
        make: Maker,
        serve: impl FnOnce(Box<dyn Class>) -> SimDevice,
    ) -> Result<Self> {
        let first = class.queues();
        let bars = bar_lengths(&setup.layout, first, class.config_size());
        let sriov = Arc::new(SrIov::new(total, bars, make));
        let office = Arc::new(Office::new());
        let group: Arc<dyn Group> = Arc::clone(&sriov) as _;
        office.set_group(Arc::downgrade(&group) as Weak<dyn Group>);
        let owner = Owner::new(class, Arc::clone(&office), true);
        let device = Arc::new(serve(Box::new(owner)));
        setup.admin = AdminQueues {
            first,
            count: QUEUES,
        };
        setup.extension = Some(Arc::clone(&sriov) as _);
        let opened = Device::new(Arc::clone(&device) as _, Relay::new())?;
        Ok(Self {
            function: Arc::new(Function::new(opened, setup)?),
            device,
            sriov,
            office,
        })
    }

    /// Writes NumVFs and VF Enable, as a host does: the first `vfs` virtual functions come.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn enable(&self, vfs: u16) -> Result<()> {
        let write = |register, value: u16| match self.sriov.capability() {
            Some(at) => {
                let at = at.saturating_add(register);
                self.function.write_config(at, Width::U16, value.into())
            }
            None => Ok(()),
        };
        write(sriov::NUM_VFS, vfs)?;
        write(sriov::CONTROL, sriov::VF_ENABLE)?;
        self.sriov.take_failure().map_or(Ok(()), Err)
    }

    /// The physical function itself.
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Its simulated device.
    pub fn device(&self) -> &Arc<SimDevice> {
        &self.device
    }

    /// Virtual function `number`, from 1 to NumVFs, while VF Enable is set.
    pub fn vf(&self, number: u16) -> Option<Arc<dyn PciAccess>> {
        Some(self.sriov.vf(number)?)
    }

    /// What its administration commands are carried out on.
    pub fn office(&self) -> &Arc<Office> {
        &self.office
    }

    /// Its virtual functions.
    pub fn sriov(&self) -> &Arc<SrIov> {
        &self.sriov
    }
}

impl fmt::Debug for PfFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PfFunction")
            .field("function", &self.function)
            .finish_non_exhaustive()
    }
}
