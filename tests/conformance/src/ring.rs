//! A queue from the driver's side, which may do what no driver should.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdpa_core::{Area, Call, Doorbell, Kick, QueueConfig, QueueIndex, bits};
use vdpa_mem::{Bytes, Iova, Window};
use vdpa_ring::{
    Areas, Completion, DriverMem, DriverRing, Format, QueueState, Segment, Tables, area_sizes,
    layout,
};

use crate::checked::{ensure, fail, skip};
use crate::{Checked, Piece, Rig, Stop, Variant};

/// Descriptors in an indirect table.
const TABLE_ENTRIES: u16 = 32;

/// A queue: the driver half of a ring, its areas, and what called.
pub struct Ring {
    index: QueueIndex,
    size: u16,
    /// The largest that the device has with this format.
    most: u16,
    variant: Variant,
    with_data: bool,
    half: DriverRing,
    areas: [Piece; 3],
    tables: Option<Piece>,
    base: u64,
    window: Window,
    doorbell: Doorbell,
    calls: Arc<AtomicU32>,
}

impl Ring {
    /// A fresh ring with areas and tables in the rig's memory, for the features that were negotiated. Not started.
    pub fn new(rig: &Rig<'_>, q: u16, size: u16) -> Checked<Self> {
        Self::going_on(rig, q, size, None)
    }

    /// A ring of exactly this size where there is a state; see [`new`](Self::new).
    pub fn going_on(rig: &Rig<'_>, q: u16, size: u16, state: Option<QueueState>) -> Checked<Self> {
        let features = rig.device.negotiated();
        let variant = Variant {
            format: match features.contains(bits::RING_PACKED) {
                true => Format::Packed,
                false => Format::Split,
            },
            in_order: features.contains(bits::IN_ORDER),
            event_idx: features.contains(bits::EVENT_IDX),
            indirect: features.contains(bits::INDIRECT_DESC),
        };
        let index = QueueIndex::new(q);
        let limits = rig.device.queue_limits(index)?;
        ensure!(limits.max_size > 0, "queue {q} does not exist");
        let fitting = |size: u16| match variant.format {
            Format::Packed => size.min(limits.max_size),
            Format::Split => 1 << size.min(limits.max_size).max(1).ilog2(),
        };
        let most = fitting(u16::MAX);
        let size = match state {
            Some(_) => size,
            None => fitting(size),
        };
        let half = DriverRing::new(variant.format, size, variant.ring_features(), state);
        let half = half.map_err(|e| Stop::failed(format!("queue {q}: {e}")))?;
        let sizes = area_sizes(variant.format, size, true);
        let area = |bytes| {
            let piece = rig.alloc(bytes)?;
            rig.fill(piece, 0);
            Ok::<_, Stop>(piece)
        };
        let areas = [
            area(sizes.descriptor.bytes)?,
            area(sizes.driver.bytes)?,
            area(sizes.device.bytes)?,
        ];
        let tables = match variant.indirect {
            true => Some(rig.alloc(u32::from(size) * u32::from(TABLE_ENTRIES) * 16)?),
            false => None,
        };
        Ok(Self {
            index,
            size,
            most,
            variant,
            with_data: features.contains(bits::NOTIFICATION_DATA),
            half,
            areas,
            tables,
            base: rig.range().first().get(),
            window: rig.window().clone(),
            doorbell: Doorbell::NONE,
            calls: Arc::default(),
        })
    }

    /// How it is set up.
    pub fn config(&self, state: Option<QueueState>) -> QueueConfig {
        let [descriptor, driver, device] = self.areas.map(|area| area.at);
        QueueConfig {
            state,
            ..QueueConfig::new(self.size, descriptor, driver, device)
        }
    }

    /// Starts it on the device, with a call that is counted.
    pub fn start(&mut self, rig: &Rig<'_>, state: Option<QueueState>) -> Checked {
        let config = self.config(state);
        let call = self.call();
        self.doorbell = rig
            .device
            .start_queue(self.index, config, Kick::Taken, call)?;
        Ok(())
    }

    /// Moves its areas, which nobody uses yet, to addresses that are aligned to these many bytes and to no more.
    pub fn align(&mut self, rig: &Rig<'_>, to: [u32; 3]) -> Checked {
        for (area, align) in self.areas.iter_mut().zip(to) {
            let moved = rig.alloc(area.len + align)?;
            let at = moved.at.get() + u64::from(align);
            *area = Piece {
                at: Iova::new(at),
                len: area.len,
            };
            rig.fill(*area, 0);
        }
        Ok(())
    }

