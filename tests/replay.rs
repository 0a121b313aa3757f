//! The main job: the shipped capture through a simulated card, and back byte for byte.
//!
//! Captures are read and written here by code of this file's own, so that a fault of the program's reader does not
//! excuse itself.
#![cfg(feature = "cli")]

mod vdpactl;

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use vdpactl::Run;

const CAPTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/capture/traffic.pcap");

/// A packet: seconds, fraction as it stands in the file, bytes.
type Packet = (u32, u32, Vec<u8>);

/// How a file is laid out.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Layout {
    big_endian: bool,
    nanos: bool,
}

const PLAIN: Layout = Layout {
    big_endian: false,
    nanos: false,
};

impl Layout {
    fn word(self, at: &[u8]) -> u32 {
        let bytes = at[..4].try_into().unwrap();
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    fn bytes(self, word: u32) -> [u8; 4] {
        if self.big_endian {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    }
}

fn read(path: &Path) -> (Layout, Vec<Packet>) {
    let file = fs::read(path).unwrap();
    let layout = match file[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] => PLAIN,
        [0x4d, 0x3c, 0xb2, 0xa1] => Layout {
            nanos: true,
            ..PLAIN
        },
        [0xa1, 0xb2, 0xc3, 0xd4] => Layout {
            big_endian: true,
            ..PLAIN
        },
        [0xa1, 0xb2, 0x3c, 0x4d] => Layout {
            big_endian: true,
            nanos: true,
        },
        _ => panic!("no classic pcap"),
    };
    assert_eq!(layout.word(&file[20..]), 1, "LINKTYPE_ETHERNET");
    let mut rest = &file[24..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let [secs, fraction, stored, original] = [0, 4, 8, 12].map(|at| layout.word(&rest[at..]));
        assert_eq!(stored, original);
        let end = 16 + stored as usize;
        packets.push((secs, fraction, rest[16..end].to_vec()));
        rest = &rest[end..];
    }
    (layout, packets)
}

fn write(path: &Path, layout: Layout, packets: &[Packet]) {
    let magic = if layout.nanos {
        0xa1b2_3c4d
    } else {
        0xa1b2_c3d4
    };
    let version = if layout.big_endian {
        0x0002_0004
    } else {
        0x0004_0002
    };
    let mut file: Vec<u8> = [magic, version, 0, 0, 0x4_0000, 1]
        .into_iter()
        .flat_map(|word| layout.bytes(word))
        .collect();
    for (secs, fraction, bytes) in packets {
        let len = u32::try_from(bytes.len()).unwrap();
        let header = [*secs, *fraction, len, len].map(|word| layout.bytes(word));
        file.extend(header.as_flattened());
        file.extend(bytes);
    }
    fs::write(path, file).unwrap();
}

/// What came of a replay.
struct Replay {
    run: Run,
    object: Map<String, Value>,
    layout: Layout,
    out: Vec<Packet>,
}

fn replay(spec: &str, input: &Path, ring: &str) -> Replay {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.pcap");
    let run = vdpactl::run([
        "replay".as_ref(),
        spec.as_ref(),
        input.as_os_str(),
        out.as_os_str(),
        "--json".as_ref(),
        "--ring".as_ref(),
        ring.as_ref(),
    ]);
    assert!(run.code < 2, "{run:?}");
    let object = run.object();
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "OUT alone");
    let (layout, out) = read(&out);
    Replay {
        run,
        object,
        layout,
        out,
    }
}

/// Everything comes back, in order, with its time.
#[track_caller]
fn is_whole(spec: &str, input: &Path, ring: &str) {
    let (layout, packets) = read(input);
    let done = replay(spec, input, ring);
    assert_eq!(done.run.code, 0, "{spec}, {ring}: {:?}", done.run);
    assert_eq!(done.object["ring"], ring);
    assert_eq!(done.object["sent"], packets.len());
    assert_eq!(done.object["received"], packets.len());
    assert_eq!(done.object["dropped"], json!({}));
    assert_eq!(done.layout.nanos, layout.nanos, "the resolution is kept");
    assert!(done.out == packets, "{spec}, {ring}: OUT is not IN");
}

#[test]
fn the_shipped_capture_is_as_described() {
    let (layout, packets) = read(Path::new(CAPTURE));
    assert_eq!(layout, PLAIN);
    assert_eq!(packets.len(), 491);
    assert_eq!(
        packets.iter().map(|packet| packet.2.len()).max(),
        Some(9014)
    );
}

#[test]
fn every_ring_gives_back_what_was_sent() {
    for ring in ["split", "packed", "split-in-order", "packed-in-order"] {
        is_whole("sim:net,mtu=9000", Path::new(CAPTURE), ring);
    }
}

