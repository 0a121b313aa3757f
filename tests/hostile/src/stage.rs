//! A device with a queue under attack, a sibling queue, and a sibling device on the same worker.
//!
//! ```text
//!   device "attacked"   net: pair 0 = rx 0, tx 1; pair 1 = rx 2, tx 3; control 4      blk: queues 0 and 1
//!                       the queue under attack is tx 1, rx 0, control 4, or 0 of a disk
//!   device "sibling"    the same class, served by the same thread
//!
//!   address space       RINGS      the areas of the queue under attack
//!                       BUFFERS    what a row points to
//!                       HOUSE      rings and buffers of the queues that are well-behaved
//!                       HALVES     two regions, side by side for the device, apart in this process
//!                       ROM        for reading alone
//!                       SPARE      to be unmapped
//! ```
//! All are between unmapped pages, with holes between them.

use std::sync::Arc;

use vdpa_core::bits::{self, net};
use vdpa_core::{
    Asid, Call, Device, DmaHandle, Event, Events, Features, Kick, QueueIndex, Registry, Status,
};
use vdpa_mem::Access;
use vdpa_ring::{Format, Pos, QueueState};
use vdpa_sim::SimMgmt;

use crate::background::Background;
use crate::exchange::{self, Exchange, NET_HEADER, SECTOR, block_header, frame, pattern};
use crate::guard::Arena;
use crate::raw::{Back, Piece, RawQueue};
use crate::table::Target;
use crate::{soon, until};

/// Where the areas of the queue under attack are.
pub const RINGS: u64 = 0x1000_0000;
/// Where buffers are.
pub const BUFFERS: u64 = 0x2000_0000;
/// Where the first of two adjacent regions is.
pub const HALVES: u64 = 0x3000_0000;
/// Where memory for reading is.
pub const ROM: u64 = 0x4000_0000;
/// Where a region is that may be unmapped.
pub const SPARE: u64 = 0x5000_0000;
/// Where the well-behaved queues have theirs.
pub const HOUSE: u64 = 0x7000_0000;
/// Bytes of each half.
pub const HALF: usize = 8192;
/// Bytes of a buffer's place.
pub const PLACE: usize = 1024;
/// Bytes of the buffers together.
const BUFFER_BYTES: usize = 128 << 10;
/// The sector that a request reads.
const READ_SECTOR: u64 = 1;
/// The sector that siblings use.
const SIBLING_SECTOR: u64 = 100;

/// How a device and its queue are set up for a row.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Size of the queue under attack.
    pub size: u16,
    /// Whether tables are negotiated.
    pub indirect: bool,
    /// Whether EVENT_IDX is.
    pub event_idx: bool,
    /// Whether IN_ORDER is.
    pub in_order: bool,
    /// Where the queue under attack starts: an index (split), or a slot of the first lap (packed).
    pub from: u16,
    /// More features, where they are offered.
    pub extra: Features,
    /// More keys of the device string, each with a comma before it.
    pub keys: &'static str,
}

impl Setup {
    /// A queue of size 8, with tables.
    pub const PLAIN: Self = Self {
        size: 8,
        indirect: true,
        event_idx: false,
        in_order: false,
        from: 0,
        extra: Features::NONE,
        keys: "",
    };

    /// With another size.
    pub const fn size(self, size: u16) -> Self {
        Self { size, ..self }
    }

    /// Without tables.
    pub const fn direct(self) -> Self {
        Self {
            indirect: false,
            ..self
        }
    }

    /// With EVENT_IDX.
    pub const fn event_idx(self) -> Self {
        Self {
            event_idx: true,
            ..self
        }
    }

    /// With IN_ORDER.
    pub const fn in_order(self) -> Self {
        Self {
            in_order: true,
            ..self
        }
    }

    /// From this index or slot on.
    pub const fn from(self, from: u16) -> Self {
        Self { from, ..self }
    }

    /// With these features too, where they are offered.
    pub const fn extra(self, extra: Features) -> Self {
        Self { extra, ..self }
    }

    /// With these keys of the device string, each with a comma before it.
    pub const fn keys(self, keys: &'static str) -> Self {
        Self { keys, ..self }
    }

