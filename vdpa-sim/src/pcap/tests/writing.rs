use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::*;

/// The names in a directory.
fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_bytes_are_those_of_a_classic_little_endian_pcap() {
    let dir = tempdir().unwrap();
    for flavour in FLAVOURS.iter().filter(|flavour| !flavour.big) {
        let path = dir.path().join("out.pcap");
        let (resolution, unit) = match flavour.nanos {
            true => (TimeResolution::Nanos, 1),
            false => (TimeResolution::Micros, 1000),
        };
        let mut writer = CaptureWriter::create(&path, resolution).unwrap();
        for (secs, fraction, data) in packets() {
            writer.write(at(secs, fraction * unit), &data).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), 3);
        let mut expected = flavour.file();
        expected[16..20].copy_from_slice(&MAX_FRAME_BYTES.to_le_bytes()); // the snap length
        assert_eq!(fs::read(&path).unwrap(), expected);
        assert_eq!(names(&dir), ["out.pcap"]);
    }
}

#[test]
fn a_writer_dropped_unfinished_leaves_nothing() {
    let dir = tempdir().unwrap();
    let mut writer =
        CaptureWriter::create(dir.path().join("out.pcap"), TimeResolution::Micros).unwrap();
    writer.write(at(0, 0), &[0; 100_000]).unwrap();
    assert_eq!(names(&dir).len(), 1);
    assert_ne!(names(&dir), ["out.pcap"]);
    drop(writer);
    assert_eq!(names(&dir), [""; 0]);
}

#[test]
fn what_was_there_stays_until_finish() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("out.pcap");
    fs::write(&path, "before").unwrap();
    drop(CaptureWriter::create(&path, TimeResolution::Micros).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"before");
    let writer = CaptureWriter::create(&path, TimeResolution::Micros).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(writer.finish().unwrap(), 0);
    assert_eq!(Capture::open(&path).unwrap().count(), 0);
    assert_eq!(names(&dir), ["out.pcap"]);
}

#[test]
fn a_capture_can_be_written_over_the_one_being_read() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("both.pcap");
    fs::write(&path, micros().file()).unwrap();
    let capture = Capture::open(&path).unwrap();
    let mut writer = CaptureWriter::create(&path, capture.resolution()).unwrap();
    for frame in capture {
        let frame = frame.unwrap();
        writer.write(frame.time, &frame.data).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 3);
    assert_eq!(Capture::open(&path).unwrap().count(), 3);
}

#[test]
fn a_failed_rename_leaves_nothing() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("out.pcap");
    let writer = CaptureWriter::create(&path, TimeResolution::Micros).unwrap();
    fs::create_dir(&path).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, CaptureError::Write { .. }), "{error}");
    assert_eq!(names(&dir), ["out.pcap"]);
    assert!(path.is_dir());
}

#[test]
fn places_that_cannot_be_written_are_refused() {
    let dir = tempdir().unwrap();
    for place in ["", "..", "/"] {
        let refused = CaptureWriter::create(dir.path().join(place), TimeResolution::Micros);
        assert!(
            matches!(refused, Err(CaptureError::NotAFile { .. })),
            "{place}"
        );
    }
    let path = dir.path().join("no/such/out.pcap");
    let error = CaptureWriter::create(&path, TimeResolution::Micros).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: cannot be written", path.display())
    );
    assert!(names(&dir).is_empty());
}

#[test]
fn a_symbolic_link_is_followed_and_stays() {
    let dir = tempdir().unwrap();
    let (file, link) = (dir.path().join("file.pcap"), dir.path().join("link.pcap"));
    fs::write(&file, "before").unwrap();
    symlink("file.pcap", &link).unwrap();
    CaptureWriter::create(&link, TimeResolution::Micros)
        .unwrap()
        .finish()
        .unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Capture::open(&file).unwrap().count(), 0);
}

#[test]
fn a_device_is_written_to_and_not_replaced() {
    let mut writer = CaptureWriter::create("/dev/null", TimeResolution::Micros).unwrap();
    writer.write(at(0, 0), &[0; 60]).unwrap();
    assert_eq!(writer.finish().unwrap(), 1);
    assert!(
        fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

#[test]
fn a_full_disk_is_told() {
    let writer = CaptureWriter::create("/dev/full", TimeResolution::Micros).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), "/dev/full: cannot be written");
}

#[test]
fn a_frame_that_could_not_be_read_back_is_not_written() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("out.pcap");
    let mut writer = CaptureWriter::create(&path, TimeResolution::Micros).unwrap();
    let longest = vec![0; MAX_FRAME_BYTES as usize + 1];
    writer.write(at(0, 0), &longest[1..]).unwrap();
    let error = writer.write(at(0, 0), &longest).unwrap_err();
    assert!(
        matches!(
            error,
            CaptureError::TooLong {
                packet: 2,
                len: 262_145,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(writer.finish().unwrap(), 1);
    assert_eq!(Capture::open(&path).unwrap().map(Result::unwrap).count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))] // each syncs a file

    #[test]
    fn what_is_written_is_read_back(
        frames in prop::collection::vec(
            (any::<u32>(), 0..1_000_000_000_u32, prop::collection::vec(any::<u8>(), 0..300)), 0..10),
        nanos in any::<bool>(),
    ) {
        let dir = tempdir().unwrap();
        let path = dir.path().join("out.pcap");
        let (resolution, unit) =
            if nanos { (TimeResolution::Nanos, 1) } else { (TimeResolution::Micros, 1000) };
        let mut writer = CaptureWriter::create(&path, resolution).unwrap();
        for (secs, nanos, data) in &frames {
            writer.write(at(*secs, *nanos), data).unwrap();
        }
        prop_assert_eq!(writer.finish().unwrap(), frames.len() as u64);
        let back: Vec<Frame> = Capture::open(&path).unwrap().map(Result::unwrap).collect();
        let expected: Vec<Frame> = frames
            .into_iter()
            .map(|(secs, nanos, data)| Frame { time: at(secs, nanos - nanos % unit), data })
            .collect();
        prop_assert_eq!(back, expected);
    }
}
