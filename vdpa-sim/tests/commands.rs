//! Commands of the control queue, and attributes that the management side changes: what the driver sees of them.

#[path = "rig/packets.rs"]
mod packets;
mod rig;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use packets::{Packet, TCP4, dissect, payload};
use rig::*;
use vdpa_core::bits::{self, net};
use vdpa_core::config::Mac;
use vdpa_core::config::net::NetStatus;
use vdpa_core::{Attr, ErrorKind, Event, Features, LinkState, MgmtDevice, QueueIndex};
use vdpa_mem::Access;
use vdpa_sim::offload::RECEIVE;

const TX_SET: [u8; 2] = [6, 0];
const RX_SET: [u8; 2] = [6, 1];
const VQ_SET: [u8; 2] = [6, 2];
const VQ_GET: [u8; 2] = [6, 3];

/// A card with a control queue: calls without EVENT_IDX, so that each batch wants one.
struct Commanded {
    card: Card,
    ctrl: Ctrl,
}

fn open(lab: &Lab, spec: &str, change: impl Fn(Features) -> Features) -> Commanded {
    let rig = lab.open(spec);
    let features = change(with(&rig, false, false, false, false));
    let card = Card::new(rig, features, 64, 2048);
    let pairs = if features.contains(net::MQ) { 2 } else { 1 };
    let ctrl = Ctrl::new(&card.rig, card.rig.queue(pairs * 2, 8));
    Commanded { card, ctrl }
}

fn command<const N: usize>(kind: [u8; 2], parts: [&[u8]; N]) -> Vec<u8> {
    [&kind[..], &parts.concat()].concat()
}

fn coal(packets: u32, usecs: u32) -> Vec<u8> {
    [packets.to_le_bytes(), usecs.to_le_bytes()].concat()
}

fn vq(queue: u16) -> [u8; 4] {
    let [low, high] = queue.to_le_bytes();
    // The reserved word is ignored.
    [low, high, 0xee, 0xee]
}

// virtio 1.4 §5.1.9.5.4.2.
#[test]
fn the_announce_bit_is_set_with_an_event_and_cleared_before_the_ack_is_used() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features);
    let name = f.card.rig.device.info().name.clone();
    let events = f.card.rig.device.events().unwrap();
    let asks = |f: &Commanded| f.card.rig.config().status().contains(NetStatus::ANNOUNCE);
    for round in 0..3 {
        assert!(!asks(&f));
        let generation = f.card.rig.device.config_generation().unwrap();
        lab.sim.dev_set(&name, Attr::Announce).unwrap();
        assert!(asks(&f) && f.card.rig.config().status().contains(NetStatus::LINK_UP));
        assert_ne!(f.card.rig.device.config_generation().unwrap(), generation);
        assert_eq!(events.try_next(), Some(Event::Config));
        lab.sim.dev_set(&name, Attr::Announce).unwrap();
        assert_eq!(events.try_next(), None, "it is asked already");
        assert_eq!(f.ctrl.command(&[3, 0, round]), 1, "too long");
        assert!(asks(&f));
        assert_eq!(f.ctrl.command(&[3, 0]), 0);
    }
    // Set while suspended, it is asked for at resume; a reset forgets it.
    f.card.rig.device.suspend(soon()).unwrap();
    lab.sim.dev_set(&name, Attr::Announce).unwrap();
    assert!(!asks(&f) && events.try_next().is_none());
    f.card.rig.device.resume().unwrap();
    assert!(asks(&f));
    assert_eq!(events.try_next(), Some(Event::Config));
    f.card.rig.reset();
    assert!(!asks(&f));
}

