//! Section L: what maps for a function, and the system that it is part of, refuse. The system is played by what stands in
//! front of a simulated function; a kernel says the same in other words.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vdpa_conformance::registers::Between;
use vdpa_core::{Asid, DmaLimits, Error, ErrorKind, Event, EventSink, Result, Status};
use vdpa_hostile::soon;
use vdpa_hostile::suite::{Code, code};
use vdpa_mem::{Access, DmaMemory, Iova, IovaRange, Mapping, Region};
use vdpa_pci::{PciAccess, Width};
use vdpa_ring::Format;

use crate::function::{Nothing, function, good, hurried, life, open, watched};

/// The functions of the rows. That of 132 against a whole device is beside them.
pub(crate) const ROWS: &[Code] = &[
    code(130).driver(locked_memory_at_any_map),
    code(131).driver(entries),
    code(133).driver(reserved_window),
    code(134).driver(unmap_refused),
    code(135).driver(reset_refused),
    code(136).driver(broken_descriptor),
    code(137).driver(asked_to_leave),
    code(152).driver(rung_while_not_decoding),
];

const FIRST: u64 = 0x1_0000_0000;
const PAGE: u64 = 4096;
const BATCH: u64 = 8;

fn io(what: &'static str, errno: i32) -> Error {
    let source = std::io::Error::from_raw_os_error(errno);
    Error::Io { what, source }
}

/// Entry `i` of a batch, apart from the others.
fn entry(memory: &Arc<dyn DmaMemory>, i: u64) -> Mapping {
    Mapping {
        iova: IovaRange::new(Iova::new(FIRST + 2 * i * PAGE), PAGE).expect("a range"),
        memory: Arc::clone(memory),
        offset: i * PAGE,
        access: Access::Both,
        dirty: None,
    }
}

fn batch() -> Vec<Mapping> {
    let (memory, _) = Region::memfd(BATCH * PAGE).expect("memory").into_shared();
    (0..BATCH).map(|i| entry(&memory, i)).collect()
}

/// What maps, with its troubles.
struct Troubles {
    /// Which map fails, counted from 0; `u64::MAX`: none.
    map: AtomicU64,
    /// Whether unmaps fail.
    unmaps: bool,
    limits: Option<DmaLimits>,
    maps: AtomicU64,
    /// Maps less unmaps.
    mapped: AtomicI64,
}

impl Troubles {
    fn new(limits: Option<DmaLimits>, unmaps: bool) -> Arc<Self> {
        Arc::new(Self {
            map: AtomicU64::new(u64::MAX),
            unmaps,
            limits,
            maps: AtomicU64::new(0),
            mapped: AtomicI64::new(0),
        })
    }

    fn mapped(&self) -> i64 {
        self.mapped.load(Ordering::SeqCst)
    }
}

