//! Receive-side scaling: each frame in the queue that its hash says, in order, and nothing lost or late.

#[path = "rig/packets.rs"]
mod packets;
mod rig;

use etherparse::PacketBuilder;
use packets::{TCP4, TCP6, dissect, payload};
use rig::*;
use vdpa_core::bits::net;
use vdpa_core::{Attr, LinkState, MgmtDevice, QueueIndex};

/// The key of Microsoft's verification suite.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The Toeplitz hash bit by bit.
fn toeplitz(input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let window = |at| (at..at + 32).fold(0, |word, at| word << 1 | u32::from(bit(&KEY, at)));
    let set = (0..input.len() * 8).filter(|at| bit(input, *at) == 1);
    set.map(window).fold(0, |sum, word| sum ^ word)
}

/// Frame `number` of UDP flow `flow`, and its hash.
fn packet(flow: u16, number: u32) -> (Vec<u8>, u32) {
    let (from, to) = ([10, 0, 0, flow as u8], [10, 0, 1, 2]);
    let ports = (1000 + flow, 2000);
    let builder = PacketBuilder::ethernet2([0x52, 0x54, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 1])
        .ipv4(from, to, 64)
        .udp(ports.0, ports.1);
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(4 + usize::from(flow) * 7 % 900, number as u8);
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).unwrap();
    let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    (frame, toeplitz(&[&from[..], &to, &ports].concat()))
}

fn flow_of(frame: &[u8]) -> (u16, u32) {
    let flow = u16::from_be_bytes([frame[34], frame[35]]) - 1000;
    (flow, u32::from_le_bytes(frame[42..46].try_into().unwrap()))
}

/// The command that steers by a table, with everything hashed.
fn rss(table: &[u16], unclassified: u16, transmit: u16) -> Vec<u8> {
    let mut command = vec![4, 1];
    command.extend(0x3f_u32.to_le_bytes());
    command.extend((table.len() as u16 - 1).to_le_bytes());
    command.extend(unclassified.to_le_bytes());
    command.extend(table.iter().flat_map(|pair| pair.to_le_bytes()));
    command.extend(transmit.to_le_bytes());
    command.push(40);
    command.extend(KEY);
    command
}

/// A device with all of its pairs running.
struct Pairs {
    rig: Rig,
    tx: Vec<Tx>,
    rx: Vec<Rx>,
    ctrl: Ctrl,
}

impl Pairs {
    fn new(rig: Rig, pairs: u16, packed: bool, report: bool) -> Self {
        let mut features = with(&rig, packed, false, true, false)
            .with(net::MQ)
            .with(net::RSS);
        if report {
            features = features.with(net::HASH_REPORT);
        }
        rig.negotiate(features);
        let mut rx: Vec<_> = (0..pairs)
            .map(|i| Rx::new(&rig, rig.queue(i * 2, 64), 2048))
            .collect();
        let tx = (0..pairs)
            .map(|i| Tx::new(&rig, rig.queue(i * 2 + 1, 64), 2048))
            .collect();
        let ctrl = Ctrl::new(&rig, rig.queue(pairs * 2, 8));
        rx.iter_mut().for_each(|rx| rx.post(64));
        rig.run();
        Self { rig, tx, rx, ctrl }
    }

    fn open(lab: &Lab, pairs: u16, more: &str) -> Self {
        let rig = lab.open(&format!("sim:net,queue_pairs={pairs}{more}"));
        Self::new(rig, pairs, false, false)
    }

    fn got(&self) -> usize {
        self.rx.iter().map(|rx| rx.got.len()).sum()
    }

    fn poll(&mut self) {
        self.rx.iter_mut().for_each(Rx::poll);
    }

    /// Sends all frames at one queue, and receives at all.
    fn send(&mut self, pair: usize, frames: &[Vec<u8>]) {
        let mut sent = 0;
        until("sending", || {
            sent += self.tx[pair].send(&frames[sent..]);
            self.poll();
            sent == frames.len()
        });
    }

