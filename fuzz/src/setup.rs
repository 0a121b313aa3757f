//! Control calls of any kind and order on a simulated device of each class, with a hostile driver behind it.
//!
//! The device is served by hand, so that one input is one order of things. Whatever is called: what is negotiated may be,
//! a queue runs only where its memory is mapped, nothing beyond it is written, a need for reset is told once, work ends,
//! and after a reset a good request completes.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use vdpa_core::config::Mac;
use vdpa_core::{
    Asid, Attr, Call, Device, DeviceImage, DeviceType, Doorbell, Event, Events, Features,
    GroupIndex, Kick, LinkState, QueueConfig, QueueIndex, QueueState, Relay, Status, Window, bits,
    graph,
};
use vdpa_mem::{Access, Bytes, Deadline, DmaMemory, Iova, IovaRange, Mapping, Region};
use vdpa_ring::{
    Areas, Completion, DriverMem, DriverRing, Format, Pos, RingFeatures, Segment, area_sizes,
};
use vdpa_sim::blk::{self, Blk, Memory};
use vdpa_sim::class::Class;
use vdpa_sim::net::{self, Net};
use vdpa_sim::port::{Loopback, Presence};
use vdpa_sim::rng::{self, Rng};
use vdpa_sim::{Crew, Options, Shift, SimDevice};

use crate::Input;

/// How many steps an input has at most.
const STEPS: usize = 40;
/// Where memory is mapped.
const BASE: u64 = 0x8000_0000;
const PAGE: u64 = 4096;
/// Pages that may be mapped; one more is behind them, which never is.
const PAGES: u64 = 12;
/// Queues have a page each: areas, and buffers behind them.
const BUFFERS: u64 = 2048;
/// Passes in which all work there can be is done.
const PASSES: usize = 2000;

thread_local! {
    static BENCHES: RefCell<Vec<Bench>> = RefCell::new(vec![
        Bench::new(DeviceType::Net, false),
        Bench::new(DeviceType::Block, false),
        Bench::new(DeviceType::Entropy, false),
        Bench::new(DeviceType::Block, true),
    ]);
}

/// The target `setup`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    BENCHES.with_borrow_mut(|benches| {
        let which = input.below(benches.len());
        benches[which].run(&mut input);
    });
}

/// A device, kept from one input to the next.
struct Bench {
    /// Dropped first, or the device waits for it.
    shift: Shift,
    device: Device,
    sim: Arc<SimDevice>,
    events: Events,
    memory: Arc<dyn DmaMemory>,
    window: Window,
    /// Of the queues that were started where their page is: drivers that know how, and doorbells.
    lines: Vec<Option<(DriverRing, Doorbell)>>,
    /// The queues that the device has told of as lost; each is lost once.
    told: Vec<Option<QueueIndex>>,
}

/// Nothing has to be waited for: the device is not at anything while it is not served.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// A class of this type.
pub fn class(device_type: DeviceType) -> Box<dyn Class> {
    match device_type {
        DeviceType::Net => {
            let settings = net::Settings {
                mac: Mac::new([0x52, 0x54, 0, 0, 0, 1]),
                mtu: 1500,
                pairs: 2,
                queue_size: 16,
                features: net::POSSIBLE,
                speed: None,
                link: true,
            };
            let presence = Presence::new(true);
            let port = Loopback::new(Arc::clone(&presence), 2, settings.longest());
            Box::new(Net::new(settings, presence, Arc::new(port)))
        }
        DeviceType::Block => {
            let settings = blk::Settings {
                capacity: 16,
                queues: 2,
                queue_size: 16,
                blk_size: 512,
                id: [7; 20],
                features: blk::Settings::possible(false),
            };
            let memory = Memory::new(16 * 512).expect("memory");
            Box::new(Blk::new(settings, Box::new(memory)))
        }
        _ => Box::new(Rng::new(16, rng::POSSIBLE)),
    }
}

/// A device of this type that is served by hand.
pub fn device(device_type: DeviceType, page_requests: bool) -> (Device, Arc<SimDevice>, Shift) {
    let (crew, shift) = Crew::by_hand("fuzz").expect("an eventfd");
    let options = Options {
        workers: 1,
        patience: Duration::ZERO,
        page_requests,
    };
    let sim = Arc::new(SimDevice::in_crew(
        "fuzz0",
        class(device_type),
        options,
        crew,
    ));
    let device = Device::new(Arc::clone(&sim) as _, Relay::new()).expect("a device");
    (device, sim, shift)
}

