//! What can be wrong with a capture, in one line each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{MAX_FRAME_BYTES, TimeResolution};

/// A capture that cannot be read or written: the file, the packet, the numbers, and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file cannot be opened for reading.
    #[error("{}: cannot be opened", path.display())]
    Open {
        /// The capture.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading failed after the file was opened.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The capture.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is in the file.
    #[error("{}: the file is empty, where a capture begins with a header of 24 bytes: capture it again", path.display())]
    Empty {
        /// The capture.
        path: PathBuf,
    },
    /// The file ends in the middle of something.
    #[error("{}: the file ends inside {part}, after {have} of {want} bytes: copy or capture it again", path.display())]
    Cut {
        /// The capture.
        path: PathBuf,
        /// In the middle of what.
        part: Part,
        /// Bytes of the part that are in the file.
        have: usize,
        /// Bytes that the part has.
        want: usize,
    },
    /// The first four bytes are no magic of a pcap.
    #[error(
        "{}: not a pcap file (it begins with {:02x} {:02x} {:02x} {:02x}): make one with `tcpdump -w FILE`",
        path.display(), first[0], first[1], first[2], first[3]
    )]
    NotPcap {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        first: [u8; 4],
    },
    /// The file is a pcapng, which is not read.
    #[error("{}: a pcapng file, where classic pcap is read: convert it with `editcap -F pcap IN OUT`", path.display())]
    Pcapng {
        /// The capture.
        path: PathBuf,
    },
    /// The file is compressed.
    #[error("{}: a file compressed with {with}: decompress it first", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// The program that compressed it.
        with: &'static str,
    },
    /// The version of the format is not 2.4.
    #[error("{}: pcap version {major}.{minor}, where 2.4 is read: convert it with `editcap -F pcap IN OUT`", path.display())]
    Version {
        /// The capture.
        path: PathBuf,
        /// Before the dot.
        major: u16,
        /// After the dot.
        minor: u16,
    },
    /// The frames are not Ethernet frames.
    #[error("{}: link type {number} ({name}), where 1 (ETHERNET) is read: capture on an Ethernet interface", path.display())]
    LinkType {
        /// The capture.
        path: PathBuf,
        /// As the file has it, flags included.
        number: u32,
        /// Its name in the registry of link types.
        name: String,
    },
    /// A frame is longer than [`MAX_FRAME_BYTES`]: in a file that is read, a damaged length.
    #[error("{}: packet {packet} has {len} bytes, more than {MAX_FRAME_BYTES}: not a frame; leave it out, or copy or capture the file again", path.display())]
    TooLong {
        /// The capture.
        path: PathBuf,
        /// Its number, from 1.
        packet: u64,
        /// Bytes it is said to have.
        len: u64,
    },
    /// The capture kept only the first bytes of a frame.
    #[error("{}: packet {packet} has only {stored} of its {original} bytes in the file: capture again with `tcpdump -s 0`", path.display())]
    Snapped {
        /// The capture.
        path: PathBuf,
        /// Its number, from 1.
        packet: u64,
        /// Bytes in the file.
        stored: u32,
        /// Bytes on the wire.
        original: u32,
    },
    /// More bytes are in the file than the frame had.
    #[error("{}: packet {packet} has {stored} bytes in the file but {original} on the wire: the file is damaged, copy or capture it again", path.display())]
    Overfull {
        /// The capture.
        path: PathBuf,
        /// Its number, from 1.
        packet: u64,
        /// Bytes in the file.
        stored: u32,
        /// Bytes on the wire.
        original: u32,
    },
    /// The fraction of a packet's time is a second or more.
    #[error("{}: packet {packet} is stamped {fraction} {} past its second: the file is damaged, copy or capture it again", path.display(), unit(*resolution))]
    Time {
        /// The capture.
        path: PathBuf,
        /// Its number, from 1.
        packet: u64,
        /// The fraction, in units of `resolution`.
        fraction: u32,
        /// The file's unit.
        resolution: TimeResolution,
    },
    /// The place to write to is a directory, or no name at all.
    #[error("{}: not a file name: name a file to write the capture to", path.display())]
    NotAFile {
        /// The place.
        path: PathBuf,
    },
    /// The capture cannot be made, or written to, or put in its place.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The capture.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CaptureError {
    /// The file it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open { path, .. }
            | Self::Read { path, .. }
            | Self::Empty { path }
            | Self::Cut { path, .. }
            | Self::NotPcap { path, .. }
            | Self::Pcapng { path }
            | Self::Compressed { path, .. }
            | Self::Version { path, .. }
            | Self::LinkType { path, .. }
            | Self::TooLong { path, .. }
            | Self::Snapped { path, .. }
            | Self::Overfull { path, .. }
            | Self::Time { path, .. }
            | Self::NotAFile { path }
            | Self::Write { path, .. } => path,
        }
    }
}

/// Where in a capture something happened; packets are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// In the header of the file.
    FileHeader,
    /// In the header of this packet.
    PacketHeader(u64),
    /// In the bytes of this packet.
    Packet(u64),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileHeader => f.write_str("its header"),
            Self::PacketHeader(packet) => write!(f, "the header of packet {packet}"),
            Self::Packet(packet) => write!(f, "packet {packet}"),
        }
    }
}

fn unit(resolution: TimeResolution) -> &'static str {
    match resolution {
        TimeResolution::Micros => "µs",
        TimeResolution::Nanos => "ns",
    }
}
