//! `as=pci`: the device as a PCI function, driven as a real one is.

use std::sync::Arc;

use vdpa_core::spec::{Keys, SpecError};
use vdpa_core::{Device, Key, Relay, Result, VdpaDevice};
use vdpa_pci::{PciAccess, Width};

use super::key;
use crate::pci::{Function, Layout, MAX_MULTIPLIER, MAX_VECTORS, Setup};

/// How the device is shown.
pub(super) const AS: Key = key(
    "as",
    "vdpa, pci, pf or vf",
    "itself, a PCI function, one with virtual functions, one of those; default vdpa",
);
/// Where vendors put what a function consists of.
pub(super) const LAYOUT: Key = key(
    "layout",
    "qemu, one-bar, split, multiplier-0, multiplier-2, multiplier-4096, vectors-1, vectors-2, vectors-2048, intx, window, \
     shared-memory, transitional, legacy",
    "with as=pci: what is where; default qemu",
);
/// MSI-X vectors.
pub(super) const VECTORS: Key = key(
    "vectors",
    "0 to 2048",
    "with as=pci: MSI-X vectors, 0 for the line; default the layout's",
);
/// Distance of doorbells.
pub(super) const MULTIPLIER: Key = key(
    "multiplier",
    "0, 2, 4, ... 4096",
    "with as=pci: bytes between doorbells, 0 for one of all; default the layout's",
);
/// NOTIF_CONFIG_DATA.
pub(super) const NOTIFY_DATA: Key = key(
    "notify_data",
    "on or off",
    "with as=pci: offer NOTIF_CONFIG_DATA; default off",
);
/// Entries of the IOMMU.
pub(super) const DMA_ENTRIES: Key = key(
    "dma_entries",
    "1 to 65535",
    "with as=pci: mappings that the IOMMU takes; default 65535",
);

/// What a device is shown as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// By itself.
    Vdpa,
    /// A function.
    Pci,
    /// A physical function, with virtual functions.
    Pf,
    /// One of those.
    Vf,
}

/// Reads what a device is shown as.
pub(super) fn shown(keys: &mut Keys<'_>) -> Result<Shown, SpecError> {
    let names = [
        ("vdpa", Shown::Vdpa),
        ("pci", Shown::Pci),
        ("pf", Shown::Pf),
        ("vf", Shown::Vf),
    ];
    Ok(keys.take_one_of("as", &names)?.unwrap_or(Shown::Vdpa))
}

/// As a function is shown unless something else is said.
pub(super) fn usual() -> Setup {
    Setup::new(Layout::QEMU)
}

/// Reads how a function is shown.
pub(super) fn setup(keys: &mut Keys<'_>) -> Result<Setup, SpecError> {
    let layouts: Vec<_> = Layout::ALL
        .iter()
        .map(|(layout, _)| (layout.name, *layout))
        .collect();
    let layout = keys.take_one_of("layout", &layouts)?;
    let mut setup = Setup::new(layout.unwrap_or(Layout::QEMU));
    let Layout { name, line, .. } = setup.layout;
    let vectors = keys.take_with("vectors", |value| {
        let vectors = value.integer(0..=MAX_VECTORS)?;
        if vectors == 0 && !line {
            // It could not interrupt at all.
            let why = format!("1 to {MAX_VECTORS}, as layout={name} has no interrupt line");
            return Err(value.malformed(why));
        }
        Ok(vectors)
    })?;
    if vectors.is_some() {
        setup.layout.vectors = vectors;
    }
    let multiplier = keys.take_with("multiplier", |value| {
        let bytes = value.integer(0..=MAX_MULTIPLIER)?;
        let legal = bytes == 0 || bytes >= 2 && bytes.is_power_of_two();
        let legal = legal.then_some(bytes);
        legal.ok_or_else(|| value.malformed("0, or a power of two from 2 to 4096"))
    })?;
    if let Some(multiplier) = multiplier {
        setup.layout.multiplier = multiplier;
    }
    let switch = [("on", true), ("off", false)];
    if let Some(on) = keys.take_one_of("notify_data", &switch)? {
        setup.config_data = on;
    }
    if let Some(entries) = keys.take_in("dma_entries", 1..=65535_u32)? {
        setup.limits.max_entries = Some(entries);
    }
    Ok(setup)
}

/// The command register of configuration space, and its bits for memory decoding and bus master.
const COMMAND: u16 = 0x04;
const ON: u32 = 0b110;

/// Shows a device as a function that answers and reaches memory, as a host hands one out.
pub(super) fn function(device: Arc<dyn VdpaDevice>, setup: Setup) -> Result<Function> {
    let function = Function::new(Device::new(device, Relay::new())?, setup)?;
    power(&function)?;
    Ok(function)
}

/// Has a function answer and reach memory.
pub(super) fn power(function: &Function) -> Result<()> {
    function.write_config(COMMAND, Width::U16, ON)
}
