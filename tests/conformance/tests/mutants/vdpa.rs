//! Wrong about the contract.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use vdpa_conformance::{Ids, Selection};
use vdpa_core::*;
use vdpa_mem::{Deadline, Iova, Mapping};

use crate::bend::{Bend, bent};
use crate::hand::{Hand, on_kick};
use crate::{Mutant, judge};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "says that a stopped queue stands one before where it does",
        caught_by: 206,
        spec: "sim:rng",
        wrap: |inner| bent(inner, PausedBefore),
    },
    Mutant {
        name: "says that a suspended queue is fresh",
        caught_by: 206,
        spec: "sim:blk",
        wrap: |inner| bent(inner, SuspendedFresh),
    },
    Mutant {
        name: "starts a queue at the beginning, wherever it is to go on",
        caught_by: 206,
        spec: "sim:blk",
        wrap: |inner| bent(inner, IgnoresState),
    },
    Mutant {
        name: "saves a state that none of its kind takes over",
        caught_by: 206,
        spec: "sim:net",
        wrap: |inner| bent(inner, SavesNonsense),
    },
    Mutant {
        name: "loses the frames that come for a queue that goes on",
        caught_by: 206,
        spec: "sim:net",
        wrap: |inner| bent(inner, LosesQueue::default()),
    },
    Mutant {
        name: "serves a queue although its owner has suspended it",
        caught_by: 207,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NoRest),
    },
    Mutant {
        name: "stands elsewhere each time it is asked while suspended",
        caught_by: 207,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Wanders::default()),
    },
    Mutant {
        name: "sleeps on when its owner resumes it",
        caught_by: 207,
        spec: "sim:net",
        wrap: |inner| bent(inner, SleepsOn),
    },
    Mutant {
        name: "writes to memory that was unmapped",
        caught_by: 209,
        spec: "sim:rng",
        wrap: |inner| on_kick(inner, |_| true, Hand::mark_unmapped),
    },
    Mutant {
        name: "says nothing of memory that it misses",
        caught_by: 209,
        spec: "sim:rng",
        wrap: |inner| bent(inner, NeverFaults),
    },
    Mutant {
        name: "asks for pages, and says that it does not",
        caught_by: 209,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Misses),
    },
    Mutant {
        name: "forgets what is mapped in a reset",
        caught_by: 210,
        spec: "sim:rng",
        wrap: |inner| bent(inner, Forgets::default()),
    },
    Mutant {
        name: "lets itself be opened twice",
        caught_by: 211,
        spec: "sim:rng",
        wrap: |inner| bent(inner, OpensTwice::default()),
    },
    Mutant {
        name: "breaks for whoever was first when it is opened again",
        caught_by: 211,
        spec: "sim:blk",
        wrap: |inner| bent(inner, Breaks::default()),
    },
    Mutant {
        name: "cannot be opened again right after it was",
        caught_by: 211,
        spec: "sim:net",
        wrap: |inner| bent(inner, Slow::default()),
    },
];

fn back(state: QueueState) -> QueueState {
    match state {
        QueueState::Split { avail, used } => QueueState::Split {
            avail: avail.wrapping_sub(1),
            used: used.map(|used| used.wrapping_sub(1)),
        },
        packed => packed,
    }
}

struct PausedBefore;

impl Bend for PausedBefore {
    fn poll_pause(&self, inner: &dyn QueuePause, q: QueueIndex) -> Result<Poll<QueueState>> {
        Ok(inner.poll(q)?.map(back))
    }
}

struct SuspendedFresh;

impl Bend for SuspendedFresh {
    fn suspended_state(&self, inner: &dyn Suspend, q: QueueIndex) -> Result<QueueState> {
        Ok(match inner.state(q)? {
            QueueState::Split { .. } => QueueState::Split {
                avail: 0,
                used: Some(0),
            },
            packed => packed,
        })
    }
}

struct IgnoresState;

impl Bend for IgnoresState {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        let fresh = QueueConfig { state: None, ..*c };
        inner.start_queue(q, &fresh, kick, call)
    }
}

struct SavesNonsense;

impl Bend for SavesNonsense {
    fn save(&self, _: &dyn ClassState) -> Result<Vec<u8>> {
        Ok(vec![0xff; 40])
    }
}

/// A queue that goes on is started, and not served.
#[derive(Default)]
struct LosesQueue(OnceLock<()>);

impl Bend for LosesQueue {
    fn start_queue(
        &self,
        inner: &dyn VdpaDevice,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        match c.state {
            Some(_) => Ok(Doorbell::NONE),
            None => inner.start_queue(q, c, kick, call),
        }
    }
}

struct NoRest;

