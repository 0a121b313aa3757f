//! Every interleaving of publication and re-arming that a weakly ordered machine may show, up to
//! [`PREEMPTIONS`] preemptions a run; and the same with one fence missing, which must fail for
//! the reason that the fence is there.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p vdpa-ring --release --test loom`
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;
use vdpa_mem::{Fault, Iova};
use vdpa_ring::{
    Areas, Batch, Completion, DeviceMem, DeviceRing, DriverMem, DriverRing, Format, Pos,
    QueueState, RingFeatures, RingMem, Segment, Used, area_sizes,
};

/// Preemptions a run has at most; two threads of one operation each need no more.
const PREEMPTIONS: usize = 3;
const SIZE: u16 = 2;
const SEGMENT: Segment = Segment {
    addr: Iova::new(0x5000),
    len: 64,
};

/// A fence of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Site {
    DriverRelease,
    DriverAcquire,
    DriverFull,
    DeviceRelease,
    DeviceAcquire,
    DeviceFull,
}

/// Cells of one area, one array a width: no location has two.
struct Cells {
    u16s: Vec<AtomicU16>,
    u32s: Vec<AtomicU32>,
    u64s: Vec<AtomicU64>,
}

/// One side's view of an area, with its fences but for the one missing.
#[derive(Clone)]
struct Weak {
    cells: Arc<Cells>,
    /// Acquire, release, full.
    fences: [bool; 3],
}

macro_rules! cells {
    ($load:ident, $store:ident, $int:ty, $cells:ident) => {
        fn $load(&self, at: u32) -> $int {
            self.cells.$cells[at as usize / size_of::<$int>()].load(Ordering::Relaxed)
        }
        fn $store(&self, at: u32, value: $int) {
            self.cells.$cells[at as usize / size_of::<$int>()].store(value, Ordering::Relaxed);
        }
    };
}

impl RingMem for Weak {
    cells!(load_u16, store_u16, u16, u16s);
    cells!(load_u32, store_u32, u32, u32s);
    cells!(load_u64, store_u64, u64, u64s);
    fn acquire(&self) {
        if self.fences[0] {
            fence(Ordering::Acquire);
        }
    }
    fn release(&self) {
        if self.fences[1] {
            fence(Ordering::Release);
        }
    }
    fn full(&self) {
        if self.fences[2] {
            fence(Ordering::SeqCst);
        }
    }
}

struct DeviceSide(Areas<Weak>);

impl DeviceMem for DeviceSide {
    type Ring = Weak;
    fn areas(&self) -> &Areas<Weak> {
        &self.0
    }
    fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> {
        Err(Fault::Denied)
    }
}

/// Where the queue stands before the model begins.
#[derive(Clone, Copy, Debug)]
enum Start {
    Fresh,
    /// One chain before the index (split) or the lap (packed) comes round.
    BeforeWrap,
}

impl Start {
    fn state(self, format: Format) -> Option<QueueState> {
        let at = Pos {
            index: SIZE - 1,
            wrap: true,
        };
        match (self, format) {
            (Self::Fresh, _) => None,
            (_, Format::Split) => Some(QueueState::Split {
                avail: u16::MAX,
                used: Some(u16::MAX),
            }),
            (_, Format::Packed) => Some(QueueState::Packed {
                avail: at,
                used: at,
            }),
        }
    }
}

/// Both halves over one queue, and a payload word.
struct Pair {
    driver: DriverRing,
    device: DeviceRing,
    driver_mem: DriverMem<Weak>,
    device_mem: DeviceSide,
    payload: Arc<AtomicU64>,
    batch: Batch,
}

impl Pair {
    fn new(form: Form, without: Option<Site>) -> Self {
        let (format, features, start) = form;
        let sizes = area_sizes(format, SIZE, true);
        let state = start.state(format);
        // Indices in shared memory stand where the halves do; slots before the position were used
        // in the lap before.
        let (index, used) = match state {
            Some(QueueState::Split { avail, .. }) => (avail, 0),
            Some(QueueState::Packed { .. }) => (0, u32::from(SIZE - 1)),
            None => (0, 0),
        };
        let word = |at: u32| match at % 2 == 1 && at / 2 < used {
            true => AtomicU64::new(0x8080 << 48),
            false => AtomicU64::new(0),
        };
        let half = |at: u32| AtomicU16::new(if at == 1 { index } else { 0 });
        let area = |bytes: u32, words: bool| {
            let cells = |width: u32, used: bool| 0..if used { bytes.div_ceil(width) } else { 0 };
            Arc::new(Cells {
                u16s: cells(2, !words).map(half).collect(),
                u32s: cells(4, !words).map(|_| AtomicU32::new(0)).collect(),
                u64s: cells(8, words).map(word).collect(),
            })
        };
        let cells = [
            area(sizes.descriptor.bytes, true),
            area(sizes.driver.bytes, false),
            area(sizes.device.bytes, false),
        ];
        let side = |sites: [Site; 3]| {
            let fences = sites.map(|site| without != Some(site));
            let [descriptor, driver, device] = cells.each_ref().map(|cells| Weak {
                cells: cells.clone(),
                fences,
            });
            Areas {
                descriptor,
                driver,
                device,
            }
        };
        let driver = side([Site::DriverAcquire, Site::DriverRelease, Site::DriverFull]);
        let device = side([Site::DeviceAcquire, Site::DeviceRelease, Site::DeviceFull]);
        Self {
            driver: DriverRing::new(format, SIZE, features, state).unwrap(),
            device: DeviceRing::new(format, SIZE, features, state).unwrap(),
            driver_mem: DriverMem::new(driver),
            device_mem: DeviceSide(device),
            payload: Arc::new(AtomicU64::new(0)),
            batch: Batch::new(2, 2),
        }
    }

