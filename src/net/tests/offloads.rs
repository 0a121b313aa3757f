//! Work that is left to the device, and what it leaves to the driver.

use std::time::Duration;

use vdpa_core::bits::{self, net};
use vdpa_core::{ErrorKind, Features};
use vdpa_mem::Deadline;

use super::super::*;

/// Bytes of headers: Ethernet, IPv4, TCP.
pub(super) const HEADERS: usize = 54;

/// A TCP segment over IPv4 with `len` bytes of payload, its checksum begun.
pub(super) fn segment(len: usize) -> Vec<u8> {
    let sum = |bytes: &[u8], begin: u32| {
        let words = bytes.chunks_exact(2);
        let sum = words.fold(begin, |sum, word| {
            sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
        });
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    };
    let mut frame = vec![0; HEADERS + len];
    frame[..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame[16..18].copy_from_slice(&((40 + len) as u16).to_be_bytes());
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let checksum = !sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[34..48].copy_from_slice(&[0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10]);
    frame[48..50].copy_from_slice(&[0xff, 0xff]);
    let begun = sum(&frame[26..34], 6 + 20 + len as u32);
    frame[50..52].copy_from_slice(&begun.to_be_bytes());
    let bytes = frame[HEADERS..].iter_mut().enumerate();
    bytes.for_each(|(at, byte)| *byte = ((at * 7) ^ (at >> 8)) as u8);
    frame
}

pub(super) fn large() -> Header {
    Header {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        segments: Some(Segments {
            of: Segmented::TcpV4,
            size: 1400,
            header_len: HEADERS as u16,
            ecn: false,
        }),
    }
}

fn started(setup: &Setup) -> NetDriver {
    NetDriver::start(crate::open("sim:net").unwrap(), setup).unwrap()
}

fn received(driver: &mut NetDriver, count: usize) -> Vec<(Header, Vec<u8>)> {
    let by = Deadline::after(Duration::from_secs(20));
    let mut got = Vec::new();
    while got.len() < count {
        assert!(driver.wait(0, by).unwrap(), "{} of {count}", got.len());
        let each = |frame: &Frame<'_>| {
            let mut bytes = Vec::new();
            frame.copy_to(&mut bytes);
            got.push((frame.header(), bytes));
        };
        driver.receive(0, each).unwrap();
    }
    got
}

#[test]
pub(super) fn large_frames_of_every_size_come_back_with_their_header() {
    for ring in Ring::ALL {
        for decline in [
            Features::NONE,
            net::MRG_RXBUF.mask(),
            bits::INDIRECT_DESC.mask(),
        ] {
            let setup = Setup {
                ring,
                decline,
                ..Setup::asking(OFFLOADS)
            };
            let mut driver = started(&setup);
            for len in (1401..65_495).step_by(6401).chain([65_495]) {
                let frame = segment(len);
                assert!(driver.push_with(0, &large(), &frame).unwrap());
                driver.publish(0).unwrap();
                let [(header, bytes)] = &received(&mut driver, 1)[..] else {
                    panic!("more than one");
                };
                assert!(*bytes == frame, "{ring}, {len}");
                assert_eq!(*header, large(), "{ring}, {len}");
            }
            driver.stop().unwrap();
        }
    }
}

#[test]
fn a_driver_that_takes_no_large_frames_gets_segments_with_whole_checksums() {
    let mut driver = started(&Setup::asking(TRANSMIT_OFFLOADS));
    let frame = segment(4000);
    assert!(driver.push_with(0, &large(), &frame).unwrap());
    driver.publish(0).unwrap();
    let mut payload = Vec::new();
    for (header, bytes) in received(&mut driver, 3) {
        assert_eq!(header, Header::NONE);
        // The pseudo header and all that follows, complemented, is nothing.
        let mut sum: u32 = 6 + (bytes.len() - 34) as u32;
        for word in bytes[26..].chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        }
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        assert_eq!(sum, 0xffff);
        payload.extend_from_slice(&bytes[HEADERS..]);
    }
    assert_eq!(payload, frame[HEADERS..]);
}

#[test]
fn plain_frames_after_large_ones_are_plain() {
    let mut driver = started(&Setup::asking(OFFLOADS));
    driver.push_with(0, &large(), &segment(3000)).unwrap();
    driver.send(0, [segment(100)]).unwrap();
    let headers: Vec<_> = received(&mut driver, 2)
        .into_iter()
        .map(|(h, _)| h)
        .collect();
    assert_eq!(headers, [large(), Header::NONE]);
    // The buffer of the large one is used again.
    driver.send(0, [segment(100), segment(100)]).unwrap();
    let plain = received(&mut driver, 2);
    assert!(plain.iter().all(|(header, _)| *header == Header::NONE));
}

#[test]
fn a_queue_full_of_large_frames_says_so_and_loses_none() {
    for ring in [Ring::Split, Ring::Packed] {
        let setup = Setup {
            ring,
            queue_size: 32,
            ..Setup::asking(OFFLOADS)
        };
        // A device that gives the driver time to post: what waits longer than it polls is segmented, as it may be where
        // the driver does not get its turn.
        let device = crate::open("sim:net,poll_us=1000000").unwrap();
        let mut driver = NetDriver::start(device, &setup).unwrap();
        let frame = segment(60_000);
        let payload = &frame[HEADERS..];
        let (mut sent, mut full, mut whole) = (0, 0, 0);
        let mut got = Vec::new();
        while got.len() < 40 * payload.len() {
            // More than there is room for, at some time.
            while sent < 40 {
                if !driver.push_with(0, &large(), &frame).unwrap() {
                    full += 1;
                    break;
                }
                sent += 1;
            }
            driver.publish(0).unwrap();
            for (header, bytes) in received(&mut driver, 1) {
                match header == large() {
                    true => whole += usize::from(bytes == frame),
                    false => assert_eq!(header.segments, None),
                }
                got.extend_from_slice(&bytes[HEADERS..]);
            }
        }
        assert!(full > 0 && whole > 0, "{full} times full, {whole} whole");
        assert_eq!(got.len(), 40 * payload.len());
        assert!(got.chunks(payload.len()).all(|got| got == payload));
    }
}

#[test]
fn nothing_is_left_to_the_device_that_was_not_asked() {
    let mut driver = started(&Setup::default());
    assert!((driver.features() & OFFLOADS).is_empty());
    let error = driver.push_with(0, &large(), &segment(3000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    let error = driver
        .push_with(0, &Header::NONE, &segment(3000))
        .unwrap_err();
    assert!(matches!(error, NetError::FrameLength { .. }), "{error}");
    let mut driver = started(&Setup::asking(OFFLOADS));
    let error = driver.push_with(0, &large(), &segment(65_497)).unwrap_err();
    assert!(matches!(error, NetError::FrameLength { .. }), "{error}");
}
