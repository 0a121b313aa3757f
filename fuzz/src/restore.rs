//! States of devices and records of what is in flight, from anywhere.
//!
//! A part of an input is applied to a valid image, class state or record. What is taken over is legal and saved again as
//! the same; what is refused leaves no trace; and a device that took over whatever it was goes on, and can be reset.

use std::cell::RefCell;
use std::sync::Arc;

use vdpa_core::bits::{self, net};
use vdpa_core::{
    Asid, Call, Device, DeviceImage, DeviceType, Features, ImageError, Kick, QueueConfig,
    QueueIndex, Status, graph,
};
use vdpa_mem::{Access, Iova, IovaRange, Mapping, Region};
use vdpa_ring::{
    Batch, ChainToken, DeviceRing, Format, Record, RingError, RingFeatures, Used, area_sizes,
};
use vdpa_sim::Shift;
use vdpa_sim::class::Class;

use crate::Input;
use crate::memory::Memory;
use crate::setup;

/// Where memory is mapped, and how much.
const BASE: u64 = 0x8000_0000;
const BYTES: u64 = 16 << 12;

/// The target `restore`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 8 {
        0 => parse(input.rest()),
        1..=3 => BENCHES.with_borrow_mut(|benches| {
            let which = input.below(benches.len());
            benches[which].image(&mut input);
        }),
        4 | 5 => CLASSES.with_borrow(|classes| {
            let which = input.below(classes.len());
            class(&classes[which], &mut input);
        }),
        6 => record(Format::Split, &mut input),
        _ => record(Format::Packed, &mut input),
    }
}

thread_local! {
    static BENCHES: RefCell<Vec<Bench>> = RefCell::new(
        [DeviceType::Net, DeviceType::Block, DeviceType::Entropy].map(Bench::new).into(),
    );
    static CLASSES: RefCell<Vec<[Box<dyn Class>; 2]>> = RefCell::new(
        [DeviceType::Net, DeviceType::Block, DeviceType::Entropy]
            .map(|device_type| [setup::class(device_type), setup::class(device_type)])
            .into(),
    );
}

/// Changes bytes, cuts, and adds some.
fn mutate(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let how = input.u8();
    for _ in 0..how & 7 {
        let at = usize::from(input.u16()) % bytes.len().max(1);
        let value = input.u8();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = if how & 8 == 0 {
                value
            } else {
                *byte ^ 1 << (value & 7)
            };
        }
    }
    match how >> 5 {
        5 => bytes.truncate(usize::from(input.u16()) % (bytes.len() + 1)),
        6 => {
            let len = input.below(32);
            bytes.extend(input.bytes(len));
        }
        7 => {
            let at = usize::from(input.u16()) % (bytes.len() + 1);
            let len = input.below(16);
            bytes.splice(at..at, input.bytes(len).iter().copied());
        }
        _ => {}
    }
}

/// An image whose length and checksum are right.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < 16 {
        return bytes;
    }
    let len = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes.truncate(bytes.len() - 4);
    // The parser says what it should be.
    bytes.extend([0; 4]);
    if let Err(ImageError::Checksum { computed, .. }) = DeviceImage::parse(&bytes) {
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&computed.to_le_bytes());
    }
    bytes
}

/// Reads an image from any bytes.
fn parse(bytes: &[u8]) {
    let signed = signed(bytes.to_vec());
    for bytes in [bytes, &signed] {
        if let Ok(image) = DeviceImage::parse(bytes) {
            assert_eq!(image.to_bytes(), bytes, "an image is written as another");
        }
    }
}

/// A device that takes images over, and valid ones of it.
struct Bench {
    shift: Shift,
    device: Device,
    images: Vec<Vec<u8>>,
}

impl Bench {
    fn new(device_type: DeviceType) -> Self {
        let (device, _, shift) = setup::device(device_type, false);
        let region = Region::anonymous(BYTES).expect("memory");
        let (memory, _) = region.into_shared();
        for asid in 0..device.info().asids {
            let mapping = Mapping {
                iova: IovaRange::new(Iova::new(BASE), BYTES).expect("a range"),
                memory: Arc::clone(&memory),
                offset: 0,
                access: Access::Both,
                dirty: None,
            };
            let dma = device.dma(Asid::new(asid)).expect("it is in range");
            dma.map(vec![mapping]).expect("nothing is mapped");
        }
        let mut bench = Self {
            shift,
            device,
            images: Vec::new(),
        };
        let all = bench.device.offered();
        let some = all.without(bits::RING_PACKED).without(net::CTRL_VQ);
        let some = graph::close_down(device_type, some);
        bench.images = vec![
            bench.running(all, true),
            bench.running(some, true),
            bench.running(some, false),
            bench.device.save().expect("in reset").to_bytes(),
        ];
        bench
    }

