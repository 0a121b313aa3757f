//! Section K: a device that says no, or says nothing that can be relied on, against a session.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use vdpa_core::session::{Completions, QueueSetup};
use vdpa_core::{
    Call, CallKind, Caps, Device, DeviceInfo, DeviceType, Doorbell, Error, Event, Features,
    GroupIndex, Host, Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, Relay, Result, Session,
    Status, VdpaDevice, bits,
};
use vdpa_hostile::soon;
use vdpa_hostile::suite::{Code, code};
use vdpa_mem::Deadline;
use vdpa_ring::Format;

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(126).driver(needs_reset_in_flight),
    code(127).driver(features_refused),
    code(128).driver(never_stable),
];

/// A device that takes chains, and gives nothing back.
struct Liar {
    info: DeviceInfo,
    host: OnceLock<Host>,
    status: Mutex<Status>,
    /// Whether FEATURES_OK stays unset.
    refuses: AtomicBool,
    /// Whether each look at the configuration changes it.
    restless: AtomicBool,
    generation: AtomicU32,
    reads: AtomicU32,
    calls: Mutex<Vec<Call>>,
}

impl Liar {
    fn open() -> (Arc<Self>, Device) {
        let liar = Arc::new(Self {
            info: DeviceInfo {
                name: "liar0".into(),
                device_type: DeviceType::Net,
                vendor: 0,
                queues: 2,
                groups: 1,
                asids: 1,
                config_size: 8,
                kicks: KickKind::Taken,
                calls: CallKind::Any,
            },
            host: OnceLock::new(),
            status: Mutex::default(),
            refuses: AtomicBool::new(false),
            restless: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            reads: AtomicU32::new(0),
            calls: Mutex::default(),
        });
        let parent: Arc<dyn VdpaDevice> = liar.clone();
        let device = Device::new(parent, Relay::new()).expect("a device");
        (liar, device)
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self, event: Event) {
        self.host.get().expect("attached").events.raise(event);
    }
}

impl VdpaDevice for Liar {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn attach(&self, host: Host) -> Result<()> {
        assert!(self.host.set(host).is_ok(), "attached twice");
        Ok(())
    }
    fn caps(&self) -> Caps<'_> {
        Caps::NONE
    }
    fn offered(&self) -> Features {
        Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM, bits::RING_PACKED])
    }
    fn accept(&self, _: Features) -> Result<()> {
        Ok(())
    }
    fn status(&self) -> Result<Status> {
        Ok(*Liar::status(self))
    }
    fn add_status(&self, mut bits: Status) -> Result<()> {
        if self.refuses.load(Ordering::SeqCst) {
            bits.remove(Status::FEATURES_OK);
        }
        *Liar::status(self) |= bits;
        Ok(())
    }
    fn begin_reset(&self) -> Result<()> {
        *Liar::status(self) = Status::empty();
        self.calls().clear();
        Ok(())
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        Ok(Some(self.generation.load(Ordering::SeqCst)))
    }
    fn read_config(&self, _: u32, to: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let now = match self.restless.load(Ordering::SeqCst) {
            true => self.generation.fetch_add(1, Ordering::SeqCst),
            false => self.generation.load(Ordering::SeqCst),
        };
        to.fill(now as u8);
        Ok(())
    }
    fn write_config(&self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> {
        Ok(QueueLimits {
            max_size: 64,
            group: GroupIndex::new(0),
        })
    }
    fn start_queue(&self, _: QueueIndex, _: &QueueConfig, _: Kick, call: Call) -> Result<Doorbell> {
        self.calls().push(call);
        Ok(Doorbell::NONE)
    }
    fn replace_call(&self, _: QueueIndex, _: Call) -> Result<()> {
        Ok(())
    }
}

fn wanted(format: Format) -> Features {
    let plain = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM]);
    match format {
        Format::Split => plain,
        Format::Packed => plain.with(bits::RING_PACKED),
    }
}

const SETUP: u16 = 8;

fn setup() -> QueueSetup {
    QueueSetup {
        size: SETUP,
        buffers: 16,
        buffer_len: 64,
        ..QueueSetup::default()
    }
}

