//! What a function is made with, beside its device.

use std::sync::Arc;

use vdpa_core::{DmaLimits, Features};
use vdpa_pci::Width;

use crate::pci::config_space::ConfigSpace;
use crate::pci::iommu::Iommu;
use crate::pci::layout::Layout;

/// What a function has beside a device.
#[derive(Clone)]
pub struct Setup {
    /// Where everything is.
    pub layout: Layout,
    /// What its IOMMU maps.
    pub limits: DmaLimits,
    /// Whether it offers NOTIF_CONFIG_DATA: kicks then carry a value of the function's own.
    pub config_data: bool,
    /// Features that the function offers beside the device's, and that mean nothing to the device.
    pub offered: Features,
    /// Which of the device's queues are administration queues: the last ones. Drivers find them by fields of their own;
    /// `num_queues` does not count them.
    pub admin: AdminQueues,
    /// What is in extended configuration space.
    pub extension: Option<Arc<dyn Extension>>,
}

impl Setup {
    /// A function of this layout, and nothing special.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            limits: Iommu::usual(),
            config_data: false,
            offered: Features::NONE,
            admin: AdminQueues::default(),
            extension: None,
        }
    }
}

/// Which queues are administration queues, virtio 1.4 §2.13.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AdminQueues {
    /// The first of them.
    pub first: u16,
    /// How many; 0 for none.
    pub count: u16,
}

/// What is left to do once the lock of configuration space is let go of; it may access the function.
pub type After = Option<Box<dyn FnOnce() + Send>>;

/// Extended capabilities of a function: SR-IOV, for one.
pub trait Extension: Send + Sync {
    /// Adds them, with [`ConfigSpace::add_extended`], to the space of a function that is being made.
    fn install(&self, space: &mut ConfigSpace);

    /// A driver wrote to extended configuration space, and the space has taken what it takes.
    ///
    /// * `at`, `width`: where
    ///
    /// Called under the lock of configuration space: it must not access the function, and what takes time is begun.
    #[must_use]
    fn written(&self, space: &mut ConfigSpace, at: u16, width: Width) -> After;

    /// The function was reset as a whole: the capabilities are to read as after [`install`](Self::install).
    ///
    /// Called under the lock of configuration space, as [`written`](Self::written) is.
    #[must_use]
    fn reset(&self, space: &mut ConfigSpace) -> After;

    /// The function is gone: whatever came with it goes too. Called once at least, without a lock of the function.
    fn gone(&self);
}
