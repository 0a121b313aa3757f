//! Configuration space: ids, BARs, capabilities, the PCI_CFG window.

use vdpa_core::bits;
use vdpa_pci::{PciAccess, Width};
use vdpa_sim::pci::{CONFIG_BYTES, Layout};

use crate::bench::*;

#[test]
fn ids_say_what_it_is() {
    for (spec, layout, device, subsystem, revision, class) in [
        ("sim:net", "qemu", 0x1041, 0x1100, 1, 0x02_00_00),
        ("sim:blk", "split", 0x1042, 0x1100, 1, 0x01_80_00),
        ("sim:rng", "qemu", 0x1044, 0x1100, 1, 0x00_ff_00),
        ("sim:net", "transitional", 0x1000, 1, 0, 0x02_00_00),
        ("sim:blk", "transitional", 0x1001, 2, 0, 0x01_80_00),
        ("sim:rng", "legacy", 0x1005, 4, 0, 0x00_ff_00),
    ] {
        let bench = Bench::open(spec, layout);
        assert_eq!(bench.config(0, Width::U32), device << 16 | 0x1af4);
        assert_eq!(bench.config(0x2c, Width::U32), subsystem << 16 | 0x1af4);
        assert_eq!(bench.config(8, Width::U32), class << 8 | revision);
        assert_eq!(bench.f.config_len(), CONFIG_BYTES);
        assert_eq!(bench.config(0x100, Width::U32), 0, "nothing extended");
    }
}

/// Statements 112, 113, 118 and 119.
#[test]
fn structures_are_aligned_and_inside_their_bars() {
    for (layout, _) in Layout::ALL {
        for spec in ["sim:net,queue_pairs=128", "sim:blk", "sim:rng"] {
            let bench = Bench::open(spec, layout.name);
            let legacy = layout.name == "legacy";
            assert_eq!(bench.capabilities(9).is_empty(), legacy);
            assert_eq!(bench.cap(WINDOW).is_none(), legacy);
            let msix = bench.f.interrupts().msix != 0;
            assert_eq!(bench.capabilities(0x11).len(), usize::from(msix));
            let mut taken: Vec<(u8, u32, u32)> = Vec::new();
            for what in [COMMON, NOTIFY, ISR, DEVICE] {
                let Some(cap) = bench.cap(what) else {
                    assert!(legacy || what == DEVICE && spec == "sim:rng");
                    continue;
                };
                assert!(what == ISR || cap.offset.is_multiple_of(4));
                let (end, len) = (cap.offset + cap.len, bench.f.bar_len(cap.bar));
                assert!(u64::from(end) <= len || !layout.reachable);
                let apart = |(bar, first, last): &(u8, u32, u32)| {
                    *bar != cap.bar || *last <= cap.offset || end <= *first
                };
                assert!(taken.iter().all(apart), "{} {what}", layout.name);
                taken.push((cap.bar, cap.offset, end));
            }
            for at in bench.capabilities(0x11) {
                let vectors = (bench.config(at + 2, Width::U16) & 0x7ff) + 1;
                for (place, len) in [(4, vectors * 16), (8, vectors.div_ceil(64) * 8)] {
                    let place = bench.config(at + place, Width::U32);
                    let (bar, first) = ((place & 7) as u8, place & !7);
                    let end = first + len;
                    assert!(u64::from(end) <= bench.f.bar_len(bar) || !layout.reachable);
                    let apart = |(other, from, to): &(u8, u32, u32)| {
                        *other != bar || *to <= first || end <= *from
                    };
                    assert!(taken.iter().all(apart), "{}: MSI-X", layout.name);
                    taken.push((bar, first, end));
                }
            }
        }
    }
}

#[test]
fn shared_memory_is_inside_its_bars_and_keeps_what_is_written() {
    let bench = Bench::open("sim:rng", "shared-memory");
    let found = vdpa_pci::Layout::read(&bench.f).unwrap();
    let ids: Vec<_> = found.shared_memory.iter().map(|region| region.id).collect();
    assert_eq!(ids, [0, 7]);
    for region in &found.shared_memory {
        let (bar, begin, len) = (
            region.structure.bar,
            region.structure.offset,
            region.structure.len,
        );
        assert!(begin + len <= bench.f.bar_len(bar));
        for (at, width, value) in [
            (0, Width::U32, 0x0403_0201 + u32::from(region.id)),
            (len - 1, Width::U8, 0xa5),
            (len - 4, Width::U16, 0xbeef),
        ] {
            bench.f.write(bar, begin + at, width, value).unwrap();
            assert_eq!(bench.f.read(bar, begin + at, width).unwrap(), value);
        }
        assert_eq!(bench.f.read(bar, begin + 3, Width::U8).unwrap(), 4);
    }
    // Each keeps its own.
    let first = found.shared_memory[0].structure;
    let read = bench.f.read(first.bar, first.offset, Width::U32);
    assert_eq!(read.unwrap(), 0x0403_0201);
}