fn needs_reset_in_flight(format: Format) {
    let (liar, device) = Liar::open();
    let mut device = Some(device);
    for round in 0..3 {
        let opened = Session::open(device.take().expect("it came back"), soon());
        let session = opened.unwrap_or_else(|(_, why)| panic!("round {round}: {why}"));
        let negotiated = session.negotiate(wanted(format));
        let mut session = negotiated.unwrap_or_else(|(_, why)| panic!("round {round}: {why}"));
        let q = QueueIndex::new(0);
        session.queue(q, setup()).expect("a queue");
        let ran = session.run();
        let mut session = ran.unwrap_or_else(|(_, why)| panic!("round {round}: {why}"));
        let queue = session.queue_mut(q).expect("it was set up");
        let mut done = Completions::new(8);
        for _ in 0..4 {
            let lease = queue.lease().expect("a buffer");
            queue.send(lease, 10).expect("room");
        }
        queue.publish();
        liar.raise(Event::NeedsReset {
            queue: Some(q),
            why: "on purpose".into(),
        });
        // Called for nothing, which says nothing.
        liar.calls().iter().for_each(Call::raise);
        let queue = session.queue_mut(q).expect("it was set up");
        assert_eq!(queue.poll(&mut done).expect("a look"), 0);
        let shortly = Deadline::after(Duration::from_millis(5));
        assert!(!queue.wait(shortly).expect("a wait"), "nothing comes back");
        // What is in flight stays so, and what is free can be used; nobody is promised anything.
        assert_eq!(queue.in_flight(), 4);
        while let Some(lease) = queue.lease() {
            if let Err(full) = queue.send(lease, 10) {
                assert!(matches!(full.why, Error::RingFull { .. }), "{}", full.why);
                queue.put(full.lease);
                break;
            }
        }
        queue.publish();
        assert_eq!(queue.in_flight(), SETUP);
        let status = session.device().status().expect("a status");
        assert!(status.contains(Status::DEVICE_NEEDS_RESET), "{status}");
        // Nothing goes on before the reset.
        assert!(session.device().accept(wanted(format)).is_err());
        assert!(session.device().write_status(0x0f | 0x80).is_ok(), "FAILED");
        let closed = session.close(soon());
        let back = closed.unwrap_or_else(|(_, why)| panic!("round {round}: {why}"));
        assert_eq!(back.status().expect("a status"), Status::empty());
        let dma = back.dma(vdpa_core::Asid::new(0)).expect("a space");
        assert!(dma.mappings().is_empty(), "its memory is had back");
        device = Some(back);
    }
    let events = device.expect("it came back").events().expect("once");
    let mut told = 0;
    while let Some(event) = events.try_next() {
        assert!(matches!(event, Event::NeedsReset { .. }), "{event:?}");
        told += 1;
    }
    assert!(told >= 1);
}

fn features_refused(format: Format) {
    let (liar, device) = Liar::open();
    liar.refuses.store(true, Ordering::SeqCst);
    let opened = Session::open(device, soon());
    let mut session = opened.unwrap_or_else(|(_, why)| panic!("{why}"));
    for _ in 0..5 {
        let Err((same, why)) = session.negotiate(wanted(format)) else {
            panic!("FEATURES_OK was not there")
        };
        assert!(matches!(why, Error::FeaturesRefused { .. }), "{why}");
        let status = same.device().status().expect("a status");
        assert!(!status.contains(Status::FEATURES_OK), "{status}");
        assert!(same.device().negotiated().is_empty());
        assert!(same.device().write_status(0x07).is_err(), "DRIVER_OK");
        session = same;
    }
    // Another choice, or another day.
    liar.refuses.store(false, Ordering::SeqCst);
    let negotiated = session.negotiate(wanted(format));
    let mut session = negotiated.unwrap_or_else(|(_, why)| panic!("{why}"));
    session.queue(QueueIndex::new(0), setup()).expect("a queue");
    assert!(session.run().is_ok());
}

fn never_stable(format: Format) {
    let (liar, device) = Liar::open();
    let opened = Session::open(device, soon());
    let session = opened.unwrap_or_else(|(_, why)| panic!("{why}"));
    let negotiated = session.negotiate(wanted(format));
    let session = negotiated.unwrap_or_else(|(_, why)| panic!("{why}"));
    liar.restless.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let before = liar.reads.load(Ordering::SeqCst);
        let mut bytes = [0; 8];
        let why = session.read_config(0, &mut bytes).expect_err("a mix");
        let Error::ConfigUnstable { tries } = why else {
            panic!("{why}")
        };
        let reads = liar.reads.load(Ordering::SeqCst) - before;
        assert_eq!(reads, tries, "it gives up after so many");
        assert!(tries <= 1000);
    }
    // Once it is quiet, all of it is of one moment.
    liar.restless.store(false, Ordering::SeqCst);
    let mut bytes = [0; 8];
    session.read_config(0, &mut bytes).expect("all of it");
    let generation = session.device().config_generation().expect("one");
    assert_eq!(bytes, [generation.unwrap_or(0) as u8; 8]);
}
