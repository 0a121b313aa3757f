//! Who sends when, pass by pass: nothing else runs but the device that is shared.

use std::collections::HashMap;
use std::sync::Arc;

use vdpa_core::config::Mac;
use vdpa_core::{Device, Registry};
use vdpa_sim::SimMgmt;
use vdpa_sim::frames::FrameBatch;
use vdpa_sim::port::Presence;

use super::super::Vlan;
use super::super::end::End;
use super::*;

const LONGEST: usize = 66_000;

/// A worker without a thread, of the device that `spec` names.
fn worker(registry: &Registry, spec: &str) -> (Arc<Core>, Worker) {
    let device: Device = registry.open(spec).unwrap();
    let events = device.events().unwrap();
    let core = Arc::new(Core::new("device", true).unwrap());
    let hall = Hall::new(Arc::clone(&core), LONGEST);
    let line = Line::up(device).unwrap();
    let worker = Worker::new(Arc::clone(&core), hall, line, events);
    worker.watch().unwrap();
    (core, worker)
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add(Arc::new(SimMgmt::new()));
    registry
}

fn mac(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, number]
}

fn end(core: &Core, number: u8) -> Arc<End> {
    let end = Arc::new(End::new(
        number.into(),
        format!("slice{number}"),
        Vlan::None.membership(),
        Mac::new(mac(number)),
        true,
        Presence::new(true),
        1,
    ));
    core.seat(&end);
    end
}

/// A frame to somebody on the wire.
fn frame(from: u8, len: usize) -> Vec<u8> {
    let mut frame = [&[0x02, 9, 9, 9, 9, 9][..], &mac(from), &[0x88, 0xb5]].concat();
    frame.resize(len, from);
    frame
}

/// Fills what a slice has to send, with this frame.
fn fill(end: &End, frame: &[u8]) {
    fill_with(end, Header::NONE, frame);
}

fn fill_with(end: &End, header: Header, frame: &[u8]) {
    let sent = &end.ways[0].sent;
    while sent.has_room() {
        let mut batch = sent.spare().unwrap_or_else(|| FrameBatch::new(LONGEST));
        while batch.push_packet(header, frame) {}
        sent.put(batch).unwrap();
    }
}

fn sent(end: &End, len: usize) -> u64 {
    end.counters.value(Count::ToWire as usize) * len as u64
}

/// Slices with something to send all the while, of frames of any length: how far they are apart at any time.
fn shares(spec: &str, lens: &[usize]) {
    let registry = registry();
    let (core, mut worker) = worker(&registry, spec);
    let ends: Vec<_> = (1..)
        .zip(lens)
        .map(|(number, _)| end(&core, number))
        .collect();
    worker.hall.refresh();
    let bound = SHARE as u64 + *lens.iter().max().unwrap() as u64;
    let mut last = 0;
    while last < 40 * bound {
        for ((end, len), number) in ends.iter().zip(lens).zip(1..) {
            fill(end, &frame(number, *len));
        }
        worker.pass().unwrap();
        let all: Vec<_> = ends
            .iter()
            .zip(lens)
            .map(|(end, len)| sent(end, *len))
            .collect();
        let (least, most) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
        assert!(most - least <= 2 * bound, "{all:?}");
        last = least;
    }
}

#[test]
fn slices_that_flood_send_as_many_bytes_as_each_other_whatever_their_frames_are() {
    // Sixteen, from the smallest frames to the largest. Whether the wire is full at times is the device's to say.
    let lens: Vec<_> = (0..16).map(|number| 60 + number * 96).collect();
    shares("sim:net,port=null,queue_size=16", &lens);
    shares("sim:net,port=null", &[60, 1514]);
}

/// Bytes of the headers of [`segmented`].
const HEADERS: usize = 14 + 20 + 20;

/// A TCP packet to somebody on the wire, to be cut into segments of `size` bytes of payload.
fn segmented(from: u8, payload: usize, size: u16) -> (Header, Vec<u8>) {
    let mut packet = frame(from, HEADERS + payload);
    packet[12..HEADERS].fill(0);
    packet[12..14].copy_from_slice(&[0x08, 0x00]);
    packet[14] = 0x45;
    let len = u16::try_from(40 + payload).unwrap();
    packet[16..18].copy_from_slice(&len.to_be_bytes());
    (packet[22], packet[23]) = (64, 6);
    packet[46] = 0x50;
    let header = Header {
        flags: Header::NEEDS_CSUM,
        gso_type: Header::GSO_TCPV4,
        hdr_len: HEADERS as u16,
        gso_size: size,
        csum_start: 34,
        csum_offset: 16,
    };
    (header, packet)
}

