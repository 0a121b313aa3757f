use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{setsockopt, sockopt::SndBuf};

use super::*;
use crate::frames::FrameBatch;
use crate::port::Room;

/// A tap whose interface is a socket, which takes and gives whole packets as well and has little room.
fn tap() -> (TapPort, UnixDatagram, Arc<Presence>) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    setsockopt(&ours, SndBuf, &8192).unwrap();
    let presence = Presence::new(true);
    presence.set_live(true);
    let tap = Tap {
        name: "socket".to_owned(),
        presence: Arc::clone(&presence),
        usage: Mutex::new(Usage {
            attached: 1,
            epoch: None,
        }),
        queues: Box::new([Arc::new(ours.into())]),
        kind: Queues::Single,
        datagrams: false,
        open: AtomicBool::new(false),
        gone: AtomicBool::new(false),
        tally: Tally::new(TAP_COUNTERS, 1),
    };
    let port = TapPort {
        tap: Arc::new(tap),
        longest: 1514,
    };
    (port, theirs, presence)
}

fn batch(frames: std::ops::Range<u8>) -> Box<FrameBatch> {
    let mut batch = FrameBatch::new(1514);
    for i in frames {
        assert!(batch.push_frame(&[i; 60]));
    }
    batch
}

fn received(lane: &mut dyn Lane) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    lane.receive(&mut |batch| {
        all.extend(batch.packets().map(|(_, frame)| frame.to_vec()));
        batch.clear();
    });
    all
}

#[test]
fn what_the_interface_has_no_room_for_waits_in_its_order() {
    let (port, theirs, _) = tap();
    let mut lane = port.lane(0);
    let mut sent = 0_u8;
    while lane.room() == Room::Yes {
        assert!(sent < 200, "a socket with so much room shows nothing");
        assert!(lane.send(batch(sent..sent + 5)).is_empty());
        sent += 5;
    }
    assert_eq!(lane.room(), Room::Full);
    let mut got = Vec::new();
    let mut packet = [0; 100];
    for _ in 0..2 {
        while let Ok(len) = theirs.recv(&mut packet) {
            assert_eq!((len, &packet[..12]), (72, &[0; 12][..]));
            got.push(packet[12]);
        }
        assert_eq!(lane.room(), Room::Yes, "there is room again");
    }
    assert!(got.iter().copied().eq(0..sent), "{got:?}");
    let mut waits = 0;
    port.stats(&mut |name, value| {
        if name == "port.tx_waits" {
            waits = value;
        }
    });
    assert!(waits >= 1);
}

#[test]
fn what_was_given_before_the_driver_was_ready_is_thrown_away() {
    let (port, theirs, presence) = tap();
    let mut lane = port.lane(0);
    let packet = |i: u8| {
        let mut packet = [i; 80];
        packet[..12].fill(0);
        packet
    };
    theirs.send(&packet(1)).unwrap();
    assert_eq!(received(&mut *lane), [[0; 0]; 0], "before it is ready");
    port.changed();
    assert_eq!(received(&mut *lane), [[0; 0]; 0], "from before");
    theirs.send(&packet(2)).unwrap();
    assert_eq!(received(&mut *lane), [[2; 68]]);
    // Read, and left by a driver without buffers, which then resets.
    theirs.send(&packet(3)).unwrap();
    lane.receive(&mut |_| {});
    presence.set_live(false);
    port.changed();
    theirs.send(&packet(4)).unwrap();
    presence.set_live(true);
    port.changed();
    assert_eq!(received(&mut *lane), [[0; 0]; 0], "from before the reset");
    theirs.send(&packet(5)).unwrap();
    assert_eq!(received(&mut *lane), [[5; 68]]);
}