#[test]
fn a_driver_that_cannot_announce_itself_is_not_asked_and_a_device_without_it_says_so() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features - net::GUEST_ANNOUNCE);
    let events = f.card.rig.device.events().unwrap();
    let name = f.card.rig.device.info().name.clone();
    lab.sim.dev_set(&name, Attr::Announce).unwrap();
    assert!(!f.card.rig.config().status().contains(NetStatus::ANNOUNCE));
    assert_eq!(events.try_next(), None);
    assert_eq!(f.ctrl.command(&[3, 0]), 1);
    let rig = lab.open("sim:net,features=-GUEST_ANNOUNCE");
    let name = rig.device.info().name.clone();
    let error = lab.sim.dev_set(&name, Attr::Announce).unwrap_err();
    assert!(error.to_string().contains("GUEST_ANNOUNCE"), "{error}");
    let error = lab.sim.dev_set(&name, Attr::Capacity(8)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn an_address_set_at_run_time_is_shown_filtered_by_and_kept_over_reset() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net,mac=52:54:00:00:00:09", |features| features);
    let name = f.card.rig.device.info().name.clone();
    let events = f.card.rig.device.events().unwrap();
    let set = |mac: [u8; 6]| lab.sim.dev_set(&name, Attr::Mac(Mac::new(mac)));
    let own = [0x52, 0x54, 0, 0, 0, 1];
    // The driver filters by its address.
    assert_eq!(f.ctrl.command(&[0, 0, 0]), 0);
    f.card.tx.send(&[frame(0, 60)]);
    until("the filter", || {
        f.card.rig.stat("queue0.dropped.rx_filtered") == 1
    });
    f.card.rx.quiet();
    set(own).unwrap();
    assert_eq!(events.try_next(), Some(Event::Config));
    assert_eq!(f.card.rig.config().mac(), Mac::new(own));
    f.card.send_all(&[frame(1, 60)]);
    f.card.rx.wait(1);
    set(own).unwrap();
    assert_eq!(events.try_next(), None);
    for bad in [[1, 0, 0, 0, 0, 0], [0; 6]] {
        let error = set(bad).unwrap_err();
        assert!(
            error.to_string().contains("no address of one card"),
            "{error}"
        );
    }
    // The driver's own choice lasts until it is reset.
    assert_eq!(f.ctrl.command(&[1, 1, 2, 0, 0, 0, 0, 7]), 0);
    assert_eq!(f.card.rig.config().mac(), Mac::new([2, 0, 0, 0, 0, 7]));
    f.card.rig.reset();
    assert_eq!(f.card.rig.config().mac(), Mac::new(own));
    // While suspended nothing changes.
    f.card.rig.negotiate(plain(&f.card.rig));
    f.card.rig.run();
    f.card.rig.device.suspend(soon()).unwrap();
    set([2, 0, 0, 0, 0, 3]).unwrap();
    set([2, 0, 0, 0, 0, 4]).unwrap();
    assert_eq!(f.card.rig.config().mac(), Mac::new(own));
    f.card.rig.device.resume().unwrap();
    assert_eq!(f.card.rig.config().mac(), Mac::new([2, 0, 0, 0, 0, 4]));
    assert_eq!(events.try_next(), Some(Event::Config));
}

// virtio 1.4 §5.1.9.5.6.1, §5.1.9.5.6.2.
#[test]
fn after_reset_the_first_pair_receives_and_later_as_many_as_are_set() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net,queue_pairs=2", |features| {
        features.with(net::MQ)
    });
    let rig = &f.card.rig;
    let mut rx = Rx::new(rig, rig.queue(2, 64), 2048);
    let mut tx = Tx::new(rig, rig.queue(3, 64), 2048);
    rx.post(64);
    tx.send(&frames(5, 200));
    f.card.rx.wait(5);
    for illegal in [0_u16, 3, 0x8000, u16::MAX] {
        let [low, high] = illegal.to_le_bytes();
        assert_eq!(f.ctrl.command(&[4, 0, low, high]), 1, "{illegal} pairs");
    }
    assert_eq!(f.ctrl.command(&[4, 0, 2, 0]), 0);
    tx.send(&frames(5, 200));
    rx.wait(5);
    assert_eq!(f.ctrl.command(&[4, 0, 1, 0]), 0);
    tx.send(&frames(5, 200));
    f.card.rx.wait(10);
    rx.quiet();
}

// virtio 1.4 §5.1.9.5.10.6.
#[test]
fn coalescing_of_the_control_queue_is_refused_whatever_its_number() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net,queue_pairs=4", |features| features);
    for (queue, ack) in [(0, 0), (1, 0), (2, 1), (3, 1), (8, 1)] {
        let set = command(VQ_SET, [&vq(queue), &coal(1, 1)]);
        assert_eq!(f.ctrl.command(&set), ack, "queue {queue}");
    }
}