impl Bend for NoRest {
    fn begin_suspend(&self, _: &dyn Suspend) -> Result<()> {
        Ok(())
    }
    fn poll_suspend(&self, _: &dyn Suspend) -> Result<Poll<()>> {
        Ok(Poll::Ready(()))
    }
    fn suspended_state(&self, _: &dyn Suspend, _: QueueIndex) -> Result<QueueState> {
        Ok(QueueState::Split {
            avail: 1,
            used: Some(1),
        })
    }
    fn resume(&self, _: &dyn Suspend) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Wanders(AtomicU32);

impl Bend for Wanders {
    fn suspended_state(&self, _: &dyn Suspend, _: QueueIndex) -> Result<QueueState> {
        let at = self.0.fetch_add(1, Ordering::SeqCst) as u16;
        Ok(QueueState::Split {
            avail: at,
            used: Some(at),
        })
    }
}

struct SleepsOn;

impl Bend for SleepsOn {
    fn resume(&self, _: &dyn Suspend) -> Result<()> {
        Ok(())
    }
}

struct NeverFaults;

impl Bend for NeverFaults {
    fn status(&self, inner: &dyn VdpaDevice) -> Result<Status> {
        Ok(inner.status()? - Status::DEVICE_NEEDS_RESET)
    }
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        if !matches!(event, Event::Fault { .. } | Event::NeedsReset { .. }) {
            raise(event);
        }
    }
}

struct Misses;

impl Bend for Misses {
    fn event(&self, event: Event, raise: &dyn Fn(Event)) {
        if let Event::Fault { .. } | Event::NeedsReset { .. } = event {
            raise(Event::Miss {
                asid: Asid::new(0),
                at: vdpa_mem::Iova::new(0x4000_0000),
                want: vdpa_mem::Access::DeviceReads,
            });
        }
    }
}

#[derive(Default)]
struct Forgets(OnceLock<Host>);

impl Bend for Forgets {
    fn attached(&self, host: &Host) {
        let _again = self.0.set(host.clone());
    }
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        let live = inner.status()?.contains(Status::DRIVER_OK);
        if let Some(host) = self.0.get().filter(|_| live) {
            for mapping in host.spaces[0].mappings() {
                let by = Deadline::after(Duration::from_secs(10));
                host.spaces[0].unmap(mapping.iova, by)?;
            }
        }
        inner.begin_reset()
    }
}

#[derive(Default)]
struct OpensTwice(AtomicBool);

impl Bend for OpensTwice {
    fn attach(&self, inner: &dyn VdpaDevice, host: Host) -> Result<()> {
        match self.0.swap(true, Ordering::SeqCst) {
            false => inner.attach(host),
            true => Ok(()),
        }
    }
}

/// A second open is refused, and resets the device.
#[derive(Default)]
struct Breaks(AtomicBool);

impl Bend for Breaks {
    fn attach(&self, inner: &dyn VdpaDevice, host: Host) -> Result<()> {
        if self.0.swap(true, Ordering::SeqCst) {
            inner.begin_reset()?;
        }
        inner.attach(host)
    }
}

/// How many of this kind are open.
static OPEN: AtomicU32 = AtomicU32::new(0);

/// Is let go of some time after it was dropped; meanwhile no other of its kind is opened.
#[derive(Default)]
struct Slow(Arc<AtomicBool>);

impl Bend for Slow {
    fn attach(&self, inner: &dyn VdpaDevice, host: Host) -> Result<()> {
        inner.attach(host)?;
        if OPEN.load(Ordering::SeqCst) > 0 {
            return Err(Error::Busy {
                what: "another user",
            });
        }
        Ok(())
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        OPEN.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            OPEN.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Leaves as soon as memory is taken from it while it runs, as a back end does that cannot go on without.
#[derive(Default)]
struct Leaves {
    host: OnceLock<Host>,
    live: AtomicBool,
}

impl Bend for Leaves {
    fn begin_reset(&self, inner: &dyn VdpaDevice) -> Result<()> {
        self.live.store(false, Ordering::SeqCst);
        inner.begin_reset()
    }
    fn attached(&self, host: &Host) {
        let _again = self.host.set(host.clone());
    }
    fn caps<'a>(&'a self, caps: Caps<'a>) -> Caps<'a> {
        Caps {
            dma: Dma::Map(self),
            ..caps
        }
    }
    fn add_status(&self, inner: &dyn VdpaDevice, bits: Status) -> Result<()> {
        let live = bits.contains(Status::DRIVER_OK);
        self.live.fetch_or(live, Ordering::SeqCst);
        inner.add_status(bits)
    }
}

impl DmaMap for Leaves {
    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![(Iova::new(0), Iova::new(u64::MAX))],
            granule: 1,
            max_entries: None,
            reach: Reach::Process,
        }
    }
    fn map(&self, _: Asid, _: &Mapping) -> Result<()> {
        Ok(())
    }
    fn unmap(&self, _: Asid, _: &Mapping) -> Result<()> {
        if let Some(host) = self.host.get().filter(|_| self.live.load(Ordering::SeqCst)) {
            host.events.raise(Event::Gone);
        }
        Ok(())
    }
}

/// It touches nothing any more.
#[test]
fn a_device_that_leaves_when_memory_is_taken_from_it_passes() {
    let only = Selection::only(Ids::one(209));
    let wrap = |inner| bent(inner, Leaves::default());
    let report = judge("leaves at an unmap", "sim:blk", wrap, &only);
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.passed() > 0, "{report}");
}