impl Between for Troubles {
    fn dma_limits(&self, to: &dyn PciAccess) -> DmaLimits {
        self.limits.clone().unwrap_or_else(|| to.dma_limits())
    }
    fn dma_map(&self, to: &dyn PciAccess, m: &Mapping) -> Result<()> {
        let number = self.maps.fetch_add(1, Ordering::SeqCst);
        if number == self.map.load(Ordering::SeqCst) {
            return Err(io("map memory for a device", libc::ENOMEM));
        }
        to.dma_map(m)?;
        self.mapped.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn dma_unmap(&self, to: &dyn PciAccess, m: &Mapping) -> Result<()> {
        if self.unmaps {
            return Err(io("unmap memory of a device", libc::EINVAL));
        }
        to.dma_unmap(m)?;
        self.mapped.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

/// For every k: map k of a batch is refused, and those before it are taken back.
pub(crate) fn locked_memory_at_any_map(format: Format) {
    watched(format, |parent, kind| {
        let below = function(parent, kind);
        let troubles = Troubles::new(None, false);
        let device = open(&below, &troubles).expect("a function");
        let dma = device.dma(Asid::new(0)).expect("its address space");
        for k in 0..BATCH {
            troubles.maps.store(0, Ordering::SeqCst);
            troubles.map.store(k, Ordering::SeqCst);
            let e = dma.map(batch()).expect_err("map k is refused");
            assert_eq!(e.kind(), ErrorKind::Io, "{e}");
            assert_eq!(
                troubles.mapped(),
                0,
                "map {k}: those before it are taken back"
            );
            assert!(dma.mappings().is_empty(), "map {k}: none is left");
        }
        troubles.map.store(u64::MAX, Ordering::SeqCst);
        dma.map(batch()).expect("all of them");
        assert_eq!(troubles.mapped(), BATCH as i64);
        for mapping in batch() {
            dma.unmap(mapping.iova, soon()).expect("what was mapped");
        }
        assert_eq!(troubles.mapped(), 0);
        life(device, format).expect("nothing is wrong with it");
        good(&below, format);
    });
}

fn entries(format: Format) {
    watched(format, |parent, kind| {
        let below = function(parent, kind);
        let own = below.dma_limits();
        let limits = DmaLimits {
            max_entries: Some(5),
            ..own
        };
        let troubles = Troubles::new(Some(limits), false);
        let device = open(&below, &troubles).expect("a function");
        let dma = device.dma(Asid::new(0)).expect("its address space");
        let e = dma.map(batch()).expect_err("8 are more than 5");
        assert!(e.to_string().contains('5'), "it says how many: {e}");
        assert_eq!(troubles.mapped(), 0, "none is left");
        let mut five = batch();
        five.truncate(5);
        let ranges: Vec<_> = five.iter().map(|m| m.iova).collect();
        dma.map(five).expect("5 are not");
        for range in ranges {
            dma.unmap(range, soon()).expect("what was mapped");
        }
        life(device, format).expect("nothing is wrong with it");
        good(&below, format);
    });
}

fn reserved_window(format: Format) {
    watched(format, |parent, kind| {
        let below = function(parent, kind);
        let own = below.dma_limits();
        // As on x86, where messages of interrupts go.
        let ranges = vec![
            (Iova::new(0), Iova::new(0xfedf_ffff)),
            (Iova::new(0xfef0_0000), Iova::new(0x7f_ffff_ffff)),
        ];
        let troubles = Troubles::new(Some(DmaLimits { ranges, ..own }), false);
        let device = open(&below, &troubles).expect("a function");
        let dma = device.dma(Asid::new(0)).expect("its address space");
        let (memory, _) = Region::memfd(4 * PAGE).expect("memory").into_shared();
        for (what, first, len) in [
            ("inside of it", 0xfee0_0000, PAGE),
            ("its end", 0xfeef_f000, PAGE),
            ("into it", 0xfedf_f000, 2 * PAGE),
            ("out of it", 0xfeef_f000, 2 * PAGE),
            ("behind all", 0x80_0000_0000, PAGE),
        ] {
            let mapping = Mapping {
                iova: IovaRange::new(Iova::new(first), len).expect("a range"),
                offset: 0,
                ..entry(&memory, 0)
            };
            let refused = dma.map(vec![mapping]);
            assert!(refused.is_err(), "{what} was mapped");
            assert_eq!(troubles.mapped(), 0, "{what}");
        }
        life(device, format).expect("nothing is wrong with it");
        good(&below, format);
    });
}

/// It is not certain that the device cannot reach the memory any more: that is kept, and the device is broken.
fn unmap_refused(format: Format) {
    watched(format, |parent, kind| {
        let below = function(parent, kind);
        let troubles = Troubles::new(None, true);
        let device = open(&below, &troubles).expect("a function");
        let dma = device.dma(Asid::new(0)).expect("its address space");
        // It is kept for good, also when the device is let go of: what is counted afterwards is descriptors.
        let (kept, _) = Region::anonymous(PAGE).expect("memory").into_shared();
        let mapping = entry(&kept, 0);
        drop(kept);
        let (range, memory) = (mapping.iova, Arc::downgrade(&mapping.memory));
        dma.map(vec![mapping]).expect("one");
        let refused = dma.unmap(range, soon());
        assert!(refused.is_err(), "an unmap that failed went well");
        assert!(memory.upgrade().is_some(), "the memory is kept");
        let status = device.status().expect_err("it is broken");
        assert_eq!(status.kind(), ErrorKind::Gone, "{status}");
        drop((dma, device));
        assert!(memory.upgrade().is_some(), "nobody knows who reaches it");
        good(&function(parent, kind), format);
    });
}

/// The reset of the whole function is refused, and that of the device does not end.
struct NoReset;

impl Between for NoReset {
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        let is = to.read(bar, at, width)?;
        Ok(if (bar, at) == (4, 20) { is | 4 } else { is })
    }
    fn reset(&self, _: &dyn PciAccess) -> Result<()> {
        Err(io("reset a function", libc::ENOTTY))
    }
}

fn reset_refused(format: Format) {
    watched(format, |parent, kind| {
        let below = function(parent, kind);
        match hurried(|| open(&below, &Arc::new(NoReset))) {
            Err(e) => println!("{kind}: {e}"),
            Ok(_) => panic!("it was opened, and is not reset"),
        }
        good(&below, format);
    });
}

/// Where the function's news goes, once somebody watches.
#[derive(Default)]
struct Wire(Mutex<Option<Arc<dyn EventSink>>>);

impl Wire {
    fn raise(&self, event: Event) {
        let sink = self.0.lock().unwrap();
        sink.as_ref().expect("somebody watches").raise(event);
    }
    /// What is kept here keeps what is told, and that is in the way of letting go.
    fn cut(&self) {
        *self.0.lock().unwrap() = None;
    }
}

impl Between for Wire {
    fn watch(&self, to: &dyn PciAccess, events: Arc<dyn EventSink>) -> Result<()> {
        *self.0.lock().unwrap() = Some(Arc::clone(&events));
        to.watch(events)
    }
}

fn broken_descriptor(format: Format) {
    watched(format, |parent, kind| {
        for news in [
            Event::Gone,
            Event::Broken {
                why: "an error of the bus".to_owned(),
            },
        ] {
            let wire = Arc::new(Wire::default());
            let device = open(&function(parent, kind), &wire).expect("a function");
            let events = device.events().expect("nobody has them");
            // More than once, as a descriptor goes on to say it.
            for _ in 0..3 {
                wire.raise(news.clone());
            }
            let mut told = Vec::new();
            while let Some(event) = events.try_next() {
                told.push(event);
            }
            assert_eq!(told, [news], "it is told once");
            let e = device.status().expect_err("it is not there");
            assert_eq!(e.kind(), ErrorKind::Gone, "{e}");
            assert_eq!(
                life(device, format).expect_err("it is not there").kind(),
                ErrorKind::Gone
            );
            wire.cut();
            good(&function(parent, kind), format);
        }
    });
}

/// Offset of the command register, and what is on in it.
const COMMAND: u16 = 4;
const ON: u32 = 0b110;

fn asked_to_leave(format: Format) {
    watched(format, |parent, kind| {
        let wire = Arc::new(Wire::default());
        let below = function(parent, kind);
        let device = open(&below, &wire).expect("a function");
        let events = device.events().expect("nobody has them");
        wire.raise(Event::RemoveRequested);
        assert_eq!(events.try_next(), Some(Event::RemoveRequested));
        // Asked, and not gone: it works until its user lets go.
        life(device, format).expect("it is there still");
        wire.cut();
        good(&below, format);
        // A BAR that does not decode is as good as none.
        let device = open(&below, &Arc::new(Nothing)).expect("a function");
        below
            .write_config(COMMAND, Width::U16, 0)
            .expect("the command register");
        let ended = hurried(|| life(device, format));
        assert!(ended.is_err(), "nothing decodes, and it worked");
        below
            .write_config(COMMAND, Width::U16, ON)
            .expect("the command register");
        good(&below, format);
    });
}

fn rung_while_not_decoding(format: Format) {
    watched(format, |parent, kind| {
        let below = function(parent, kind);
        for q in 0..2 {
            // In QEMU's layout, of 4 bytes a queue.
            let bell = below
                .doorbell(4, 0x3000 + 4 * q, Width::U16, q as u16)
                .expect("a doorbell");
            bell.ring(q as u32);
            below
                .write_config(COMMAND, Width::U16, 0)
                .expect("the command register");
            for _ in 0..100 {
                bell.ring(q as u32);
            }
            below
                .write_config(COMMAND, Width::U16, ON)
                .expect("the command register");
            bell.ring(q as u32);
            below.revoke_doorbells();
            bell.ring(q as u32);
        }
        let device = open(&below, &Arc::new(Nothing)).expect("a function");
        assert_eq!(device.status().expect("a status"), Status::empty());
        life(device, format).expect("nothing is wrong with it");
        good(&below, format);
    });
}