// virtio 1.4 §5.1.9.5.10.6.
#[test]
fn coalescing_of_an_unknown_or_disabled_queue_is_refused_and_all_is_zero_after_reset() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net,queue_pairs=2", |features| {
        features.with(net::MQ)
    });
    let get = |f: &mut Commanded, queue| {
        let said = f.ctrl.ask(&command(VQ_GET, [&vq(queue)]), 9);
        let ack = said[8];
        (ack == 0).then(|| said[..8].to_vec())
    };
    let set = |f: &mut Commanded, queue, params: &[u8]| {
        f.ctrl.command(&command(VQ_SET, [&vq(queue), params]))
    };
    // 2 and 3 are there and do not run; 4 is the control queue.
    for queue in [2, 3, 4, 5, 0x100, u16::MAX] {
        assert_eq!(get(&mut f, queue), None, "queue {queue}");
        assert_eq!(set(&mut f, queue, &coal(1, 1)), 1, "queue {queue}");
    }
    for queue in [0, 1] {
        assert_eq!(get(&mut f, queue), Some(coal(0, 0)));
    }
    assert_eq!(set(&mut f, 0, &coal(u32::MAX, u32::MAX)), 0);
    assert_eq!(get(&mut f, 0), Some(coal(u32::MAX, u32::MAX)));
    assert_eq!(f.ctrl.command(&command(RX_SET, [&coal(3, 4)])), 0);
    assert_eq!(f.ctrl.command(&command(TX_SET, [&coal(5, 6)])), 0);
    assert_eq!(
        (get(&mut f, 0), get(&mut f, 1)),
        (Some(coal(3, 4)), Some(coal(5, 6)))
    );
    // Disabled and enabled again: what was set for all.
    assert_eq!(set(&mut f, 1, &coal(7, 8)), 0);
    f.card
        .rig
        .device
        .reset_queue(QueueIndex::new(1), soon())
        .unwrap();
    assert_eq!(get(&mut f, 1), None);
    let _tx = f.card.rig.queue(1, 64);
    assert_eq!(get(&mut f, 1), Some(coal(5, 6)));
    for bad in [
        &TX_SET[..],
        &[6, 0, 0, 0, 0, 0, 0, 0, 0],
        &[6, 4],
        &[6, 2, 0, 0, 0, 0],
    ] {
        assert_eq!(f.ctrl.command(bad), 1, "{bad:?}");
    }
    // No room for the parameters: the only byte is the ack.
    assert_eq!(f.ctrl.ask(&command(VQ_GET, [&vq(0)]), 1), [1]);
    assert_eq!(
        f.ctrl.ask(&command(VQ_GET, [&vq(0)]), 8),
        [0, 0, 0, 0, 0, 0, 0, 1]
    );
    // Kept by the class state, and gone after reset.
    f.card.rig.device.suspend(soon()).unwrap();
    let state = f.card.rig.device.save_class_state().unwrap();
    for restored in [false, true] {
        f.card.rig.reset();
        let rig = Rig::new(f.card.rig.device);
        rig.negotiate(with(&rig, false, false, false, false).with(net::MQ));
        if restored {
            rig.device.restore_class_state(&state).unwrap();
        }
        let rx = Rx::new(&rig, rig.queue(0, 64), 2048);
        let tx = Tx::new(&rig, rig.queue(1, 64), 2048);
        let ctrl = Ctrl::new(&rig, rig.queue(4, 8));
        rig.run();
        f = Commanded {
            card: Card { rig, tx, rx },
            ctrl,
        };
        let expected = if restored { coal(3, 4) } else { coal(0, 0) };
        assert_eq!(get(&mut f, 0), Some(expected));
    }
    let mut f = open(&lab, "sim:net", |f| {
        f - (net::NOTF_COAL | net::VQ_NOTF_COAL)
    });
    assert_eq!(f.ctrl.command(&command(RX_SET, [&coal(3, 4)])), 1);
    assert_eq!(get(&mut f, 0), None);
}

