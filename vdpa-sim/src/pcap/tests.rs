//! Hand-made files of every flavour, every way for a file to be wrong, and the shipped capture.

mod reading;
mod shipped;
mod writing;

use super::*;

/// A file header: magic, version, link type; integers in the given order.
struct Flavour {
    big: bool,
    nanos: bool,
}

const FLAVOURS: [Flavour; 4] = [
    Flavour {
        big: false,
        nanos: false,
    },
    Flavour {
        big: false,
        nanos: true,
    },
    Flavour {
        big: true,
        nanos: false,
    },
    Flavour {
        big: true,
        nanos: true,
    },
];

impl Flavour {
    fn u32(&self, value: u32) -> [u8; 4] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn header(&self, version: (u16, u16), link_type: u32) -> Vec<u8> {
        let magic = if self.nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut file = self.u32(magic).to_vec();
        for part in [version.0, version.1] {
            file.extend(if self.big {
                part.to_be_bytes()
            } else {
                part.to_le_bytes()
            });
        }
        for field in [0, 0, 65535, link_type] {
            file.extend(self.u32(field));
        }
        file
    }

    fn packet(&self, secs: u32, fraction: u32, stored: u32, original: u32) -> Vec<u8> {
        [secs, fraction, stored, original]
            .map(|field| self.u32(field))
            .concat()
    }

    /// Three packets of 60, 0 and 5 bytes.
    fn file(&self) -> Vec<u8> {
        let mut file = self.header((2, 4), 1);
        for (secs, fraction, data) in packets() {
            let len = data.len() as u32;
            file.extend(self.packet(secs, fraction, len, len));
            file.extend(data);
        }
        file
    }
}

fn packets() -> [(u32, u32, Vec<u8>); 3] {
    [
        (0, 0, (0..60).collect()),
        (1_700_000_000, 999_999, Vec::new()),
        (u32::MAX, 7, vec![0xee; 5]),
    ]
}

fn micros() -> Flavour {
    Flavour {
        big: false,
        nanos: false,
    }
}

fn at(secs: u32, nanos: u32) -> Timestamp {
    Timestamp::new(secs, nanos).unwrap()
}

/// The frames, or the first error; its message is one line that begins with the file's name.
fn read(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    let frames = Capture::new(file, "some.pcap").and_then(|capture| capture.collect());
    if let Err(e) = &frames {
        let line = e.to_string();
        assert!(line.starts_with("some.pcap: "), "{line}");
        assert!(!line.contains('\n') && !line.ends_with('.'), "{line}");
        assert_eq!(e.path(), Path::new("some.pcap"));
    }
    frames
}

fn refusal(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}
