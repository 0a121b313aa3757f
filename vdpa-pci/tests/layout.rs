//! Where the structures are, by configuration spaces that are right, wrong, and random.

mod card;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use card::{BAR, CAPS, COMMON, DEVICE, ISR, NOTIFY, Shape, WINDOW, config_space};
use proptest::prelude::*;
use vdpa_core::{
    Call, CallKind, DeviceType, DmaLimits, Doorbell, Error, ErrorKind, EventSink, Result,
};
use vdpa_mem::Mapping;
use vdpa_pci::layout::{Kind, Reach, Reason};
use vdpa_pci::pci::{self, Fault, Header};
use vdpa_pci::{Interrupts, Layout, PciAccess, Width};

/// Configuration space alone, and BARs that only have a length.
struct Space {
    bytes: Vec<u8>,
    bars: [u64; 6],
    reads: AtomicU64,
}

impl Space {
    fn new(bytes: Vec<u8>) -> Self {
        let mut bars = [0; 6];
        bars[usize::from(BAR)] = 0x4000;
        Self {
            bytes,
            bars,
            reads: AtomicU64::new(0),
        }
    }

    /// That of a card, with two free capabilities at 0x40 and 0x58 before the card's own, at 0x70 and after.
    fn card() -> Self {
        let mut space = Self::new(config_space(&Shape::default()));
        // The card's own are at 0x40, 0x58, 0x70, 0x88, then the window.
        let window = usize::from(WINDOW);
        space.bytes.copy_within(window..window + 20, 0xe0);
        space.bytes.copy_within(0x40..0xa0, 0x60);
        space.bytes[0x40..0x60].fill(0);
        for (at, next) in [(0x60, 0x78), (0x78, 0x90), (0x90, 0xa8_u8)] {
            space.bytes[at + 1] = next;
        }
        space.put(0x34, &[0x60]);
        space.put(0xe1, &[0xd0]);
        space.put(0xa8, &[9, 0xe0, 20, 2, BAR, 0, 0, 0]);
        space.put(0xb0, &0x1000_u32.to_le_bytes());
        space.put(0xb4, &0x1000_u32.to_le_bytes());
        space.put(0xb8, &4_u32.to_le_bytes());
        space
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Puts one more virtio capability first on the list.
    fn cap(&mut self, cfg_type: u8, bar: u8, offset: u32, len: u32, cap_len: u8) -> &mut Self {
        let next = self.bytes[0x34];
        let at = if next == 0x60 {
            0x40
        } else {
            0x20 + usize::from(next)
        };
        self.put(at, &[9, next, cap_len, cfg_type, bar, 0, 0, 0]);
        self.put(at + 8, &offset.to_le_bytes());
        self.put(at + 12, &len.to_le_bytes());
        let at = u8::try_from(at).unwrap();
        self.put(0x34, &[at])
    }

    fn layout(&self) -> Result<Layout> {
        Layout::read(self)
    }

    /// Why the first capability is passed over.
    fn first_ignored(&self) -> Reason {
        let layout = self.layout().unwrap();
        assert_eq!(layout.ignored.len(), 1, "{:?}", layout.ignored);
        assert_eq!(layout.ignored[0].at, 0x40);
        layout.ignored[0].reason
    }

    fn refused(&self) -> (ErrorKind, String) {
        let error = self.layout().unwrap_err();
        (error.kind(), error.to_string())
    }
}

fn nothing<T>() -> Result<T> {
    Err(Error::Busy { what: "nothing" })
}

impl PciAccess for Space {
    fn name(&self) -> &str {
        "0000:01:00.1"
    }
    fn config_len(&self) -> u16 {
        u16::try_from(self.bytes.len()).unwrap()
    }
    fn read_config(&self, at: u16, width: Width) -> Result<u32> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(at.is_multiple_of(width.bytes().into()));
        let at = usize::from(at);
        let mut bytes = [0; 4];
        let part = &self.bytes[at..at + usize::from(width.bytes())];
        bytes[..part.len()].copy_from_slice(part);
        Ok(u32::from_le_bytes(bytes))
    }
    fn write_config(&self, at: u16, _: Width, _: u32) -> Result<()> {
        panic!("configuration space is written at {at:#x}")
    }
    fn bar_len(&self, bar: u8) -> u64 {
        self.bars[usize::from(bar)]
    }
    fn read(&self, _: u8, at: u64, _: Width) -> Result<u32> {
        panic!("a register is read at {at:#x}")
    }
    fn write(&self, _: u8, at: u64, _: Width, _: u32) -> Result<()> {
        panic!("a register is written at {at:#x}")
    }
    fn doorbell(&self, _: u8, _: u64, _: Width, _: u16) -> Result<Doorbell> {
        nothing()
    }
    fn rings_by_call(&self, _: u8, _: u64) -> bool {
        false
    }
    fn revoke_doorbells(&self) {}
    fn interrupts(&self) -> Interrupts {
        Interrupts {
            msix: 0,
            intx: false,
            calls: CallKind::Any,
        }
    }
    fn enable_vectors(&self, _: u16) -> Result<()> {
        nothing()
    }
    fn set_vector(&self, _: u16, _: Call) -> Result<()> {
        nothing()
    }
    fn set_intx(&self, _: Call) -> Result<()> {
        nothing()
    }
    fn unmask_intx(&self) -> Result<()> {
        nothing()
    }
    fn reset(&self) -> Result<()> {
        nothing()
    }
    fn dma_limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: Vec::new(),
            granule: 1,
            max_entries: None,
            reach: vdpa_core::Reach::Platform,
        }
    }
    fn dma_map(&self, _: &Mapping) -> Result<()> {
        nothing()
    }
    fn dma_unmap(&self, _: &Mapping) -> Result<()> {
        nothing()
    }
    fn watch(&self, _: Arc<dyn EventSink>) -> Result<()> {
        nothing()
    }
}