    /// An image of a device that ran with these features, or was about to.
    fn running(&mut self, features: Features, live: bool) -> Vec<u8> {
        let device = &self.device;
        device.accept(features).expect("they are offered");
        for status in [1, 3, 11] {
            device.write_status(status).expect("in order");
        }
        let packed = features.contains(bits::RING_PACKED);
        let format = if packed {
            Format::Packed
        } else {
            Format::Split
        };
        for q in 0..device.info().queues {
            let placed = area_sizes(format, 8, true).placed();
            let page = BASE + u64::from(q) * 4096;
            let at = |offset: u32| Iova::new(page + u64::from(offset));
            let areas = [placed.descriptor, placed.driver, placed.device].map(at);
            let config = QueueConfig::new(8, areas[0], areas[1], areas[2]);
            // A queue that these features do not have.
            let _absent = device.start_queue(QueueIndex::new(q), config, Kick::Taken, Call::None);
        }
        if live {
            device.write_status(15).expect("in order");
            device.begin_suspend().expect("it runs");
        }
        self.pass();
        let image = self.device.save().expect("it is stopped");
        self.reset();
        image.to_bytes()
    }

    fn pass(&mut self) {
        let passes = (0..500).take_while(|_| self.shift.pass());
        assert!(passes.count() < 500, "the device is busy for ever");
    }

    fn reset(&mut self) {
        self.device
            .write_status(0)
            .expect("a reset is always legal");
        self.pass();
        assert_eq!(
            self.device.status().ok(),
            Some(Status::empty()),
            "the reset did not end"
        );
    }

    /// Restores an image that was changed.
    fn image(&mut self, input: &mut Input<'_>) {
        let which = input.below(self.images.len());
        let mut bytes = self.images[which].clone();
        mutate(&mut bytes, input);
        let bytes = signed(bytes);
        let Ok(image) = DeviceImage::parse(&bytes) else {
            return;
        };
        assert_eq!(image.to_bytes(), bytes, "an image is written as another");
        let restored = self.device.restore(&image, |_| (Kick::Taken, Call::None));
        match restored {
            Ok(doorbells) => {
                assert_eq!(doorbells.len(), image.queues().len());
                self.goes_on(&image);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        self.reset();
    }

    /// What was restored is saved as it was, and runs.
    fn goes_on(&mut self, image: &DeviceImage) {
        let saved = self.device.save().expect("it is stopped");
        assert_eq!(saved.status(), image.status());
        assert_eq!(saved.features(), image.features());
        assert_eq!(saved.queues(), image.queues());
        assert!(
            image
                .groups()
                .iter()
                .zip(saved.groups())
                .all(|(a, b)| a == b)
        );
        // An older class state is saved as a newer one; from there on nothing changes.
        let bytes = saved.to_bytes();
        self.reset();
        let again = self.device.restore(&saved, |_| (Kick::Taken, Call::None));
        assert!(again.is_ok(), "what was saved is refused: {again:?}");
        let resaved = self.device.save().expect("it is stopped");
        assert_eq!(
            resaved.to_bytes(),
            bytes,
            "a restored device saves another state"
        );
        let resumed = self.device.resume();
        let live = image
            .status()
            .intersects(Status::DRIVER_OK | Status::SUSPEND);
        assert_eq!(resumed.is_ok(), live, "{resumed:?}");
        self.pass();
    }
}

/// Takes a class state over that was changed.
fn class([own, other]: &[Box<dyn Class>; 2], input: &mut Input<'_>) {
    let without = Features::from_u64(input.u64());
    let features = match input.flag() {
        true => own.offered().difference(without).with(bits::VERSION_1),
        false => own.offered(),
    };
    let features = graph::close_down(own.device_type(), features);
    for class in [own, other] {
        class.reset();
        class.accept(features);
    }
    let mut bytes = match input.u8() & 7 {
        0 => Vec::new(),
        _ => own.save(),
    };
    mutate(&mut bytes, input);
    let before = own.save();
    match own.restore(&bytes) {
        Ok(_) => {
            let saved = own.save();
            let taken = other.restore(&saved);
            assert!(taken.is_ok(), "what was saved is refused: {taken:?}");
            assert_eq!(other.save(), saved, "a restored class saves another state");
            if bytes == before {
                assert_eq!(saved, before);
            }
        }
        Err(why) => {
            assert!(!why.is_empty());
            assert_eq!(own.save(), before, "a state that was refused has an effect");
        }
    }
    own.reset();
    other.reset();
}

/// Opens a record that a device left, and somebody changed.
fn record(format: Format, input: &mut Input<'_>) {
    let size = match format {
        Format::Split => 1 << (input.u8() % 4),
        Format::Packed => 1 + u16::from(input.u8() % 8),
    };
    let memory = Memory::new(format, size);
    let features = RingFeatures::INDIRECT_DESC;
    let cells = memory.watched(&memory.record);
    let mut batch = Batch::new(size.into(), usize::from(size) * 4);
    if input.u8() & 7 != 0 {
        lived(format, size, &memory, &mut batch, input);
    }
    for _ in 0..input.below(6) {
        let at = usize::from(input.u16()) % memory.record.len();
        let value = input.u8();
        let byte = match value {
            0..0xc0 => value % (size as u8 + 2),
            _ => input.u8(),
        };
        memory.record.put(at, &[byte]);
    }
    if input.u8() & 7 == 0 {
        memory.areas.device.put(2, &input.u16().to_le_bytes());
    }
    if memory.record.u16(8) == 0 {
        // A record that nobody wrote is of a queue that is fresh too.
        memory.areas.device.put(2, &[0, 0]);
    }
    let before = memory.record.bytes();
    let areas = memory.ring();
    let state = None;
    let (mut record, found) = match Record::open(format, size, &cells, &areas, state) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(
                memory.record.bytes(),
                before,
                "a record that is refused is written"
            );
            return;
        }
    };
    let count = found.again.len();
    assert!(count <= size.into());
    let ring = DeviceRing::new(format, size, features, Some(found.state));
    let mut ring = ring.expect("a state that a record says is legal");
    assert!(usize::from(ring.in_flight()) >= count);
    {
        let again = Record::open(format, size, &cells, &areas, state);
        let (_, again) = again.expect("a record that was opened can be opened again");
        assert_eq!(again.state, found.state);
        assert_eq!(again.again.len(), count);
    }
    ring.note(size.into());
    ring.resubmit(found.again);
    assert_eq!(ring.to_repeat(), count);
    let mut ids = Vec::new();
    let view = memory.device();
    loop {
        match ring.take(&view, &mut batch, usize::MAX) {
            Ok(0) => break,
            Ok(taken) => assert!(taken <= size.into()),
            Err(error) => {
                assert_ne!(error, RingError::Latched);
                assert_eq!(ring.take(&view, &mut batch, 1), Err(RingError::Latched));
                return;
            }
        }
        if record.taken(&cells, &ring, &batch).is_err() {
            return;
        }
        ids.extend(
            batch
                .iter()
                .map(|chain| (chain.token(), chain.token().id())),
        );
        assert!(
            ids.len() <= usize::from(size),
            "more chains than the ring has"
        );
    }
    let mut all: Vec<u16> = ids.iter().map(|(_, id)| *id).collect();
    all.sort_unstable();
    assert!(
        all.windows(2).all(|pair| pair[0] != pair[1]),
        "a chain was taken twice"
    );
    // Given back, the last first: the record is empty then.
    let back = |token: ChainToken| Used { token, len: 0 };
    for (token, _) in ids.into_iter().rev() {
        let used = [back(token)];
        record.committing(&cells, &used).expect("it is in flight");
        ring.commit(&view, &used).expect("it is in flight");
        record.committed(&cells, &used);
    }
    let (_, empty) =
        Record::open(format, size, &cells, &areas, state).expect("a record of its own");
    assert!(empty.again.is_empty(), "what was given back is in flight");
    assert_eq!(empty.state, ring.state());
}

