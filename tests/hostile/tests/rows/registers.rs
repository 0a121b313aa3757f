//! Section K: a function that lies about itself, never answers, or is not there any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vdpa_conformance::registers::Between;
use vdpa_core::{Doorbell, ErrorKind, Result};
use vdpa_hostile::suite::{Code, code};
use vdpa_mem::clock;
use vdpa_pci::{PciAccess, Width};
use vdpa_ring::Format;

use crate::function::{Count, KINDS, function, good, hurried, life, open, watched};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(123).driver(capabilities_that_lie),
    code(124).driver(never_reset),
    code(125).driver(all_ones),
    code(129).driver(vectors_refused),
];

/// What a field of a virtio capability is replaced with: kind, offset, value.
type Lie = (u32, u16, u32);
/// What a register of the common configuration reads: offset, value.
type Register = (u64, u32);

/// Lies about one field of one capability, or of the common configuration.
struct Liar {
    lies: Vec<Lie>,
    /// Registers of the common configuration, which QEMU's layout has at the beginning of BAR 4.
    registers: Vec<Register>,
}

impl Between for Liar {
    fn read_config(&self, to: &dyn PciAccess, at: u16, width: Width) -> Result<u32> {
        let is = to.read_config(at, width)?;
        let mut cap = to.read_config(0x34, Width::U8)? as u16;
        while cap != 0 {
            let vendor = to.read_config(cap, Width::U8)? == 9;
            let kind = to.read_config(cap + 3, Width::U8)?;
            for (of, offset, value) in &self.lies {
                let place = cap + offset;
                let end = at + u16::from(width.bytes());
                if vendor && kind == *of && (at..end).contains(&place) {
                    // The rest of the access is as it was.
                    let shift = (place - at) * 8;
                    let mask = match offset {
                        1..8 => 0xff << shift,
                        _ => u32::MAX,
                    };
                    return Ok(is & !mask | (value << shift) & mask & width.all_ones());
                }
            }
            cap = to.read_config(cap + 1, Width::U8)? as u16;
        }
        Ok(is)
    }
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        let lie = self
            .registers
            .iter()
            .find(|(place, _)| *place == at && bar == 4);
        match lie {
            Some((_, value)) => Ok(*value),
            None => to.read(bar, at, width),
        }
    }
}

fn capabilities_that_lie(format: Format) {
    let lies: &[(&str, &[Lie], &[Register])] = &[
        (
            "the list goes back to the capability itself",
            &[(1, 1, 0x40)],
            &[],
        ),
        ("the list goes back", &[(2, 1, 0x40)], &[]),
        ("the list goes on in the header", &[(3, 1, 4)], &[]),
        ("cap_len 0", &[(1, 2, 0), (2, 2, 0)], &[]),
        ("cap_len 255", &[(1, 2, 255), (2, 2, 255)], &[]),
        (
            "a common configuration outside of its BAR",
            &[(1, 8, 0xffff_f000)],
            &[],
        ),
        (
            "a common configuration that wraps",
            &[(1, 8, u32::MAX), (1, 12, u32::MAX)],
            &[],
        ),
        ("a common configuration of no bytes", &[(1, 12, 0)], &[]),
        ("a common configuration in BAR 7", &[(1, 4, 7)], &[]),
        (
            "notifications outside of their BAR",
            &[(2, 8, 0x8000_0000)],
            &[],
        ),
        ("notifications of one byte", &[(2, 12, 1)], &[]),
        (
            "a multiplier that overflows",
            &[(2, 16, u32::MAX)],
            &[(30, 0xffff)],
        ),
        ("a queue's doorbell that is far away", &[], &[(30, 0xffff)]),
        ("no ISR status", &[(3, 3, 0x2a)], &[]),
        ("a device configuration of 4 GiB", &[(4, 12, u32::MAX)], &[]),
        ("no queues", &[], &[(18, 0)]),
        ("queues without a size", &[], &[(24, 0)]),
        ("queues of all sizes", &[], &[(24, 0xffff)]),
        ("more queues than there are", &[], &[(18, 0xfffe)]),
        ("no feature at all", &[], &[(4, 0)]),
        ("all features that there are", &[], &[(4, 0xffff_fffe)]),
    ];
    watched(format, |parent, kind| {
        for (what, lies, registers) in lies {
            let below = function(parent, kind);
            let liar = Arc::new(Liar {
                lies: lies.to_vec(),
                registers: registers.to_vec(),
            });
            // Refused in words, or it works: some lies are none to who does not look.
            let lived = hurried(|| open(&below, &liar).and_then(|device| life(device, format)));
            let said = match lived {
                Ok(()) => String::new(),
                Err(e) => e.to_string(),
            };
            println!("{kind}, {what}: {said}");
            good(&below, format);
        }
    });
}

/// Its status does not read 0.
struct Stuck;

impl Between for Stuck {
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        let is = to.read(bar, at, width)?;
        Ok(match (bar, at) {
            (4, 20) => is | 1,
            _ => is,
        })
    }
}

