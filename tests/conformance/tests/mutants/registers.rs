//! Wrong about registers: functions that answer wrongly, and drivers that access them wrongly.

mod device;
mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vdpa_conformance::registers::{Between, Through};
use vdpa_conformance::{Effort, Ids, Report, Selection, Target, run};
use vdpa_core::{DeviceSpec, Doorbell, Registry, Result};
use vdpa_pci::{PciAccess, PciParent, VirtioPci, Width};
use vdpa_sim::SimMgmt;

/// Where something wrong is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In front of the function.
    Device,
    /// Behind the driver.
    Driver,
}

/// Puts something in front of a function.
pub type Front = fn(Arc<dyn PciAccess>) -> Arc<dyn PciAccess>;

/// A function, or a driver of functions, that is wrong in one way.
pub struct Wrong {
    pub name: &'static str,
    pub caught_by: u16,
    pub spec: &'static str,
    pub side: Side,
    pub wrap: Front,
}

/// What a lie remembers.
#[derive(Default)]
pub struct Memory {
    /// What was written to `queue_select` and `device_feature_select`.
    pub queue: AtomicU32,
    pub select: AtomicU32,
    /// How often the status was written to be 0, and a queue enabled.
    pub resets: AtomicU32,
    pub enabled: AtomicU32,
    /// Whatever a lie keeps.
    pub kept: AtomicU32,
}

impl Memory {
    pub fn keep(&self, value: u32) {
        self.kept.store(value, Ordering::SeqCst);
    }
    pub fn kept(&self) -> u32 {
        self.kept.load(Ordering::SeqCst)
    }
}

pub fn of(count: &AtomicU32) -> u32 {
    count.load(Ordering::SeqCst)
}

/// Offsets in the common configuration.
pub mod at {
    pub const DEVICE_FEATURE_SELECT: u64 = 0;
    pub const DEVICE_FEATURE: u64 = 4;
    pub const DRIVER_FEATURE: u64 = 12;
    pub const CONFIG_VECTOR: u64 = 16;
    pub const NUM_QUEUES: u64 = 18;
    pub const STATUS: u64 = 20;
    pub const QUEUE_SELECT: u64 = 22;
    pub const QUEUE_SIZE: u64 = 24;
    pub const QUEUE_VECTOR: u64 = 26;
    pub const QUEUE_ENABLE: u64 = 28;
    pub const DESC: u64 = 32;
    pub const QUEUE_RESET: u64 = 58;
    pub const ADMIN_INDEX: u64 = 60;
}

/// What becomes of a read of the common configuration: its offset, and how it is carried out.
pub type OnRead = fn(&Memory, u64, &dyn Fn(Width) -> Result<u32>, Width) -> Result<u32>;
/// The same of a write: `put(offset, width, value)` carries one out.
pub type OnWrite =
    fn(&Memory, u64, &dyn Fn(u64, Width, u32) -> Result<()>, Width, u32) -> Result<()>;

/// Lies about the common configuration, which is where QEMU's layout has it.
pub struct Common {
    pub memory: Memory,
    pub read: OnRead,
    pub write: OnWrite,
}

/// In QEMU's layout.
const BAR: u8 = 4;
const COMMON: std::ops::Range<u64> = 0..0x1000;

pub fn reads_well(
    _: &Memory,
    _: u64,
    get: &dyn Fn(Width) -> Result<u32>,
    width: Width,
) -> Result<u32> {
    get(width)
}

pub fn writes_well(
    _: &Memory,
    at: u64,
    put: &dyn Fn(u64, Width, u32) -> Result<()>,
    width: Width,
    value: u32,
) -> Result<()> {
    put(at, width, value)
}

impl Common {
    pub fn around(to: Arc<dyn PciAccess>, read: OnRead, write: OnWrite) -> Arc<dyn PciAccess> {
        let memory = Memory::default();
        Through::around(
            to,
            Arc::new(Self {
                memory,
                read,
                write,
            }),
        )
    }
}