#[test]
fn a_call_waits_for_as_many_packets_as_were_asked_for() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features);
    let hour = 3_600_000_000;
    assert_eq!(f.ctrl.command(&command(RX_SET, [&coal(15, hour)])), 0);
    assert_eq!(f.ctrl.command(&command(TX_SET, [&coal(4, hour)])), 0);
    let calls =
        |f: &Commanded| [&f.card.rx.q, &f.card.tx.q].map(|q| q.calls.load(Ordering::SeqCst));
    // One by one: so many batches.
    for count in 1..=10 {
        f.card.send_all(&[frame(count, 100)]);
        f.card.rx.wait(count);
    }
    until("two calls of ten", || calls(&f)[1] == 2);
    assert_eq!(calls(&f), [0, 2]);
    // Fewer are enough from here on: the call is due at once.
    assert_eq!(f.ctrl.command(&command(RX_SET, [&coal(8, hour)])), 0);
    until("the call", || calls(&f)[0] == 1);
    for count in 11..=18 {
        assert_eq!(calls(&f)[0], 1);
        f.card.send_all(&[frame(count, 100)]);
        f.card.rx.wait(count);
    }
    until("the call", || calls(&f)[0] == 2);
    // What is held back when a queue stops, or the device, is not lost.
    f.card.send_all(&[frame(0, 100)]);
    f.card.rx.wait(19);
    assert_eq!(calls(&f)[0], 2);
    f.card.rig.device.suspend(soon()).unwrap();
    assert_eq!(calls(&f)[0], 3, "before the suspend is over");
    f.card.rig.device.resume().unwrap();
    f.card.send_all(&[frame(0, 100)]);
    f.card.rx.wait(20);
    let state = f
        .card
        .rig
        .device
        .stop_queue(QueueIndex::new(0), soon())
        .unwrap();
    assert_eq!(calls(&f)[0], 4, "before the stop is over");
    f.card.rx.q.start(&f.card.rig, Some(state));
    // Without coalescing each packet has its call again.
    assert_eq!(f.ctrl.command(&command(RX_SET, [&coal(0, hour)])), 0);
    for count in 21..=23 {
        f.card.send_all(&[frame(count, 100)]);
        f.card.rx.wait(count);
    }
    until("the calls", || calls(&f)[0] == 7);
    assert_eq!(
        f.card.rig.stat("queue0.calls") + 1,
        7,
        "but for that of the stop"
    );
}

#[test]
fn a_call_that_is_held_back_is_made_when_its_queue_is_lost() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features);
    let hour = 3_600_000_000;
    assert_eq!(f.ctrl.command(&command(TX_SET, [&coal(4, hour)])), 0);
    f.card.send_all(&[frame(1, 100)]);
    f.card.rx.wait(1);
    until("completion", || {
        f.card.tx.reap();
        f.card.tx.in_flight() == 0
    });
    assert_eq!(f.card.tx.q.calls.load(Ordering::SeqCst), 0);
    f.card.rig.unmap();
    f.card.tx.q.doorbell.ring(1);
    let lost = vdpa_core::Status::DEVICE_NEEDS_RESET;
    until("NEEDS_RESET", || f.card.rig.status().contains(lost));
    // The receive queue is lost too, and may be the first: the status does not say that this one is.
    until("the call", || f.card.tx.q.calls.load(Ordering::SeqCst) != 0);
    assert_eq!(f.card.tx.q.calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_call_waits_no_longer_than_was_asked_for_whatever_else_the_worker_does() {
    let lab = Lab::new();
    for workers in [1, 2] {
        let spec = format!("sim:net,workers={workers}");
        let mut f = open(&lab, &spec, |features| features);
        assert_eq!(
            f.ctrl
                .command(&command(VQ_SET, [&vq(0), &coal(1000, 60_000)])),
            0
        );
        for count in 1..=3 {
            let before = f.card.rx.q.calls.load(Ordering::SeqCst);
            let begun = Instant::now();
            f.card.send_all(&[frame(count, 100)]);
            f.card.rx.wait(count);
            // Another unit of the same worker is busy for a part of it.
            while begun.elapsed() < Duration::from_millis(20) {
                assert_eq!(f.ctrl.command(&[3, 0]), 0);
            }
            until("the call", || {
                let calls = f.card.rx.q.calls.load(Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(100));
                calls > before
            });
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(59), "after {took:?}");
        }
    }
}

#[test]
fn a_call_that_is_held_back_is_made_in_time_by_a_queue_that_is_off_or_without_a_link() {
    let lab = Lab::new();
    for off in [false, true] {
        let mut f = open(&lab, "sim:net", |features| features);
        let name = f.card.rig.device.info().name.clone();
        assert_eq!(f.ctrl.command(&command(RX_SET, [&coal(1000, 30_000)])), 0);
        f.card.send_all(&[frame(1, 100)]);
        f.card.rx.wait(1);
        if off {
            let queue = QueueIndex::new(0);
            f.card.rig.device.enable_queue(queue, false).unwrap();
        } else {
            lab.sim.dev_set(&name, Attr::Link(LinkState::Down)).unwrap();
        }
        until("the call", || f.card.rx.q.calls.load(Ordering::SeqCst) == 1);
    }
}

