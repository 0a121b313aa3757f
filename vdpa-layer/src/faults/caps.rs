//! The capabilities of a device with faults: all that the device below has, and counters.

use std::task::Poll;

use vdpa_core::config::Mac;
use vdpa_core::{
    Announce, Asid, Caps, ClassState, Dma, DmaLimits, DmaMap, Error, GroupIndex, GroupSpaces,
    InFlight, Mapping, QueueEnable, QueueIndex, QueuePause, QueueReset, QueueState, Result, Stats,
    Suspend, VdpaDevice, Window,
};

use super::{Faults, RefusedMapError, slot};
use crate::line::lock;

/// The capabilities of the device below, led through the layer.
pub(super) fn around(faults: &Faults) -> Caps<'_> {
    // Without `..`: a capability that is forgotten here does not compile.
    let Caps {
        dma,
        spaces,
        queue_reset,
        queue_pause,
        queue_enable,
        suspend,
        in_flight,
        class_state,
        announce,
        stats: _,
    } = faults.below.caps();
    Caps {
        dma: match dma {
            Dma::Map(_) => Dma::Map(faults),
            own => own,
        },
        spaces: spaces.map(|_| faults as _),
        queue_reset: queue_reset.map(|_| faults as _),
        queue_pause: queue_pause.map(|_| faults as _),
        queue_enable: queue_enable.map(|_| faults as _),
        suspend: suspend.map(|_| faults as _),
        in_flight: in_flight.map(|_| faults as _),
        class_state: class_state.map(|_| faults as _),
        announce: announce.map(|_| faults as _),
        // The layer counts, whether the device below does or not.
        stats: Some(faults),
    }
}

impl Faults {
    fn missing(&self, what: &'static str) -> Error {
        let device = self.info().name.clone();
        Error::Unsupported { device, what }
    }

    /// Begins a stop of `q` that may fail on purpose, or be slow.
    fn begin_stop(
        &self,
        q: QueueIndex,
        call: &'static str,
        begin: impl FnOnce(&dyn VdpaDevice) -> Result<()>,
    ) -> Result<()> {
        self.control(call, |below, control| {
            begin(below)?;
            let until = control.slow();
            if let Some(slot) = slot(control, q) {
                slot.slow = until;
            }
            Ok(())
        })
    }

    /// Polls a stop of `q`.
    fn poll_stop<T>(
        &self,
        q: QueueIndex,
        poll: impl FnOnce(&dyn VdpaDevice) -> Result<Poll<T>>,
    ) -> Result<Poll<T>> {
        let until = slot(&mut lock(&self.core.control), q).and_then(|slot| slot.slow);
        let polled = self.unless_slow(until, poll)?;
        if polled.is_ready() {
            self.end(q);
        }
        Ok(polled)
    }
}

/// Maps run beside control calls, and have dice of their own.
impl DmaMap for Faults {
    fn limits(&self) -> DmaLimits {
        match self.below.caps().dma {
            Dma::Map(dma) => dma.limits(),
            // Not asked of a device that is not told of mappings.
            _ => DmaLimits::NOTHING,
        }
    }

    fn map(&self, a: Asid, m: &Mapping) -> Result<()> {
        self.check()?;
        let (refused, late) = lock(&self.maps).strike();
        if let Some(late) = late {
            vdpa_core::clock::sleep(late);
        }
        if refused {
            return Err(RefusedMapError { range: m.iova }.into());
        }
        self.dma_below()?.map(a, m)
    }

    /// Also of a device that is gone: its owner wants the memory back.
    fn unmap(&self, a: Asid, m: &Mapping) -> Result<()> {
        self.dma_below()?.unmap(a, m)
    }
}

impl Faults {
    fn dma_below(&self) -> Result<&dyn DmaMap> {
        match self.below.caps().dma {
            Dma::Map(dma) => Ok(dma),
            _ => Err(self.missing("mappings to be told of")),
        }
    }
}

impl GroupSpaces for Faults {
    fn assign(&self, g: GroupIndex, a: Asid) -> Result<()> {
        self.control("spaces.assign", |below, _| {
            let cap = below.caps().spaces;
            cap.ok_or_else(|| self.missing("group spaces"))?
                .assign(g, a)
        })
    }
}

impl QueueReset for Faults {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.begin_stop(q, "queue_reset.begin", |below| {
            let cap = below.caps().queue_reset;
            cap.ok_or_else(|| self.missing("queue reset"))?.begin(q)
        })
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        self.poll_stop(q, |below| {
            let cap = below.caps().queue_reset;
            cap.ok_or_else(|| self.missing("queue reset"))?.poll(q)
        })
    }
}

impl QueuePause for Faults {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        self.begin_stop(q, "queue_pause.begin", |below| {
            let cap = below.caps().queue_pause;
            cap.ok_or_else(|| self.missing("queue pause"))?.begin(q)
        })
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        self.poll_stop(q, |below| {
            let cap = below.caps().queue_pause;
            cap.ok_or_else(|| self.missing("queue pause"))?.poll(q)
        })
    }
}

impl QueueEnable for Faults {
    fn set(&self, q: QueueIndex, on: bool) -> Result<()> {
        self.control("queue_enable.set", |below, _| {
            let cap = below.caps().queue_enable;
            cap.ok_or_else(|| self.missing("queue enable"))?.set(q, on)
        })
    }
}

impl Suspend for Faults {
    fn begin(&self) -> Result<()> {
        self.control("suspend.begin", |below, control| {
            let cap = below.caps().suspend;
            cap.ok_or_else(|| self.missing("suspend"))?.begin()?;
            control.suspend_slow = control.slow();
            Ok(())
        })
    }

    fn poll(&self) -> Result<Poll<()>> {
        let until = lock(&self.core.control).suspend_slow;
        self.unless_slow(until, |below| {
            let cap = below.caps().suspend;
            cap.ok_or_else(|| self.missing("suspend"))?.poll()
        })
    }

    fn state(&self, q: QueueIndex) -> Result<QueueState> {
        self.check()?;
        let cap = self.below.caps().suspend;
        cap.ok_or_else(|| self.missing("suspend"))?.state(q)
    }

    fn resume(&self) -> Result<()> {
        self.control("suspend.resume", |below, _| {
            let cap = below.caps().suspend;
            cap.ok_or_else(|| self.missing("suspend"))?.resume()
        })
    }
}

impl InFlight for Faults {
    fn track(&self, q: QueueIndex, record: Window) -> Result<()> {
        self.control("in_flight.track", |below, _| {
            let cap = below.caps().in_flight;
            cap.ok_or_else(|| self.missing("a record of what is in flight"))?
                .track(q, record)
        })
    }
}

impl ClassState for Faults {
    fn save(&self) -> Result<Vec<u8>> {
        self.control("class_state.save", |below, _| {
            let cap = below.caps().class_state;
            cap.ok_or_else(|| self.missing("class state"))?.save()
        })
    }

    fn restore(&self, from: &[u8]) -> Result<()> {
        self.control("class_state.restore", |below, _| {
            let cap = below.caps().class_state;
            cap.ok_or_else(|| self.missing("class state"))?
                .restore(from)
        })
    }
}

impl Announce for Faults {
    fn announce(&self, mac: Mac) -> Result<()> {
        self.control("announce", |below, _| {
            let cap = below.caps().announce;
            cap.ok_or_else(|| self.missing("announcements"))?
                .announce(mac)
        })
    }
}

impl Stats for Faults {
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        if let Some(stats) = self.below.caps().stats {
            stats.read(to)?;
        }
        self.plan.read(to);
        Ok(())
    }
}