    fn wait(&mut self, count: usize) {
        until(&format!("arrival of {count} frames"), || {
            self.poll();
            self.got() >= count
        });
        assert_eq!(self.got(), count);
    }
}

// virtio 1.4 §5.1.9.4.3, §5.1.9.5.7.
#[test]
fn each_frame_is_in_the_queue_that_its_hash_says_in_order_and_with_its_hash() {
    for (workers, packed, report) in [(1, false, true), (4, true, true), (2, false, false)] {
        let rig = Lab::new().open(&format!("sim:net,queue_pairs=4,workers={workers}"));
        let mut all = Pairs::new(rig, 4, packed, report);
        let config = all.rig.config();
        assert_eq!(config.rss_max_key_size(), 40);
        assert_eq!(config.rss_max_indirection_table_length(), 128);
        assert_eq!(config.supported_hash_types().bits(), 0x1ff);
        let table = [2, 0, 3, 1, 1, 3, 0, 2];
        assert_eq!(all.ctrl.command(&rss(&table, 3, 4)), 0);
        // Each flow at a queue of its own, mixed with others.
        let mut count = 0;
        for round in 0..40 {
            for pair in 0..4_u16 {
                let flows = (0..12).map(|i| i * 4 + pair);
                let frames: Vec<_> = flows.map(|flow| packet(flow, round).0).collect();
                all.send(pair.into(), &frames);
                // Of no type that is hashed.
                all.send(pair.into(), &[frame(0, 100)]);
                count += 13;
            }
        }
        all.wait(count);
        let mut next = [0; 48];
        for (pair, rx) in all.rx.iter().enumerate() {
            assert_eq!(rx.hashes.len(), if report { rx.got.len() } else { 0 });
            for (i, got) in rx.got.iter().enumerate() {
                let said = rx.hashes.get(i).copied();
                if got.len() == 100 && got[12] == 0x88 {
                    assert_eq!(pair, 3, "it is unclassified");
                    assert!(said.is_none_or(|said| said == (0, 0)));
                    continue;
                }
                let (flow, number) = flow_of(got);
                let (sent, hash) = packet(flow, number);
                assert_eq!(*got, sent);
                assert_eq!(pair, usize::from(table[hash as usize & 7]), "flow {flow}");
                assert!(said.is_none_or(|said| said == (hash, 3)), "UDP over IPv4");
                assert_eq!(number, next[usize::from(flow)], "flow {flow} is in order");
                next[usize::from(flow)] += 1;
            }
        }
        assert_eq!(next, [40; 48]);
        assert_eq!(all.rig.total("dropped.rx_resteered"), 0);
        all.rig.close();
    }
}

#[test]
fn hashes_are_reported_of_what_is_in_pieces_or_merged_too() {
    let lab = Lab::new();
    let rig = lab.open("sim:net");
    let features = with(&rig, false, true, false, false).with(net::HASH_REPORT);
    rig.negotiate(features - net::RSS);
    let mut rx = Rx::new(&rig, rig.queue(0, 64), 130);
    let mut tx = rig.queue(1, 64);
    let mut ctrl = Ctrl::new(&rig, rig.queue(2, 8));
    rx.post(64);
    rig.run();
    // Nothing is hashed before the driver says what.
    let config: Vec<u8> = [&[4, 2, 0x3f, 0, 0, 0][..], &[0; 8], &[40], &KEY].concat();
    let (frame, hash) = packet(60, 7);
    let at = rig.alloc(2048);
    let mut bytes = [[0; 12].as_slice(), &[0xee; 8]].concat();
    bytes.extend(&frame);
    rig.bytes().write(at as usize, &bytes);
    let mut expected = Vec::new();
    for (round, cut) in [5, 12, 13, 19, 20, 21, 60, 11].into_iter().enumerate() {
        if round == 1 {
            assert_eq!(ctrl.command(&config), 0);
        }
        // A header of 20 bytes in front of what is sent too, however it is cut: its values mean nothing.
        let len = bytes.len() as u32;
        tx.add(&[(at, cut), (at + u64::from(cut), len - cut)], &[])
            .unwrap();
        tx.publish();
        tx.wait_used(1);
        rx.wait(round + 1);
        expected.push(if round == 0 { (0, 0) } else { (hash, 3) });
    }
    assert!(rx.got.iter().all(|got| *got == frame));
    assert!(rx.buffers_used.contains(&130), "merged");
    assert_eq!(rx.hashes, expected);
    assert_eq!(ctrl.command(&rss(&[0], 0, 1)), 1, "RSS was not negotiated");
    tx.add(&[(at, 33)], &[]).unwrap();
    tx.publish();
    tx.wait_used(1);
    assert_eq!(
        rig.stat("queue1.dropped.tx_short"),
        1,
        "a header and less than an Ethernet header"
    );
}