    /// Is rung from here on by this doorbell: of a device that goes on in place of another.
    pub fn hang(&mut self, doorbell: Doorbell) {
        self.doorbell = doorbell;
    }

    /// A call that [`calls`](Self::calls) counts.
    pub fn call(&self) -> Call {
        let calls = Arc::clone(&self.calls);
        Call::from_fn(move || {
            calls.fetch_add(1, Ordering::SeqCst);
        })
    }

    /// Its number.
    pub fn index(&self) -> QueueIndex {
        self.index
    }

    /// Descriptors in it.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How it is run.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The driver half, for its state.
    pub fn half(&self) -> &DriverRing {
        &self.half
    }

    /// Where an area is.
    pub fn area(&self, area: Area) -> Piece {
        let [descriptor, driver, device] = self.areas;
        match area {
            Area::Descriptor => descriptor,
            Area::Driver => driver,
            Area::Device => device,
        }
    }

    /// Where its indirect tables are, if it has any.
    pub fn tables(&self) -> Option<Piece> {
        self.tables
    }

    /// The doorbell, once it was started.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Skips where the queue has fewer descriptors than a statement takes, which is what a device of small queues may
    /// have.
    pub(crate) fn takes(&self, least: usize) -> Checked {
        let size = self.size;
        if usize::from(size) < least {
            skip!("a queue of {size} is too small: it takes {least}");
        }
        Ok(())
    }

    /// Descriptors that there would have to be for one more chain of these many parts.
    fn least(&self, parts: usize) -> usize {
        // An indirect table makes one descriptor of all, and is no longer than the queue either.
        let slots = match self.variant.indirect {
            true => parts.min(1),
            false => parts,
        };
        let in_use = usize::from(self.size - self.half.free().min(self.size));
        parts.max(in_use + slots)
    }

    /// Adds a chain: what the device reads, then what it writes. Shown with [`publish`](Self::publish). Skips where none
    /// of the device's queues has room for it.
    pub fn add(&mut self, readable: &[Piece], writable: &[Piece]) -> Checked<u16> {
        let segments = |pieces: &[Piece]| -> Vec<Segment> {
            let of = pieces.iter();
            of.map(|piece| Segment {
                addr: piece.at,
                len: piece.len,
            })
            .collect()
        };
        let mem = mem(&self.window, self.base, &self.areas, self.tables);
        let added = self
            .half
            .add(&mem, &segments(readable), &segments(writable));
        added.map_err(|e| {
            let least = self.least(readable.len() + writable.len());
            match least > usize::from(self.most) {
                true => Stop::skipped(format!(
                    "a queue of {} is too small: it takes {least}",
                    self.most
                )),
                false => Stop::failed(format!("queue {}: {e}", self.index)),
            }
        })
    }

    /// Shows what was added, and kicks if the device asks for it. Returns whether it did.
    pub fn publish(&mut self) -> bool {
        let kick = self.publish_silently();
        if kick {
            self.kick();
        }
        kick
    }

    /// Shows what was added, and kicks in no case. Returns whether the device asks for a kick.
    pub fn publish_silently(&mut self) -> bool {
        let mem = mem(&self.window, self.base, &self.areas, self.tables);
        self.half.publish(&mem)
    }

    /// Kicks.
    pub fn kick(&self) {
        let index = self.index.get();
        self.doorbell.ring(match self.with_data {
            true => self.half.notification_data(index),
            false => index.into(),
        });
    }

    /// What came back by now.
    pub fn poll(&mut self) -> Checked<Vec<Completion>> {
        let mem = mem(&self.window, self.base, &self.areas, self.tables);
        let mut out = vec![Completion::default(); usize::from(self.size)];
        match self.half.take_used(&mem, &mut out) {
            Ok(taken) => {
                out.truncate(taken);
                Ok(out)
            }
            Err(e) => fail!("queue {}: the device broke the ring: {e}", self.index),
        }
    }

