//! A device, with memory that it sees.

use std::cell::Cell;
use std::sync::Arc;

use vdpa_core::bits::{self, block, net};
use vdpa_core::{Asid, Device, DeviceType, DmaHandle, DmaLimits, Event, Events, Features, Status};
use vdpa_mem::{Access, Bytes, Deadline, DmaMemory, Iova, IovaRange, Mapping, Region, Window};

use crate::checked::{ensure, fail};
use crate::{Bench, Checked, Ring, Variant};

/// Where the memory is for the device, unless that cannot be mapped there.
const BASE: u64 = 0x4000_0000;
/// How much of it there is.
const BYTES: u64 = 16 << 20;
/// What memory that nobody wrote to is filled with.
pub(crate) const CANARY: u8 = 0xc5;

/// Bytes of the rig's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where the device finds them.
    pub at: Iova,
    /// How many.
    pub len: u32,
}

/// An open device, with one region of memory mapped for it, out of which rings and buffers are handed.
///
/// The device goes first, then its memory.
pub struct Rig<'b> {
    /// The device.
    pub device: Device,
    /// Its first address space.
    pub dma: DmaHandle,
    /// What it reports.
    pub events: Events,
    bench: &'b Bench<'b>,
    memory: Arc<dyn DmaMemory>,
    window: Window,
    base: u64,
    next: Cell<u64>,
}

/// Where the rig's memory can be for a device that can be given these addresses alone.
fn base(limits: Option<&DmaLimits>) -> Checked<u64> {
    let Some(DmaLimits {
        ranges, granule, ..
    }) = limits
    else {
        return Ok(BASE);
    };
    ensure!(
        BYTES.is_multiple_of(granule.saturating_mul(2)),
        "addresses are mapped in multiples of {granule:#x}, of which two halves of {BYTES:#x} bytes are none"
    );
    let fits = |(first, last): &(Iova, Iova), at: u64| {
        let end = at.checked_add(BYTES - 1);
        first.get() <= at && end.is_some_and(|end| end <= last.get())
    };
    let usual = ranges.iter().any(|range| fits(range, BASE));
    let begins = ranges.iter().map(|range| {
        let begin = range.0.get().checked_next_multiple_of(*granule)?;
        fits(range, begin).then_some(begin)
    });
    let found = if usual {
        Some(BASE)
    } else {
        begins.flatten().next()
    };
    match found {
        Some(base) => Ok(base),
        None => fail!("no {BYTES:#x} bytes can be mapped side by side: {ranges:x?}"),
    }
}

impl<'b> Rig<'b> {
    pub(crate) fn new(bench: &'b Bench<'b>, device: Device) -> Checked<Self> {
        // Pages that nobody touches cost nothing, and a device in another process can map them.
        let (memory, window) = Region::memfd(BYTES)?.into_shared();
        let dma = device.dma(Asid::new(0))?;
        let events = device.events()?;
        let base = base(dma.limits())?;
        let rig = Self {
            device,
            dma,
            events,
            bench,
            memory,
            window,
            base,
            next: Cell::new(0),
        };
        rig.dma.map(vec![rig.mapping()])?;
        Ok(rig)
    }

    /// Who made it.
    pub fn bench(&self) -> &'b Bench<'b> {
        self.bench
    }

    /// Its mapping: all of the rig's memory, for reading and writing.
    pub fn mapping(&self) -> Mapping {
        Mapping {
            iova: self.range(),
            memory: Arc::clone(&self.memory),
            offset: 0,
            access: Access::Both,
            dirty: None,
        }
    }

    /// The addresses of the rig's memory.
    #[expect(clippy::unwrap_used, reason = "a base with room behind it")]
    pub fn range(&self) -> IovaRange {
        IovaRange::new(Iova::new(self.base), BYTES).unwrap()
    }

    /// All of the rig's memory; an address is [`offset`](Self::offset) bytes in.
    pub fn bytes(&self) -> Bytes<'_> {
        self.window.bytes()
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Where an address is in [`bytes`](Self::bytes).
    pub fn offset(&self, at: Iova) -> usize {
        usize::try_from(at.get().wrapping_sub(self.base)).unwrap_or(usize::MAX)
    }