#[test]
fn a_queue_without_buffers_stops_what_comes_behind_it_and_nothing_is_lost() {
    for workers in [1, 3] {
        let lab = Lab::new();
        let rig = lab.open(&format!("sim:net,queue_pairs=3,workers={workers}"));
        let mut all = Pairs::new(rig, 3, false, false);
        assert_eq!(all.ctrl.command(&rss(&[0, 1, 2, 1], 0, 3)), 0);
        let mut sent = 0;
        let mut number = 0;
        // Far more than the port and the queues between the pairs hold.
        loop {
            let frames: Vec<_> = (0..24).map(|flow| packet(flow, number).0).collect();
            let room = all.tx[0].send(&frames);
            sent += room;
            // The target of most does not get a buffer back.
            all.rx[0].poll();
            all.rx[2].poll();
            if room == 0 && all.tx[0].reap() == 0 {
                std::thread::sleep(std::time::Duration::from_millis(3));
                if all.tx[0].reap() == 0 {
                    break;
                }
            }
            number += 1;
            assert!(number < 10_000, "it never stops");
        }
        assert_eq!(all.rig.total("dropped.rx_no_queue"), 0);
        // The pair that sorts sleeps by now: it is told when there is room.
        std::thread::sleep(std::time::Duration::from_millis(5));
        all.wait(sent);
        let (mut last, mut count) = ([None; 24], 0);
        for got in all.rx.iter().flat_map(|rx| &rx.got) {
            let (flow, number) = flow_of(got);
            assert!(
                last[usize::from(flow)] < Some(number),
                "flow {flow}: {number}"
            );
            last[usize::from(flow)] = Some(number);
            count += 1;
        }
        assert_eq!(count, sent);
    }
}

#[test]
fn what_waits_for_a_queue_that_is_not_steered_to_any_more_does_not_come_and_is_counted() {
    let lab = Lab::new();
    let mut all = Pairs::open(&lab, 2, ",workers=2");
    assert_eq!(all.ctrl.command(&rss(&[1], 1, 2)), 0);
    let frames: Vec<_> = (0..400).map(|number| packet(9, number).0).collect();
    let mut sent = 0;
    until("a full device", || {
        let more = all.tx[0].send(&frames[sent..]);
        sent += more;
        // As many as there are buffers, and then some.
        sent == frames.len() || (sent > 300 && more == 0)
    });
    until("the buffers", || all.rig.stat("queue2.packets") == 64);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(all.ctrl.command(&rss(&[0], 0, 2)), 0);
    until("the others", || {
        all.poll();
        let gone = all.rig.stat("queue2.dropped.rx_resteered") as usize;
        all.rx[0].got.len() + gone + 64 == sent
    });
    all.rx[1].quiet();
    assert_eq!(all.rx[1].got, frames[..64]);
    assert!(all.rig.stat("queue2.dropped.rx_resteered") > 0);
    // Those that had not been sorted yet, in order.
    let rest = all.rx[0].got.len();
    assert_eq!(all.rx[0].got, frames[sent - rest..sent]);
}

