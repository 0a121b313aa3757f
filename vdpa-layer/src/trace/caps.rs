//! The capabilities of a device that is told of: all that the device below has.

use std::task::Poll;

use tracing::Level;
use vdpa_core::config::Mac;
use vdpa_core::{
    Announce, Asid, Caps, ClassState, Dma, DmaLimits, DmaMap, Error, GroupIndex, GroupSpaces,
    InFlight, Mapping, QueueEnable, QueueIndex, QueuePause, QueueReset, QueueState, Result, Stats,
    Suspend, VdpaDevice, Window,
};

use super::{Trace, debug, done};

/// The capabilities of the device below, each told of.
pub(super) fn around(trace: &Trace) -> Caps<'_> {
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
        stats,
    } = trace.below.caps();
    Caps {
        dma: match dma {
            Dma::Map(_) => Dma::Map(trace),
            own => own,
        },
        spaces: spaces.map(|_| trace as _),
        queue_reset: queue_reset.map(|_| trace as _),
        queue_pause: queue_pause.map(|_| trace as _),
        queue_enable: queue_enable.map(|_| trace as _),
        suspend: suspend.map(|_| trace as _),
        in_flight: in_flight.map(|_| trace as _),
        class_state: class_state.map(|_| trace as _),
        announce: announce.map(|_| trace as _),
        stats: stats.map(|_| trace as _),
    }
}

impl Trace {
    fn missing(&self, what: &'static str) -> Error {
        let device = self.info().name.clone();
        Error::Unsupported { device, what }
    }

    /// Polls, and tells of it at DEBUG once it is ready.
    fn poll<T: std::fmt::Debug>(
        &self,
        call: &'static str,
        arguments: std::fmt::Arguments<'_>,
        make: impl FnOnce() -> Result<Poll<T>>,
    ) -> Result<Poll<T>> {
        let polled = self.log.call(Level::TRACE, call, arguments, debug, make)?;
        if let Poll::Ready(value) = &polled {
            self.log
                .said(Level::DEBUG, call, format_args!("{arguments}: {value:?}"));
        }
        Ok(polled)
    }
}

impl DmaMap for Trace {
    fn limits(&self) -> DmaLimits {
        let limits = match self.below.caps().dma {
            Dma::Map(dma) => dma.limits(),
            // Not asked of a device that is not told of mappings.
            _ => DmaLimits::NOTHING,
        };
        self.log
            .said(Level::TRACE, "dma.limits", format_args!("{limits:?}"));
        limits
    }

    fn map(&self, a: Asid, m: &Mapping) -> Result<()> {
        let (range, access) = (m.iova, m.access);
        let arguments = format_args!("address space {a}, {range}, {access:?}");
        self.log.call(Level::DEBUG, "dma.map", arguments, done, || {
            self.dma_below()?.map(a, m)
        })
    }

    fn unmap(&self, a: Asid, m: &Mapping) -> Result<()> {
        let arguments = format_args!("address space {a}, {}", m.iova);
        self.log
            .call(Level::DEBUG, "dma.unmap", arguments, done, || {
                self.dma_below()?.unmap(a, m)
            })
    }
}

impl GroupSpaces for Trace {
    fn assign(&self, g: GroupIndex, a: Asid) -> Result<()> {
        let arguments = format_args!("group {g}, address space {a}");
        self.log
            .call(Level::DEBUG, "spaces.assign", arguments, done, || {
                let cap = self.below.caps().spaces;
                cap.ok_or_else(|| self.missing("group spaces"))?
                    .assign(g, a)
            })
    }
}

impl QueueReset for Trace {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        let queue = format_args!("queue {q}");
        self.log
            .call(Level::DEBUG, "queue_reset.begin", queue, done, || {
                let cap = self.below.caps().queue_reset;
                cap.ok_or_else(|| self.missing("queue reset"))?.begin(q)
            })
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<()>> {
        let polled = self.poll("queue_reset.poll", format_args!("queue {q}"), || {
            let cap = self.below.caps().queue_reset;
            cap.ok_or_else(|| self.missing("queue reset"))?.poll(q)
        })?;
        if polled.is_ready() {
            drop(self.take_relays(q));
        }
        Ok(polled)
    }
}