#[test]
fn a_driver_that_wants_no_call_gets_none_when_its_time_is_over() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features.with(bits::EVENT_IDX));
    assert_eq!(f.ctrl.command(&command(RX_SET, [&coal(1000, 2000)])), 0);
    f.card.rx.q.disarm();
    let before = f.card.rx.q.calls.load(Ordering::SeqCst);
    f.card.send_all(&frames(20, 100));
    f.card.rx.wait(20);
    until("a call that is not made", || {
        f.card.rig.stat("queue0.suppressed") > 0
    });
    std::thread::sleep(Duration::from_millis(10));
    assert!(f.card.rx.q.calls.load(Ordering::SeqCst) <= before + 1);
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn entry(queue: u16, types: u64) -> Vec<u8> {
    [&queue.to_le_bytes()[..], &[0xee; 6], &types.to_le_bytes()].concat()
}

// virtio 1.4 §5.1.9.5.11.12.
#[test]
fn statistics_have_the_sizes_of_the_kernel_headers_and_one_bad_entry_fails_all() {
    use virtio_bindings::virtio_net::*;
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net,queue_pairs=2", |features| {
        features.with(net::MQ)
    });
    f.card.send_all(&frames(30, 500));
    f.card.rx.wait(30);
    let said = f.ctrl.ask(&[8, 0], 64);
    assert_eq!(said.len(), 9);
    assert_eq!(said[0], 0);
    let supported = u64_at(&said, 1);
    let always = VIRTIO_NET_STATS_TYPE_CVQ
        | u64::from(
            VIRTIO_NET_STATS_TYPE_RX_BASIC
                | VIRTIO_NET_STATS_TYPE_RX_SPEED
                | VIRTIO_NET_STATS_TYPE_TX_BASIC
                | VIRTIO_NET_STATS_TYPE_TX_SPEED,
        );
    assert_eq!(supported & always, always);

    // Several entries and types at once.
    let (receive, transmit) = (1 << 0 | 1 << 3, 1 << 16 | 1 << 19);
    let query = [entry(1, transmit), entry(4, 1 << 32), entry(0, receive)].concat();
    let said = f.ctrl.ask(&command([8, 1], [&query]), 1000);
    assert_eq!(said[0], 0);
    let replies = [
        (
            VIRTIO_NET_STATS_TYPE_REPLY_TX_BASIC,
            1,
            size_of::<virtio_net_stats_tx_basic>(),
        ),
        (
            VIRTIO_NET_STATS_TYPE_REPLY_TX_SPEED,
            1,
            size_of::<virtio_net_stats_tx_speed>(),
        ),
        (
            VIRTIO_NET_STATS_TYPE_REPLY_CVQ,
            4,
            size_of::<virtio_net_stats_cvq>(),
        ),
        (
            VIRTIO_NET_STATS_TYPE_REPLY_RX_BASIC,
            0,
            size_of::<virtio_net_stats_rx_basic>(),
        ),
        (
            VIRTIO_NET_STATS_TYPE_REPLY_RX_SPEED,
            0,
            size_of::<virtio_net_stats_rx_speed>(),
        ),
    ];
    let mut at = 1;
    let mut counters = Vec::new();
    for (kind, queue, size) in replies {
        let [low, high] = (size as u16).to_le_bytes();
        assert_eq!(said[at..at + 8], [kind as u8, 0, queue, 0, 0, 0, low, high]);
        counters.push(at + 8);
        at += size;
    }
    assert_eq!(said.len(), at);
    let bytes: u64 = frames(30, 500).iter().map(|frame| frame.len() as u64).sum();
    for basic in [counters[0], counters[3]] {
        assert_eq!(
            [u64_at(&said, basic + 8), u64_at(&said, basic + 16)],
            [30, bytes]
        );
        assert_eq!(u64_at(&said, basic + 32), 0, "dropped");
    }
    assert_eq!(
        u64_at(&said, counters[0] + 24),
        f.card.rig.stat("queue1.calls")
    );
    assert_eq!(u64_at(&said, counters[0]), f.card.rig.stat("queue1.kicks"));
    // The query, and this one.
    assert_eq!(
        [u64_at(&said, counters[2]), u64_at(&said, counters[2] + 8)],
        [2, 2]
    );
    assert_eq!(f.ctrl.command(&[9, 9]), 1);
    let again = f.ctrl.ask(&command([8, 1], [&entry(4, 1 << 32)]), 25);
    assert_eq!([u64_at(&again, 9), u64_at(&again, 17)], [4, 3]);

    // Too little room: as much as there is; none at all.
    let short = f.ctrl.ask(&command([8, 1], [&query]), 20);
    assert_eq!(short.len(), 20);
    assert_eq!(short[..9], [0, 16, 0, 1, 0, 0, 0, 56, 0]);
    assert_eq!(f.ctrl.ask(&command([8, 1], [&query]), 1), [0]);

    // A good entry in front of each.
    for (queue, types) in [
        (6, 1),
        (5, 1),
        (u16::MAX, 1),
        (0, 1 << 4),
        (0, 1 << 63 | 1),
        (0, 1 << 16),
        (1, 1 << 0),
        (0, 1 << 32),
        (4, 1 << 0),
        // Without checksum and segmentation offloads.
        (0, 1 << 1),
        (0, 1 << 2),
        (1, 1 << 17),
        (1, 1 << 18),
    ] {
        let bad = [entry(0, receive), entry(queue, types)].concat();
        let said = f.ctrl.ask(&command([8, 1], [&bad]), 500);
        assert_eq!(said, [1], "{types:#x} of queue {queue}");
    }
    for bad in [&[8, 1][..], &[8, 1, 0, 0], &[8, 0, 0], &[8, 2]] {
        assert_eq!(f.ctrl.ask(bad, 20), [1], "{bad:?}");
    }
    let mut f = open(&lab, "sim:net", |features| features - net::DEVICE_STATS);
    assert_eq!(f.ctrl.ask(&[8, 0], 64), [1]);
}

