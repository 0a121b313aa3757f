//! `sim:rng`: a source of random numbers from a device string.

use vdpa_core::spec::Keys;
use vdpa_core::{DeviceType, Key, MgmtClass, Result};

use super::{CREW, PAGE_REQUESTS, POLL_US, SimMgmt, key, pci, pf};
use crate::class::Class;
use crate::rng::{POSSIBLE, Rng};

/// What is made here.
pub(super) const CLASS: MgmtClass = MgmtClass {
    what: "rng",
    device_type: DeviceType::Entropy,
    features: POSSIBLE,
    max_queues: 1,
    keys: KEYS,
};

const KEYS: &[Key] = &[
    key(
        "queue_size",
        "1 to 32768",
        "largest queue size; default 256",
    ),
    key(
        "features",
        "A+B or +A-B",
        "what is offered; default everything",
    ),
    key("workers", "1", "threads; default 1"),
    POLL_US,
    PAGE_REQUESTS,
    pci::AS,
    pci::LAYOUT,
    pci::VECTORS,
    pci::MULTIPLIER,
    pci::NOTIFY_DATA,
    pci::DMA_ENTRIES,
    pf::VFS,
    pf::OF,
    pf::NUMBER,
    CREW,
];

/// Makes the source that the keys describe.
pub(super) fn make(_: &SimMgmt, mut keys: Keys<'_>, _: u32) -> Result<Box<dyn Class>> {
    let queue_size = keys.take_in("queue_size", 1..=32768_u16)?.unwrap_or(256);
    let features = keys.take_features("features", DeviceType::Entropy, POSSIBLE, POSSIBLE)?;
    super::finish(keys, KEYS)?;
    Ok(Box::new(Rng::new(queue_size, features.unwrap_or(POSSIBLE))))
}