#[test]
fn every_structure_is_where_its_capability_says() {
    let mut space = Space::new(config_space(&Shape::default()));
    space.put(0x100, &0x1401_0010_u32.to_le_bytes());
    space.put(0x140, &0x0001_0003_u32.to_le_bytes());
    for (at, word) in [
        (0x108, 1),
        (0x10c, 0x0040_0020),
        (0x110, 5),
        (0x114, 0x0001_0008),
        (0x118, 0x1041_0000_u32),
    ] {
        space.put(at, &word.to_le_bytes());
    }
    let layout = space.layout().unwrap();
    let places = [
        layout.common,
        layout.isr.unwrap(),
        layout.device.unwrap(),
        layout.notify,
    ]
    .map(|s| (s.bar, s.offset, s.len, s.reach));
    let bar = Reach::Bar;
    assert_eq!(
        places,
        [
            (BAR, COMMON, 64, bar),
            (BAR, ISR, 1, bar),
            (BAR, DEVICE, 28, bar),
            (BAR, NOTIFY, 0x1000, bar)
        ]
    );
    assert_eq!((layout.notify_multiplier, layout.window), (4, Some(WINDOW)));
    assert_eq!((layout.ignored, layout.faults), (vec![], vec![]));
    let header = &layout.header;
    assert_eq!(
        (header.class, header.revision, header.kind),
        (0x020000, 1, 0)
    );
    assert!(header.memory_on && header.bus_master && header.interrupt_pin == 1);

    let msix = layout.msix.unwrap();
    assert_eq!(
        (msix.vectors, msix.table_len(), msix.enabled),
        (8, 128, false)
    );
    assert_eq!((msix.table_bar, msix.table_offset), (1, 0));
    assert_eq!((msix.pending_bar, msix.pending_offset), (1, 0x800));
    let vfs = layout.sr_iov.unwrap();
    assert_eq!((vfs.initial, vfs.total, vfs.count), (0x20, 0x40, 5));
    assert_eq!((vfs.first, vfs.stride, vfs.device), (8, 1, 0x1041));
    assert!(vfs.enabled);
    let ids: Vec<u16> = layout.extended.iter().map(|c| c.id).collect();
    assert_eq!(ids, [0x10, 3]);
    assert_eq!(layout.capabilities.len(), 6);
    assert_eq!(CAPS, layout.capabilities[0].at);
}