#[test]
fn a_packet_that_is_cut_into_small_segments_takes_no_more_of_the_wire_than_plain_frames() {
    const PAYLOAD: usize = 65_000;
    for spec in ["sim:net,port=null,queue_size=16", "sim:net,port=null"] {
        for size in [8, 1446] {
            let registry = registry();
            let (core, mut worker) = worker(&registry, spec);
            let (cut, plain) = (end(&core, 1), end(&core, 2));
            let (header, packet) = segmented(1, PAYLOAD, size);
            let segment = HEADERS + usize::from(size);
            let segments = PAYLOAD.div_ceil(size.into());
            let whole = segments * HEADERS + PAYLOAD;
            worker.hall.refresh();
            let bound = SHARE as u64 + 1514;
            let (mut ours, mut theirs) = (0, 0);
            while theirs < 40 * bound || ours < whole as u64 {
                fill_with(&cut, header, &packet);
                fill(&plain, &frame(2, 1514));
                worker.pass().unwrap();
                let open = worker.hall.members[0].open[0].as_ref();
                let part = open.map_or(0, |open| open.cut as usize * segment) as u64;
                (ours, theirs) = (sent(&cut, whole) + part, sent(&plain, 1514));
                let apart = ours.abs_diff(theirs);
                assert!(apart <= 2 * bound, "{size}: {ours} and {theirs} bytes");
            }
        }
    }
}

#[test]
fn one_that_sends_little_gets_it_through_between_those_that_flood() {
    let registry = registry();
    let (core, mut worker) = worker(&registry, "sim:net,port=null,queue_size=16");
    let floods: Vec<_> = (1..=8).map(|number| end(&core, number)).collect();
    let modest = end(&core, 99);
    worker.hall.refresh();
    let mut before: HashMap<u32, u64> = HashMap::new();
    for round in 1..=100 {
        let mut batch = FrameBatch::new(LONGEST);
        assert!(batch.push_frame(&frame(99, 1000)));
        modest.ways[0].sent.put(batch).unwrap();
        while modest.counters.value(Count::ToWire as usize) < round {
            for (end, number) in floods.iter().zip(1..) {
                fill(end, &frame(number, 1514));
            }
            worker.pass().unwrap();
        }
        // Since its last frame nobody sent more than a pass of theirs, and what waited for the wire.
        for flood in &floods {
            let now = sent(flood, 1514);
            let then = before.insert(flood.number, now).unwrap_or(0);
            let most = (ROUNDS as u64 + 4) * (SHARE as u64 + 1514);
            assert!(now - then <= most, "{} bytes passed it", now - then);
        }
    }
}

#[test]
fn what_a_slice_did_not_use_it_does_not_save_and_what_it_took_too_much_it_owes() {
    let registry = registry();
    let (core, mut worker) = worker(&registry, "sim:net,port=null");
    let (one, two) = (end(&core, 1), end(&core, 2));
    worker.hall.refresh();
    for _ in 0..50 {
        assert!(!worker.pass().unwrap(), "there is nothing");
    }
    assert!(worker.hall.members.iter().all(|member| member.credit == 0));
    // What is too long for the wire costs as much as what is sent.
    let mut batch = FrameBatch::new(LONGEST);
    assert!(batch.push_frame(&frame(1, 60_000)));
    one.ways[0].sent.put(batch).unwrap();
    assert!(worker.round().unwrap());
    assert_eq!(worker.hall.members[0].credit, SHARE - 60_000);
    assert_eq!(worker.hall.members[1].credit, 0);
    let rounds = (1..).find(|_| worker.hall.members[0].credit == 0 || !worker.round().unwrap());
    assert!(rounds.unwrap() >= 60_000 / SHARE - 1);
    let unsent = |end: &End| end.counters.value(Count::Unsent as usize);
    assert_eq!((unsent(&one), unsent(&two)), (1, 0));
}