impl QueuePause for Trace {
    fn begin(&self, q: QueueIndex) -> Result<()> {
        let queue = format_args!("queue {q}");
        self.log
            .call(Level::DEBUG, "queue_pause.begin", queue, done, || {
                let cap = self.below.caps().queue_pause;
                cap.ok_or_else(|| self.missing("queue pause"))?.begin(q)
            })
    }

    fn poll(&self, q: QueueIndex) -> Result<Poll<QueueState>> {
        let polled = self.poll("queue_pause.poll", format_args!("queue {q}"), || {
            let cap = self.below.caps().queue_pause;
            cap.ok_or_else(|| self.missing("queue pause"))?.poll(q)
        })?;
        if polled.is_ready() {
            drop(self.take_relays(q));
        }
        Ok(polled)
    }
}

impl QueueEnable for Trace {
    fn set(&self, q: QueueIndex, on: bool) -> Result<()> {
        let arguments = format_args!("queue {q}, {}", if on { "on" } else { "off" });
        self.log
            .call(Level::DEBUG, "queue_enable.set", arguments, done, || {
                let cap = self.below.caps().queue_enable;
                cap.ok_or_else(|| self.missing("queue enable"))?.set(q, on)
            })
    }
}

impl Suspend for Trace {
    fn begin(&self) -> Result<()> {
        self.log.call(
            Level::DEBUG,
            "suspend.begin",
            format_args!(""),
            done,
            || self.suspend_below()?.begin(),
        )
    }

    fn poll(&self) -> Result<Poll<()>> {
        self.poll("suspend.poll", format_args!("the device"), || {
            self.suspend_below()?.poll()
        })
    }

    fn state(&self, q: QueueIndex) -> Result<QueueState> {
        self.log.call(
            Level::DEBUG,
            "suspend.state",
            format_args!("queue {q}"),
            debug,
            || self.suspend_below()?.state(q),
        )
    }

    fn resume(&self) -> Result<()> {
        self.log.call(
            Level::DEBUG,
            "suspend.resume",
            format_args!(""),
            done,
            || self.suspend_below()?.resume(),
        )
    }
}

impl Trace {
    fn suspend_below(&self) -> Result<&dyn Suspend> {
        let cap = self.below.caps().suspend;
        cap.ok_or_else(|| self.missing("suspend"))
    }

    fn dma_below(&self) -> Result<&dyn DmaMap> {
        match self.below.caps().dma {
            Dma::Map(dma) => Ok(dma),
            _ => Err(self.missing("mappings to be told of")),
        }
    }

    fn class_state_below(&self) -> Result<&dyn ClassState> {
        let cap = self.below.caps().class_state;
        cap.ok_or_else(|| self.missing("class state"))
    }
}

impl InFlight for Trace {
    fn track(&self, q: QueueIndex, record: Window) -> Result<()> {
        let arguments = format_args!("queue {q}, {} bytes", record.bytes().len());
        self.log
            .call(Level::DEBUG, "in_flight.track", arguments, done, || {
                let cap = self.below.caps().in_flight;
                cap.ok_or_else(|| self.missing("a record of what is in flight"))?
                    .track(q, record)
            })
    }
}

impl ClassState for Trace {
    fn save(&self) -> Result<Vec<u8>> {
        let bytes = |state: &Vec<u8>| format!("{} bytes", state.len());
        self.log.call(
            Level::DEBUG,
            "class_state.save",
            format_args!(""),
            bytes,
            || self.class_state_below()?.save(),
        )
    }

    fn restore(&self, from: &[u8]) -> Result<()> {
        self.log.call(
            Level::DEBUG,
            "class_state.restore",
            format_args!("{} bytes", from.len()),
            done,
            || self.class_state_below()?.restore(from),
        )
    }
}

impl Announce for Trace {
    fn announce(&self, mac: Mac) -> Result<()> {
        self.log.call(
            Level::DEBUG,
            "announce",
            format_args!("{mac}"),
            done,
            || {
                let cap = self.below.caps().announce;
                cap.ok_or_else(|| self.missing("announcements"))?
                    .announce(mac)
            },
        )
    }
}

impl Stats for Trace {
    fn read(&self, to: &mut dyn FnMut(&str, u64)) -> Result<()> {
        self.log
            .call(Level::DEBUG, "stats.read", format_args!(""), done, || {
                let cap = self.below.caps().stats;
                cap.ok_or_else(|| self.missing("statistics"))?.read(to)
            })
    }
}
