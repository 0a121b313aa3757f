//! What the function reaches: the IOMMU, bus master, decoding, removal, reset.

use std::sync::{Arc, Mutex, Weak};

use vdpa_core::{ErrorKind, Event, EventSink, MgmtDevice, bits};
use vdpa_mem::{Access, Iova, IovaRange, Mapping};
use vdpa_pci::{PciAccess, Width};
use vdpa_sim::pci::{DmaFault, Layout, Setup};

use crate::bench::*;

fn at(bench: &Bench, first: u64, len: u64) -> Mapping {
    Mapping {
        iova: IovaRange::new(Iova::new(first), len).unwrap(),
        ..bench.mapping()
    }
}

#[test]
fn what_is_not_mapped_is_a_fault_and_is_not_touched() {
    let bench = Bench::running("qemu");
    // The buffer's page is taken back and everything else mapped again.
    bench.f.dma_unmap(&bench.mapping()).unwrap();
    assert_eq!(bench.f.fault_count(), 0);
    let bench = Bench::open("sim:rng", "qemu");
    bench.f.dma_map(&at(&bench, BASE, 0x8000)).unwrap();
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    bench.enable(0, 16);
    bench.w8(STATUS, 0x0f);
    bench.offer(0, 1);
    let (bar, bell) = bench.bell();
    bench.f.write(bar, bell, Width::U16, 0).unwrap();
    until("a fault", || bench.f.fault_count() > 0);
    let fault = DmaFault {
        at: Iova::new(BASE + 0xf_0000),
        want: Access::DeviceWrites,
    };
    assert_eq!(bench.f.faults(), [fault]);
    assert!(bench.f.faults().is_empty(), "told once");
    let mut bytes = [0xff; 8];
    bench.window.bytes().read(0xf_0000, &mut bytes);
    assert_eq!(bytes, [0; 8], "the memory that is not mapped");
}

#[test]
fn areas_that_are_not_mapped_are_a_fault_when_the_queue_is_enabled() {
    let bench = Bench::open("sim:rng", "qemu");
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    bench.w16(SELECT, 0);
    bench.areas(0);
    bench.w16(ENABLE, 1);
    assert_eq!(bench.r16(ENABLE), 0);
    let faults = bench.f.faults();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].at, Iova::new(BASE));
}

#[test]
fn the_iommu_maps_within_its_limits_and_says_what_is_wrong() {
    let mut setup = Setup::new(Layout::QEMU);
    setup.limits.max_entries = Some(2);
    let bench = Bench::with("sim:rng", setup);
    let refused = |m: &Mapping| bench.f.dma_map(m).unwrap_err().to_string();
    let reserved = refused(&at(&bench, 0xfee0_0000, 0x1000));
    assert!(reserved.contains("0xfee00000"), "{reserved}");
    assert!(refused(&at(&bench, 1 << 48, 0x1000)).contains("IOMMU"));
    assert!(refused(&at(&bench, 0x800, 0x1000)).contains("page"));
    assert!(refused(&at(&bench, 0x1000, 0x800)).contains("page"));
    bench.f.dma_map(&at(&bench, 0x1000, 0x1000)).unwrap();
    assert!(refused(&at(&bench, 0x1000, 0x2000)).contains("already"));
    bench.f.dma_map(&at(&bench, 0x3000, 0x1000)).unwrap();
    let full = bench.f.dma_map(&at(&bench, 0x5000, 0x1000)).unwrap_err();
    assert!(full.to_string().contains("2 mappings"), "{full}");
    assert!(bench.f.dma_unmap(&at(&bench, 0x1000, 0x2000)).is_err());
    bench.f.dma_unmap(&at(&bench, 0x1000, 0x1000)).unwrap();
    bench.f.dma_map(&at(&bench, 0x5000, 0x1000)).unwrap();
}

#[test]
fn a_function_that_is_no_bus_master_neither_reaches_memory_nor_interrupts() {
    let bench = Bench::running("qemu");
    let count = Count::default();
    bench.f.enable_vectors(1).unwrap();
    bench.f.set_vector(0, count.call()).unwrap();
    bench.w16(CONFIG_VECTOR, 0);
    bench.f.write_config(4, Width::U16, 2).unwrap();
    bench.offer(0, 1);
    let (bar, at) = bench.bell();
    bench.f.write(bar, at, Width::U16, 0).unwrap();
    // The ring is out of reach: the device is lost, and cannot tell.
    until("a need for a reset", || bench.r8(STATUS) & 0x40 != 0);
    assert_eq!((bench.used(0), count.now()), (0, 0));
    bench.f.write_config(4, Width::U16, 6).unwrap();
    until("the message that was held back", || count.now() == 1);
}