    /// Where the queue under attack starts.
    pub fn state(&self, format: Format) -> Option<QueueState> {
        if self.from == 0 {
            return None;
        }
        let pos = Pos {
            index: self.from,
            wrap: true,
        };
        Some(match format {
            Format::Split => QueueState::Split {
                avail: self.from,
                used: Some(self.from),
            },
            Format::Packed => QueueState::Packed {
                avail: pos,
                used: pos,
            },
        })
    }
}

/// A known-good request, to be cut and bent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the readable part is, and how long.
    pub readable: (u64, u32),
    /// Where the writable part is, and how long.
    pub writable: (u64, u32),
}

impl Request {
    /// In one piece of each kind that it has.
    pub fn pieces(&self) -> Vec<Piece> {
        self.cut(0)
    }

    /// In `count` pieces, or as few as there can be: the readable part is cut if there is one, else the writable.
    pub fn cut(&self, count: usize) -> Vec<Piece> {
        let (read, write) = (self.readable, self.writable);
        let mut all = Vec::new();
        let parts = |(at, len): (u64, u32), count: usize| -> Vec<(u64, u32)> {
            // All of one byte, but for the last.
            let count = count.clamp(1, len.max(1) as usize) as u32;
            (0..count)
                .map(|i| (at + u64::from(i), if i + 1 == count { len - i } else { 1 }))
                .collect()
        };
        if read.1 != 0 {
            let others = usize::from(write.1 != 0);
            let parts = parts(read, count.saturating_sub(others));
            all.extend(parts.iter().map(|&(at, len)| Piece::read(at, len)));
        }
        if write.1 != 0 {
            let left = count.saturating_sub(all.len());
            let parts = parts(write, left);
            all.extend(parts.iter().map(|&(at, len)| Piece::write(at, len)));
        }
        all
    }
}

/// What has to come of a row, looked at by the [`oracle`](crate::oracle).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// The queue cannot be trusted: NEEDS_RESET, told once, with this in its reason.
    Lost(&'static str),
    /// Every chain that was shown comes back, with length 0 or with a status that says it was an error.
    Back,
    /// The row has looked at it all by itself; the device is as well as before.
    Served,
    /// The same, and the row has reset the device or stopped its queue: there is nothing to wait for.
    Over,
}

/// A device under attack, and what stands beside it.
pub struct Stage {
    /// The queue under attack.
    pub target: Target,
    /// Ring format.
    pub format: Format,
    /// How it was set up.
    pub setup: Setup,
    /// The queue under attack, from the attacker's side.
    pub q: RawQueue,
    /// Buffers.
    pub buffers: Arc<Arena>,
    /// Two regions, side by side for the device.
    pub halves: [Arc<Arena>; 2],
    /// For reading.
    pub rom: Arc<Arena>,
    /// To be unmapped.
    pub spare: Arc<Arena>,
    /// What goes on meanwhile.
    pub background: Background,
    /// The device.
    pub device: Device,
    /// Its events.
    pub events: Events,
    /// Its memory.
    pub dma: DmaHandle,
    rings: Arc<Arena>,
    house: Arc<Arena>,
    /// The other queue of the pair under attack.
    partner: Option<RawQueue>,
    /// Frames sent to the queue under attack.
    stirred: u32,
    features: Features,
    sibling: Device,
    sibling_house: Arc<Arena>,
    registry: Registry,
}

/// Offsets in the house.
const HOUSE_BYTES: usize = 64 << 10;
const PARTNER_RING: usize = 0;
const FIRST_RING: usize = 4 << 10;
const SECOND_RING: usize = 8 << 10;
const CTRL_RING: usize = 12 << 10;
const EXCHANGE_BUFFERS: usize = 16 << 10;
const PARTNER_BUFFERS: usize = 24 << 10;
const SCRATCH: usize = 60 << 10;
/// Queue size of well-behaved queues.
const HOUSE_SIZE: u16 = 16;
/// Bytes of a partner's buffer.
const PARTNER_BUFFER: usize = 2048;