#[test]
fn nothing_sent_before_a_reset_or_the_loss_of_the_link_arrives_after_it() {
    let lab = Lab::new();
    let mut rig = lab.open("sim:net,queue_pairs=3,workers=2");
    for round in 0..20 {
        rig = Rig::new(rig.device);
        let name = rig.device.info().name.clone();
        let mut all = Pairs::new(rig, 3, round % 2 == 1, false);
        assert_eq!(all.ctrl.command(&rss(&[0, 1, 2, 1], 0, 3)), 0);
        let frames: Vec<_> = (0..48).map(|flow| packet(flow, 1).0).collect();
        // What is taken from the first two fills what there is between the pairs.
        for _ in 0..round {
            for tx in &mut all.tx {
                tx.send(&frames);
            }
        }
        let mut seen = 0;
        if round % 4 == 3 {
            let set = |link| lab.sim.dev_set(&name, Attr::Link(link)).unwrap();
            set(LinkState::Down);
            // What was not sent by then is dropped, and what was received stays.
            until("empty transmit queues", || {
                all.tx.iter_mut().all(|tx| {
                    tx.reap();
                    tx.in_flight() == 0
                })
            });
            // Those that were under way as the link went have ended.
            all.rig.is_obeyed();
            all.poll();
            seen = all.got();
            set(LinkState::Up);
            std::thread::sleep(std::time::Duration::from_millis(5));
            all.poll();
            assert_eq!(all.got(), seen, "frames of before");
        } else {
            all.rig.reset();
            let rig = Rig::new(all.rig.device);
            all = Pairs::new(rig, 3, false, false);
            assert_eq!(all.ctrl.command(&rss(&[2, 1, 0, 1], 0, 3)), 0);
        }
        let after: Vec<_> = (0..48).map(|flow| packet(flow, 2).0).collect();
        all.send(0, &after);
        all.wait(seen + 48);
        let late = all
            .rx
            .iter()
            .flat_map(|rx| &rx.got)
            .filter(|got| flow_of(got).1 == 1);
        assert!(
            late.count() <= seen,
            "round {round}: frames of another life"
        );
        rig = all.rig;
        rig.reset();
    }
}

#[test]
fn a_target_that_is_paused_goes_on_where_it_stood_and_one_that_is_reset_drops() {
    let lab = Lab::new();
    let mut all = Pairs::open(&lab, 2, ",workers=2");
    assert_eq!(all.ctrl.command(&rss(&[1], 1, 2)), 0);
    let frames: Vec<_> = (0..60).map(|number| packet(5, number).0).collect();
    let state = all
        .rig
        .device
        .stop_queue(QueueIndex::new(2), soon())
        .unwrap();
    all.tx[0].send(&frames);
    all.rx[0].quiet();
    let Pairs { rig, rx, .. } = &mut all;
    rx[1].q.start(rig, Some(state));
    all.wait(60);
    assert_eq!(all.rx[1].got, frames);
    all.rig
        .device
        .reset_queue(QueueIndex::new(2), soon())
        .unwrap();
    all.tx[0].send(&frames);
    until("the drop", || {
        all.rig.stat("queue2.dropped.rx_no_queue") == 60
    });
    // A sibling goes on, and the queue does when it is back.
    assert_eq!(all.ctrl.command(&rss(&[0], 0, 2)), 0);
    all.send(0, &frames);
    all.wait(120);
    assert_eq!(all.rx[0].got, frames);
    // Off: as a queue without effects.
    all.rig
        .device
        .enable_queue(QueueIndex::new(0), false)
        .unwrap();
    all.rig.is_obeyed();
    all.tx[1].send(&frames);
    until("the drop", || {
        all.rig.stat("queue0.dropped.rx_queue_off") == 60
    });
}