#[test]
fn a_queue_counts_its_kicks_calls_and_batches() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features);
    let stat = |f: &Commanded, name: &str| f.card.rig.stat(name);
    let flags = f.card.tx.q.areas()[2] as usize;
    let mut base = 0;
    for (i, count) in [1_usize, 1, 2, 3, 4, 9, 16, 40, 64].into_iter().enumerate() {
        f.card.tx.send(&frames(count, 300));
        until("completion", || {
            f.card.tx.reap();
            f.card.tx.in_flight() == 0
        });
        f.card.rx.poll();
        // The device looks away again: the next batch needs its kick.
        until("interest in kicks", || {
            let mut word = [0; 2];
            f.card.rig.bytes().read(flags, &mut word);
            word == [0; 2]
        });
        std::thread::sleep(Duration::from_millis(2));
        let kicks = stat(&f, "queue1.kicks");
        if i == 0 {
            // The queue may have been looked at since it was started.
            base = kicks;
        }
        assert_eq!(kicks, base + i as u64);
    }
    assert_eq!(stat(&f, "queue1.calls"), 9);
    assert_eq!(stat(&f, "queue1.suppressed"), 0);
    let batches = ["1", "2-3", "4-7", "8-15", "16-31", "32-63", "64+"];
    let batches = batches.map(|size| stat(&f, &format!("queue1.batches.{size}")));
    assert_eq!(batches, [2, 2, 1, 1, 1, 1, 1]);
    f.card.rx.wait(140);
    until("the count", || stat(&f, "queue0.packets") == 140);
}

// virtio 1.4 §5.1.9.5.
#[test]
fn a_short_long_or_unknown_command_of_any_class_comes_back_with_an_error() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features);
    for class in 0..=255 {
        for what in [0, 1, 7, 255] {
            // No command is as long as that, and none but an announcement's ack and a query as short.
            for len in [0, 1, 1000] {
                if class == 0 && len == 1 {
                    // A receive mode, switched on.
                    continue;
                }
                let mut command = vec![class, what];
                command.resize(2 + len, 0x5a);
                let expected = u8::from(![[3, 0], [8, 0]].contains(&[class, what]) || len != 0);
                // The ack alone, of whatever class.
                assert_eq!(
                    f.ctrl.ask(&command, 1)[0] & expected,
                    expected,
                    "{class} {what} {len}"
                );
            }
        }
        assert_eq!(f.ctrl.ask(&[class], 1), [1]);
    }
    assert_eq!(f.ctrl.command(&[0, 0, 1]), 0, "the queue goes on");
}