impl Stage {
    /// Everything set up and running, with the exchanges under way.
    pub fn new(target: Target, format: Format, setup: Setup) -> Self {
        let mut registry = Registry::new();
        registry.add(Arc::new(SimMgmt::new()));
        let kind = if target.is_net() {
            "sim:net,queue_pairs=2"
        } else {
            "sim:blk,size=1M,queues=2"
        };
        let open = |keys: &str| {
            let spec = format!("{kind},crew=both{keys}");
            registry
                .open(&spec)
                .unwrap_or_else(|why| panic!("{spec}: {why}"))
        };
        let (device, sibling) = (open(setup.keys), open(""));
        let sibling_house = Arena::new(HOUSE, HOUSE_BYTES, Access::Both);
        let sibling_features = features(&sibling, format, &Setup::PLAIN);
        map(&sibling, &[&sibling_house]);
        negotiate(&sibling, sibling_features);
        let other = Opened {
            device: &sibling,
            format,
            house: &sibling_house,
        };
        let other = other.exchange(target);

        let rings = Arena::new(RINGS, 64 << 10, Access::Both);
        let buffers = Arena::new(BUFFERS, BUFFER_BYTES, Access::Both);
        let halves = [HALVES, HALVES + HALF as u64].map(|at| Arena::new(at, HALF, Access::Both));
        let rom = Arena::new(ROM, 4096, Access::DeviceReads);
        let spare = Arena::new(SPARE, 4096, Access::Both);
        let house = Arena::new(HOUSE, HOUSE_BYTES, Access::Both);
        let all = [
            &rings, &buffers, &halves[0], &halves[1], &rom, &spare, &house,
        ];
        map(&device, &all);
        let events = device.events().expect("nobody has them yet");
        let dma = device.dma(Asid::new(0)).expect("the first address space");
        let features = features(&device, format, &setup);
        let (q, partner, own) = begin(&device, target, format, &setup, features, &rings, &house);
        Self {
            target,
            format,
            setup,
            q,
            buffers,
            halves,
            rom,
            spare,
            background: Background::start(own, other),
            device,
            events,
            dma,
            rings,
            house,
            partner,
            stirred: 0,
            features,
            sibling,
            sibling_house,
            registry,
        }
    }

    /// The features that hold.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Opens one more device like these.
    pub fn open(&self, spec: &str) -> Device {
        self.registry
            .open(spec)
            .unwrap_or_else(|why| panic!("{spec}: {why}"))
    }

    /// The device's address of buffer `i`.
    pub fn buffer(&self, i: usize) -> u64 {
        self.buffers.at(i * PLACE)
    }

    /// Buffer `i`, which the device may write `len` bytes of.
    pub fn open_buffer(&self, i: usize, len: usize) -> u64 {
        self.buffers.open(i * PLACE, len);
        self.buffer(i)
    }

    /// A request that is known to be good: read from buffer 0, written to buffer 2.
    pub fn request(&self) -> Request {
        self.request_at(0, 2)
    }

    /// The same, read from buffer `from` and written to buffer `to`.
    pub fn request_at(&self, from: usize, to: usize) -> Request {
        let (readable, writable) = self.known_good();
        self.buffers.put(from * PLACE, &readable);
        self.buffers.open(to * PLACE, writable);
        Request {
            readable: (self.buffer(from), readable.len() as u32),
            writable: (self.buffer(to), writable as u32),
        }
    }

    /// What a known-good request has the device read, and how much it may write.
    pub fn known_good(&self) -> (Vec<u8>, usize) {
        match self.target {
            Target::Tx => ([&[0; NET_HEADER], frame(7, 64).as_slice()].concat(), 0),
            Target::Rx => (Vec::new(), 256),
            // The MAC table: one unicast address, no multicast ones.
            Target::Ctrl => {
                let table = [1, 0, 1, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 1, 0, 0, 0, 0];
                (table.to_vec(), 1)
            }
            Target::Blk => (block_header(exchange::IN, READ_SECTOR).to_vec(), SECTOR + 1),
        }
    }

    /// Kicks, and where the queue waits for packets sends one.
    pub fn kick(&mut self) {
        self.q.kick();
        self.stir();
    }