    /// One chain made available and taken, before the threads begin.
    fn one_taken(&mut self) -> Used {
        self.driver.add(&self.driver_mem, &[], &[SEGMENT]).unwrap();
        self.driver.publish(&self.driver_mem);
        let taken = self.device.take(&self.device_mem, &mut self.batch, 2);
        assert_eq!(taken, Ok(1));
        Used {
            token: self.batch.chain(0).unwrap().token(),
            len: 7,
        }
    }
}

type Form = (Format, RingFeatures, Start);

fn check(form: Form, without: Option<Site>, run: fn(Pair)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || run(Pair::new(form, without)));
}

const FEATURES: [RingFeatures; 3] = [
    RingFeatures::empty(),
    RingFeatures::EVENT_IDX,
    RingFeatures::IN_ORDER,
];

/// Runs a model in every form; then without each of its fences, where an assertion that begins
/// with `symptom` must fail.
fn model(symptom: &str, features: &[RingFeatures], fences: &[Site], run: fn(Pair)) {
    for format in [Format::Split, Format::Packed] {
        for &features in features {
            for start in [Start::Fresh, Start::BeforeWrap] {
                let form = (format, features, start);
                check(form, None, run);
                for &site in fences {
                    let failed = catch_unwind(AssertUnwindSafe(|| check(form, Some(site), run)));
                    let Err(panic) = failed else {
                        panic!("{form:?} holds without {site:?}");
                    };
                    let said = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or(panic.downcast_ref().copied())
                        .unwrap_or_default();
                    assert!(
                        said.starts_with(symptom) || said.contains(&format!("failed: {symptom}")),
                        "{form:?} without {site:?} fails, but not as {symptom}: {said}"
                    );
                }
            }
        }
    }
}

/// Payload, descriptor and entry are visible once the index (split) or the flags (packed) are.
#[test]
fn published_chain_is_whole() {
    model(
        "torn",
        &FEATURES,
        &[Site::DriverRelease, Site::DeviceAcquire],
        |pair| {
            let Pair {
                mut driver,
                mut device,
                driver_mem,
                device_mem,
                payload,
                mut batch,
            } = pair;
            let data = payload.clone();
            let side = thread::spawn(move || {
                data.store(42, Ordering::Relaxed);
                // Two in one publication: the packed ring shows the second first.
                driver.add(&driver_mem, &[], &[SEGMENT]).unwrap();
                driver.add(&driver_mem, &[], &[SEGMENT]).unwrap();
                driver.publish(&driver_mem);
            });
            let taken = device.take(&device_mem, &mut batch, 2);
            let seen = payload.load(Ordering::Relaxed);
            let found: Vec<_> = batch
                .iter()
                .map(|chain| chain.writable().to_vec())
                .collect();
            side.join().unwrap();
            match taken {
                Ok(0) => {}
                Ok(n) => {
                    assert_eq!(
                        found,
                        vec![[SEGMENT]; n],
                        "torn: descriptors of chains taken"
                    );
                    assert_eq!(seen, 42, "torn: payload of a chain that was taken");
                }
                Err(error) => panic!("torn: {error}"),
            }
        },
    );
}

/// The same for a chain of two descriptors: all of it, or none.
#[test]
fn published_list_is_whole() {
    model(
        "torn",
        &FEATURES,
        &[Site::DriverRelease, Site::DeviceAcquire],
        |pair| {
            let Pair {
                mut driver,
                mut device,
                driver_mem,
                device_mem,
                mut batch,
                ..
            } = pair;
            let side = thread::spawn(move || {
                driver.add(&driver_mem, &[SEGMENT], &[SEGMENT]).unwrap();
                driver.publish(&driver_mem);
            });
            let taken = device.take(&device_mem, &mut batch, 2);
            let found = batch
                .chain(0)
                .map(|chain| (chain.readable().to_vec(), chain.writable().to_vec()));
            side.join().unwrap();
            match taken {
                Ok(0) => {}
                Ok(1) => {
                    let whole = Some((vec![SEGMENT], vec![SEGMENT]));
                    assert_eq!(found, whole, "torn: list that was taken");
                }
                other => panic!("torn: {other:?}"),
            }
        },
    );
}

