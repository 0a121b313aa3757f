//! From a device that was just opened to one whose queues run.

use std::sync::Arc;

use vdpa_core::bits::{self, net};
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
pub(super) const FIRST_RING: usize = 4 << 10;
pub(super) const SECOND_RING: usize = 8 << 10;
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
        start(self.device, &mut q, None);
        q
    }

    /// A well-behaved driver of the whole device, running.
    pub(super) fn exchange(&self, target: Target) -> Exchange {
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
pub(super) fn begin(
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
    let config = q.config(state);
    q.doorbell = device
        .start_queue(q.index, config, Kick::Taken, Call::from_fn(|| {}))
        .unwrap_or_else(|why| panic!("queue {}: {why}", q.index));
}