#[test]
fn a_wrong_capability_is_passed_over_and_the_next_one_taken() {
    let space = Space::card();
    assert_eq!(space.layout().unwrap().ignored, []);
    // A type of one's own, a BAR, an offset, a length, bytes of the capability; and what is wrong.
    let cases = [
        ((7, BAR, 0, 64, 16), Reason::UnknownType),
        ((1, 6, 0, 64, 16), Reason::UnknownBar { bar: 6 }),
        ((1, 255, 0, 64, 16), Reason::UnknownBar { bar: 255 }),
        ((1, 2, 0, 64, 16), Reason::NoBar { bar: 2 }),
        ((1, 5, 0, 64, 16), Reason::NoBar { bar: 5 }),
        ((1, BAR, 0, 64, 0), Reason::Short { len: 0, need: 16 }),
        ((2, BAR, 0, 64, 19), Reason::Short { len: 19, need: 20 }),
        ((8, BAR, 0, 64, 16), Reason::Short { len: 16, need: 24 }),
        (
            (1, BAR, 2, 64, 16),
            Reason::Misaligned {
                offset: 2,
                align: 4,
            },
        ),
        (
            (2, BAR, 1, 64, 20),
            Reason::Misaligned {
                offset: 1,
                align: 2,
            },
        ),
        (
            (4, BAR, 2, 64, 16),
            Reason::Misaligned {
                offset: 2,
                align: 4,
            },
        ),
        ((1, BAR, 0, 55, 16), Reason::TooSmall { len: 55, need: 56 }),
        ((2, BAR, 0, 1, 20), Reason::TooSmall { len: 1, need: 2 }),
        ((4, BAR, 0, 0, 16), Reason::TooSmall { len: 0, need: 1 }),
        (
            (1, BAR, 0x3fc0, 65, 16),
            Reason::OutsideBar {
                bar: BAR,
                offset: 0x3fc0,
                len: 65,
                size: 0x4000,
            },
        ),
        (
            (4, BAR, 0xffff_fffc, 0xffff_ffff, 16),
            Reason::OutsideBar {
                bar: BAR,
                offset: 0xffff_fffc,
                len: 0xffff_ffff,
                size: 0x4000,
            },
        ),
    ];
    for ((cfg_type, bar, offset, len, cap_len), reason) in cases {
        let mut space = Space::card();
        space.cap(cfg_type, bar, offset, len, cap_len);
        assert_eq!(space.first_ignored(), reason);
        assert_eq!(space.layout().unwrap().common.offset, COMMON);
        assert!(!reason.to_string().is_empty());
    }
}

#[test]
fn the_first_that_can_be_used_counts_and_longer_ones_are_taken() {
    let mut space = Space::card();
    space.cap(1, BAR, 0x3fc0, 64, 255);
    let layout = space.layout().unwrap();
    assert_eq!(
        (layout.common.offset, layout.common.capability),
        (0x3fc0, 0x40)
    );
    assert_eq!(layout.ignored[0].reason, Reason::Spare { used: 0x40 });

    // In reach before by the window, whichever comes first.
    let mut space = Space::card();
    space.put(0x10, &0xd000_0000_u32.to_le_bytes());
    space.cap(1, 0, 0, 64, 16);
    let layout = space.layout().unwrap();
    assert_eq!((layout.common.bar, layout.common.reach), (BAR, Reach::Bar));
    assert_eq!(layout.ignored[0].reason, Reason::Spare { used: 0x60 });
}

#[test]
fn one_cut_off_by_the_end_of_configuration_space_is_passed_over() {
    let mut space = Space::card();
    space.put(0xf4, &[9, 0x60, 20, 2, BAR, 0, 0, 0]);
    space.put(0x34, &[0xf4]);
    let layout = space.layout().unwrap();
    assert_eq!(
        layout.ignored[0].reason,
        Reason::CutOff { room: 12, need: 20 }
    );
    space.put(0xfc, &[9, 0x60, 255, 4]);
    space.put(0x34, &[0xfc]);
    let layout = space.layout().unwrap();
    assert_eq!(
        layout.ignored[0].reason,
        Reason::CutOff { room: 4, need: 16 }
    );
}

#[test]
fn lists_that_loop_or_lead_astray_keep_what_came_before() {
    let fault = |at: usize, next| {
        let mut space = Space::card();
        space.put(at, &[next]);
        space.layout().unwrap().faults
    };
    // After the last one that is needed: the first, itself, the header, all ones.
    assert_eq!(fault(0xe1, 0x60), [Fault::Loop { to: 0x60 }]);
    assert_eq!(fault(0xe1, 0xe3), [Fault::Loop { to: 0xe0 }]);
    assert_eq!(fault(0xe1, 0x3c), [Fault::Outside { to: 0x3c }]);
    let mut space = Space::card();
    space.put(0xe1, &[0xf8]).put(0xf8, &[0xff; 8]);
    assert_eq!(
        space.layout().unwrap().faults,
        [Fault::AllOnes { at: 0xf8 }]
    );

    let extended = |words: &[(usize, u32)]| {
        let mut space = Space::card();
        for (at, word) in words {
            space.put(*at, &word.to_le_bytes());
        }
        space.layout().unwrap().faults
    };
    assert_eq!(
        extended(&[(0x100, 0x1001_0001)]),
        [Fault::Loop { to: 0x100 }]
    );
    assert_eq!(
        extended(&[(0x100, 0x0c01_0001)]),
        [Fault::Outside { to: 0xc0 }]
    );
    assert_eq!(extended(&[(0x100, u32::MAX)]), []);
    let all_ones = extended(&[(0x100, 0x2001_0001), (0x200, u32::MAX)]);
    assert_eq!(all_ones, [Fault::AllOnes { at: 0x200 }]);
}

