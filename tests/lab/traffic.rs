//! Traffic over VFIO by the commands that make some: `bench`, `replay`, `soak`, on a card that receives what it sends and on
//! a disk.

use std::path::Path;

use serde_json::{Value, json};
use vdpa::sim::pcap::{CaptureWriter, TimeResolution, Timestamp};

use crate::transcript::{Step, Transcript};

/// Frames of the capture.
const FRAMES: u64 = 200;
/// Packets, or requests, of a soak: six phases.
const PACKETS: u64 = 2400;

/// Before the check and after it: what has stayed on the way is a fault for whoever comes next, but for the soak, which
/// tells its own packets from others.
pub(crate) const SCRIPTS: [&str; 2] = [
    r#"
disk=$(behind 07)
step "bind disk" ./vdpactl vfio bind "$disk" --json
for ring in split packed; do
  step "bench $ring" ./vdpactl bench "vfio:$card" --ring $ring --batch 16 --seconds 0.5 --json
  step "bench disk $ring" ./vdpactl bench "vfio:$disk" --ring $ring --batch 16 --seconds 0.5 --json
  step "replay $ring" ./vdpactl replay "vfio:$card" in.pcap out.pcap --ring $ring --json
  step "same $ring" cmp in.pcap out.pcap
done
"#,
    r#"
step "soak" ./vdpactl soak "vfio:$card" --packets 2400 --every 50 --seed 1 --json
step "soak disk" ./vdpactl soak "vfio:$disk" --packets 2400 --every 50 --seed 1 --json
"#,
];

/// A capture of frames of all lengths, none like another.
pub(crate) fn record(path: &Path) {
    let mut capture = CaptureWriter::create(path, TimeResolution::Micros).unwrap();
    for number in 0..FRAMES {
        // To the card, from nobody, of a type for experiments.
        let mut frame = [&[2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 9, 0x88, 0xb5][..]].concat();
        frame.extend(number.to_be_bytes());
        let len = 60 + number as usize * 37 % 1455;
        frame.extend((frame.len()..len).map(|at| (at as u64 ^ number) as u8));
        capture.write(Timestamp::default(), &frame).unwrap();
    }
    capture.finish().unwrap();
}

/// What the commands said: everything came back, as it was.
#[track_caller]
pub(crate) fn went_well(transcript: &Transcript) {
    for ring in ["split", "packed"] {
        for device in ["bench", "bench disk"] {
            let said = transcript.step(&format!("{device} {ring}")).well().json();
            assert_eq!(said["ring"], ring, "{said}");
            assert_eq!(said["packets"], said["verified"], "{said}");
            assert!(said["packets"].as_u64() > Some(0), "{said}");
            assert!(said["latency_ns"]["p50"].as_u64() > Some(0), "{said}");
        }
        let said = transcript.step(&format!("replay {ring}")).well().json();
        assert_eq!(said["sent"], FRAMES, "{said}");
        assert_eq!(said["received"], FRAMES, "{said}");
        assert_eq!(said["dropped"], json!({}), "{said}");
        transcript.step(&format!("same {ring}")).well();
    }
    // QEMU's disk goes on with the requests of a queue that is reset, so there only the whole device is.
    soaked(transcript.step("soak"), &["queue_reset", "reset"]);
    soaked(transcript.step("soak disk"), &["reset"]);
}

#[track_caller]
fn soaked(step: &Step, operations: &[&str]) {
    let lines = step.well().out.lines();
    let mut objects = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = objects.next_back().unwrap();
    assert_eq!(said["event"], "result", "{said}");
    assert_eq!(said["packets"], PACKETS, "{said}");
    for nothing in ["lost", "duplicated", "altered"] {
        assert_eq!(said[nothing], 0, "{said}");
    }
    assert_eq!(said["failure"], Value::Null, "{said}");
    assert!(said["received"].as_u64() > Some(0), "{said}");
    let done = said["operations"].as_object().unwrap();
    let done: Vec<&String> = done.keys().collect();
    assert_eq!(done, operations, "{said}");
}
