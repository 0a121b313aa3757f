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

mod memory;
mod opening;
mod request;
mod setup;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use vdpa_core::{Asid, Device, DmaHandle, Event, Events, Features, QueueIndex, Registry, Status};
use vdpa_mem::Access;
use vdpa_ring::Format;
use vdpa_sim::SimMgmt;

use crate::background::Background;
use crate::exchange::{Exchange, NET_HEADER, frame};
use crate::guard::Arena;
use crate::raw::{Back, Piece, RawQueue};
use crate::table::Target;
use crate::{soon, until};

pub use memory::Flip;
pub use opening::{FIRST_RING, SECOND_RING, features, negotiate, run, start, start_with};
pub use request::{Request, UNTOUCHED};
pub use setup::Setup;

use opening::*;

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
/// How long a row waits for what may not come.
const MOMENT: Duration = Duration::from_millis(2);
/// Bytes of the buffers together.
const BUFFER_BYTES: usize = 128 << 10;

/// What has to come of a row, looked at by the [`oracle`](crate::oracle).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// The queue cannot be trusted: NEEDS_RESET, told once, with this in its reason.
    Lost(&'static str),
    /// Every chain that was shown comes back, with length 0 or with a status that says it was an error.
    Back,
    /// Either of the two, and the row has waited for it: what comes depends on who was first, or on what the driver wrote
    /// over its own ring. NEEDS_RESET is told at most once a queue.
    Either,
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
    /// How often the queue under attack called.
    pub calls: Arc<AtomicUsize>,
    /// The areas of the queue under attack.
    pub rings: Arc<Arena>,
    /// What the well-behaved queues of the device have.
    pub house: Arc<Arena>,
    /// Events that a row has seen.
    pub said: Vec<Event>,
    /// The other queue of the pair under attack.
    partner: Option<RawQueue>,
    /// Frames that have arrived and were not looked at.
    arrived: VecDeque<Vec<u8>>,
    /// Frames sent to the queue under attack.
    stirred: u32,
    features: Features,
    sibling: Device,
    sibling_house: Arc<Arena>,
    registry: Registry,
}

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
        let calls = Arc::new(AtomicUsize::new(0));
        let plan = Plan {
            target,
            features,
            setup: &setup,
            rings: &rings,
            calls: &calls,
        };
        let open = Opened {
            device: &device,
            format,
            house: &house,
        };
        let (q, partner, own) = open.begin(&plan);
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
            calls,
            rings,
            house,
            said: Vec::new(),
            partner,
            arrived: VecDeque::new(),
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

    /// The registry that it was opened through.
    pub fn registry(&self) -> &Registry {
        &self.registry
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

    /// Waits for the next frame at the receive queue beside the transmit queue under attack. Header and frame.
    pub fn arrival(&mut self) -> Vec<u8> {
        until("a frame's arrival", || {
            let came = self.arrivals();
            self.arrived.extend(came);
            !self.arrived.is_empty()
        });
        self.arrived.pop_front().unwrap_or_default()
    }

    /// Waits for the next chain, which was a bad one: it comes back with nothing, or with a status that says so.
    pub fn refused(&mut self) {
        let back = self.back();
        if let Err(why) = self.check_back(back) {
            panic!("{why}");
        }
    }

    /// Whether a chain came back with nothing, or with a status that says it was an error.
    ///
    /// # Errors
    /// When it looks as if it had succeeded.
    pub fn check_back(&self, back: Back) -> Result<(), String> {
        if back.len == 0 {
            return Ok(());
        }
        let id = u16::try_from(back.id).ok();
        let chain = id.and_then(|id| self.q.pieces(id)).unwrap_or_default();
        let written = || {
            chain
                .iter()
                .filter(|piece| piece.is_written() && piece.len != 0)
        };
        let room: u64 = written().map(|piece| u64::from(piece.len)).sum();
        let status = written().next_back().and_then(|piece| {
            let at = piece.addr.checked_add(u64::from(piece.len) - 1)?;
            self.arena(at)
                .map(|(arena, offset)| arena.get(offset, 1)[0])
        });
        match (self.target, back.len, status) {
            // VIRTIO_NET_ERR, behind zeroes where there is more room than it takes.
            (Target::Ctrl, len, Some(1)) if u64::from(len) == room => Ok(()),
            // VIRTIO_BLK_S_IOERR and _UNSUPP.
            (Target::Blk, 1, Some(1 | 2)) => Ok(()),
            (target, len, status) => Err(format!(
                "{target:?}: a bad chain came back with length {len} and status {status:?}"
            )),
        }
    }

    /// Waits for the next chain, or for the loss of the queue. `None`: it is lost.
    pub fn back_or_lost(&mut self) -> Option<Back> {
        let mut back = None;
        until("a used entry, or NEEDS_RESET", || {
            back = self.q.used();
            back.is_some() || self.is_lost()
        });
        back
    }

    /// The same, or a moment in which neither happens: the driver may have spoiled what would show it.
    pub fn back_or_lost_or_neither(&mut self) -> Option<Back> {
        let begun = Instant::now();
        let mut back = None;
        while back.is_none() && !self.is_lost() && begun.elapsed() < MOMENT {
            std::thread::yield_now();
            back = self.q.used();
        }
        back
    }

    /// The siblings exchange as much as they do in a while, and the queue is not lost meanwhile.
    pub fn quiet(&mut self) {
        if let Err(why) = self.background.progress(5) {
            panic!("{why}");
        }
        assert!(!self.is_lost(), "nothing is wrong: {:?}", self.drain());
    }

    /// Takes the frames that have arrived beside the transmit queue under attack, each a header and a frame.
    pub fn arrivals(&mut self) -> Vec<Vec<u8>> {
        let (house, Some(rx)) = (&self.house, &mut self.partner) else {
            return Vec::new();
        };
        let mut all = Vec::from(std::mem::take(&mut self.arrived));
        while let Some(back) = rx.used() {
            let place = rx.returned.wrapping_sub(1) % PARTNER_PLACES;
            let at = PARTNER_BUFFERS + place * PARTNER_BUFFER;
            all.push(house.get(at, back.len as usize));
            rx.send(&[Piece::write(house.at(at), PARTNER_BUFFER as u32)]);
        }
        all
    }

    /// Whether the device has set NEEDS_RESET.
    pub fn is_lost(&self) -> bool {
        self.status().contains(Status::DEVICE_NEEDS_RESET)
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

    /// Every event so far.
    pub fn drain(&mut self) -> &[Event] {
        while let Some(event) = self.events.try_next() {
            self.said.push(event);
        }
        &self.said
    }

    /// Whether the device said that it met an address that it may not use.
    pub fn has_faulted(&mut self) -> bool {
        self.drain()
            .iter()
            .any(|event| matches!(event, Event::Fault { .. }))
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
