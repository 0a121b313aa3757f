//! Unfinished packets from driver to driver: whatever each of them negotiated, nothing is lost or altered.

#[path = "rig/packets.rs"]
mod packets;
mod rig;
#[path = "rig/wires.rs"]
mod wires;

use packets::{Packet, Shape, TCP4, UDP6, dissect, header, payload};
use rig::*;
use vdpa_core::Features;
use vdpa_core::bits::net;
use vdpa_sim::offload::{LONGEST, RECEIVE, TRANSMIT};
use vdpa_sim::pcap::{Capture, CaptureWriter, TimeResolution};
use wires::*;

#[test]
fn nothing_is_lost_or_altered_between_drivers_of_any_offloads() {
    let csum = Features::of(&[net::GUEST_CSUM]);
    let (transmit, receive) = (legal_sets(TRANSMIT), legal_sets(RECEIVE));
    assert_eq!((transmit.len(), receive.len()), (15, 29));
    let shapes = [
        (false, BIG, 64),
        (true, 1526, 128),
        (false, 1700, 64),
        (true, 333, 256),
    ];
    // Each set of receive offloads with several of the others: these numbers have no common divisor.
    for i in 0..29 * 3 {
        let (offloads, transmit) = (receive[i % 29], transmit[i % 15]);
        let (merge, buffer, size) = shapes[i % 4];
        let to = To {
            packed: i % 2 == i / 29 % 2,
            merge,
            offloads,
            buffer,
            size,
        };
        let mut wire = Wire::with(transmit, to, 1500, 1500);
        for chunk in mixed_from(36, transmit).chunks(20) {
            wire.exchange(chunk);
        }
        assert_eq!(wire.dropped(), 0, "{transmit:?} to {offloads:?}");
        let rig = &wire.to.rig;
        if (offloads - csum).is_empty() || buffer == 1700 {
            assert_eq!(rig.stat("queue0.gso"), 0);
        }
        if transmit == TRANSMIT && (offloads != RECEIVE || buffer == 1700) {
            assert_ne!(rig.stat("queue0.segmented"), 0);
        }
    }
}

#[test]
fn a_sender_without_offloads_means_nothing_by_its_headers() {
    for transmit in [Features::NONE, Features::of(&[net::CSUM])] {
        let mut wire = Wire::with(transmit, WHOLE, 1500, 1500);
        let data = payload(1, 1000);
        let finished = TCP4.frame(&data);
        let packet = Packet {
            // With CSUM alone the type means nothing, and the rest is honoured.
            header: header(0xfe, 1, 9999, 100, 0xffff, 0xffff),
            frame: finished.clone(),
        };
        wire.send(&[packet]);
        let parts = wire.receive(1000);
        assert_eq!((parts.len(), parts[0].0[0]), (1, 0));
        assert_eq!(parts[0].2, finished);
    }
    // A frame over the MTU is one, whatever its header says.
    let mut wire = Wire::with(Features::of(&[net::CSUM]), WHOLE, 1500, 1500);
    wire.send(&[TCP4.packet(&payload(0, 5000), 1000)]);
    assert_eq!(wire.from.rig.stat("queue1.dropped.tx_over_mtu"), 1);
}

#[test]
fn what_does_not_describe_its_frame_is_dropped_by_its_reason() {
    let change = |change: fn(&mut Packet)| {
        let mut packet = TCP4.packet(&payload(0, 5000), 1400);
        change(&mut packet);
        packet
    };
    dropped(
        "tx_bad_gso_type",
        &[
            with_type(3, 1),
            with_type(2, 1),
            with_type(0x80, 1),
            with_type(6, 1),
        ],
    );
    dropped("tx_gso_without_csum", &[with_type(1, 0), with_type(5, 2)]);
    dropped("tx_bad_gso_size", &[change(|p| p.header[4..6].fill(0))]);
    dropped(
        "tx_bad_csum",
        &[
            change(|p| p.header[6] = 30),
            change(|p| p.header[8] = 6),
            change(|p| p.header[6..8].fill(0xff)),
            Packet {
                header: header(1, 0, 0, 0, 90, 9),
                frame: frame(0, 100),
            },
        ],
    );
    dropped(
        "tx_bad_gso_frame",
        &[
            with_type(4, 1),
            with_type(5, 1),
            change(|p| p.frame.truncate(60)),
            change(|p| p.frame.truncate(40)),
            change(|p| p.frame.truncate(15)),
            change(|p| p.frame[14] = 0x44),
            change(|p| p.frame[20] |= 0x20),
            change(|p| p.frame.push(0)),
        ],
    );
}

#[test]
fn a_packet_that_no_buffers_hold_is_segmented_and_not_dropped() {
    let data = payload(0, 60_000);
    let packet = (TCP4.packet(&data, 1400), data);
    // One buffer each, too small; a ring of too many too small; and a large enough ring with too little in it.
    for (merge, buffer, size, whole) in [
        (false, 1700, 64, 0),
        (true, 1500, 32, 0),
        (true, 1500, 64, 5),
    ] {
        for packed in [false, true] {
            let to = To {
                packed,
                merge,
                buffer,
                size,
                ..WHOLE
            };
            let mut wire = Wire::new(to);
            for _ in 0..5 {
                wire.exchange(std::slice::from_ref(&packet));
            }
            assert_eq!(wire.to.rig.stat("queue0.gso"), whole, "{size} of {buffer}");
            assert_eq!(wire.to.rig.stat("queue0.segmented"), 5 - whole);
            assert_eq!(wire.dropped(), 0);
        }
    }
}

