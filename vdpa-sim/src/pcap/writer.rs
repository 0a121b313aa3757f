//! Writing a capture, so that it is there whole or not at all.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::{CaptureError, MAX_FRAME_BYTES, TimeResolution, Timestamp};

/// A capture being written: classic pcap 2.4, little-endian, LINKTYPE_ETHERNET.
///
/// The frames go to a temporary file in the same directory (`.vdpa-PID-N.part`), and
/// [`finish`](CaptureWriter::finish) gives it its name. Dropping the writer before that, and any
/// failure, removes the temporary file; what was at `path` stays as it was. (Only a process that is
/// killed leaves its temporary file behind.)
///
/// A path that is there but is no regular file, such as `/dev/null` or a pipe, cannot be renamed
/// onto: it is written to directly, and dropping the writer writes what is buffered.
#[derive(Debug)]
pub struct CaptureWriter {
    // Before `target`: the file is closed first, then removed.
    out: PcapWriter<BufWriter<File>>,
    target: Target,
    path: PathBuf,
    packets: u64,
}

impl CaptureWriter {
    /// Begins a capture that will be at `path`; a symbolic link there is followed.
    ///
    /// # Errors
    /// `path` is a directory or has no file name; the temporary file cannot be made or written.
    pub fn create(
        path: impl AsRef<Path>,
        resolution: TimeResolution,
    ) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        if path.file_name().is_none() || path.is_dir() {
            return Err(CaptureError::NotAFile {
                path: path.to_owned(),
            });
        }
        let header = PcapHeader {
            snaplen: MAX_FRAME_BYTES,
            datalink: DataLink::ETHERNET,
            ts_resolution: match resolution {
                TimeResolution::Micros => TsResolution::MicroSecond,
                TimeResolution::Nanos => TsResolution::NanoSecond,
            },
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let (file, target) = Target::open(path).map_err(|e| cannot_write(path, e))?;
        let out = PcapWriter::with_header(BufWriter::new(file), header)
            .map_err(|e| cannot_write(path, io_error(e)))?;
        Ok(Self {
            out,
            target,
            path: path.to_owned(),
            packets: 0,
        })
    }

    /// Appends a frame captured at `time`; of a file in microseconds the rest is cut off.
    ///
    /// # Errors
    /// `data` is longer than [`MAX_FRAME_BYTES`], and nothing was written; or the file cannot be
    /// written to, and the writer is of no use any more.
    pub fn write(&mut self, time: Timestamp, data: &[u8]) -> Result<(), CaptureError> {
        let packet = self.packets.saturating_add(1);
        let Some(len) = u32::try_from(data.len())
            .ok()
            .filter(|len| *len <= MAX_FRAME_BYTES)
        else {
            return Err(CaptureError::TooLong {
                path: self.path.clone(),
                packet,
                len: data.len() as u64,
            });
        };
        self.out
            .write_packet(&PcapPacket {
                timestamp: Duration::new(time.secs().into(), time.nanos()),
                orig_len: len,
                data: Cow::Borrowed(data),
            })
            .map_err(|e| cannot_write(&self.path, io_error(e)))?;
        self.packets = packet;
        Ok(())
    }

    /// Writes out what is buffered and puts the capture in its place; the number of its packets.
    ///
    /// # Errors
    /// Writing or renaming failed: the temporary file is removed, and what was at the path stays.
    pub fn finish(self) -> Result<u64, CaptureError> {
        let Self {
            out,
            target,
            path,
            packets,
        } = self;
        out.into_writer()
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| target.keep(&file))
            .map_err(|e| cannot_write(&path, e))?;
        Ok(packets)
    }
}

/// Where the bytes go.
#[derive(Debug)]
enum Target {
    /// To a file of another name until it is whole.
    Renamed { temporary: Temporary, to: PathBuf },
    /// Straight to a device or a pipe.
    Direct,
}

impl Target {
    fn open(path: &Path) -> io::Result<(File, Self)> {
        let to = match fs::metadata(path) {
            Ok(there) if !there.is_file() => {
                return Ok((OpenOptions::new().write(true).open(path)?, Self::Direct));
            }
            // Through a link to the file itself, so that the link is still one afterwards.
            Ok(_) => fs::canonicalize(path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(e) => return Err(e),
        };
        let (file, temporary) = Temporary::beside(&to)?;
        Ok((file, Self::Renamed { temporary, to }))
    }

    fn keep(self, file: &File) -> io::Result<()> {
        match self {
            Self::Renamed { temporary, to } => {
                // The bytes before the name: a crash must not leave the name on an empty file.
                file.sync_all()?;
                fs::rename(&temporary.0, to)
                // `temporary` is dropped here and finds nothing to remove, unless the rename failed.
            }
            Self::Direct => Ok(()),
        }
    }
}

/// A file that is removed when dropped, if it still has this name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    /// A new file in the directory of `path`.
    fn beside(path: &Path) -> io::Result<(File, Self)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            // Relaxed: only that no two are the same matters.
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = path.with_file_name(format!(".vdpa-{}-{n}.part", process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&name) {
                Ok(file) => return Ok((file, Self(name))),
                // Left by a killed process that had our id.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nobody is left to tell, and after a rename there is nothing to remove.
        let _ = fs::remove_file(&self.0);
    }
}

fn cannot_write(path: &Path, source: io::Error) -> CaptureError {
    CaptureError::Write {
        path: path.to_owned(),
        source,
    }
}

fn io_error(e: PcapError) -> io::Error {
    match e {
        PcapError::IoError(e) => e,
        other => io::Error::other(other),
    }
}