    /// Bytes that nobody else has, aligned to 128, filled with canaries. A gap stays behind them.
    pub fn alloc(&self, len: u32) -> Checked<Piece> {
        let at = self.next.get();
        let end = at + u64::from(len);
        ensure!(
            end < BYTES,
            "the rig's memory is too small for the statement"
        );
        self.next.set((end + 64).next_multiple_of(128));
        let piece = Piece {
            at: Iova::new(self.base + at),
            len,
        };
        self.fill(piece, CANARY);
        Ok(piece)
    }

    /// Bytes that nobody else has, with these in them.
    pub fn place(&self, bytes: &[u8]) -> Checked<Piece> {
        let piece = self.alloc(u32::try_from(bytes.len()).unwrap_or(u32::MAX))?;
        self.write(piece, bytes);
        Ok(piece)
    }

    /// Fails if a byte of `before`, an [`image`](Self::image), has changed outside these pieces.
    pub fn only_changed(&self, before: &[u8], allowed: &[Piece]) -> Checked {
        let now = self.image();
        let mut expected = before.to_vec();
        for piece in allowed {
            let at = self.offset(piece.at);
            let range = at..(at + piece.len as usize).min(before.len());
            if let (Some(to), Some(from)) = (expected.get_mut(range.clone()), now.get(range)) {
                to.copy_from_slice(from);
            }
        }
        let mut pairs = expected.iter().zip(&now);
        if let Some(at) = pairs.position(|(before, now)| before != now) {
            let (was, is) = (expected.get(at), now.get(at));
            fail!(
                "the byte at {:#x} was {was:02x?} and is {is:02x?}, where nothing is to be written",
                self.base + at as u64
            );
        }
        Ok(())
    }

    /// Fills a piece with one byte.
    pub fn fill(&self, piece: Piece, byte: u8) {
        self.write(piece, &vec![byte; piece.len as usize]);
    }

    /// Writes to the beginning of a piece.
    pub fn write(&self, piece: Piece, bytes: &[u8]) {
        self.bytes().write(self.offset(piece.at), bytes);
    }

    /// What is in a piece.
    pub fn read(&self, piece: Piece) -> Vec<u8> {
        let mut bytes = vec![0; piece.len as usize];
        self.bytes().read(self.offset(piece.at), &mut bytes);
        bytes
    }

    /// All memory that was handed out so far, with the gaps; only what is in the upper half, once
    /// [`go_to_upper`](Self::go_to_upper) was called.
    pub fn image(&self) -> Vec<u8> {
        let next = self.next.get();
        let from = if next < BYTES / 2 { 0 } else { BYTES / 2 };
        let mut image = vec![0; usize::try_from(next - from).unwrap_or(0)];
        self.bytes()
            .read(usize::try_from(from).unwrap_or(usize::MAX), &mut image);
        image
    }

    /// Hands out nothing below the middle of the memory any more: what comes next is in its upper half.
    pub fn go_to_upper(&self) {
        self.next.set(self.next.get().max(BYTES / 2));
    }

    /// The mapping of the memory, cut in two at its middle.
    pub fn halves(&self) -> [Mapping; 2] {
        let half = |from: u64| Mapping {
            iova: half(self.base + from),
            offset: from,
            ..self.mapping()
        };
        [half(0), half(BYTES / 2)]
    }

    /// Lets go of the device, and goes on with another one that has the same memory at the same addresses.
    pub fn replace(self, open: impl FnOnce() -> Checked<Device>) -> Checked<Self> {
        let mapping = self.mapping();
        let Self {
            device,
            dma,
            events,
            bench,
            memory,
            window,
            base,
            next,
        } = self;
        drop((device, dma, events));
        let device = open()?;
        let (dma, events) = (device.dma(Asid::new(0))?, device.events()?);
        dma.map(vec![mapping])?;
        Ok(Self {
            device,
            dma,
            events,
            bench,
            memory,
            window,
            base,
            next,
        })
    }

    /// Features that any driver can live with: no offloads, no steering, no merging, no filters; with the ring features
    /// of `variant` as far as they are offered.
    pub fn plain(&self, variant: Variant) -> Features {
        let device_type = self.device.info().device_type;
        plain(device_type, self.device.offered(), variant)
    }