impl Bench {
    fn new(device_type: DeviceType, page_requests: bool) -> Self {
        let (device, sim, shift) = device(device_type, page_requests);
        let region = Region::anonymous((PAGES + 1) * PAGE).expect("memory");
        let (memory, window) = region.into_shared();
        Self {
            events: device.events().expect("nobody else takes them"),
            lines: (0..device.info().queues).map(|_| None).collect(),
            device,
            sim,
            shift,
            memory,
            window,
            told: Vec::new(),
        }
    }

    fn run(&mut self, input: &mut Input<'_>) {
        self.begin();
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            self.step(input);
            self.check();
        }
        let mut canary = [0; PAGE as usize];
        self.window
            .bytes()
            .read((PAGES * PAGE) as usize, &mut canary);
        assert!(
            canary == [0; PAGE as usize],
            "memory was written that is not mapped"
        );
        self.good();
    }

    /// A device in reset, with a page a queue mapped, and some behind them.
    fn begin(&mut self) {
        let zeroes = [0; (PAGES * PAGE) as usize];
        self.window.bytes().write(0, &zeroes);
        self.reset();
        let link = Attr::Link(LinkState::Up);
        let _other_class = self.sim.set(link);
        for asid in 0..self.device.info().asids {
            let dma = self.device.dma(Asid::new(asid)).expect("it is in range");
            let first = vec![self.mapping(0, 0, PAGES / 2, Access::Both)];
            dma.replace(first, soon()).expect("nothing is at it");
        }
        while self.events.try_next().is_some() {}
        self.told.clear();
    }

    fn mapping(&self, at: u64, page: u64, pages: u64, access: Access) -> Mapping {
        Mapping {
            iova: IovaRange::new(Iova::new(BASE + at * PAGE), pages * PAGE).expect("a range"),
            memory: Arc::clone(&self.memory),
            offset: page * PAGE,
            access,
            dirty: None,
        }
    }

    /// Resets the device.
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
        assert_eq!(self.device.negotiated(), Features::NONE);
        self.lines.iter_mut().for_each(|line| *line = None);
        self.drain();
        self.told.clear();
    }

    /// Serves the device until it has nothing to do.
    fn pass(&mut self) {
        let passes = (0..PASSES).take_while(|_| self.shift.pass());
        assert!(passes.count() < PASSES, "the device is busy for ever");
    }

    /// Reads the events.
    fn drain(&mut self) {
        while let Some(event) = self.events.try_next() {
            match event {
                Event::NeedsReset { queue, why } => {
                    let again = self.told.contains(&queue);
                    assert!(!again, "queue {queue:?} was lost twice: {why}");
                    self.told.push(queue);
                }
                Event::Broken { why } => panic!("{why}"),
                Event::Gone => panic!("it is gone"),
                _ => {}
            }
        }
    }

    /// What holds at any time.
    fn check(&mut self) {
        self.drain();
        let Ok(status) = self.device.status() else {
            panic!("the device is lost");
        };
        let (offered, negotiated) = (self.device.offered(), self.device.negotiated());
        assert!(offered.contains_all(negotiated));
        let device_type = self.device.info().device_type;
        if status.contains(Status::FEATURES_OK) {
            let legal = graph::check_accepted(device_type, offered, negotiated);
            assert!(legal.is_ok(), "{legal:?}");
        }
        assert!(!status.contains(Status::DRIVER_OK | Status::SUSPEND));
        if status.is_empty() {
            // The driver has reset it.
            self.told.clear();
        }
        if !self.told.is_empty() {
            assert!(status.contains(Status::DEVICE_NEEDS_RESET), "{status}");
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 24 {
            0 => {
                let _refused = self.device.write_status(input.u8());
            }
            1 | 2 => self.bring_up(input),
            3 => {
                let any = u128::from(input.u64()) | u128::from(input.u64()) << 64;
                let features = Features::from_u128(any);
                let accepted = self.device.accept(features);
                if accepted.is_ok() {
                    assert!(self.device.offered().contains_all(features));
                }
            }
            4 => self.read_config(input),
            5..=7 => self.start(input),
            8 => self.stop(input),
            9 => self.reset_queue(input),
            10 => {
                let q = self.queue(input);
                let _refused = self.device.enable_queue(q, input.flag());
            }
            11 => {
                let (g, a) = (input.u8(), input.u8());
                let (g, a) = (u32::from(g & 3), u32::from(a & 3));
                let done = self.device.assign_group(GroupIndex::new(g), Asid::new(a));
                let info = self.device.info();
                assert!(done.is_err() || (g < info.groups && a < info.asids));
            }
            12 => self.map(input),
            13 => self.unmap(input),
            14 => self.suspend(input),
            15 => self.class_state(input),
            16 => {
                let q = self.queue(input);
                let _refused = self.device.replace_call(q, Call::from_fn(|| {}));
            }
            17 => self.track(input),
            18 => self.set(input),
            // The driver.
            19 | 20 => self.post(input),
            21 => {
                let at = u64::from(input.u16()) % (PAGES * PAGE - 32);
                let len = input.below(32);
                self.window.bytes().write(at as usize, input.bytes(len));
            }
            22 => {
                // Where rings are.
                let at = u64::from(input.u8() % 8) * PAGE + u64::from(input.u8()) * 2;
                self.window
                    .bytes()
                    .write(at as usize, &input.u16().to_le_bytes());
                self.ring_all();
            }
            _ => self.pass(),
        }
    }

    /// Any queue, and one that there is not.
    fn queue(&self, input: &mut Input<'_>) -> QueueIndex {
        let q = match input.u8() {
            255 => input.u16(),
            small => u16::from(small) % (self.device.info().queues + 1),
        };
        QueueIndex::new(q)
    }

    /// What a good driver does, up to somewhere.
    fn bring_up(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        let without = match how & 1 {
            0 => Features::NONE,
            _ => Features::from_u64(input.u64()),
        };
        if how & 2 != 0 {
            self.reset();
        }
        let features = self
            .device
            .offered()
            .difference(without)
            .with(bits::VERSION_1);
        let device_type = self.device.info().device_type;
        let features = graph::close_down(device_type, features);
        let _too_late = self.device.accept(features);
        for status in [1, 3, 11].iter().take(usize::from(how >> 2 & 3)) {
            let _refused = self.device.write_status(*status);
        }
        if how & 16 != 0 {
            for q in 0..self.device.info().queues {
                let config = self.config(q, 8);
                self.start_with(QueueIndex::new(q), config);
            }
        }
        if how & 32 != 0 {
            let _refused = self.device.write_status(15);
            self.pass();
        }
    }

    fn read_config(&mut self, input: &mut Input<'_>) {
        let at = match input.u8() {
            255 => input.u32(),
            small => small.into(),
        };
        let len = usize::from(input.u8());
        let size = self.device.info().config_size;
        let fits = u64::from(at) + len as u64 <= u64::from(size);
        let mut bytes = vec![0xa5; len];
        if input.flag() {
            let done = self.device.write_config(at, &bytes);
            assert!(
                fits || done.is_err(),
                "written to {at}, {len} bytes of {size}"
            );
        } else {
            let done = self.device.read_config(at, &mut bytes);
            assert_eq!(done.is_ok(), fits, "{at}, {len} bytes of {size}: {done:?}");
        }
    }

    /// A queue in its page.
    fn config(&self, q: u16, size: u16) -> QueueConfig {
        let page = BASE + u64::from(q) * PAGE;
        let placed = area_sizes(self.format(), size, true).placed();
        let at = |offset: u32| Iova::new(page + u64::from(offset));
        QueueConfig::new(
            size,
            at(placed.descriptor),
            at(placed.driver),
            at(placed.device),
        )
    }

    fn format(&self) -> Format {
        match self.device.negotiated().contains(bits::RING_PACKED) {
            true => Format::Packed,
            false => Format::Split,
        }
    }

    fn start(&mut self, input: &mut Input<'_>) {
        let (q, how) = (self.queue(input), input.u8());
        let size = match how & 3 {
            3 => input.u16(),
            _ => u16::from(how >> 2 & 15) + 1,
        };
        let mut config = self.config(q.get() % PAGES as u16, size.clamp(1, 16));
        config.size = size;
        match input.u8() {
            0..=9 => {
                config.descriptor =
                    Iova::new(config.descriptor.get().wrapping_add(input.u16().into()))
            }
            10..=19 => {
                config.driver = Iova::new(config.driver.get().wrapping_sub(input.u16().into()))
            }
            20..=29 => config.device = Iova::new(input.u64()),
            30..=39 => config.enabled = false,
            40..=49 => {
                let (avail, used) = (input.u16(), input.u16());
                config.state = Some(match input.flag() {
                    true => QueueState::Split {
                        avail,
                        used: Some(avail.wrapping_sub(used & 15)),
                    },
                    false => QueueState::Packed {
                        avail: Pos::from_bits(avail & 0x8007),
                        used: Pos::from_bits(used & 0x8007),
                    },
                });
            }
            _ => {}
        }
        self.start_with(q, config);
    }

    fn start_with(&mut self, q: QueueIndex, config: QueueConfig) {
        let info = self.device.info();
        let limits = self.device.queue_limits(q);
        assert_eq!(limits.is_ok(), q.get() < info.queues);
        let started = self.device.start_queue(q, config, Kick::Taken, Call::None);
        let Ok(doorbell) = started else {
            return;
        };
        let limits = limits.expect("it was started");
        assert!(
            config.size >= 1 && config.size <= limits.max_size,
            "{config:?}"
        );
        let format = self.format();
        assert!(vdpa_ring::legal_size(format, config.size), "{config:?}");
        let status = self.device.status().unwrap_or_default();
        assert!(status.contains(Status::FEATURES_OK), "{status}");
        let place = q.place();
        // In its page and fresh: a driver knows how to go on.
        let own = self.config(q.get(), config.size);
        if own == config && u64::from(q.get()) < PAGES / 2 {
            let zeroes = [0; BUFFERS as usize];
            self.window.bytes().write(place * PAGE as usize, &zeroes);
            let negotiated = self.device.negotiated();
            let has = |bit, flag| match negotiated.contains(bit) {
                true => flag,
                false => RingFeatures::empty(),
            };
            let features = has(bits::EVENT_IDX, RingFeatures::EVENT_IDX)
                | has(bits::IN_ORDER, RingFeatures::IN_ORDER);
            let ring = DriverRing::new(format, config.size, features, None);
            self.lines[place] = ring.ok().map(|ring| (ring, doorbell));
        } else {
            self.lines[place] = None;
        }
    }

    fn stop(&mut self, input: &mut Input<'_>) {
        let q = self.queue(input);
        let begun = self.device.begin_stop_queue(q);
        if input.flag() || begun.is_err() {
            let _early = self.device.poll_stop_queue(q);
            return;
        }
        self.pass();
        match self.device.poll_stop_queue(q) {
            Ok(Poll::Pending) => panic!("queue {q} does not stop"),
            Ok(Poll::Ready(_)) => self.lines[q.place()] = None,
            Err(_) => {}
        }
    }

    fn reset_queue(&mut self, input: &mut Input<'_>) {
        let q = self.queue(input);
        let begun = self.device.begin_reset_queue(q);
        let can = self.device.negotiated().contains(bits::RING_RESET);
        assert!(can || begun.is_err());
        if input.flag() || begun.is_err() {
            let _early = self.device.poll_reset_queue(q);
            return;
        }
        self.pass();
        match self.device.poll_reset_queue(q) {
            Ok(Poll::Pending) => panic!("queue {q} is not reset"),
            Ok(Poll::Ready(())) => self.lines[q.place()] = None,
            Err(_) => {}
        }
    }

    fn map(&mut self, input: &mut Input<'_>) {
        let (a, at, how) = (input.u8(), input.u8(), input.u8());
        let Ok(dma) = self.device.dma(Asid::new(u32::from(a & 3))) else {
            assert!(u32::from(a & 3) >= self.device.info().asids);
            return;
        };
        let access = [Access::Both, Access::DeviceReads, Access::DeviceWrites];
        let access = access[usize::from(how & 3) % 3];
        let pages = 1 + u64::from(how >> 2 & 3);
        let page = u64::from(how >> 4) % (PAGES + 1 - pages);
        let at = u64::from(at % 16);
        let before = dma.mappings();
        let mapping = self.mapping(at, page, pages, access);
        let range = mapping.iova;
        let done = dma.map(vec![mapping]);
        let free = before.iter().all(|known| !known.iova.overlaps(range));
        assert_eq!(done.is_ok(), free, "{done:?}");
        assert_eq!(dma.mappings().len(), before.len() + usize::from(free));
    }

    fn unmap(&mut self, input: &mut Input<'_>) {
        let (a, at, pages) = (input.u8(), input.u8(), input.u8());
        let Ok(dma) = self.device.dma(Asid::new(u32::from(a & 3))) else {
            return;
        };
        let at = BASE + u64::from(at % 16) * PAGE;
        let pages = match pages {
            // All that there may be.
            200.. => 1 << 20,
            few => 1 + u64::from(few % 6),
        };
        let range = IovaRange::new(Iova::new(at), pages * PAGE).expect("a range");
        let before = dma.mappings();
        let hit = before
            .iter()
            .filter(|known| known.iova.overlaps(range))
            .count();
        let whole = before
            .iter()
            .filter(|known| range.contains(known.iova))
            .count();
        let done = dma.unmap(range, soon());
        assert_eq!(done.is_ok(), hit != 0 && hit == whole, "{done:?}");
        let gone = if done.is_ok() { hit } else { 0 };
        assert_eq!(dma.mappings().len(), before.len() - gone);
    }

    fn suspend(&mut self, input: &mut Input<'_>) {
        match input.u8() % 5 {
            0 => {
                let _refused = self.device.begin_suspend();
            }
            1 => {
                let begun = self.device.begin_suspend().is_ok();
                self.pass();
                let polled = self.device.poll_suspend();
                assert!(
                    !begun || matches!(polled, Ok(Poll::Ready(())) | Err(_)),
                    "{polled:?}"
                );
            }
            2 => {
                let _refused = self.device.resume();
            }
            3 => {
                let q = self.queue(input);
                let _refused = self.device.queue_state(q);
            }
            _ => {
                let Ok(image) = self.device.save() else {
                    return;
                };
                let bytes = image.to_bytes();
                assert_eq!(
                    DeviceImage::parse(&bytes),
                    Ok(image),
                    "an image is read as another"
                );
            }
        }
    }

    fn class_state(&mut self, input: &mut Input<'_>) {
        let Ok(mut state) = self.device.save_class_state() else {
            return;
        };
        let original = state.clone();
        for _ in 0..input.below(4) {
            let at = usize::from(input.u16()) % state.len().max(1);
            if let Some(byte) = state.get_mut(at) {
                *byte ^= input.u8();
            }
        }
        let taken = self.device.restore_class_state(&state);
        if taken.is_ok() || state == original {
            return;
        }
        let after = self.device.save_class_state();
        assert_eq!(
            after.ok(),
            Some(original),
            "a state that was refused has an effect"
        );
    }

    fn track(&mut self, input: &mut Input<'_>) {
        let (q, at, len) = (self.queue(input), input.u8(), input.u16());
        let at = u64::from(at) * 8 + PAGE * 10;
        let window = Window::new(Arc::clone(&self.memory), at, u64::from(len % 2048));
        if let Ok(window) = window {
            let _refused = self.device.track_in_flight(q, window);
        }
    }

    /// The management side.
    fn set(&mut self, input: &mut Input<'_>) {
        let attr = match input.u8() % 5 {
            0 => Attr::Link(LinkState::Down),
            1 => Attr::Link(LinkState::Up),
            2 => Attr::Capacity(u64::from(input.u8() % 17)),
            3 => Attr::Announce,
            _ => Attr::Mac(Mac::new(std::array::from_fn(|_| input.u8()))),
        };
        let _other_class = self.sim.set(attr);
    }

    fn areas<'w>(window: &'w Window, q: u64, format: Format, size: u16) -> DriverMem<Bytes<'w>> {
        let sizes = area_sizes(format, size, true);
        let placed = sizes.placed();
        let span = |offset: u32, area: vdpa_ring::Area| {
            let at = q * PAGE + u64::from(offset);
            let slice = window.bytes().slice(at as usize, area.bytes as usize);
            slice.expect("it is inside")
        };
        DriverMem::new(Areas {
            descriptor: span(placed.descriptor, sizes.descriptor),
            driver: span(placed.driver, sizes.driver),
            device: span(placed.device, sizes.device),
        })
    }

    /// A chain in the page of a queue, shown, and what came back taken.
    fn post(&mut self, input: &mut Input<'_>) {
        let (place, shape) = (input.below(self.lines.len()), input.u8());
        let page = place as u64 * PAGE;
        let Some((ring, doorbell)) = &mut self.lines[place] else {
            return;
        };
        let mem = Self::areas(&self.window, place as u64, ring.format(), ring.size());
        let mut list = |count: u8, at: u64| -> Vec<Segment> {
            let each = |i: u8| {
                let far = u64::from(input.u8());
                let addr = match far {
                    255 => Iova::new(input.u64()),
                    _ => Iova::new(BASE + page + BUFFERS + at + u64::from(i) * 128 + far),
                };
                let len = u32::from(input.u8());
                Segment { addr, len }
            };
            (0..count).map(each).collect()
        };
        let (readable, writable) = (list(shape & 3, 0), list(shape >> 2 & 3, 1024));
        // Something of a header.
        let header = [shape >> 4, 0, 0, 0, 0, 0, 0, 0, shape >> 5, 0, 0, 0];
        let at = (page + BUFFERS) as usize;
        self.window.bytes().write(at, &header);
        let _full = ring.add(&mem, &readable, &writable);
        ring.publish(&mem);
        doorbell.ring(place as u32);
        if shape & 0x80 == 0 {
            self.pass();
        }
        let Some((ring, _)) = &mut self.lines[place] else {
            return;
        };
        let mut out = [Completion::default(); 8];
        let mem = Self::areas(&self.window, place as u64, ring.format(), ring.size());
        // Somebody may have written to the ring, of this queue or another.
        let _bad = ring.take_used(&mem, &mut out);
    }

    fn ring_all(&mut self) {
        for (_, doorbell) in self.lines.iter().flatten() {
            doorbell.ring(0);
        }
    }

    /// After a reset a good request completes.
    fn good(&mut self) {
        self.begin();
        let device_type = self.device.info().device_type;
        let _other_class = self.sim.set(Attr::Capacity(16));
        let required = self.device.offered() & (bits::VERSION_1.mask());
        self.device.accept(required).expect("it is offered");
        for status in [1, 3, 11] {
            self.device.write_status(status).expect("in order");
        }
        let q: u16 = if device_type == DeviceType::Net { 1 } else { 0 };
        let config = self.config(q, 8);
        self.start_with(QueueIndex::new(q), config);
        self.device.write_status(15).expect("in order");
        let page = u64::from(q) * PAGE;
        let segment = |at: u64, len| Segment {
            addr: Iova::new(BASE + page + BUFFERS + at),
            len,
        };
        let (readable, writable): (&[Segment], &[Segment]) = match device_type {
            DeviceType::Net => (&[segment(0, 72)], &[]),
            DeviceType::Block => (&[segment(0, 16)], &[segment(512, 512), segment(1024, 1)]),
            _ => (&[], &[segment(0, 100)]),
        };
        let status = (page + BUFFERS + 1024) as usize;
        self.window.bytes().write(status, &[0xff]);
        let (ring, doorbell) = self.lines[usize::from(q)].as_mut().expect("it was started");
        let mem = Self::areas(&self.window, q.into(), ring.format(), ring.size());
        ring.add(&mem, readable, writable).expect("it is empty");
        ring.publish(&mem);
        doorbell.ring(q.into());
        self.pass();
        let (ring, _) = self.lines[usize::from(q)].as_mut().expect("it was started");
        let mut out = [Completion::default(); 2];
        let mem = Self::areas(&self.window, q.into(), ring.format(), ring.size());
        assert_eq!(
            ring.take_used(&mem, &mut out),
            Ok(1),
            "a good request does not complete"
        );
        let expected = match device_type {
            DeviceType::Net => 0,
            DeviceType::Block => 513,
            _ => 100,
        };
        assert_eq!(out[0].len, expected);
        let mut said = [0xff];
        self.window.bytes().read(status, &mut said);
        assert!(
            device_type != DeviceType::Block || said == [0],
            "a good request failed"
        );
    }
}