/// A device that had a queue and its record for a while.
fn lived(format: Format, size: u16, memory: &Memory, batch: &mut Batch, input: &mut Input<'_>) {
    let cells = memory.watched(&memory.record);
    let opened = Record::open(format, size, &cells, &memory.ring(), None);
    let (mut record, found) = opened.expect("a record of zeroes is fresh");
    let ring = DeviceRing::new(format, size, RingFeatures::INDIRECT_DESC, Some(found.state));
    let mut ring = ring.expect("a fresh state");
    ring.note(size.into());
    let mut driver = vdpa_ring::DriverRing::new(format, size, RingFeatures::empty(), None)
        .expect("a fresh ring");
    let view = memory.device();
    let mut flight: Vec<ChainToken> = Vec::new();
    for _ in 0..1 + input.below(4) {
        let mem = vdpa_ring::DriverMem::new(memory.ring());
        for _ in 0..input.below(4) {
            let segment = vdpa_ring::Segment {
                addr: Iova::new(0x1000),
                len: 16,
            };
            let count = 1 + input.below(3);
            let _full = driver.add(&mem, &vec![segment; count], &[]);
        }
        driver.publish(&mem);
        let taken = ring.take(&view, batch, input.below(9));
        taken.expect("a good driver");
        record.taken(&cells, &ring, batch).expect("each is new");
        flight.extend(batch.iter().map(|chain| chain.token()));
        let mut used = Vec::new();
        for _ in 0..input.below(4).min(flight.len()) {
            let token = flight.remove(input.below(flight.len()));
            used.push(Used { token, len: 0 });
        }
        record.committing(&cells, &used).expect("all are in flight");
        ring.commit(&view, &used).expect("all are in flight");
        // Sometimes it dies before it could say so.
        if input.u8() & 3 == 0 {
            return;
        }
        record.committed(&cells, &used);
        let mut out = [vdpa_ring::Completion::default(); 8];
        driver.take_used(&mem, &mut out).expect("a good device");
    }
}