    /// Acknowledges, and negotiates exactly these features.
    pub fn negotiate(&self, features: Features) -> Checked {
        let device = &self.device;
        device.write_status(Status::ACKNOWLEDGE.bits())?;
        device.write_status((Status::ACKNOWLEDGE | Status::DRIVER).bits())?;
        device.accept(features)?;
        let status = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
        device.write_status(status.bits())?;
        let read = device.status()?;
        ensure!(
            read.contains(Status::FEATURES_OK),
            "FEATURES_OK was written and the status reads {read}"
        );
        Ok(())
    }

    /// Makes the device live.
    pub fn run(&self) -> Checked {
        let status = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
        self.device.write_status(status.bits())?;
        let read = self.device.status()?;
        ensure!(
            read.contains(Status::DRIVER_OK),
            "DRIVER_OK was written and the status reads {read}"
        );
        Ok(())
    }

    /// Sets a queue up and starts it, with a size of at most `size` that its limits and its format allow.
    pub fn queue(&self, q: u16, size: u16) -> Checked<Ring> {
        let mut ring = Ring::new(self, q, size)?;
        ring.start(self, None)?;
        Ok(ring)
    }

    /// The status.
    pub fn status(&self) -> Checked<Status> {
        Ok(self.device.status()?)
    }

    /// Resets the device.
    pub fn reset(&self) -> Checked {
        Ok(self.device.reset(self.bench.by())?)
    }

    /// Waits for an event that `wanted` takes; the others are passed over.
    pub fn event(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Checked<Event> {
        let by = Deadline::after(self.bench.patience());
        while let Some(event) = self.events.wait(by)? {
            if wanted(&event) {
                return Ok(event);
            }
            // One that reports without end has its wait end too.
            if by.expired() {
                break;
            }
        }
        fail!("no event came that says {what}")
    }

    /// What was reported until now; of a device that reports without end, the first of it.
    pub fn told(&self) -> Vec<Event> {
        const MOST: usize = 1024;
        let next = std::iter::from_fn(|| self.events.try_next());
        next.take(MOST).collect()
    }

    /// Forgets what was reported until now.
    pub fn forget_events(&self) {
        let _forgotten = self.told();
    }

    /// Waits until the device needs a reset, and has said so by its status and by an event; returns why.
    pub fn needs_reset(&self) -> Checked<String> {
        self.bench.until("NEEDS_RESET in the status", || {
            Ok(self.status()?.contains(Status::DEVICE_NEEDS_RESET))
        })?;
        match self.event("NEEDS_RESET", |e| matches!(e, Event::NeedsReset { .. }))? {
            Event::NeedsReset { why, .. } => Ok(why),
            _ => Ok(String::new()),
        }
    }

    /// What a counter of the device says; `None` where it has none of this name.
    pub fn stat(&self, name: &str) -> Option<u64> {
        let mut found = None;
        let read = self.device.stats(&mut |n, value| {
            if n == name {
                found = Some(value);
            }
        });
        read.ok().and(found)
    }
}

#[expect(clippy::unwrap_used, reason = "a base with room behind it")]
fn half(at: u64) -> IovaRange {
    IovaRange::new(Iova::new(at), BYTES / 2).unwrap()
}

/// See [`Rig::plain`].
pub(crate) fn plain(device_type: DeviceType, offered: Features, variant: Variant) -> Features {
    let transport = Features::of(&[
        bits::VERSION_1,
        bits::ACCESS_PLATFORM,
        bits::ORDER_PLATFORM,
        bits::RING_RESET,
        bits::SUSPEND,
    ]);
    let class = match device_type {
        DeviceType::Net => Features::of(&[
            net::MAC,
            net::MTU,
            net::STATUS,
            net::CTRL_VQ,
            net::CTRL_RX,
            net::CTRL_MAC_ADDR,
        ]),
        // They bound how a request is cut, which is for the statements to say.
        DeviceType::Block => {
            Features::from_u128(0x00ff_ffff) - Features::of(&[block::SIZE_MAX, block::SEG_MAX])
        }
        // Their features add requests, and change none.
        _ => Features::from_u128(0x00ff_ffff),
    };
    (transport | class | variant.features()) & offered
}