#[test]
fn shared_memory_has_64_bits_and_one_place_a_number() {
    let mut space = Space::card();
    space.bars[2] = 1 << 40;
    space.cap(8, 2, 0x1000, 0x2000, 24);
    space.put(0x45, &[7]);
    space.put(0x50, &[0x10, 0, 0, 0, 0x20, 0, 0, 0]);
    let layout = space.layout().unwrap();
    let [memory] = &layout.shared_memory[..] else {
        panic!("{:?}", layout.shared_memory);
    };
    assert_eq!((memory.id, memory.structure.bar), (7, 2));
    assert_eq!(memory.structure.offset, 0x10_0000_1000);
    assert_eq!(memory.structure.len, 0x20_0000_2000);
    // It ends where 64 bits do.
    space.put(0x50, &[0xff; 8]);
    let reason = space.layout().unwrap().ignored[0].reason;
    assert!(
        matches!(reason, Reason::OutsideBar { bar: 2, .. }),
        "{reason}"
    );
}

#[test]
fn data_of_a_vendor_is_kept() {
    let mut space = Space::card();
    space.put(0x40, &[9, 0x60, 8, 9, 0x86, 0x80, 1, 2]);
    space.put(0x34, &[0x40]);
    let layout = space.layout().unwrap();
    let data = layout.vendor_data[0];
    assert_eq!((data.capability, data.len, data.vendor), (0x40, 8, 0x8086));
}

#[test]
fn a_bar_that_cannot_be_reached_goes_by_the_window_or_is_refused() {
    let mut space = Space::card();
    space.bars[usize::from(BAR)] = 0;
    let layout = space.layout().unwrap();
    for structure in [
        layout.common,
        layout.notify,
        layout.isr.unwrap(),
        layout.device.unwrap(),
    ] {
        assert_eq!(structure.reach, Reach::Window);
    }
    // No window.
    space.put(0xe3, &[7]);
    let (kind, text) = space.refused();
    assert_eq!(kind, ErrorKind::Io);
    assert!(
        text.contains("common configuration is in BAR 4, which is not mapped"),
        "{text}"
    );
}

#[test]
fn what_is_not_virtio_is_refused_by_name() {
    for (vendor, device, text) in [
        (
            0x8086_u16,
            0x10ca_u16,
            "8086:10ca, a VF of an Intel igb card",
        ),
        (0x15b3, 0x101e, "the kernel's mlx5_vdpa"),
        (0x1af4, 0x1110, "QEMU's inter-VM shared memory"),
        (0x1af4, 0x1080, "it is 1af4:1080. Name a function"),
        (0x1234, 0x1041, "it is 1234:1041. Name a function"),
    ] {
        let mut space = Space::card();
        space
            .put(0, &vendor.to_le_bytes())
            .put(2, &device.to_le_bytes());
        let (kind, refused) = space.refused();
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(
            refused.contains("is not virtio") && refused.contains(text),
            "{refused}"
        );
    }
    let space = Space::new(vec![0xff; 4096]);
    let (kind, text) = space.refused();
    assert_eq!(kind, ErrorKind::Gone);
    assert!(text.contains("does not answer"), "{text}");
}