    /// Fails if one of these chains has come back: those that were shown to a device that is to rest.
    pub(crate) fn rests(&mut self, shown: &[u16]) -> Checked {
        let back = self.poll()?;
        let came = back.iter().find(|done| shown.contains(&done.id));
        match came {
            None => Ok(()),
            Some(done) => fail!(
                "queue {}: chain {} came back, and was shown to a device that is to rest",
                self.index,
                done.id
            ),
        }
    }

    /// Waits for `count` chains to come back.
    pub fn wait(&mut self, rig: &Rig<'_>, count: usize) -> Checked<Vec<Completion>> {
        let mut all = Vec::new();
        let what = format!("the return of {count} chains of queue {}", self.index);
        rig.bench().until(&what, || {
            all.extend(self.poll()?);
            Ok(all.len() >= count)
        })?;
        ensure!(
            all.len() == count,
            "queue {}: {} chains came back where {count} were given",
            self.index,
            all.len()
        );
        Ok(all)
    }

    /// Asks for calls. `true` if something is there to poll for.
    pub fn arm(&mut self) -> bool {
        let mem = mem(&self.window, self.base, &self.areas, self.tables);
        self.half.arm(&mem)
    }

    /// Asks for silence.
    pub fn disarm(&mut self) {
        let mem = mem(&self.window, self.base, &self.areas, self.tables);
        self.half.disarm(&mem);
    }

    /// How often the device called.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits until it has called more than `before` times.
    pub fn called(&self, rig: &Rig<'_>, before: u32) -> Checked {
        let what = format!("a call of queue {}", self.index);
        rig.bench().until(&what, || Ok(self.calls() > before))
    }

    // What is below is for statements that read rings as the specification describes them, or write what no driver should.

    /// Two bytes of an area.
    pub fn load_u16(&self, area: Area, at: u32) -> u16 {
        self.bytes(area).load_u16(at)
    }

    /// Sets two bytes of an area.
    pub fn store_u16(&self, area: Area, at: u32, value: u16) {
        self.bytes(area).store_u16(at, value);
    }

    /// Writes a descriptor of the descriptor area, behind the driver half's back. Split: `tail` is `flags, next`;
    /// packed: `id, flags`.
    pub fn put_descriptor(&self, slot: u16, at: Iova, len: u32, tail: [u16; 2]) {
        let bytes = self.bytes(Area::Descriptor);
        let meta = u64::from(len) | u64::from(tail[0]) << 32 | u64::from(tail[1]) << 48;
        let begin = layout::descriptor(slot);
        bytes.store_u64(begin, at.get());
        bytes.store_u64(begin | 8, meta);
    }

    /// A descriptor of the descriptor area: address, length, and the two words after it.
    pub fn descriptor(&self, slot: u16) -> (Iova, u32, [u16; 2]) {
        let bytes = self.bytes(Area::Descriptor);
        let begin = layout::descriptor(slot);
        let (at, meta) = (bytes.load_u64(begin), bytes.load_u64(begin | 8));
        let word = |shift: u32| (meta >> shift) as u16;
        (Iova::new(at), meta as u32, [word(32), word(48)])
    }

    /// All bytes of an area.
    pub fn image(&self, area: Area) -> Vec<u8> {
        let bytes = self.bytes(area);
        let mut image = vec![0; bytes.len()];
        bytes.read(0, &mut image);
        image
    }

    /// The memory of an area.
    pub(crate) fn bytes(&self, area: Area) -> Bytes<'_> {
        slice(&self.window, self.base, self.area(area))
    }
}

/// Empty where a piece is not of the rig.
fn slice(window: &Window, base: u64, piece: Piece) -> Bytes<'_> {
    let bytes = window.bytes();
    let at = usize::try_from(piece.at.get().wrapping_sub(base)).unwrap_or(usize::MAX);
    let all = bytes.slice(at, piece.len as usize);
    #[expect(
        clippy::expect_used,
        reason = "pieces are handed out of this window, and are not made up"
    )]
    all.expect("a piece of the rig")
}

fn mem<'w>(
    window: &'w Window,
    base: u64,
    areas: &[Piece; 3],
    tables: Option<Piece>,
) -> DriverMem<Bytes<'w>> {
    let [descriptor, driver, device] = areas.map(|area| slice(window, base, area));
    DriverMem {
        areas: Areas {
            descriptor,
            driver,
            device,
        },
        tables: tables.map(|tables| Tables {
            memory: slice(window, base, tables),
            base: tables.at,
            entries: TABLE_ENTRIES,
        }),
    }
}
