//! Packet captures: files of Ethernet frames, each with its time.
//!
//! [`Capture`] reads classic pcap (version 2.4) of either byte order, in microseconds or
//! nanoseconds; [`CaptureWriter`] writes it. The link type is ETHERNET, always. What else a file may
//! be is refused by name, with the way out: pcapng too, since its time units, which it keeps per
//! interface, get lost in the reader at hand.
//!
//! ```text
//! file header, 24 bytes   magic u32 | major u16 | minor u16 | zone i32 | accuracy u32 | snap length u32 | link type u32
//! each packet, 16 bytes   seconds u32 | fraction u32 | stored length u32 | original length u32 | then the stored bytes
//! ```
//!
//! A file is not trusted: nothing in it makes the reader panic, nor allocate more than
//! [`MAX_FRAME_BYTES`] at a time. Packets are numbered from 1, as packet analysers do.
//!
//! ```
//! use vdpa_sim::pcap::{Capture, CaptureWriter};
//! # use vdpa_sim::pcap::{CaptureError, TimeResolution, Timestamp};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
//! # let mut made = CaptureWriter::create(&input, TimeResolution::Micros)?;
//! # made.write(Timestamp::default(), &[0; 60])?;
//! # made.finish()?;
//! let capture = Capture::open(&input)?;
//! let mut copy = CaptureWriter::create(&output, capture.resolution())?;
//! for frame in capture {
//!     let frame = frame?;
//!     copy.write(frame.time, &frame.data)?;
//! }
//! assert_eq!(copy.finish()?, 1);
//! # Ok(())
//! # }
//! ```

mod error;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::iter::FusedIterator;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pcap_file::pcap::PcapHeader;
use pcap_file::{DataLink, Endianness, TsResolution};

pub use error::{CaptureError, Part};
pub use writer::CaptureWriter;

/// The longest frame read or written, in bytes: what packet analysers allow.
pub const MAX_FRAME_BYTES: u32 = 256 * 1024;

const FILE_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;

/// How finely a file tells time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeResolution {
    /// Microseconds, as most captures.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// When a frame was captured, since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    secs: u32,
    nanos: u32,
}

impl Timestamp {
    /// `secs` seconds and `nanos` nanoseconds; `None` if those are a second or more.
    pub const fn new(secs: u32, nanos: u32) -> Option<Self> {
        if nanos < 1_000_000_000 {
            Some(Self { secs, nanos })
        } else {
            None
        }
    }

    /// The time by the system's clock. A capture ends in 2106.
    pub fn now() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        Self {
            secs: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            nanos: now.subsec_nanos(),
        }
    }

    /// Whole seconds.
    pub const fn secs(self) -> u32 {
        self.secs
    }

    /// Nanoseconds within the second, below 1 000 000 000.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.secs, self.nanos)
    }
}

/// One captured frame, whole: a capture that kept only a part of a frame is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// When it was captured.
    pub time: Timestamp,
    /// Its bytes from the destination address on, without the frame check sequence. At most
    /// [`MAX_FRAME_BYTES`], perhaps none: a capture does not say that its frames are sound.
    pub data: Vec<u8>,
}

/// A capture being read: an iterator over its frames, in the order of the file.
///
/// The first error ends it.
#[derive(Debug)]
pub struct Capture<R = BufReader<File>> {
    reader: R,
    path: PathBuf,
    endianness: Endianness,
    resolution: TimeResolution,
    packets: u64,
    ended: bool,
}

impl Capture {
    /// Opens the file at `path` and reads its header.
    ///
    /// # Errors
    /// Whatever [`Capture::new`] refuses, and a file that cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| CaptureError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::new(BufReader::new(file), path)
    }
}

impl<R: Read> Capture<R> {
    /// Reads the header of a capture from `reader`, which errors call `path`.
    ///
    /// # Errors
    /// An empty or truncated header, a file that is no classic pcap of version 2.4, a link type
    /// other than ETHERNET, a failing read.
    pub fn new(mut reader: R, path: impl Into<PathBuf>) -> Result<Self, CaptureError> {
        let path = path.into();
        let mut bytes = [0; FILE_HEADER_BYTES];
        let have = match read_up_to(&mut reader, &mut bytes) {
            Ok(have) => have,
            Err(source) => return Err(CaptureError::Read { path, source }),
        };
        let header = match file_header(&bytes, have) {
            Ok(header) => header,
            Err(refusal) => return Err(refusal(path)),
        };
        let (major, minor) = (header.version_major, header.version_minor);
        if (major, minor) != (2, 4) {
            return Err(CaptureError::Version { path, major, minor });
        }
        if header.datalink != DataLink::ETHERNET {
            return Err(CaptureError::LinkType {
                path,
                number: header.datalink.into(),
                name: match header.datalink {
                    DataLink::Unknown(_) => "not in the registry".to_owned(),
                    named => format!("{named:?}"),
                },
            });
        }
        Ok(Self {
            reader,
            path,
            endianness: header.endianness,
            resolution: match header.ts_resolution {
                TsResolution::MicroSecond => TimeResolution::Micros,
                TsResolution::NanoSecond => TimeResolution::Nanos,
            },
            packets: 0,
            ended: false,
        })
    }

