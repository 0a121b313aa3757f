//! A volatile cache: what is written into it is read back out of it, and lost in a reset.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vdpa_core::bits::block;
use vdpa_core::{Features, Result, VdpaDevice};

use super::ask::{Ask, IN, OUT, asked};
use crate::bend::{Bend, bent};
use crate::shadow::{Chain, Memory, Twist, shadow};

/// How it is run at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub features: Features,
    pub writeback: bool,
}

type Which = fn(&Ask, Mode) -> bool;

struct Shared {
    /// Which writes go into the cache, and never to the device behind.
    caches: Which,
    mode: Mutex<Mode>,
    sectors: Mutex<BTreeMap<u64, Vec<u8>>>,
}

struct Cache(Arc<Shared>);

impl Twist for Cache {
    fn taken(&self, chain: &Chain, readable: &mut Vec<u8>, memory: &Memory<'_>) {
        let Some(ask) = asked(chain, memory) else {
            return;
        };
        let mode = *self.0.mode.lock().unwrap();
        if ask.kind == OUT && (self.0.caches)(&ask, mode) {
            let mut sectors = self.0.sectors.lock().unwrap();
            for (sector, data) in (ask.sector..).zip(ask.data.chunks(512)) {
                sectors.insert(sector, data.to_vec());
            }
            // A write of nothing succeeds.
            readable.truncate(16);
        }
    }

    fn written(&self, chain: &Chain, bytes: &mut Vec<u8>, _: &mut u32, memory: &Memory<'_>) {
        let Some(ask) = asked(chain, memory) else {
            return;
        };
        if ask.kind == IN {
            let sectors = self.0.sectors.lock().unwrap();
            for (sector, data) in (ask.sector..).zip(bytes.chunks_exact_mut(512)) {
                if let Some(cached) = sectors.get(&sector) {
                    data.copy_from_slice(cached);
                }
            }
        }
    }
}

struct Forgets(Arc<Shared>);

impl Bend for Forgets {
    fn accept(&self, inner: &dyn VdpaDevice, f: Features) -> Result<()> {
        inner.accept(f)?;
        *self.0.mode.lock().unwrap() = Mode {
            features: f,
            writeback: f.contains(block::FLUSH),
        };
        Ok(())
    }

    fn write_config(&self, inner: &dyn VdpaDevice, at: u32, from: &[u8]) -> Result<()> {
        if at == 32 {
            self.0.mode.lock().unwrap().writeback = from[0] != 0;
        }
        inner.write_config(at, from)
    }

    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        self.0.sectors.lock().unwrap().clear();
        inner.begin_reset()
    }
}

/// Writes that stay in a cache though they are stable.
pub fn caches(inner: Arc<dyn VdpaDevice>, which: Which) -> Arc<dyn VdpaDevice> {
    let shared = Arc::new(Shared {
        caches: which,
        mode: Mutex::new(Mode {
            features: Features::NONE,
            writeback: false,
        }),
        sectors: Mutex::default(),
    });
    let behind = shadow(inner, Cache(Arc::clone(&shared)));
    bent(behind, Forgets(shared))
}