/// What the device wrote is visible once the chain is used.
#[test]
fn used_chain_is_whole() {
    model(
        "torn",
        &FEATURES,
        &[Site::DeviceRelease, Site::DriverAcquire],
        |mut pair| {
            let used = pair.one_taken();
            let id = used.token.id();
            let Pair {
                mut driver,
                mut device,
                driver_mem,
                device_mem,
                payload,
                ..
            } = pair;
            let data = payload.clone();
            let side = thread::spawn(move || {
                data.store(42, Ordering::Relaxed);
                device.commit(&device_mem, &[used]).unwrap();
            });
            let mut out = [Completion::default(); 2];
            let taken = driver.take_used(&driver_mem, &mut out);
            let seen = payload.load(Ordering::Relaxed);
            side.join().unwrap();
            match taken {
                Ok(0) => {}
                Ok(1) => {
                    let used = Completion { id, len: 7 };
                    assert_eq!(out[0], used, "torn: entry of a chain that was used");
                    assert_eq!(seen, 42, "torn: payload of a chain that was used");
                }
                other => panic!("torn: {other:?}"),
            }
        },
    );
}

/// A device that goes to sleep while the driver publishes: it finds the chain, or is kicked.
#[test]
fn kick_is_not_lost_while_the_device_arms() {
    model(
        "asleep",
        &FEATURES,
        &[Site::DriverFull, Site::DeviceFull],
        |mut pair| {
            pair.device.disarm(&pair.device_mem);
            let Pair {
                mut driver,
                mut device,
                driver_mem,
                device_mem,
                ..
            } = pair;
            let side = thread::spawn(move || {
                driver.add(&driver_mem, &[], &[SEGMENT]).unwrap();
                driver.publish(&driver_mem)
            });
            let found = device.arm(&device_mem).unwrap();
            let kicked = side.join().unwrap();
            assert!(
                found || kicked,
                "asleep: the device, with a chain available"
            );
        },
    );
}

/// A driver that goes to sleep while the device commits: it finds the chain, or is called.
#[test]
fn call_is_not_lost_while_the_driver_arms() {
    model(
        "asleep",
        &FEATURES,
        &[Site::DeviceFull, Site::DriverFull],
        |mut pair| {
            pair.driver.disarm(&pair.driver_mem);
            let used = pair.one_taken();
            let Pair {
                mut driver,
                mut device,
                driver_mem,
                device_mem,
                ..
            } = pair;
            let side = thread::spawn(move || device.commit(&device_mem, &[used]).unwrap());
            let found = driver.arm(&driver_mem);
            let called = side.join().unwrap();
            assert!(found || called, "asleep: the driver, with a chain used");
        },
    );
}

/// A device that asked for kicks before, and asks again one chain later: what it said the first
/// time kicks no more, with EVENT_IDX.
#[test]
fn kick_is_not_lost_while_the_device_arms_again() {
    let features = [RingFeatures::EVENT_IDX];
    let fences = [Site::DriverFull, Site::DeviceFull];
    model("asleep", &features, &fences, |mut pair| {
        assert_eq!(pair.device.arm(&pair.device_mem), Ok(false));
        pair.one_taken();
        let Pair {
            mut driver,
            mut device,
            driver_mem,
            device_mem,
            ..
        } = pair;
        let side = thread::spawn(move || {
            driver.add(&driver_mem, &[], &[SEGMENT]).unwrap();
            driver.publish(&driver_mem)
        });
        let found = device.arm(&device_mem).unwrap();
        let kicked = side.join().unwrap();
        assert!(
            found || kicked,
            "asleep: the device, with a chain available"
        );
    });
}

/// The same for a driver that asks for calls again.
#[test]
fn call_is_not_lost_while_the_driver_arms_again() {
    let features = [RingFeatures::EVENT_IDX];
    let fences = [Site::DeviceFull, Site::DriverFull];
    model("asleep", &features, &fences, |mut pair| {
        assert!(!pair.driver.arm(&pair.driver_mem));
        let first = pair.one_taken();
        pair.device.commit(&pair.device_mem, &[first]).unwrap();
        let mut out = [Completion::default()];
        assert_eq!(pair.driver.take_used(&pair.driver_mem, &mut out), Ok(1));
        let used = pair.one_taken();
        let Pair {
            mut driver,
            mut device,
            driver_mem,
            device_mem,
            ..
        } = pair;
        let side = thread::spawn(move || device.commit(&device_mem, &[used]).unwrap());
        let found = driver.arm(&driver_mem);
        let called = side.join().unwrap();
        assert!(found || called, "asleep: the driver, with a chain used");
    });
}
