//! The statements, chapter by chapter: each file begins with its table.

use crate::Variant;

pub(crate) mod admin;
pub(crate) mod block;
pub(crate) mod config;
pub(crate) mod features;
pub(crate) mod in_order;
pub(crate) mod indirect;
pub(crate) mod net;
pub(crate) mod other;
pub(crate) mod packed;
pub(crate) mod pci;
mod peer;
pub(crate) mod queue_reset;
pub(crate) mod queues;
mod ringside;
pub(crate) mod split;
pub(crate) mod status;
pub(crate) mod suppression;
pub(crate) mod suspend;
pub(crate) mod vdpa;
mod witness;

/// Why statements are skipped that look at virtio-pci registers.
pub(crate) const REGISTERS: &str = "needs register-level access";
/// Why statements are skipped that look at a member while its owner administers it.
pub(crate) const MEMBER: &str = "needs a member's function beside its owner's";

// Which ring variants a statement is about.

pub(crate) fn any(_: &Variant) -> bool {
    true
}
pub(crate) fn split(variant: &Variant) -> bool {
    !variant.is_packed()
}
pub(crate) fn packed(variant: &Variant) -> bool {
    variant.is_packed()
}
pub(crate) fn in_order(variant: &Variant) -> bool {
    variant.in_order
}
pub(crate) fn indirect(variant: &Variant) -> bool {
    variant.indirect
}
