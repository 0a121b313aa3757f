//! Every parent that is compiled in.

use vdpa_core::Registry;
#[cfg(any(feature = "sim", feature = "vfio"))]
use {
    std::sync::Arc,
    vdpa_core::{DeviceSpec, Result},
    vdpa_pci::{PciAccess, PciParent},
};

/// Every parent that is compiled in, by what it can do: for who looks beneath devices. Who only opens them takes a
/// [`registry`](crate::registry).
pub struct Parents {
    /// Those that make devices, and the layers.
    pub registry: Registry,
    /// Those of them whose devices can be PCI functions.
    #[cfg(any(feature = "sim", feature = "vfio"))]
    pub pci: Vec<Arc<dyn PciParent>>,
}

impl Parents {
    /// All of them.
    pub fn new() -> Self {
        let empty = Self {
            registry: Registry::new(),
            #[cfg(any(feature = "sim", feature = "vfio"))]
            pci: Vec::new(),
        };
        #[cfg(feature = "sim")]
        let empty = empty.with_functions(Arc::new(vdpa_sim::SimMgmt::new()));
        #[cfg(feature = "vfio")]
        let empty = empty.with_functions(Arc::new(vdpa_vfio::VfioMgmt::new()));
        // Layers before: what is shared may have some around it.
        empty.with_served().with_layers().with_mediated()
    }

    #[cfg(not(feature = "vhost-user"))]
    fn with_served(self) -> Self {
        self
    }

    #[cfg(feature = "vhost-user")]
    fn with_served(mut self) -> Self {
        let parent = vdpa_vhost::VhostUserMgmt::new();
        self.registry.add(std::sync::Arc::new(parent));
        self
    }

    #[cfg(not(feature = "mdev"))]
    fn with_mediated(self) -> Self {
        self
    }

    #[cfg(all(feature = "mdev", not(feature = "slices")))]
    fn with_mediated(self) -> Self {
        self.with_functions(Arc::new(vdpa_mdev::MdevMgmt::new()))
    }

    /// Slices are of whatever device there is, the kernel's mediated devices among them.
    #[cfg(feature = "slices")]
    fn with_mediated(self) -> Self {
        use vdpa_mdev::{MdevMgmt, slice::Slicer};
        let others = self.registry.clone();
        let mdev = Arc::new_cyclic(|own: &std::sync::Weak<MdevMgmt>| {
            let own = own.clone();
            MdevMgmt::new().with_slices(Slicer::new(Box::new(move |spec| {
                let mut registry = others.clone();
                // Weak: who makes slices does not keep itself.
                if let Some(own) = own.upgrade() {
                    registry.add(own);
                }
                registry.open_spec(spec)
            })))
        });
        self.with_functions(mdev)
    }

    #[cfg(any(feature = "sim", feature = "vfio"))]
    fn with_functions<P: PciParent + 'static>(mut self, parent: Arc<P>) -> Self {
        self.registry.add(parent.clone());
        self.pci.push(parent);
        self
    }

    #[cfg(not(feature = "layers"))]
    fn with_layers(self) -> Self {
        self
    }

    #[cfg(feature = "layers")]
    fn with_layers(mut self) -> Self {
        let registry = &mut self.registry;
        registry.add_layer(std::sync::Arc::new(vdpa_layer::FaultsLayer));
        // Outside of the other: it tells of what the driver sees.
        registry.add_layer(std::sync::Arc::new(vdpa_layer::TraceLayer));
        self
    }

    /// The function that a device string names, not driven by anybody. `None`: its parent has none.
    ///
    /// # Errors
    /// As for [`PciParent::function`].
    #[cfg(any(feature = "sim", feature = "vfio"))]
    pub fn function(&self, spec: &DeviceSpec) -> Option<Result<Arc<dyn PciAccess>>> {
        let mut parents = self.pci.iter();
        let parent = parents.find(|parent| parent.name() == spec.parent())?;
        Some(parent.function(spec))
    }

    /// The function of a member of the group that a device string's function owns, not driven by anybody. `None`: a string
    /// like this one names no owner.
    ///
    /// * `owner`: the [name](PciAccess::name) of the function that was made of `spec`, and lives
    /// * `number`: of the member in its group, from 1: of a virtual function
    ///
    /// # Errors
    /// As for [`PciParent::function`].
    #[cfg(any(feature = "sim", feature = "vfio"))]
    pub fn member(
        &self,
        spec: &DeviceSpec,
        owner: &str,
        number: u16,
    ) -> Option<Result<Arc<dyn PciAccess>>> {
        let (parent, what) = (spec.parent(), spec.what());
        let shown = spec.keys().value("as")?;
        if shown.text() != "pf" {
            return None;
        }
        let member = format!("{parent}:{what},as=vf,of={owner},number={number}");
        match DeviceSpec::parse(&member) {
            Ok(member) => self.function(&member),
            Err(e) => Some(Err(e.into())),
        }
    }
}

impl Default for Parents {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Parents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parents")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}