    /// How finely this file tells time.
    pub fn resolution(&self) -> TimeResolution {
        self.resolution
    }

    /// The file, as it was named when opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        let packet = self.packets.saturating_add(1);
        let path = || self.path.clone();
        let mut fields = [[0; 4]; 4];
        let have = read_up_to(&mut self.reader, fields.as_flattened_mut()).map_err(|source| {
            CaptureError::Read {
                path: path(),
                source,
            }
        })?;
        if have == 0 {
            return Ok(None);
        }
        if have < PACKET_HEADER_BYTES {
            return Err(CaptureError::Cut {
                path: path(),
                part: Part::PacketHeader(packet),
                have,
                want: PACKET_HEADER_BYTES,
            });
        }
        let [secs, fraction, stored, original] = fields.map(|field| match self.endianness {
            Endianness::Big => u32::from_be_bytes(field),
            Endianness::Little => u32::from_le_bytes(field),
        });
        // The bound comes first: only then is a length worth believing.
        if stored > MAX_FRAME_BYTES {
            return Err(CaptureError::TooLong {
                path: path(),
                packet,
                len: stored.into(),
            });
        }
        if stored < original {
            return Err(CaptureError::Snapped {
                path: path(),
                packet,
                stored,
                original,
            });
        }
        if stored > original {
            return Err(CaptureError::Overfull {
                path: path(),
                packet,
                stored,
                original,
            });
        }
        let nanos = match self.resolution {
            TimeResolution::Micros => fraction.checked_mul(1000),
            TimeResolution::Nanos => Some(fraction),
        };
        let Some(time) = nanos.and_then(|nanos| Timestamp::new(secs, nanos)) else {
            return Err(CaptureError::Time {
                path: path(),
                packet,
                fraction,
                resolution: self.resolution,
            });
        };
        let mut data = vec![0; stored as usize];
        let have =
            read_up_to(&mut self.reader, &mut data).map_err(|source| CaptureError::Read {
                path: path(),
                source,
            })?;
        if have < data.len() {
            return Err(CaptureError::Cut {
                path: path(),
                part: Part::Packet(packet),
                have,
                want: data.len(),
            });
        }
        self.packets = packet;
        Ok(Some(Frame { time, data }))
    }
}

impl<R: Read> Iterator for Capture<R> {
    type Item = Result<Frame, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.frame().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<R: Read> FusedIterator for Capture<R> {}

/// The header in the first `have` of `bytes`, or what makes the refusal once it is told the path.
fn file_header(
    bytes: &[u8; FILE_HEADER_BYTES],
    have: usize,
) -> Result<PcapHeader, impl FnOnce(PathBuf) -> CaptureError> {
    // What is not there is zero, and no magic has a zero.
    let [a, b, c, d, ..] = *bytes;
    let first = [a, b, c, d];
    let parsed = PcapHeader::from_slice(bytes);
    match parsed {
        Ok((_, header)) if have == FILE_HEADER_BYTES => Ok(header),
        _ => {
            let cut_pcap = parsed.is_ok();
            Err(move |path| match first {
                _ if have == 0 => CaptureError::Empty { path },
                _ if have < first.len() || cut_pcap => CaptureError::Cut {
                    path,
                    part: Part::FileHeader,
                    have,
                    want: FILE_HEADER_BYTES,
                },
                [0x0a, 0x0d, 0x0d, 0x0a] => CaptureError::Pcapng { path },
                [0x1f, 0x8b, ..] => CaptureError::Compressed { path, with: "gzip" },
                [0x28, 0xb5, 0x2f, 0xfd] => CaptureError::Compressed { path, with: "zstd" },
                [0xfd, b'7', b'z', b'X'] => CaptureError::Compressed { path, with: "xz" },
                _ => CaptureError::NotPcap { path, first },
            })
        }
    }
}

/// Fills `to` from `reader`; the number of bytes read, less than asked for at the end only.
fn read_up_to(reader: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut have = 0_usize;
    while let Some(rest) = to.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(more) => have = have.saturating_add(more),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}