#[test]
fn offloads_that_were_not_negotiated_cannot_be_switched_on() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| {
        features | (RECEIVE - (net::GUEST_ECN | net::GUEST_TSO6))
    });
    let negotiated = f.card.rig.device.negotiated();
    let set = |f: &mut Commanded, on: u64| f.ctrl.command(&command([5, 0], [&on.to_le_bytes()]));
    assert_eq!(set(&mut f, 0), 0);
    for bit in 0..64 {
        let legal = negotiated.contains(vdpa_core::FeatureBit::new(bit).unwrap())
            && [1, 7, 8, 9, 10, 54, 55].contains(&bit);
        assert_eq!(set(&mut f, 1 << bit), u8::from(!legal), "bit {bit}");
    }
    assert_eq!(f.ctrl.command(&[5, 1, 0, 0, 0, 0, 0, 0, 0, 0]), 1);
    assert_eq!(f.ctrl.command(&[5, 0, 0, 0, 0, 0]), 1);
    let mut f = open(&lab, "sim:net", |f| f - net::CTRL_GUEST_OFFLOADS);
    assert_eq!(set(&mut f, 0), 1);
}

/// A card that sends to itself what is to be segmented, and takes it whole unless the state says otherwise.
fn open_offloads(rig: Rig, state: Option<&[u8]>) -> Commanded {
    let offloads = vdpa_sim::offload::TRANSMIT | RECEIVE;
    rig.negotiate(with(&rig, false, false, false, false) | offloads);
    if let Some(state) = state {
        rig.device.restore_class_state(state).unwrap();
    }
    let mut rx = Rx::new(&rig, rig.queue(0, 32), 65_700);
    let tx = Tx::new(&rig, rig.queue(1, 32), 65_700);
    let ctrl = Ctrl::new(&rig, rig.queue(2, 8));
    rx.post(32);
    rig.run();
    Commanded {
        card: Card { rig, tx, rx },
        ctrl,
    }
}

fn send_packet(f: &mut Commanded, packet: &Packet) {
    let mut header = [0; HEADER];
    header[..10].copy_from_slice(&packet.header);
    let sent = f
        .card
        .tx
        .send_with([(header, &packet.frame[..])].into_iter());
    assert_eq!(sent, 1);
}

#[test]
fn an_offload_that_is_switched_off_is_off_once_the_command_is_used_and_on_again_after_reset() {
    let lab = Lab::new();
    let mut f = open_offloads(lab.open("sim:net"), None);
    let data = payload(3, 5000);
    let packet = TCP4.packet(&data, 1000);
    let all = (1_u64 << 1) | (1 << 7) | (1 << 8) | (1 << 9) | (1 << 54) | (1 << 55);
    let mut before = 0;
    // What is on, and into how many frames the packet comes; whether their checksums are partial.
    for (on, parts, partial) in [
        (all, 1, true),
        (all & !(1 << 7), 5, true),
        (0, 5, false),
        // Without checksums there is nothing that could be segmented later.
        (all & !(1 << 1), 5, false),
        (all, 1, true),
    ] {
        assert_eq!(f.ctrl.command(&command([5, 0], [&on.to_le_bytes()])), 0);
        send_packet(&mut f, &packet);
        f.card.rx.wait(before + parts);
        let headers = &f.card.rx.headers[before..];
        assert!(
            headers.iter().all(|header| (header[0] == 1) == partial),
            "{on:#x}"
        );
        if !partial {
            let got = f.card.rx.got[before..]
                .iter()
                .map(|frame| dissect(frame).payload);
            assert_eq!(got.collect::<Vec<_>>().concat(), data);
        }
        before += parts;
    }
    assert_eq!(f.ctrl.command(&command([5, 0], [&0_u64.to_le_bytes()])), 0);
    f.card.rig.device.suspend(soon()).unwrap();
    let state = f.card.rig.device.save_class_state().unwrap();
    for (state, parts) in [(None, 1), (Some(&state[..]), 5)] {
        f.card.rig.reset();
        f = open_offloads(Rig::new(f.card.rig.device), state);
        send_packet(&mut f, &packet);
        f.card.rx.wait(parts);
    }
}