#[test]
fn a_packet_that_is_no_whole_frame_is_counted_and_dropped() {
    let (port, theirs, _) = tap();
    let mut lane = port.lane(0);
    port.changed();
    for len in [0, 11, 12, 25] {
        theirs.send(&vec![7; len]).unwrap();
    }
    // A type of segmentation that there is not.
    theirs.send(&[7; 26]).unwrap();
    // The number of buffers is not the kernel's to say, nor does what is not asked for mean anything.
    let mut whole = [7; 26];
    whole[..2].copy_from_slice(&[2, 0]);
    theirs.send(&whole).unwrap();
    let mut headers = Vec::new();
    lane.receive(&mut |batch| {
        headers.push(batch.first().unwrap()[..12].to_vec());
        batch.clear();
    });
    assert_eq!(headers, [[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]);
    let mut malformed = 0;
    port.stats(&mut |name, value| {
        if name == "port.dropped.rx_malformed" {
            malformed = value;
        }
    });
    assert_eq!(malformed, 5);
}

#[test]
fn names_that_no_interface_has_are_refused() {
    for name in [
        "",
        ".",
        "..",
        "a b",
        "a/b",
        "a:b",
        "tap%d",
        "a\n",
        "a234567890123456",
    ] {
        assert!(check_name(name).is_err(), "{name}");
    }
    for name in ["tap0", "a23456789012345", "ä-tap.1"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
}

#[test]
fn what_was_read_moves_along_and_does_not_come_to_a_pair_that_is_not_used_any_more() {
    let (port, theirs, presence) = tap();
    port.changed();
    let mut packet = [7; 80];
    packet[..12].fill(0);
    let shown = |lane: &mut TapLane| {
        let mut all = Vec::new();
        lane.held(&mut |batch| all.extend(batch.packets().map(|(_, frame)| frame[0])));
        all
    };
    let mut lane = TapLane::new(&port.tap, 0, 1514);
    for _ in 0..2 {
        theirs.send(&packet).unwrap();
    }
    // One buffer.
    lane.receive(&mut |batch| batch.pop());
    assert_eq!(shown(&mut lane), [7]);
    assert_eq!(received(&mut lane), [[7; 68]], "it goes on here");
    assert!(shown(&mut lane).is_empty());
    theirs.send(&packet).unwrap();
    lane.receive(&mut |_| {});
    assert_eq!(shown(&mut lane), [7]);
    // As pair 1, which was used with two pairs.
    lane.pair = 1;
    assert_eq!(received(&mut lane), [[0; 0]; 0]);
    presence.set_active(2);
    assert_eq!(received(&mut lane), [[0; 0]; 0], "it was for before");
    let mut unused = 0;
    port.stats(&mut |name, value| {
        if name == "port.dropped.rx_unused" {
            unused = value;
        }
    });
    assert_eq!(unused, 1);
}

#[test]
fn datagrams_are_segmented_for_a_kernel_that_does_not_do_it() {
    use crate::offload::{self, Header, TRANSMIT, check, sample};
    let (port, theirs, _) = tap();
    let mut lane = TapLane::new(&port.tap, 0, 65_600);
    let payload = sample::payload(1, 60_000);
    let packet = sample::UDP4.packet(&payload, 300);
    let header = check(Header::from_bytes(&packet.header), &packet.frame, TRANSMIT).unwrap();
    let mut batch = FrameBatch::new(65_600);
    assert!(batch.push_packet(header, &packet.frame) && batch.push_frame(&[7; 60]));
    assert_eq!(lane.room(), Room::Yes);
    assert!(lane.send(batch).is_empty());
    let (mut bytes, mut last) = (Vec::new(), Vec::new());
    let mut some = [0; 2000];
    // More than there is room for at once.
    let (mut waits, mut news) = (0, true);
    while std::mem::take(&mut news) {
        waits += usize::from(lane.room() == Room::Full);
        while let Ok(len) = theirs.recv(&mut some) {
            news = true;
            let told = Header::of(&some);
            let frame = &mut some[12..len];
            if frame.len() == 60 {
                last = frame.to_vec();
                continue;
            }
            assert!(told.needs_csum() && !told.is_gso());
            assert!(offload::complete(frame, told.csum_start, told.csum_offset));
            assert_eq!(offload::verify(frame), offload::Validity::Valid);
            bytes.extend(sample::dissect(frame).payload);
        }
    }
    assert!(bytes == payload && last == [7; 60]);
    assert!(waits > 0, "a socket with so much room shows nothing");
}