    /// Sends a packet to the receive queue, if that is the one under attack.
    pub fn stir(&mut self) {
        if self.target != Target::Rx {
            return;
        }
        let Some(tx) = &mut self.partner else { return };
        // Places by turns, as many as may be under way.
        while tx.used().is_some() {}
        let place = self.stirred as usize % (PARTNER_PLACES);
        if tx.shown - tx.returned >= PARTNER_PLACES {
            return;
        }
        self.stirred += 1;
        let at = PARTNER_BUFFERS + place * PARTNER_BUFFER;
        self.house.put(at, &[0; NET_HEADER]);
        self.house.put(at + NET_HEADER, &frame(7, 64));
        tx.send(&[Piece::read(self.house.at(at), NET_HEADER as u32 + 64)]);
    }

    /// Writes a chain, shows it, and kicks.
    pub fn send(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.q.chain(pieces);
        self.q.show();
        self.kick();
        head.id
    }

    /// Waits for what comes back next.
    pub fn back(&mut self) -> Back {
        let what = format!("{:?} {}: a used entry", self.target, self.format);
        self.q.wait_used(&what)
    }

    /// What a request that is known to be good came to, with its used length.
    pub fn verify(&mut self, request: &Request, len: u32) {
        let (_, writable) = self.known_good();
        let to = self.buffers.offset(request.writable.0).unwrap_or(0);
        let said = if writable == 0 {
            Vec::new()
        } else {
            self.buffers.get(to, writable)
        };
        match self.target {
            Target::Tx => {
                assert_eq!(len, 0, "nothing is written to what is sent");
                let came = self.arrival();
                assert_eq!(came[NET_HEADER..], frame(7, 64), "the frame that arrived");
            }
            Target::Rx => {
                assert_eq!(len as usize, NET_HEADER + 64);
                assert_eq!(said[NET_HEADER..NET_HEADER + 64], frame(7, 64));
            }
            Target::Ctrl => assert_eq!((len, said.as_slice()), (1, &[0][..])),
            Target::Blk => {
                assert_eq!((len as usize, said[SECTOR]), (SECTOR + 1, 0));
                assert_eq!(said[..SECTOR], pattern(1, SECTOR), "the sector");
            }
        }
    }

    /// Waits for the next frame at the receive queue beside the transmit queue under attack. Header and frame.
    pub fn arrival(&mut self) -> Vec<u8> {
        let Some(rx) = &mut self.partner else {
            panic!("nobody receives beside {:?}", self.target)
        };
        let back = rx.wait_used("a frame's arrival");
        let place = rx.returned.wrapping_sub(1) % PARTNER_PLACES;
        let at = PARTNER_BUFFERS + place * PARTNER_BUFFER;
        let came = self.house.get(at, back.len as usize);
        rx.send(&[Piece::write(self.house.at(at), PARTNER_BUFFER as u32)]);
        came
    }

    /// Sends a known-good request and looks at what comes of it: the queue still works.
    pub fn still_works(&mut self) {
        let request = self.request_at(100, 102);
        self.send(&request.pieces());
        let back = self.back();
        self.verify(&request, back.len);
    }

    /// The device's status.
    pub fn status(&self) -> Status {
        self.device.status().expect("a status")
    }

    /// A counter of the queue under attack.
    pub fn counter(&self, name: &str) -> u64 {
        let name = format!("queue{}.{name}", self.q.index);
        self.stat(&name)
    }

    /// A counter.
    pub fn stat(&self, name: &str) -> u64 {
        let mut found = None;
        let mut look = |n: &str, value| {
            if n == name {
                found = Some(value);
            }
        };
        self.device.stats(&mut look).expect("counters");
        found.unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Every event that waits.
    pub fn drain(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_next()).collect()
    }