#[test]
fn a_transitional_one_is_driven_and_one_that_is_legacy_only_is_refused() {
    let mut space = Space::card();
    space.put(2, &0x1000_u16.to_le_bytes()).put(8, &[0]);
    let layout = space.layout().unwrap();
    assert!(layout.transitional);
    assert_eq!(layout.device_type, DeviceType::Net);
    for (device, subsystem, device_type) in [
        (0x1001_u16, 0_u16, DeviceType::Block),
        (0x1009, 0, DeviceType::Plan9),
        (0x1012, 18, DeviceType::Input),
    ] {
        space
            .put(2, &device.to_le_bytes())
            .put(0x2e, &subsystem.to_le_bytes());
        assert_eq!(space.layout().unwrap().device_type, device_type);
    }
    // An Alibaba Cloud ENI, and one that nobody knows.
    space.put(0x34, &[0]);
    let (kind, text) = space.refused();
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("is legacy only (input)"), "{text}");
    space.put(2, &0x1000_u16.to_le_bytes());
    space.put(0x2c, &[0xf4, 0x1a, 1, 0]);
    let (_, text) = space.refused();
    assert!(
        text.contains("legacy only (net, as an Alibaba Cloud ENI has)"),
        "{text}"
    );
    // One of today's ids has no legacy interface.
    space.put(2, &0x1041_u16.to_le_bytes());
    let (kind, text) = space.refused();
    assert_eq!(kind, ErrorKind::PeerMisbehaved);
    assert!(
        text.contains("no usable common configuration: it has no such"),
        "{text}"
    );
}

#[test]
fn a_structure_that_is_needed_and_wrong_is_named_with_what_is_wrong() {
    let mut space = Space::card();
    // The card's own notification structure, beyond its BAR.
    space.put(0xb0, &0x8000_u32.to_le_bytes());
    let (kind, text) = space.refused();
    assert_eq!(kind, ErrorKind::PeerMisbehaved);
    assert!(
        text.contains("no usable notification structure: the capability at 0xa8 (notification structure) names 4096 bytes at 0x8000 of BAR 4, which ends at 0x4000"),
        "{text}"
    );
}

fn check_bounds(space: &Space) -> std::result::Result<(), TestCaseError> {
    let layout = space.layout();
    // The header twice, 48 entries of at most 6 registers, 960 of the extended list.
    let reads = space.reads.load(Ordering::Relaxed);
    prop_assert!(reads < 1400, "{reads} reads");
    let Ok(layout) = layout else { return Ok(()) };
    prop_assert!(layout.capabilities.len() <= 48);
    prop_assert!(layout.extended.len() <= 960);
    let structures = [
        Some(layout.common),
        Some(layout.notify),
        layout.isr,
        layout.device,
    ];
    let shared = layout.shared_memory.iter().map(|m| m.structure);
    for structure in structures.into_iter().flatten().chain(shared) {
        let end = structure.offset.checked_add(structure.len).unwrap();
        let size = space.bars[usize::from(structure.bar)];
        match structure.reach {
            Reach::Bar => prop_assert!(end <= size),
            Reach::Window => prop_assert!(size == 0 && layout.window.is_some() && end <= 1 << 32),
        }
        prop_assert!(structure.len > 0);
        prop_assert!(structure.kind != Kind::Common || structure.offset % 4 == 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_random_configuration_space_is_walked_to_an_end(
        bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 256), proptest::collection::vec(any::<u8>(), 4096)],
        virtio in any::<bool>(),
        bars in any::<[u64; 6]>(),
    ) {
        let mut space = Space::new(bytes);
        space.bars = bars;
        if virtio {
            space.put(0, &[0xf4, 0x1a, 0x41, 0x10]);
            space.put(6, &[0x10]);
        }
        check_bounds(&space)?;
    }

    #[test]
    fn a_configuration_space_with_lies_in_it_is_walked_to_an_end(
        lies in proptest::collection::vec((0x34_usize..0x110, any::<u8>()), 1..12),
        bars in any::<[bool; 6]>(),
    ) {
        let mut space = Space::card();
        for (at, byte) in lies {
            space.put(at, &[byte]);
        }
        space.bars = bars.map(|mapped| if mapped { 0x4000 } else { 0 });
        check_bounds(&space)?;
    }

    #[test]
    fn a_list_of_many_capabilities_is_walked_once(
        order in Just((0x10_u8..0x40).map(|place| place * 4).collect::<Vec<_>>()).prop_shuffle(),
        types in proptest::collection::vec((0_u8..11, 0_u8..64), 48),
    ) {
        let mut space = Space::new(config_space(&Shape::default()));
        space.put(0x34, &[order[0]]);
        for (place, (&at, (cfg_type, len))) in order.iter().zip(&types).enumerate() {
            let next = order[(place + 1) % order.len()];
            space.put(usize::from(at), &[9, next, *len, *cfg_type]);
        }
        check_bounds(&space)?;
        let header = Header::read(&space).unwrap();
        let walk = pci::capabilities(&space, &header).unwrap();
        prop_assert_eq!(walk.found.len(), 48);
        prop_assert_eq!(walk.fault, Some(Fault::Loop { to: order[0].into() }));
    }
}