#[test]
fn a_packet_that_waits_for_buffers_in_vain_is_segmented() {
    let lab = Lab::new();
    let rig = lab.open("sim:net,poll_us=1000");
    rig.negotiate(with(&rig, false, true, true, false) | TRANSMIT | RECEIVE);
    let mut rx = Rx::new(&rig, rig.queue(0, 256), 1526);
    let mut tx = Tx::new(&rig, rig.queue(1, 8), BIG as usize);
    // The ring has room for more, but the driver posts no more.
    rx.post(20);
    rig.run();
    let data = payload(0, 60_000);
    let packet = TCP4.packet(&data, 1400);
    tx.send_with(raw(std::slice::from_ref(&packet)));
    let mut got = Vec::new();
    until("the segments", || {
        rx.poll();
        for (header, frame) in rx.headers.drain(..).zip(rx.got.drain(..)) {
            got.extend(judge(&header, &frame, RECEIVE, 1500).payload);
        }
        got.len() == data.len()
    });
    assert!(got == data);
    assert_eq!(rig.stat("queue0.segmented"), 1);
    assert_eq!(rig.total("dropped.rx_buffer_too_small"), 0);
}

#[test]
fn the_longest_packets_come_whole_and_segmented() {
    for (shape, len) in [
        (TCP4, 65_535 - 40),
        (
            Shape {
                v6: true,
                tags: 2,
                ..TCP4
            },
            65_535 - 20,
        ),
        (UDP6, 65_535 - 8),
    ] {
        for to in [
            WHOLE,
            To {
                offloads: Features::NONE,
                ..WHOLE
            },
            MERGED,
        ] {
            let data = payload(7, len);
            let mut wire = Wire::new(to);
            let parts = wire.exchange(&[(shape.packet(&data, 1400), data)]);
            assert_eq!(parts[0].len() == 1, !to.offloads.is_empty());
        }
    }
    // One byte more than there can be.
    let mut wire = Wire::new(WHOLE);
    let rig = &wire.from.rig;
    let out = rig.alloc(LONGEST + 100);
    rig.bytes().zero(out as usize, LONGEST + 100);
    wire.from.tx.q.add(&[(out, BIG + 1)], &[]).unwrap();
    wire.from.tx.q.publish();
    wire.from.tx.q.wait_used(1);
    assert_eq!(wire.from.rig.stat("queue1.dropped.tx_over_mtu"), 1);
}

#[test]
fn a_flood_of_tiny_segments_holds_nobody_up() {
    // 7,500 segments of 8 bytes for each packet, at a driver that takes none of them whole.
    let to = To {
        offloads: Features::NONE,
        buffer: 256,
        ..WHOLE
    };
    let mut wire = Wire::new(to);
    let data = payload(0, 60_000);
    let parts = wire.exchange(&[(TCP4.packet(&data, 8), data.clone())]);
    assert_eq!(parts[0].len(), 7500);
    // Control goes on in between: a reset ends it.
    let packets = vec![TCP4.packet(&data, 8); 8];
    wire.from.tx.send_with(raw(&packets));
    wire.to.rig.reset();
    wire.from.rig.reset();
}

#[test]
fn a_capture_holds_frames_as_on_a_cable() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let writer = CaptureWriter::create(&input, TimeResolution::Micros);
    writer.unwrap().finish().unwrap();
    let lab = Lab::new();
    let rig = lab.open(&format!(
        "sim:net,port=pcap:{}:{}",
        input.display(),
        output.display()
    ));
    let features = with(&rig, true, false, true, false) | TRANSMIT;
    let mut card = Card::new(rig, features, 32, BIG);
    let packets = mixed(60);
    for chunk in packets.chunks(20) {
        let only: Vec<_> = chunk.iter().map(|(packet, _)| packet.clone()).collect();
        let mut sent = 0;
        until("sending", || {
            sent += card.tx.send_with(raw(&only[sent..]));
            sent == only.len()
        });
    }
    until("completion", || {
        card.tx.reap();
        card.tx.in_flight() == 0
    });
    card.rig.close();
    let mut frames = Capture::open(&output).unwrap();
    for (_, data) in &packets {
        let mut got = Vec::new();
        while got.len() < data.len() {
            let frame = frames.next().unwrap().unwrap().data;
            assert!(frame.len() <= 1522);
            got.extend(dissect(&frame).payload);
        }
        assert!(got == *data);
    }
    assert!(frames.next().is_none());
}

#[test]
fn a_small_packet_costs_a_batch_no_more_room_than_before() {
    // A wire takes 16 batches of 43 packets of 1514 bytes, whether there may be large ones or not; then the ring fills up.
    const BATCH: usize = 43;
    const RING: usize = 256;
    let lab = Lab::new();
    let all: Vec<_> = (0..BATCH).map(|i| frame(i, 1514)).collect();
    for features in [
        "",
        ",features=+VERSION_1-HOST_TSO4-HOST_TSO6-HOST_ECN-HOST_USO",
    ] {
        let a = lab.open(&format!("sim:net,port=wire:a{features}"));
        let b = lab.open("sim:net,port=wire:a");
        b.negotiate(with(&b, false, false, true, false));
        let _none = b.queue(0, 8);
        b.run();
        a.negotiate(with(&a, false, false, true, false));
        let mut tx = Tx::new(&a, a.queue(1, RING as u16), 2048);
        a.run();
        let mut sent = 0;
        until("the filling of the wire", || {
            tx.reap();
            // Whole batches alone: what the device takes of them is whole, too.
            if tx.in_flight() + BATCH <= RING {
                sent += tx.send(&all);
            }
            sent >= 16 * BATCH + RING / BATCH * BATCH
        });
        a.close();
        b.close();
    }
}
