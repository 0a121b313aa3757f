//! From a device that was just opened to one whose queues run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vdpa_core::bits::{self, block, net};
use vdpa_core::{Asid, Call, Device, Features, Kick, Status};
use vdpa_ring::{Format, QueueState};

use super::Setup;
use crate::exchange::{self, Exchange, SECTOR, block_header, pattern};
use crate::guard::Arena;
use crate::raw::{Piece, RawQueue};
use crate::soon;
use crate::table::Target;

/// The sector that a request reads.
pub(super) const READ_SECTOR: u64 = 1;
/// The sector that siblings use.
const SIBLING_SECTOR: u64 = 100;

/// Offsets in the house.
pub(super) const HOUSE_BYTES: usize = 64 << 10;
pub(super) const PARTNER_RING: usize = 0;
/// Offset in the house of the sibling queue's ring: a pair's receive queue, a disk's second one.
pub const FIRST_RING: usize = 4 << 10;
/// Offset in the house of a sibling pair's transmit queue.
pub const SECOND_RING: usize = 8 << 10;
pub(super) const CTRL_RING: usize = 12 << 10;
pub(super) const EXCHANGE_BUFFERS: usize = 16 << 10;
pub(super) const PARTNER_BUFFERS: usize = 24 << 10;
pub(super) const SCRATCH: usize = 60 << 10;
/// Queue size of well-behaved queues.
pub(super) const HOUSE_SIZE: u16 = 16;
/// Bytes of a partner's buffer.
pub(super) const PARTNER_BUFFER: usize = 2048;

/// Buffers of the partner.
pub(super) const PARTNER_PLACES: usize = 8;

/// A device that is being set up, and where its well-behaved queues are.
pub(super) struct Opened<'a> {
    pub(super) device: &'a Device,
    pub(super) format: Format,
    pub(super) house: &'a Arc<Arena>,
}

impl Opened<'_> {
    pub(super) fn queue(&self, index: u16, ring: usize, size: u16) -> RawQueue {
        let mut q = RawQueue::new(index, self.format, size, (self.house, ring), None);
        q.in_order = self.device.negotiated().contains(bits::IN_ORDER);
        start(self.device, &mut q, None);
        q
    }

    /// Whether a disk may be written to.
    fn writes(&self) -> bool {
        !self.device.negotiated().contains(block::RO)
    }

    /// A well-behaved driver of the whole device, running.
    pub(super) fn exchange(&self, target: Target) -> Exchange {
        let at = EXCHANGE_BUFFERS;
        let first = self.queue(0, FIRST_RING, HOUSE_SIZE);
        if !target.is_net() {
            run(self.device);
            return Exchange::block(first, SIBLING_SECTOR, self.writes(), self.house, at);
        }
        let second = self.queue(1, SECOND_RING, HOUSE_SIZE);
        run(self.device);
        Exchange::net(first, second, self.house, at)
    }
}

/// How a device is to be set up for an attack.
pub(super) struct Plan<'a> {
    pub(super) target: Target,
    pub(super) features: Features,
    pub(super) setup: &'a Setup,
    pub(super) rings: &'a Arc<Arena>,
    pub(super) calls: &'a Arc<AtomicUsize>,
}

impl Opened<'_> {
    /// The queue under attack, its partner, and an exchange on its sibling queue; all of it runs.
    pub(super) fn begin(&self, plan: &Plan<'_>) -> (RawQueue, Option<RawQueue>, Exchange) {
        negotiate(self.device, plan.features);
        let index = match plan.target {
            Target::Rx | Target::Blk => 0,
            Target::Tx => 1,
            Target::Ctrl => 4,
        };
        let state = plan.setup.state(self.format);
        let mut q = RawQueue::new(index, self.format, plan.setup.size, (plan.rings, 0), state);
        q.in_order = plan.setup.in_order;
        let calls = Arc::clone(plan.calls);
        let call = Call::from_fn(move || {
            calls.fetch_add(1, Ordering::SeqCst);
        });
        start_with(self.device, &mut q, state, call);
        if !plan.target.is_net() {
            let mut second = self.queue(1, FIRST_RING, HOUSE_SIZE);
            run(self.device);
            let writes = self.writes();
            if writes {
                write_sector(&mut second, self.house);
            }
            let own = Exchange::block(
                second,
                SIBLING_SECTOR + 1,
                writes,
                self.house,
                EXCHANGE_BUFFERS,
            );
            return (q, None, own);
        }
        let mut partner = match plan.target {
            Target::Tx => Some(self.queue(0, PARTNER_RING, HOUSE_SIZE)),
            Target::Rx => Some(self.queue(1, PARTNER_RING, HOUSE_SIZE)),
            _ => None,
        };
        let rx = self.queue(2, FIRST_RING, HOUSE_SIZE);
        let tx = self.queue(3, SECOND_RING, HOUSE_SIZE);
        // The pairs are told by whichever control queue there is.
        if plan.target == Target::Ctrl {
            run(self.device);
            use_pairs(&mut q, self.house);
        } else {
            let mut ctrl = self.queue(4, CTRL_RING, HOUSE_SIZE);
            run(self.device);
            use_pairs(&mut ctrl, self.house);
        }
        if let (Target::Tx, Some(rx)) = (plan.target, &mut partner) {
            for place in 0..PARTNER_PLACES {
                let at = PARTNER_BUFFERS + place * PARTNER_BUFFER;
                self.house.open(at, PARTNER_BUFFER);
                rx.chain(&[Piece::write(self.house.at(at), PARTNER_BUFFER as u32)]);
            }
            rx.show();
            rx.kick();
        }
        (
            q,
            partner,
            Exchange::net(rx, tx, self.house, EXCHANGE_BUFFERS),
        )
    }
}

/// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: two of them. Where the queue has no room for both parts, the command says nothing.
fn use_pairs(ctrl: &mut RawQueue, house: &Arc<Arena>) {
    house.put(SCRATCH, &[4, 0, 2, 0]);
    house.open(SCRATCH + 16, 1);
    let command = Piece::read(house.at(SCRATCH), 4);
    let ack = Piece::write(house.at(SCRATCH + 16), 1);
    let both = [command, ack];
    let whole = ctrl.size > 1;
    ctrl.send(if whole { &both } else { &both[..1] });
    let back = ctrl.wait_used("the command for two pairs");
    if whole {
        assert_eq!((back.len, house.get(SCRATCH + 16, 1)), (1, vec![0]));
    }
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
pub(super) fn map(device: &Device, arenas: &[&Arc<Arena>]) {
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
    start_with(device, q, state, Call::from_fn(|| {}));
}

/// The same with a call.
pub fn start_with(device: &Device, q: &mut RawQueue, state: Option<QueueState>, call: Call) {
    let config = q.config(state);
    q.doorbell = device
        .start_queue(q.index, config, Kick::Taken, call)
        .unwrap_or_else(|why| panic!("queue {}: {why}", q.index));
}