#[test]
fn statistics_of_checksums_and_segmentation_count_what_was_not_finished() {
    use virtio_bindings::virtio_net::*;
    let lab = Lab::new();
    let mut f = open_offloads(lab.open("sim:net"), None);
    let data = payload(3, 5000);
    send_packet(&mut f, &TCP4.packet(&data, 1000));
    send_packet(&mut f, &TCP4.partial(&data[..900]));
    let finished = TCP4.frame(&data[..800]);
    f.card.send_all(&[finished]);
    f.card.rx.wait(3);
    let bytes = f.card.rx.got[0].len() as u64;
    let types = (1 << 1 | 1 << 2, 1 << 17 | 1 << 18);
    let query = [entry(0, types.0), entry(1, types.1)].concat();
    let said = f.ctrl.ask(&command([8, 1], [&query]), 1000);
    assert_eq!(said[0], 0);
    let expected: [(u32, usize, &[u64]); 4] = [
        (
            VIRTIO_NET_STATS_TYPE_REPLY_RX_CSUM,
            size_of::<virtio_net_stats_rx_csum>(),
            &[0, 2, 1, 0],
        ),
        (
            VIRTIO_NET_STATS_TYPE_REPLY_RX_GSO,
            size_of::<virtio_net_stats_rx_gso>(),
            &[1, bytes, 0, 0],
        ),
        (
            VIRTIO_NET_STATS_TYPE_REPLY_TX_CSUM,
            size_of::<virtio_net_stats_tx_csum>(),
            &[1, 2],
        ),
        (
            VIRTIO_NET_STATS_TYPE_REPLY_TX_GSO,
            size_of::<virtio_net_stats_tx_gso>(),
            &[1, bytes, 0, 0, 1, bytes],
        ),
    ];
    let mut at = 1;
    for (kind, size, counters) in expected {
        assert_eq!(u32::from(said[at]), kind);
        assert_eq!(usize::from(said[at + 6]), size);
        let got: Vec<_> = (at + 8..at + size)
            .step_by(8)
            .map(|at| u64_at(&said, at))
            .collect();
        assert_eq!(got, counters, "type {kind}");
        at += size;
    }
    assert_eq!(said.len(), at);
}

#[test]
fn a_command_that_is_not_mapped_is_refused_and_an_ack_that_is_not_is_left_out_each_with_a_fault() {
    let lab = Lab::new();
    let mut f = open(&lab, "sim:net", |features| features);
    let events = f.card.rig.device.events().unwrap();
    let far = REGION + 0x1000;
    let at = f.card.rig.alloc(64);
    let memory = f.card.rig.bytes();
    let fault = || match events.wait(soon()).unwrap() {
        Some(Event::Fault { at, want, .. }) => (at.get(), want),
        other => panic!("{other:?}"),
    };
    // Promiscuous: off. In whole, then with its end beyond what is mapped; the ack is written.
    for (from, len, missing) in [(far, 3, far), (REGION - 2, 3, REGION)] {
        memory.write(REGION as usize - 2, &[0, 0]);
        memory.write(at as usize + 8, &[0xaa]);
        f.ctrl.q.add(&[(from, len)], &[(at + 8, 1)]).unwrap();
        f.ctrl.q.publish();
        assert_eq!(f.ctrl.q.wait_used(1)[0].len, 1);
        let mut ack = [0];
        memory.read(at as usize + 8, &mut ack);
        assert_eq!(ack, [1], "refused");
        assert_eq!(fault(), (BASE + missing, Access::DeviceReads));
    }
    assert_eq!(f.card.rig.stat("control.faults"), 2);
    assert_eq!(f.card.rig.stat("control.refused"), 2);
    // The command is carried out, and there is nowhere to say so.
    memory.write(at as usize, &[0, 0, 0]);
    f.ctrl.q.add(&[(at, 3)], &[(far, 1)]).unwrap();
    f.ctrl.q.publish();
    assert_eq!(f.ctrl.q.wait_used(1)[0].len, 0);
    assert_eq!(fault(), (BASE + far, Access::DeviceWrites));
    assert_eq!(f.card.rig.stat("control.faults"), 3);
    assert_eq!(f.card.rig.stat("control.refused"), 2);
    // The queue goes on.
    assert_eq!(f.ctrl.command(&[0, 0, 1]), 0);
}
