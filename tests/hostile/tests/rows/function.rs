//! A PCI function with something in front of it, and the life that a driver leads with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vdpa_conformance::registers::{Between, Through};
use vdpa_core::session::{Backing, Completions, Part, QueueSetup};
use vdpa_core::{
    Device, DeviceSpec, DeviceType, Error, Features, QueueIndex, Relay, Result, Session, bits,
};
use vdpa_hostile::watch::Watch;
use vdpa_mem::{Deadline, clock};
use vdpa_pci::{PciAccess, PciParent, VirtioPci};
use vdpa_ring::Format;
use vdpa_sim::SimMgmt;

/// The devices that the rows are about.
pub(crate) const KINDS: [&str; 2] = ["sim:net,as=pci", "sim:blk,as=pci,size=1M"];

/// Runs what may wait for what never comes: time passes faster for it. What the device does is not hurried, so that it may
/// seem to be too slow.
pub(crate) fn hurried<T>(wait: impl FnOnce() -> T) -> T {
    const FACTOR: u32 = 200;
    let _hasty = clock::hasten(FACTOR);
    wait()
}

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A function of a device of its own.
pub(crate) fn function(parent: &SimMgmt, kind: &str) -> Arc<dyn PciAccess> {
    let spec = DeviceSpec::parse(kind).expect("a device string");
    parent.function(&spec).expect("a function")
}

/// A driver of a function with something in front of it.
pub(crate) fn open<B: Between>(to: &Arc<dyn PciAccess>, between: &Arc<B>) -> Result<Device> {
    let function = Through::around(Arc::clone(to), Arc::clone(between));
    Device::new(Arc::new(VirtioPci::open(function)?), Relay::new())
}

/// From open to close: a driver sets the device up, makes a request and waits for it, and lets go. What it was refused, if
/// anything.
pub(crate) fn life(device: Device, format: Format) -> Result<()> {
    let by = || Deadline::after(Duration::from_secs(5));
    let session = Session::open(device, by()).map_err(|(_, e)| e)?;
    let mut wanted = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM, bits::ORDER_PLATFORM]);
    if format == Format::Packed {
        wanted = wanted.with(bits::RING_PACKED);
    }
    let wanted = wanted & session.acceptable();
    let mut session = session.negotiate(wanted).map_err(|(_, e)| e)?;
    let is_net = session.device_type() == DeviceType::Net;
    let queues: &[u16] = if is_net { &[0, 1] } else { &[0] };
    for q in queues {
        let setup = QueueSetup {
            size: 16,
            buffers: 4,
            backing: Backing::Anonymous,
            ..QueueSetup::default()
        };
        session.queue(QueueIndex::new(*q), setup)?;
    }
    let mut session = session.run().map_err(|(_, e)| e)?;
    // The request: a frame, or a disk's identity.
    let q = QueueIndex::new(u16::from(is_net));
    let queue = session.queue_mut(q).expect("it was set up");
    let lease = queue.lease().expect("a buffer");
    let submitted = if is_net {
        let len = queue.write(&lease, 0, &[0; 12 + 60]);
        queue.send(lease, len as u32)
    } else {
        let header = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let len = queue.write(&lease, 0, &header);
        let parts = [Part::Readable(len as u32), Part::Writable(21)];
        queue.submit(lease, &parts)
    };
    submitted.map_err(|refused| refused.why)?;
    queue.publish();
    queue.kick();
    let mut done = Completions::new(4);
    let enough = Deadline::after(PATIENCE);
    while session
        .queue_mut(q)
        .expect("it was set up")
        .poll(&mut done)?
        == 0
    {
        // A device that is gone says so; one whose kick was lost does not, and nobody waits for it for ever.
        session.device().status()?;
        if enough.expired() {
            return Err(Error::Timeout { what: "a request" });
        }
        clock::sleep(Duration::from_micros(50));
    }
    for done in done.drain() {
        session.queue_mut(q).expect("it was set up").put(done.lease);
    }
    session.close(by()).map(drop).map_err(|(_, e)| e)
}

/// The life of a device that nothing is wrong with: after whatever was.
pub(crate) fn good(function: &Arc<dyn PciAccess>, format: Format) {
    let device = open(function, &Arc::new(Nothing)).expect("a good function");
    life(device, format).expect("a good life");
}

/// Nothing is wrong.
pub(crate) struct Nothing;

impl Between for Nothing {}

/// Runs what a row does, and looks that it leaves nothing behind and that a sibling goes on.
pub(crate) fn watched(format: Format, row: impl Fn(&SimMgmt, &str)) {
    let watch = Watch::begin();
    {
        let parent = SimMgmt::new();
        let sibling = function(&parent, "sim:rng,as=pci");
        for kind in KINDS {
            row(&parent, kind);
            // And a sibling beside it, and one like it.
            let open = open(&sibling, &Arc::new(Nothing)).expect("the sibling");
            drop(open);
            good(&function(&parent, kind), format);
        }
    }
    if let Err(why) = watch.check() {
        panic!("{why}");
    }
}

/// Counts the accesses.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// The number of this access, from 0 on.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