    /// Memory that nobody may write to is as it was.
    ///
    /// # Errors
    /// With the first byte that is not.
    pub fn check_memory(&self) -> Result<(), String> {
        let [low, high] = &self.halves;
        let all = [
            ("rings", &self.rings),
            ("buffers", &self.buffers),
            ("low half", low),
            ("high half", high),
            ("memory for reading", &self.rom),
            ("spare region", &self.spare),
            ("house", &self.house),
            ("sibling's house", &self.sibling_house),
        ];
        for (name, arena) in all {
            arena.check().map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }

    /// Resets the device and sets it up anew; what was left of the exchange with its sibling queue is over.
    pub fn renew(&mut self) -> Exchange {
        let _over = self.background.leave(crate::background::Sibling::Queue);
        self.device.reset(soon()).expect("a reset");
        let [low, high] = &self.halves;
        for arena in [
            &self.rings,
            &self.buffers,
            low,
            high,
            &self.spare,
            &self.house,
        ] {
            arena.renew();
        }
        map(&self.device, &[&self.house]);
        negotiate(&self.device, self.features);
        let open = Opened {
            device: &self.device,
            format: self.format,
            house: &self.house,
        };
        if self.target == Target::Ctrl {
            let q = open.queue(4, CTRL_RING, HOUSE_SIZE);
            run(&self.device);
            return Exchange::control(q, &self.house, EXCHANGE_BUFFERS);
        }
        open.exchange(self.target)
    }

    /// Lets go of everything.
    pub fn close(mut self) {
        self.background.stop();
        for device in [self.device, self.sibling] {
            if let Err((_, why)) = device.close(soon()) {
                panic!("a device does not close: {why}");
            }
        }
    }
}

/// Buffers of the partner.
const PARTNER_PLACES: usize = 8;

/// A device that is being set up, and where its well-behaved queues are.
struct Opened<'a> {
    device: &'a Device,
    format: Format,
    house: &'a Arc<Arena>,
}

impl Opened<'_> {
    fn queue(&self, index: u16, ring: usize, size: u16) -> RawQueue {
        let mut q = RawQueue::new(index, self.format, size, (self.house, ring), None);
        start(self.device, &mut q, None);
        q
    }

    /// A well-behaved driver of the whole device, running.
    fn exchange(&self, target: Target) -> Exchange {
        let at = EXCHANGE_BUFFERS;
        let first = self.queue(0, FIRST_RING, HOUSE_SIZE);
        if !target.is_net() {
            run(self.device);
            return Exchange::block(first, SIBLING_SECTOR, self.house, at);
        }
        let second = self.queue(1, SECOND_RING, HOUSE_SIZE);
        run(self.device);
        Exchange::net(first, second, self.house, at)
    }
}

/// Sets a device up for an attack: the queue under attack, its partner, and an exchange on its sibling queue.
fn begin(
    device: &Device,
    target: Target,
    format: Format,
    setup: &Setup,
    features: Features,
    rings: &Arc<Arena>,
    house: &Arc<Arena>,
) -> (RawQueue, Option<RawQueue>, Exchange) {
    negotiate(device, features);
    let open = Opened {
        device,
        format,
        house,
    };
    let index = match target {
        Target::Rx | Target::Blk => 0,
        Target::Tx => 1,
        Target::Ctrl => 4,
    };
    let state = setup.state(format);
    let mut q = RawQueue::new(index, format, setup.size, (rings, 0), state);
    start(device, &mut q, state);
    if !target.is_net() {
        let mut second = open.queue(1, FIRST_RING, HOUSE_SIZE);
        run(device);
        write_sector(&mut second, house);
        let own = Exchange::block(second, SIBLING_SECTOR + 1, house, EXCHANGE_BUFFERS);
        return (q, None, own);
    }
    let mut partner = match target {
        Target::Tx => Some(open.queue(0, PARTNER_RING, HOUSE_SIZE)),
        Target::Rx => Some(open.queue(1, PARTNER_RING, HOUSE_SIZE)),
        _ => None,
    };
    let rx = open.queue(2, FIRST_RING, HOUSE_SIZE);
    let tx = open.queue(3, SECOND_RING, HOUSE_SIZE);
    // The pairs are told by whichever control queue there is.
    if target == Target::Ctrl {
        run(device);
        use_pairs(&mut q, house);
    } else {
        let mut ctrl = open.queue(4, CTRL_RING, HOUSE_SIZE);
        run(device);
        use_pairs(&mut ctrl, house);
    }
    if let (Target::Tx, Some(rx)) = (target, &mut partner) {
        for place in 0..PARTNER_PLACES {
            let at = PARTNER_BUFFERS + place * PARTNER_BUFFER;
            house.open(at, PARTNER_BUFFER);
            rx.chain(&[Piece::write(house.at(at), PARTNER_BUFFER as u32)]);
        }
        rx.show();
        rx.kick();
    }
    (q, partner, Exchange::net(rx, tx, house, EXCHANGE_BUFFERS))
}

/// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: two of them. In two chains where the queue has no room for both parts in one.
fn use_pairs(ctrl: &mut RawQueue, house: &Arc<Arena>) {
    house.put(SCRATCH, &[4, 0, 2, 0]);
    house.open(SCRATCH + 16, 1);
    if ctrl.size < 2 {
        // Such a queue carries no command at all; the sibling pair then is not used.
        return;
    }
    ctrl.send(&[
        Piece::read(house.at(SCRATCH), 4),
        Piece::write(house.at(SCRATCH + 16), 1),
    ]);
    let back = ctrl.wait_used("the command for two pairs");
    assert_eq!((back.len, house.get(SCRATCH + 16, 1)), (1, vec![0]));
}

/// What requests read later.
fn write_sector(q: &mut RawQueue, house: &Arc<Arena>) {
    house.put(SCRATCH, &block_header(exchange::OUT, READ_SECTOR));
    house.put(SCRATCH + 16, &pattern(1, SECTOR));
    house.open(SCRATCH + 1024, 1);
    q.send(&[
        Piece::read(house.at(SCRATCH), 16 + SECTOR as u32),
        Piece::write(house.at(SCRATCH + 1024), 1),
    ]);
    let back = q.wait_used("a sector written");
    assert_eq!((back.len, house.get(SCRATCH + 1024, 1)), (1, vec![0]));
}

/// What is negotiated: rings as the row asks for them, and of the class what the exchanges need.
pub fn features(device: &Device, format: Format, setup: &Setup) -> Features {
    let rings = bits::RING_PACKED | bits::INDIRECT_DESC | bits::EVENT_IDX | bits::IN_ORDER;
    let offloads = vdpa_sim::offload::TRANSMIT | vdpa_sim::offload::RECEIVE;
    let offered = device.offered();
    let mut features = offered - (rings | bits::NOTIFICATION_DATA);
    if device.info().queues > 2 {
        features = features - offloads - (net::MRG_RXBUF | net::RSS | net::HASH_REPORT);
    }
    for (bit, on) in [
        (bits::RING_PACKED, format == Format::Packed),
        (bits::INDIRECT_DESC, setup.indirect),
        (bits::EVENT_IDX, setup.event_idx),
        (bits::IN_ORDER, setup.in_order),
    ] {
        if on {
            features = features.with(bit);
        }
    }
    features | (offered & setup.extra)
}

/// Maps these, and nothing else.
fn map(device: &Device, arenas: &[&Arc<Arena>]) {
    let dma = device.dma(Asid::new(0)).expect("the first address space");
    let table = arenas.iter().map(|arena| arena.mapping()).collect();
    dma.replace(table, soon()).expect("what can be mapped");
}

/// Up to FEATURES_OK.
pub fn negotiate(device: &Device, features: Features) {
    let by = |status: Status| device.write_status(status.bits()).expect("a status");
    by(Status::ACKNOWLEDGE);
    by(Status::ACKNOWLEDGE | Status::DRIVER);
    device.accept(features).expect("features");
    by(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK);
    let status = device.status().expect("a status");
    assert!(status.contains(Status::FEATURES_OK), "{status:?}");
}

/// DRIVER_OK.
pub fn run(device: &Device) {
    let all = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
    device.write_status(all.bits()).expect("a status");
}

/// Starts a queue, with a call that nobody listens to: a driver that polls.
pub fn start(device: &Device, q: &mut RawQueue, state: Option<QueueState>) {
    let config = q.config(state);
    q.doorbell = device
        .start_queue(q.index, config, Kick::Taken, Call::from_fn(|| {}))
        .unwrap_or_else(|why| panic!("queue {}: {why}", q.index));
}

/// Waits until the device has set NEEDS_RESET.
pub fn wait_lost(device: &Device) {
    until("NEEDS_RESET", || {
        let status = device.status().expect("a status");
        status.contains(Status::DEVICE_NEEDS_RESET)
    });
}

/// Whether an event says that this queue was lost, and why.
pub fn lost(event: &Event, q: QueueIndex) -> Option<&str> {
    match event {
        Event::NeedsReset { queue, why } if *queue == Some(q) => Some(why),
        _ => None,
    }
}