fn never_reset(format: Format) {
    watched(format, |parent, kind| {
        let below = function(parent, kind);
        let begun = Instant::now();
        match hurried(|| open(&below, &Arc::new(Stuck))) {
            Err(e) => println!("{kind}: {e}"),
            Ok(_) => panic!("it was opened, and is not reset"),
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "by its own clock");
        good(&below, format);
    });
}

/// Answers all accesses with all ones from one on: for good, or for a while.
struct Removed {
    count: Count,
    from: u64,
    /// `None`: for good.
    lasts: Option<Duration>,
    back: Mutex<Option<Instant>>,
    /// Accesses that were not answered.
    lost: AtomicU64,
}

impl Removed {
    fn from(from: u64, lasts: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            count: Count::default(),
            from,
            lasts,
            back: Mutex::new(None),
            lost: AtomicU64::new(0),
        })
    }

    fn is_there(&self) -> bool {
        if self.count.next() < self.from {
            return true;
        }
        let mut back = self.back.lock().unwrap();
        let there = self.lasts.is_some_and(|lasts| {
            let now = clock::now();
            *back.get_or_insert(now + lasts) <= now
        });
        if !there {
            self.lost.fetch_add(1, Ordering::SeqCst);
        }
        there
    }
}

impl Between for Removed {
    fn read_config(&self, to: &dyn PciAccess, at: u16, width: Width) -> Result<u32> {
        match self.is_there() {
            true => to.read_config(at, width),
            false => Ok(width.all_ones()),
        }
    }
    fn write_config(&self, to: &dyn PciAccess, at: u16, width: Width, value: u32) -> Result<()> {
        match self.is_there() {
            true => to.write_config(at, width, value),
            false => Ok(()),
        }
    }
    fn read(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width) -> Result<u32> {
        match self.is_there() {
            true => to.read(bar, at, width),
            false => Ok(width.all_ones()),
        }
    }
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        match self.is_there() {
            true => to.write(bar, at, width, value),
            false => Ok(()),
        }
    }
    fn doorbell(
        &self,
        to: &dyn PciAccess,
        bar: u8,
        at: u64,
        width: Width,
        name: u16,
    ) -> Result<Doorbell> {
        to.doorbell(bar, at, width, name)
    }
}

fn all_ones(format: Format) {
    const WHILE: Duration = Duration::from_millis(50);
    let begun = Instant::now();
    watched(format, |parent, kind| {
        // How many there are from open to close.
        let counted = Removed::from(u64::MAX, None);
        let device = open(&function(parent, kind), &counted).expect("a good function");
        life(device, format).expect("a good life");
        let all = counted.count.get();
        assert!(all > 50, "{all} accesses are too few to be all");
        let (mut gone, mut refused, mut went_on) = (0, 0, 0);
        for from in 0..all {
            for lasts in [None, Some(WHILE)] {
                let below = function(parent, kind);
                let removed = Removed::from(from, lasts);
                let ended =
                    hurried(|| open(&below, &removed).and_then(|device| life(device, format)));
                match ended {
                    Ok(()) => went_on += 1,
                    Err(e) if e.kind() == ErrorKind::Gone => gone += 1,
                    Err(_) => refused += 1,
                }
                // Whoever has seen that nobody is there does not go on asking.
                let lost = removed.lost.load(Ordering::SeqCst);
                assert!(
                    lasts.is_some() || lost < 10_000,
                    "all ones from access {from} on: {lost} more were made"
                );
                if lasts.is_some() {
                    good(&below, format);
                }
            }
        }
        println!(
            "{kind}, {format}: N from 0 to {all}, for good and for {WHILE:?}: {gone} gone, {refused} refused otherwise, {went_on} went on"
        );
        assert!(gone > 0, "it is never seen to be gone");
    });
    println!("{format}: {:?} for {} kinds", begun.elapsed(), KINDS.len());
}

/// Takes no vector from this one on.
struct NoVector(u32);

impl Between for NoVector {
    fn write(&self, to: &dyn PciAccess, bar: u8, at: u64, width: Width, value: u32) -> Result<()> {
        let refused = bar == 4 && (at == 16 || at == 26) && value >= self.0;
        to.write(bar, at, width, if refused { 0xffff } else { value })
    }
}

fn vectors_refused(format: Format) {
    watched(format, |parent, kind| {
        for from in [3, 2, 1] {
            let below = function(parent, kind);
            let device = open(&below, &Arc::new(NoVector(from))).expect("a function");
            life(device, format).expect("it goes on with the vectors that there are");
            good(&below, format);
        }
        // All of them: by the line, or refused in words.
        let below = function(parent, kind);
        let ended = open(&below, &Arc::new(NoVector(0))).and_then(|device| life(device, format));
        if let Err(e) = ended {
            println!("{kind}, without any vector: {e}");
        }
        good(&below, format);
    });
}