#[test]
fn small_rings_and_sizes_that_are_no_power_of_two_do_too() {
    for ring in ["split", "packed", "split-in-order", "packed-in-order"] {
        is_whole("sim:net,mtu=9000,queue_size=1", Path::new(CAPTURE), ring);
        is_whole("sim:net,mtu=9000,queue_size=2", Path::new(CAPTURE), ring);
        is_whole("sim:net,mtu=9000,queue_size=16", Path::new(CAPTURE), ring);
    }
    is_whole(
        "sim:net,mtu=9000,queue_size=7",
        Path::new(CAPTURE),
        "packed",
    );
}

#[test]
fn one_buffer_a_frame_does_too() {
    for ring in ["split", "packed"] {
        is_whole(
            "sim:net,mtu=9000,features=-MRG_RXBUF",
            Path::new(CAPTURE),
            ring,
        );
    }
}

#[test]
fn fewer_features_do_too() {
    for features in [
        "-EVENT_IDX",
        "-EVENT_IDX-INDIRECT_DESC-MRG_RXBUF",
        "-CTRL_VQ",
        "-CTRL_RX",
        "VERSION_1+MTU",
    ] {
        for ring in ["split", "packed"] {
            let all = features.starts_with('V');
            let features = match (all, ring) {
                (true, "packed") => format!("{features}+RING_PACKED"),
                _ => features.to_owned(),
            };
            is_whole(
                &format!("sim:net,mtu=9000,features={features}"),
                Path::new(CAPTURE),
                ring,
            );
        }
    }
}

#[test]
fn a_card_with_several_pairs_does_too() {
    for ring in ["split", "packed"] {
        is_whole("sim:net,mtu=9000,queue_pairs=4", Path::new(CAPTURE), ring);
    }
}

#[test]
fn byte_order_and_resolution_of_the_input_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (_, packets) = read(Path::new(CAPTURE));
    for (big_endian, nanos) in [(false, true), (true, false), (true, true)] {
        let layout = Layout { big_endian, nanos };
        // Fractions that microseconds cannot tell.
        let scale = |fraction: u32| if nanos { fraction * 1000 + 7 } else { fraction };
        let packets: Vec<Packet> = packets
            .iter()
            .map(|(secs, fraction, bytes)| (*secs, scale(*fraction), bytes.clone()))
            .collect();
        let input = dir.path().join(format!("{big_endian}-{nanos}.pcap"));
        write(&input, layout, &packets);
        is_whole("sim:net,mtu=9000", &input, "packed");
    }
}

#[test]
fn an_empty_capture_comes_back_empty() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("none.pcap");
    write(&input, PLAIN, &[]);
    is_whole("sim:net", &input, "split");
}

#[test]
fn frames_that_repeat_keep_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("same.pcap");
    let packets: Vec<Packet> = (0..1000).map(|at| (at / 100, at, vec![0xff; 60])).collect();
    write(&input, PLAIN, &packets);
    is_whole("sim:net", &input, "split");
}

#[test]
fn frames_over_the_mtu_are_left_out_and_counted() {
    let (_, packets) = read(Path::new(CAPTURE));
    // A tag is no part of what the MTU bounds.
    let fits = |packet: &&Packet| {
        let tag = if packet.2[12..14] == [0x81, 0] { 4 } else { 0 };
        packet.2.len() <= 1514 + tag
    };
    let fitting: Vec<Packet> = packets.iter().filter(fits).cloned().collect();
    let over = packets.len() - fitting.len();
    assert!(over > 0 && fitting.iter().any(|packet| packet.2.len() == 1518));
    for ring in ["split", "packed"] {
        let done = replay("sim:net,mtu=1500", Path::new(CAPTURE), ring);
        assert_eq!(done.run.code, 1, "{:?}", done.run);
        assert_eq!(done.object["sent"], fitting.len());
        assert_eq!(done.object["received"], fitting.len());
        assert_eq!(done.object["dropped"], json!({ "over_mtu": over }));
        assert!(done.run.stderr.contains("over_mtu"), "{:?}", done.run);
        assert!(done.run.stderr.contains("mtu=9000"), "{:?}", done.run);
        assert!(done.out == fitting);
    }
}

#[test]
fn frames_that_do_not_come_back_are_counted() {
    let done = replay("sim:net,mtu=9000,port=null", Path::new(CAPTURE), "split");
    assert_eq!(done.run.code, 1, "{:?}", done.run);
    assert_eq!(done.object["sent"], 491);
    assert_eq!(done.object["received"], 0);
    assert_eq!(done.object["dropped"], json!({ "not_returned": 491 }));
    assert_eq!(done.out, []);
}

#[test]
fn frames_too_short_for_a_header_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("short.pcap");
    let packets = [(1, 0, vec![1; 13]), (2, 0, vec![2; 14]), (3, 0, vec![])];
    write(&input, PLAIN, &packets);
    let done = replay("sim:net", &input, "packed");
    assert_eq!(done.run.code, 1, "{:?}", done.run);
    assert_eq!(done.object["dropped"], json!({ "too_short": 2 }));
    assert_eq!(done.out, packets[1..2]);
}
