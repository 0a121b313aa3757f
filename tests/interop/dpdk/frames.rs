//! Frames that can be told apart, and the captures they are kept in.

use std::fs;
use std::path::Path;

/// Source and destination of what `flow` sends: a card's address that is somebody else's.
const TO: [u8; 6] = [0x52, 0x54, 0, 0, 0x0d, 1];
const FROM: [u8; 6] = [0x52, 0x54, 0, 0, 0x0d, 2];
/// Local experimental, IEEE 802.
const TYPE: [u8; 2] = [0x88, 0xb5];
/// Addresses and type.
const HEADER: usize = 14;

/// Lengths from the shortest frame to the longest without tags, and what lies around a page's and a cache line's parts.
const LENGTHS: [usize; 9] = [60, 1514, 61, 64, 700, 128, 1024, 383, 385];

/// `count` frames of one flow, each of its own bytes.
pub(crate) fn frames(flow: u8, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| frame(flow, at)).collect()
}

fn frame(flow: u8, at: usize) -> Vec<u8> {
    let mut bytes = [&TO[..], &FROM, &TYPE, &[flow], &(at as u32).to_be_bytes()].concat();
    let seed = (u64::from(flow) << 40 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = LENGTHS[at % LENGTHS.len()];
    for place in bytes.len()..len {
        let mixed = (seed ^ place as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
        bytes.push((mixed >> 56) as u8);
    }
    bytes
}

/// The same frame with its addresses changed for each other.
pub(crate) fn swapped(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// The same frame as `testpmd` readdresses it: from the port's address, to the peer's of that port.
pub(crate) fn readdressed(frame: &[u8], from: [u8; 6], port: u8) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, port], &from[..], &frame[12..]].concat()
}

/// `got` is what was sent, byte for byte, in its order, and nothing else.
#[track_caller]
pub(crate) fn same(what: &str, got: &[Vec<u8>], sent: &[Vec<u8>]) {
    for (at, (got, sent)) in got.iter().zip(sent).enumerate() {
        if got != sent {
            let differs = got.iter().zip(sent).position(|(a, b)| a != b);
            let number = |frame: &[u8]| frame.get(HEADER..HEADER + 5).map(<[u8]>::to_vec);
            panic!(
                "{what}: frame {at} of {} bytes is not the one of {} bytes that was sent: they differ from byte \
                 {differs:?} on, flow and number are {:?} and not {:?}",
                got.len(),
                sent.len(),
                number(got),
                number(sent)
            );
        }
    }
    assert_eq!(got.len(), sent.len(), "{what}: frames");
}

/// What stands at the head of a capture: microseconds, version 2.4, Ethernet.
const CAPTURE: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 0xffff, 1];

/// Writes a capture.
pub(crate) fn write(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = CAPTURE.map(u32::to_le_bytes).concat();
    for frame in frames {
        let len = frame.len() as u32;
        bytes.extend([0, 0, len, len].map(u32::to_le_bytes).concat());
        bytes.extend(frame);
    }
    fs::write(path, bytes).unwrap();
}

/// Reads a capture; a record that is not whole yet is left out.
pub(crate) fn read(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut rest = bytes.get(24..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some((head, after)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some((frame, after)) = after.split_at_checked(len) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}
