//! Somebody to be asked, where no device is to be made.
#![allow(unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;

use vdpa_core::*;

/// Hears nothing, and makes nothing.
pub struct Nobody;

impl EventSink for Nobody {
    fn raise(&self, _: Event) {}
}

impl MgmtDevice for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }
    fn classes(&self) -> &[MgmtClass] {
        &[]
    }
    fn dev_add(&self, _: &DeviceSpec) -> Result<Arc<dyn VdpaDevice>> {
        Err(Error::Gone)
    }
    fn dev_del(&self, _: &str) -> Result<()> {
        Err(Error::Gone)
    }
    fn dev_set(&self, _: &str, _: Attr) -> Result<()> {
        Err(Error::Gone)
    }
    fn devices(&self) -> Vec<MgmtEntry> {
        Vec::new()
    }
}
