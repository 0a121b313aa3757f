use proptest::prelude::*;

use super::*;

#[test]
fn reads_both_byte_orders_and_both_resolutions() {
    for flavour in &FLAVOURS {
        let file = flavour.file();
        let capture = Capture::new(&file[..], "some.pcap").unwrap();
        let (resolution, unit) = match flavour.nanos {
            true => (TimeResolution::Nanos, 1),
            false => (TimeResolution::Micros, 1000),
        };
        assert_eq!(capture.resolution(), resolution);
        let frames: Vec<Frame> = capture.map(Result::unwrap).collect();
        let expected = packets().map(|(secs, fraction, data)| Frame {
            time: at(secs, fraction * unit),
            data,
        });
        assert_eq!(frames, expected);
    }
}

#[test]
fn every_truncation_is_refused_but_one_between_packets() {
    for flavour in &FLAVOURS {
        let file = flavour.file();
        // Ends of: file header, packet 1 (16 + 60), packet 2 (16 + 0), packet 3 (16 + 5).
        let whole = [24, 100, 116, 137];
        assert_eq!(file.len(), 137);
        for len in 0..=file.len() {
            let result = read(&file[..len]);
            if let Some(count) = whole.iter().position(|end| *end == len) {
                assert_eq!(result.unwrap().len(), count, "{len} bytes");
                continue;
            }
            match result.unwrap_err() {
                CaptureError::Empty { .. } => assert_eq!(len, 0),
                CaptureError::Cut {
                    part: Part::FileHeader,
                    have,
                    want: 24,
                    ..
                } => {
                    assert!(len < 24 && have == len, "{len} bytes");
                }
                CaptureError::Cut {
                    part: Part::PacketHeader(packet),
                    have,
                    want: 16,
                    ..
                } => {
                    assert_eq!(whole[packet as usize - 1] + have, len);
                }
                CaptureError::Cut {
                    part: Part::Packet(packet),
                    have,
                    want,
                    ..
                } => {
                    assert_eq!(whole[packet as usize - 1] + 16 + have, len);
                    assert_eq!(want, packets()[packet as usize - 1].2.len());
                }
                other => panic!("{len} bytes: {other}"),
            }
        }
    }
}

#[test]
fn a_truncated_packet_is_named_with_its_numbers() {
    let file = micros().file();
    assert_eq!(
        refusal(&file[..135]),
        "some.pcap: the file ends inside packet 3, after 3 of 5 bytes: copy or capture it again"
    );
}

#[test]
fn what_is_not_a_pcap_is_refused_by_name() {
    assert!(refusal(b"").contains("the file is empty"));
    assert!(refusal(b"abc").contains("ends inside its header, after 3 of 24 bytes"));
    assert_eq!(
        refusal(b"# Not a capture at all, but a text"),
        "some.pcap: not a pcap file (it begins with 23 20 4e 6f): make one with `tcpdump -w FILE`"
    );
    assert!(refusal(&[0; 4096]).contains("begins with 00 00 00 00"));
    assert!(refusal(&[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0]).contains("editcap -F pcap"));
    assert!(refusal(&[0x1f, 0x8b, 8, 0]).contains("compressed with gzip"));
    assert!(refusal(&[0x28, 0xb5, 0x2f, 0xfd, 0]).contains("compressed with zstd"));
    assert!(refusal(b"\xfd7zXZ\0").contains("compressed with xz"));
}

#[test]
fn another_version_or_link_type_is_refused_by_name_and_number() {
    for flavour in &FLAVOURS {
        assert!(refusal(&flavour.header((2, 2), 1)).contains("pcap version 2.2, where 2.4"));
        assert!(refusal(&flavour.header((2, 4), 113)).contains("link type 113 (LINUX_SLL)"));
        assert!(refusal(&flavour.header((2, 4), 101)).contains("link type 101 (RAW)"));
        // The upper bits say that check sequences are stored: those would be taken for data.
        assert!(refusal(&flavour.header((2, 4), 0x2400_0001)).contains("link type 603979777"));
    }
}

#[test]
fn an_absurd_length_is_refused_before_it_is_believed() {
    for flavour in &FLAVOURS {
        for len in [MAX_FRAME_BYTES + 1, 0x7fff_ffff, u32::MAX] {
            let mut file = flavour.file();
            file.extend(flavour.packet(0, 0, len, len));
            let line = refusal(&file);
            assert!(
                line.contains(&format!("packet 4 has {len} bytes, more than 262144")),
                "{line}"
            );
        }
    }
}