#[test]
fn the_last_command_says_how_frames_are_steered() {
    let lab = Lab::new();
    let mut all = Pairs::open(&lab, 4, ",workers=4");
    let frames: Vec<_> = (0..48).map(|flow| packet(flow, 0).0).collect();
    let mut sent = 0;
    for round in 0..30 {
        // Frames are on their way while the steering changes.
        sent += all.tx[0].send(&frames);
        let only = round % 4;
        let (command, legal): (Vec<u8>, &[usize]) = match round % 3 {
            0 => (
                rss(&[only, only], only, 4),
                &[0, 1, 2, 3][usize::from(only)..][..1],
            ),
            1 => (vec![4, 0, 1, 0], &[0]),
            _ => (vec![4, 0, 4, 0], &[0, 1, 2, 3]),
        };
        assert_eq!(all.ctrl.command(&command), 0);
        let used: Vec<_> = all
            .rx
            .iter_mut()
            .map(|rx| {
                rx.poll();
                rx.got.len()
            })
            .collect();
        // The command is used: none of the others gets anything from here on.
        sent += all.tx[1].send(&frames[..20]);
        std::thread::sleep(std::time::Duration::from_millis(2));
        all.poll();
        for (pair, rx) in all.rx.iter().enumerate() {
            assert!(
                legal.contains(&pair) || rx.got.len() == used[pair],
                "round {round}: a frame in queue pair {pair}"
            );
        }
    }
    until("all", || {
        all.poll();
        let moved = all.rig.total("dropped.rx_resteered") as usize;
        all.got() + moved == sent
    });
}

#[test]
fn a_steering_moves_to_another_device_with_the_class_state() {
    let lab = Lab::new();
    let mut all = Pairs::open(&lab, 3, "");
    assert_eq!(all.ctrl.command(&rss(&[2, 2, 2, 1], 1, 3)), 0);
    all.rig.device.suspend(soon()).unwrap();
    let state = all.rig.device.save_class_state().unwrap();
    let rig = lab.open("sim:net,queue_pairs=3");
    let features = all.rig.device.negotiated();
    rig.negotiate(features);
    rig.device.restore_class_state(&state).unwrap();
    let mut rx: Vec<_> = (0..3)
        .map(|i| Rx::new(&rig, rig.queue(i * 2, 64), 2048))
        .collect();
    let mut tx = Tx::new(&rig, rig.queue(1, 64), 2048);
    rx.iter_mut().for_each(|rx| rx.post(64));
    rig.run();
    for flow in 0..32 {
        let (sent, hash) = packet(flow, 3);
        let pair = [2, 2, 2, 1][hash as usize & 3];
        tx.send(&[sent]);
        let count = rx[pair].got.len() + 1;
        rx[pair].wait(count);
    }
    let other = lab.open("sim:net,queue_pairs=2");
    other.negotiate(features);
    let why = other
        .device
        .restore_class_state(&state)
        .unwrap_err()
        .to_string();
    assert!(why.contains("3 queue pairs"), "{why}");
}