impl Between for Common {
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        if bar != BAR || !COMMON.contains(&at) {
            return to.read(bar, at, width);
        }
        (self.read)(&self.memory, at, &|width| to.read(bar, at, width), width)
    }
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        if bar != BAR || !COMMON.contains(&at) {
            return to.write(bar, at, width, value);
        }
        let memory = &self.memory;
        match at {
            at::DEVICE_FEATURE_SELECT => memory.select.store(value, Ordering::SeqCst),
            at::QUEUE_SELECT => memory.queue.store(value, Ordering::SeqCst),
            at::STATUS if value == 0 => {
                memory.resets.fetch_add(1, Ordering::SeqCst);
            }
            at::QUEUE_ENABLE => {
                memory.enabled.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
        let put = |at, width, value| to.write(bar, at, width, value);
        (self.write)(memory, at, &put, width, value)
    }
}

/// Doorbells that are not what was asked for.
pub struct Bells(pub fn(&dyn PciAccess, u64, Width, u16) -> Result<Doorbell>);

impl Between for Bells {
    fn doorbell(
        &self,
        to: &dyn PciAccess,
        _: u8,
        at: u64,
        width: Width,
        name: u16,
    ) -> Result<Doorbell> {
        (self.0)(to, at, width, name)
    }
}

pub const BELLS_BAR: u8 = BAR;

/// Nothing wrong.
struct Right;

impl Between for Right {}

fn judge(wrong: &Wrong, selection: &Selection) -> Report {
    let parent = Arc::new(SimMgmt::new());
    let mut registry = Registry::new();
    registry.add(parent.clone());
    let spec = DeviceSpec::parse(wrong.spec).unwrap();
    let (side, wrap) = (wrong.side, wrong.wrap);
    let target = Target::named(&registry, wrong.spec).unwrap();
    let target = target.with_function(move || {
        let function = parent.function(&spec)?;
        Ok(match side {
            Side::Device => wrap(function),
            Side::Driver => function,
        })
    });
    let target = target.driven_by(move |function| {
        let function = match side {
            Side::Device => function,
            Side::Driver => wrap(function),
        };
        Ok(Arc::new(VirtioPci::open(function)?))
    });
    run(&target, selection)
}

fn all() -> impl Iterator<Item = &'static Wrong> {
    device::WRONG.iter().chain(driver::WRONG)
}

#[test]
fn each_is_caught() {
    let mut free = Vec::new();
    for wrong in all() {
        let selection = Selection {
            patience: Some(Duration::from_secs(1)),
            fail_fast: true,
            ..Selection::only(Ids::one(wrong.caught_by))
        };
        let report = judge(wrong, &selection);
        if report.failed() == 0 {
            free.push((wrong.name, wrong.caught_by, format!("{:?}", report.rows)));
        }
        for row in report.failures() {
            println!("{}: {row}", wrong.name);
        }
    }
    assert!(free.is_empty(), "not caught: {free:#?}");
}

/// What is wrapped in nothing wrong keeps what the others are caught by.
#[test]
fn the_wrappers_alone_break_nothing() {
    let ids: Ids = all().map(|wrong| wrong.caught_by).collect();
    for spec in ["sim:net,as=pci", "sim:blk,as=pci"] {
        for side in [Side::Device, Side::Driver] {
            let wraps: [Front; 2] = [
                |to| Through::around(to, Arc::new(Right)),
                |to| Common::around(to, reads_well, writes_well),
            ];
            for wrap in wraps {
                let wrong = Wrong {
                    name: "nothing",
                    caught_by: 0,
                    spec,
                    side,
                    wrap,
                };
                let selection = Selection {
                    effort: Effort::Full,
                    ..Selection::only(ids.clone())
                };
                let report = judge(&wrong, &selection);
                assert_eq!(report.failed(), 0, "{report}");
            }
        }
    }
}

#[test]
fn no_two_are_called_the_same() {
    let names: std::collections::BTreeSet<_> = all().map(|wrong| wrong.name).collect();
    assert_eq!(names.len(), all().count());
}