#[test]
fn the_longest_frame_is_read() {
    let mut file = micros().header((2, 4), 1);
    file.extend(micros().packet(0, 0, MAX_FRAME_BYTES, MAX_FRAME_BYTES));
    file.extend(vec![1; MAX_FRAME_BYTES as usize]);
    assert_eq!(read(&file).unwrap()[0].data.len(), MAX_FRAME_BYTES as usize);
}

#[test]
fn a_packet_cut_by_the_snap_length_is_refused() {
    let mut file = micros().file();
    file.extend(micros().packet(0, 0, 96, 1514));
    file.extend([0; 96]);
    assert_eq!(
        refusal(&file),
        "some.pcap: packet 4 has only 96 of its 1514 bytes in the file: capture again with `tcpdump -s 0`"
    );
}

#[test]
fn more_bytes_than_were_on_the_wire_are_refused() {
    let mut file = micros().file();
    file.extend(micros().packet(0, 0, 64, 60));
    file.extend([0; 64]);
    assert!(refusal(&file).contains("packet 4 has 64 bytes in the file but 60 on the wire"));
}

#[test]
fn a_fraction_of_a_second_or_more_is_refused() {
    for flavour in &FLAVOURS {
        let (limit, unit) = if flavour.nanos {
            (1_000_000_000, "ns")
        } else {
            (1_000_000, "µs")
        };
        for (fraction, legal) in [(limit - 1, true), (limit, false), (u32::MAX, false)] {
            let mut file = flavour.file();
            file.extend(flavour.packet(9, fraction, 0, 0));
            match read(&file) {
                Ok(frames) => assert!(legal && frames.len() == 4),
                Err(e) => {
                    assert!(!legal, "{e}");
                    assert!(
                        e.to_string()
                            .contains(&format!("stamped {fraction} {unit}")),
                        "{e}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_first_error_ends_the_capture() {
    let mut file = micros().file();
    file.extend(micros().packet(0, 0, 96, 1514));
    file.extend(micros().packet(0, 0, 0, 0));
    let mut capture = Capture::new(&file[..], "some.pcap").unwrap();
    assert_eq!(capture.by_ref().take(3).filter(Result::is_ok).count(), 3);
    assert!(capture.next().unwrap().is_err());
    assert!(capture.next().is_none());
}

/// One byte at a time, each after an interruption, and at the end a failure.
struct Halting<'a> {
    left: &'a [u8],
    interrupt: bool,
}

impl Read for Halting<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match self.left.split_first() {
            Some((first, left)) => {
                to[0] = *first;
                self.left = left;
                Ok(1)
            }
            None => Err(io::Error::other("the disk is gone")),
        }
    }
}

#[test]
fn short_reads_are_continued_and_failing_reads_told() {
    let file = micros().file();
    let left = &file[..];
    let mut capture = Capture::new(
        Halting {
            left,
            interrupt: false,
        },
        "some.pcap",
    )
    .unwrap();
    let frames: Vec<Vec<u8>> = capture.by_ref().take(3).map(|f| f.unwrap().data).collect();
    assert_eq!(frames, packets().map(|(_, _, data)| data));
    let error = capture.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "some.pcap: cannot be read");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the disk is gone"
    );
}

#[test]
fn a_missing_file_and_a_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.pcap");
    assert!(
        matches!(Capture::open(&missing), Err(CaptureError::Open { path, .. }) if path == missing)
    );
    assert!(matches!(
        Capture::open(dir.path()),
        Err(CaptureError::Read { .. })
    ));
}

#[test]
fn a_timestamp_has_less_than_a_second_of_nanoseconds() {
    assert_eq!(Timestamp::new(1, 1_000_000_000), None);
    let last = at(u32::MAX, 999_999_999);
    assert_eq!((last.secs(), last.nanos()), (u32::MAX, 999_999_999));
    assert_eq!(at(12, 34_000).to_string(), "12.000034000");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn random_packets_never_panic(flavour in 0..4_usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[FLAVOURS[flavour].header((2, 4), 1), bytes].concat());
    }

    #[test]
    fn a_damaged_byte_never_panics(flavour in 0..4_usize, at in 0..137_usize, byte in any::<u8>()) {
        let mut file = FLAVOURS[flavour].file();
        file[at] = byte;
        if let Ok(frames) = read(&file) {
            prop_assert!(frames.len() <= 7, "more packets than headers fit");
        }
    }
}