#[test]
fn a_packet_to_be_segmented_goes_to_the_queue_of_its_flow_and_is_segmented_there() {
    let lab = Lab::new();
    for merge in [false, true] {
        let rig = lab.open("sim:net,queue_pairs=2,workers=2");
        let features = with(&rig, false, merge, true, false) | net::MQ | net::RSS;
        rig.negotiate(features | vdpa_sim::offload::TRANSMIT);
        let mut rx: Vec<_> = (0..2)
            .map(|i| Rx::new(&rig, rig.queue(i * 2, 64), if merge { 300 } else { 2048 }))
            .collect();
        let mut tx = Tx::new(&rig, rig.queue(1, 64), 65_700);
        let mut ctrl = Ctrl::new(&rig, rig.queue(4, 8));
        rig.run();
        assert_eq!(ctrl.command(&rss(&[1], 1, 1)), 0);
        let data: Vec<_> = (0..12).map(|i| payload(i, 3000 + i * 3001)).collect();
        let packets: Vec<_> = data
            .iter()
            .enumerate()
            .map(|(i, data)| [TCP4, TCP6][i % 2].packet(data, 1000))
            .collect();
        let raw = packets.iter().map(|packet| {
            let mut header = [0; HEADER];
            header[..10].copy_from_slice(&packet.header);
            (header, &packet.frame[..])
        });
        assert_eq!(tx.send_with(raw), 12);
        // A few buffers at a time: it stops in the middle of packets.
        let all = data.concat();
        let mut got = Vec::new();
        rx[1].post(5);
        until("all of it", || {
            rx[1].poll();
            for frame in rx[1].got.drain(..) {
                got.extend(dissect(&frame).payload);
            }
            got.len() >= all.len()
        });
        assert!(got == all, "merge: {merge}");
        assert_eq!(rig.stat("queue2.segmented"), 12);
        assert_eq!(rig.stat("queue0.packets"), 0);
    }
}

#[test]
fn a_capture_has_what_was_passed_on_to_another_queue_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.pcap");
    let lab = Lab::new();
    let mut all = Pairs::open(&lab, 2, &format!(",mirror={}", file.display()));
    assert_eq!(all.ctrl.command(&rss(&[1], 1, 2)), 0);
    let sent: Vec<_> = (0..200).map(|i| packet(3, i).0).collect();
    all.send(0, &sent);
    all.wait(200);
    all.rig.close();
    let file = std::fs::File::open(&file).unwrap();
    let mut reader = pcap_file::pcap::PcapReader::new(file).unwrap();
    let mut count = 0;
    while let Some(packet) = reader.next_packet() {
        packet.unwrap();
        count += 1;
    }
    assert_eq!(count, 400, "each was sent and received");
}

#[test]
fn what_pairs_have_in_hand_moves_with_the_device_in_its_order() {
    let lab = Lab::new();
    let rig = lab.open("sim:net,queue_pairs=2,workers=2");
    let features = with(&rig, false, false, true, false) | net::MQ | net::RSS;
    rig.negotiate(features);
    let mut rx: Vec<_> = (0..2)
        .map(|i| Rx::new(&rig, rig.queue(i * 2, 16), 2048))
        .collect();
    let mut tx = Tx::new(&rig, rig.queue(1, 64), 2048);
    let mut ctrl = Ctrl::new(&rig, rig.queue(4, 8));
    rig.run();
    assert_eq!(ctrl.command(&rss(&[1], 1, 2)), 0);
    // More than waits between the pairs: the first pair finds the second one's queue full. Some are in a batch that was
    // begun to be given out.
    rx[1].post(3);
    let sent: Vec<_> = (0..20).map(|i| packet(5, i).0).collect();
    let (first, others) = sent.split_at(5);
    for frames in std::iter::once(first).chain(others.chunks(1)) {
        assert_eq!(tx.send(frames), frames.len());
        until("sending", || {
            tx.reap();
            tx.in_flight() == 0
        });
    }
    until("three", || rig.stat("queue2.packets") == 3);
    rig.device.suspend(soon()).unwrap();
    let state = rig.device.save_class_state().unwrap();
    rx[1].wait(3);
    let mut all = rx[1].got.clone();
    let other = lab.open("sim:net,queue_pairs=2,workers=2");
    other.negotiate(features);
    other.device.restore_class_state(&state).unwrap();
    let mut rx: Vec<_> = (0..2)
        .map(|i| Rx::new(&other, other.queue(i * 2, 32), 2048))
        .collect();
    let _tx = Tx::new(&other, other.queue(1, 64), 2048);
    rx[1].post(32);
    other.run();
    rx[1].wait(20 - all.len());
    all.extend(rx[1].got.iter().cloned());
    assert!(all == sent);
}