#[test]
fn bars_answer_their_size_when_all_ones_are_written() {
    for layout in ["qemu", "one-bar", "split", "transitional"] {
        let bench = Bench::open("sim:net", layout);
        let mut bar = 0;
        while bar < 6 {
            let at = 0x10 + u16::from(bar) * 4;
            let before = bench.config(at, Width::U32);
            bench.f.write_config(at, Width::U32, u32::MAX).unwrap();
            let low = bench.config(at, Width::U32);
            let wide = before & 1 == 0 && before & 4 != 0;
            if before & 1 != 0 {
                assert_eq!(low & !3, 0xffff_ffc0, "I/O ports");
            } else if wide {
                bench.f.write_config(at + 4, Width::U32, u32::MAX).unwrap();
                let high = bench.config(at + 4, Width::U32);
                let mask = u64::from(high) << 32 | u64::from(low & !0xf);
                assert_eq!(mask.wrapping_neg(), bench.f.bar_len(bar));
                assert_eq!(bench.f.bar_len(bar + 1), 0, "the upper half");
            } else {
                let len = (low & !0xf).wrapping_neg();
                assert_eq!(u64::from(len), bench.f.bar_len(bar));
                assert!(before & (len.wrapping_sub(1)) & !0xf == 0, "aligned");
            }
            assert_eq!(low & 0xf, before & 0xf, "the kind stays");
            bar += if wide { 2 } else { 1 };
        }
    }
}

/// A register through the PCI_CFG capability.
fn window(bench: &Bench, what: u8, at: u32, width: Width) -> u16 {
    let (window, cap) = (bench.cap(WINDOW).unwrap().at, bench.cap(what).unwrap());
    let write = |at, width, value| bench.f.write_config(window + at, width, value).unwrap();
    write(4, Width::U8, cap.bar.into());
    write(8, Width::U32, cap.offset + at);
    write(12, Width::U32, width.bytes().into());
    window + 16
}

/// Statement 120.
#[test]
fn the_window_accesses_registers_also_where_no_bar_can_be_reached() {
    for layout in ["qemu", "window", "one-bar"] {
        let bench = Bench::open("sim:net", layout);
        let read = |what, at, width| bench.config(window(&bench, what, at, width), width);
        let write = |at, width, value| {
            let data = window(&bench, COMMON, at, width);
            bench.f.write_config(data, width, value).unwrap();
        };
        assert_eq!(bench.f.bar_len(4) == 0, layout != "qemu");
        assert_eq!(read(COMMON, NUM_QUEUES, Width::U16), 3);
        write(STATUS, Width::U8, 3);
        assert_eq!(read(COMMON, STATUS, Width::U8), 3);
        write(DEVICE_SELECT, Width::U32, 1);
        assert_eq!(read(COMMON, DEVICE_FEATURE, Width::U32) & 1, 1, "VERSION_1");
        assert_eq!(read(DEVICE, 0, Width::U8), 0x52, "the address");
        // Decoding has nothing to do with it.
        bench.f.write_config(4, Width::U16, 0).unwrap();
        assert_eq!(read(COMMON, STATUS, Width::U8), 3);
    }
}

#[test]
fn a_window_that_points_nowhere_reads_all_ones() {
    let bench = Bench::open("sim:net", "qemu");
    let cap = bench.cap(WINDOW).unwrap().at;
    for (bar, offset, length) in [
        (7, 0, 4),
        (4, 0xffff_fffe, 4),
        (4, 2, 4),
        (4, 0x2001, 2),
        (4, 0, 0),
        (4, 0, 3),
        (4, 0, u32::MAX),
        (0, 0, 4),
    ] {
        bench.f.write_config(cap + 4, Width::U8, bar).unwrap();
        bench.f.write_config(cap + 8, Width::U32, offset).unwrap();
        bench.f.write_config(cap + 12, Width::U32, length).unwrap();
        assert!(bench.is_ignored(|b| assert_eq!(b.config(cap + 16, Width::U32), u32::MAX)));
        assert!(bench.is_ignored(|b| b.f.write_config(cap + 16, Width::U32, 1).unwrap()));
    }
}

#[test]
fn registers_of_configuration_space_are_aligned_and_inside() {
    let bench = Bench::open("sim:rng", "qemu");
    for (at, width) in [
        (1, Width::U16),
        (2, Width::U32),
        (4096, Width::U8),
        (4094, Width::U32),
        (u16::MAX, Width::U8),
    ] {
        let refused = bench.f.read_config(at, width).unwrap_err().to_string();
        assert!(refused.contains("configuration space"), "{refused}");
        assert!(bench.f.write_config(at, width, 0).is_err());
    }
    assert!(bench.f.read(4, 1, Width::U16).is_err());
    assert!(bench.f.read(0, 0, Width::U8).is_err(), "no such BAR");
    assert!(!bench.offered().contains(bits::NOTIF_CONFIG_DATA));
}
