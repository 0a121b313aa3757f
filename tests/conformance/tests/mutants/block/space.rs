//! What is offered and what the configuration space says, otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use vdpa_core::bits::block;
use vdpa_core::{Event, Features, Result, Status, VdpaDevice};

use super::ask::{Ask, OK, OUT, asked};
use crate::bend::{Bend, bent};
use crate::shadow::{Chain, Memory, Twist, shadow};

const WRITEBACK: usize = 32;

/// Offers these too, or does not offer those, and keeps it to itself.
pub struct Offers {
    pub more: Features,
    pub less: Features,
}

impl Bend for Offers {
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        (inner.offered() - self.less) | self.more
    }
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        inner.accept(f - self.more)
    }
}

/// Bytes that read otherwise.
pub struct Shows(pub &'static [(usize, u8)]);

impl Bend for Shows {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        inner.read_config(at, to)?;
        for (place, byte) in self.0 {
            let here = place.checked_sub(at as usize);
            if let Some(to) = here.and_then(|here| to.get_mut(here)) {
                *to = *byte;
            }
        }
        Ok(())
    }
}

/// What was written to a byte stays there, whatever comes.
pub struct Sticks {
    /// What is read at `WRITEBACK` once something was written.
    written: AtomicU8,
    /// Where else it can be read.
    also: usize,
}

impl Sticks {
    pub fn also_at(also: usize) -> Self {
        Self {
            written: AtomicU8::new(u8::MAX),
            also,
        }
    }
}

impl Bend for Sticks {
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        inner.read_config(at, to)?;
        let written = self.written.load(Ordering::Relaxed);
        let place = self.also.checked_sub(at as usize);
        if let Some(to) = place.and_then(|place| to.get_mut(place))
            && written != u8::MAX
        {
            *to = written;
        }
        Ok(())
    }
    fn write_config(&self, inner: &dyn VdpaDevice, at: u32, from: &[u8]) -> Result<()> {
        if at as usize == WRITEBACK {
            self.written.store(from[0], Ordering::Relaxed);
        }
        inner.write_config(at, from)
    }
}

/// Ignores what is written.
pub struct IgnoresWrites;

impl Bend for IgnoresWrites {
    fn write_config(&self, _: &dyn VdpaDevice, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A host-managed disk, which says so; and insists on it, or does not.
pub struct HostManaged {
    pub insists: bool,
    refused: AtomicBool,
}

impl HostManaged {
    pub fn new(insists: bool) -> Self {
        let refused = AtomicBool::new(false);
        Self { insists, refused }
    }
}

impl Bend for HostManaged {
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        // Such a disk knows no discards.
        inner.offered().with(block::ZONED).without(block::DISCARD)
    }
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        let refused = self.insists && !f.contains(block::ZONED);
        self.refused.store(refused, Ordering::Relaxed);
        inner.accept(f.without(block::ZONED))
    }
    fn add_status(&self, inner: &dyn VdpaDevice, bits: Status) -> Result<()> {
        match self.refused.load(Ordering::Relaxed) {
            true => inner.add_status(bits - Status::FEATURES_OK),
            false => inner.add_status(bits),
        }
    }
    fn read_config(&self, inner: &dyn VdpaDevice, at: u32, to: &mut [u8]) -> Result<()> {
        Shows(&[(92, 1)]).read_config(inner, at, to)
    }
}

/// Tells of so many changes of its configuration, and of no more.
pub struct Tells {
    pub left: AtomicU32,
}

impl Bend for Tells {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        let less = |left: u32| left.checked_sub(1);
        let told = || {
            self.left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        };
        if event != Event::Config || told().is_ok() {
            raise(event);
        }
    }
}

/// A disk that offers RO, and can be written to by a driver that did not accept it.
struct AsAccepted(Arc<AtomicBool>);

impl Bend for AsAccepted {
    fn offered(&self, inner: &dyn VdpaDevice) -> Features {
        inner.offered().with(block::RO)
    }
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        self.0.store(f.contains(block::RO), Ordering::Relaxed);
        inner.accept(f.without(block::RO))
    }
}

struct RefusesIf(Arc<AtomicBool>);

impl Twist for RefusesIf {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, memory: &Memory<'_>) {
        let ask: Option<Ask> = asked(chain, memory);
        if self.0.load(Ordering::Relaxed) && ask.is_some_and(|ask| ask.kind == OUT) {
            // A write of no whole sector is refused behind.
            readable.truncate(17);
        }
    }
}

pub fn read_only_as_accepted(inner: Arc<dyn VdpaDevice>) -> Arc<dyn VdpaDevice> {
    let accepted = Arc::new(AtomicBool::new(false));
    let behind = shadow(inner, RefusesIf(Arc::clone(&accepted)));
    bent(behind, AsAccepted(accepted))
}

/// Writes what it refuses.
struct WritesAndRefuses;

impl Twist for WritesAndRefuses {
    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, memory: &Memory<'_>) {
        if asked(chain, memory).is_some_and(|ask| ask.kind == OUT) {
            super::ask::status(bytes, OK, super::ask::IOERR);
        }
    }
}

pub fn read_only_by_word(inner: Arc<dyn VdpaDevice>) -> Arc<dyn VdpaDevice> {
    bent(shadow(inner, WritesAndRefuses), offers(block::RO.mask()))
}

/// Offers more than the device behind has.
pub fn offers(more: Features) -> Offers {
    let less = Features::NONE;
    Offers { more, less }
}
