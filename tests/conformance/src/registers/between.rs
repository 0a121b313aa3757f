//! What stands between a driver and a function.

use std::sync::Arc;

use vdpa_core::{Call, DmaLimits, Doorbell, EventSink, Result};
use vdpa_mem::Mapping;
use vdpa_pci::{Interrupts, PciAccess, Width};

/// What becomes of an access on its way to a function. Each method forwards unless it is written anew.
#[allow(
    missing_docs,
    reason = "each is that of PciAccess, to the function behind"
)]
pub trait Between: Send + Sync + 'static {
    fn read_config(&self, to: &dyn PciAccess, at: u16, width: Width) -> Result<u32> {
        to.read_config(at, width)
    }
    fn write_config(&self, to: &dyn PciAccess, at: u16, width: Width, value: u32) -> Result<()> {
        to.write_config(at, width, value)
    }
    fn config_len(&self, to: &dyn PciAccess) -> u16 {
        to.config_len()
    }
    fn bar_len(&self, to: &dyn PciAccess, bar: u8) -> u64 {
        to.bar_len(bar)
    }
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        to.read(bar, at, width)
    }
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        to.write(bar, at, width, value)
    }
    fn doorbell(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        at: u64,
        width: Width,
        name: u16,
    ) -> Result<Doorbell> {
        to.doorbell(bar, at, width, name)
    }
    fn interrupts(&self, to: &dyn PciAccess) -> Interrupts {
        to.interrupts()
    }
    fn enable_vectors(&self, to: &dyn PciAccess, count: u16) -> Result<()> {
        to.enable_vectors(count)
    }
    fn set_vector(&self, to: &dyn PciAccess, vector: u16, call: Call) -> Result<()> {
        to.set_vector(vector, call)
    }
    fn set_intx(&self, to: &dyn PciAccess, call: Call) -> Result<()> {
        to.set_intx(call)
    }
    fn reset(&self, to: &dyn PciAccess) -> Result<()> {
        to.reset()
    }
    fn dma_limits(&self, to: &dyn PciAccess) -> DmaLimits {
        to.dma_limits()
    }
    fn dma_map(&self, to: &dyn PciAccess, m: &Mapping) -> Result<()> {
        to.dma_map(m)
    }
    fn dma_unmap(&self, to: &dyn PciAccess, m: &Mapping) -> Result<()> {
        to.dma_unmap(m)
    }
    fn watch(&self, to: &dyn PciAccess, events: Arc<dyn EventSink>) -> Result<()> {
        to.watch(events)
    }
}

/// A function with something in front of it.
pub struct Through<B> {
    to: Arc<dyn PciAccess>,
    between: Arc<B>,
}

impl<B: Between> Through<B> {
    /// Puts `between` in front of a function.
    pub fn around(to: Arc<dyn PciAccess>, between: Arc<B>) -> Arc<dyn PciAccess> {
        Arc::new(Self { to, between })
    }
}

impl<B: Between> PciAccess for Through<B> {
    fn name(&self) -> &str {
        self.to.name()
    }
    fn config_len(&self) -> u16 {
        self.between.config_len(&*self.to)
    }
    fn read_config(&self, at: u16, width: Width) -> Result<u32> {
        self.between.read_config(&*self.to, at, width)
    }
    fn write_config(&self, at: u16, width: Width, value: u32) -> Result<()> {
        self.between.write_config(&*self.to, at, width, value)
    }
    fn bar_len(&self, bar: u8) -> u64 {
        self.between.bar_len(&*self.to, bar)
    }
    fn read(&self, bar: u8, at: u64, width: Width) -> Result<u32> {
        self.between.read(&*self.to, bar, at, width)
    }
    fn write(&self, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        self.between.write(&*self.to, bar, at, width, value)
    }
    fn doorbell(&self, bar: u8, at: u64, width: Width, name: u16) -> Result<Doorbell> {
        self.between.doorbell(&*self.to, bar, at, width, name)
    }
    fn rings_by_call(&self, bar: u8, at: u64) -> bool {
        self.to.rings_by_call(bar, at)
    }
    fn revoke_doorbells(&self) {
        self.to.revoke_doorbells();
    }
    fn interrupts(&self) -> Interrupts {
        self.between.interrupts(&*self.to)
    }
    fn enable_vectors(&self, count: u16) -> Result<()> {
        self.between.enable_vectors(&*self.to, count)
    }
    fn set_vector(&self, vector: u16, call: Call) -> Result<()> {
        self.between.set_vector(&*self.to, vector, call)
    }
    fn set_intx(&self, call: Call) -> Result<()> {
        self.between.set_intx(&*self.to, call)
    }
    fn unmask_intx(&self) -> Result<()> {
        self.to.unmask_intx()
    }
    fn reset(&self) -> Result<()> {
        self.between.reset(&*self.to)
    }
    fn dma_limits(&self) -> DmaLimits {
        self.between.dma_limits(&*self.to)
    }
    fn dma_map(&self, m: &Mapping) -> Result<()> {
        self.between.dma_map(&*self.to, m)
    }
    fn dma_unmap(&self, m: &Mapping) -> Result<()> {
        self.between.dma_unmap(&*self.to, m)
    }
    fn watch(&self, events: Arc<dyn EventSink>) -> Result<()> {
        self.between.watch(&*self.to, events)
    }
}