#[test]
fn with_decoding_off_reads_are_all_ones_and_writes_are_lost() {
    let bench = Bench::open("sim:rng", "qemu");
    bench.w8(STATUS, 1);
    bench.f.write_config(4, Width::U16, 4).unwrap();
    assert_eq!(bench.r8(STATUS), 0xff);
    assert_eq!(bench.r32(DEVICE_FEATURE), u32::MAX);
    bench.w8(STATUS, 3);
    bench.f.write_config(4, Width::U16, 6).unwrap();
    assert_eq!(bench.r8(STATUS), 1);
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl EventSink for Told {
    fn raise(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn a_function_that_is_taken_away_reads_all_ones_and_says_so_once() {
    for by_device in [false, true] {
        let bench = Bench::running("qemu");
        let told = Arc::new(Told::default());
        bench.f.watch(told.clone()).unwrap();
        bench.f.request_removal();
        match by_device {
            true => bench.sim.dev_del("sim0").unwrap(),
            false => bench.f.remove(),
        }
        until("the end", || told.0.lock().unwrap().len() == 2);
        assert_eq!(bench.config(0, Width::U32), u32::MAX);
        assert_eq!(bench.r8(STATUS), 0xff);
        assert_eq!(bench.r16(SIZE), 0xffff);
        bench.w8(STATUS, 0);
        assert_eq!(bench.f.reset().unwrap_err().kind(), ErrorKind::Gone);
        bench.f.dma_unmap(&bench.mapping()).unwrap();
        assert_eq!(
            *told.0.lock().unwrap(),
            [Event::RemoveRequested, Event::Gone]
        );
        let late = Arc::new(Told::default());
        bench.f.watch(late.clone()).unwrap();
        assert_eq!(*late.0.lock().unwrap(), [Event::Gone]);
    }
}

#[test]
fn a_reset_of_the_function_resets_the_device() {
    let bench = Bench::running("qemu");
    bench.f.reset().unwrap();
    until("the reset", || bench.r8(STATUS) == 0);
    assert_eq!(bench.r16(ENABLE), 0);
    assert_eq!(bench.config(4, Width::U16), 6, "as the host restores it");
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    bench.window.bytes().zero(0, 0x3000);
    bench.enable(0, 16);
}

#[test]
fn a_reset_by_the_express_capability_takes_configuration_space_back() {
    let bench = Bench::running("qemu");
    let express = bench.capabilities(0x10)[0];
    assert_ne!(
        bench.config(express + 4, Width::U32) & 1 << 28,
        0,
        "it can be reset"
    );
    bench.f.enable_vectors(1).unwrap();
    bench
        .f
        .write_config(express + 8, Width::U16, 1 << 15)
        .unwrap();
    assert_eq!(bench.config(express + 8, Width::U16), 0, "reads 0");
    assert_eq!(bench.config(4, Width::U16), 0);
    let msix = bench.capabilities(0x11)[0];
    assert_eq!(bench.config(msix + 2, Width::U16) >> 14, 0);
    assert_eq!(bench.r8(STATUS), 0xff, "decoding is off");
    bench.f.write_config(4, Width::U16, 6).unwrap();
    until("the reset", || bench.r8(STATUS) == 0);
}

#[test]
fn who_watched_a_function_before_is_let_go_of() {
    let bench = Bench::open("sim:rng", "qemu");
    let first = Arc::new(Told::default());
    bench.f.watch(first.clone()).unwrap();
    let second = Arc::new(Told::default());
    bench.f.watch(second.clone()).unwrap();
    assert_eq!(Arc::strong_count(&first), 1);
    bench.f.remove();
    assert_eq!(*second.0.lock().unwrap(), [Event::Gone]);
}

/// Lets the line call again when it is told of an end.
struct Unmasks(Weak<Bench>);

impl EventSink for Unmasks {
    fn raise(&self, event: Event) {
        if event == Event::Gone {
            self.0.upgrade().unwrap().f.unmask_intx().unwrap();
        }
    }
}

#[test]
fn a_function_that_is_taken_away_interrupts_nobody() {
    let bench = Arc::new(Bench::running("intx"));
    let line = Count::default();
    bench.f.set_intx(line.call()).unwrap();
    bench.offer(0, 1);
    let (bar, bell) = bench.bell();
    bench.f.write(bar, bell, Width::U16, 0).unwrap();
    until("the line", || line.now() == 1);
    bench
        .f
        .watch(Arc::new(Unmasks(Arc::downgrade(&bench))))
        .unwrap();
    bench.f.remove();
    assert_eq!(line.now(), 1, "it was held until then");
    bench.f.write_config(4, Width::U16, 6).unwrap();
    bench.f.unmask_intx().unwrap();
    assert_eq!(line.now(), 1);
}
