//! `mirror=FILE`: a capture of all that a device sends and receives at its port, whatever port that is.
//!
//! ```text
//!   lane of the port ◀── MirrorLane ◀──▶ the device              each worker copies what passes
//!                            │ records ══▶ queue ══▶ writer      one thread: the file, finished frames, and their times
//! ```
//! The capture is whole: a writer that falls behind holds the device back, as a slow peer would, and nothing is left
//! out. If the file cannot be written any more, that is said once, and the device goes on without it.

mod recorder;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use vdpa_core::{Bell, Sleeper};

use super::{Lane, Port, Presence};
use crate::frames::FrameBatch;
use crate::offload::Plain;
use crate::pcap::{CaptureError, CaptureWriter, TimeResolution, Timestamp};
use crate::shared::lock;

use recorder::MirrorLane;
use writer::Writer;

/// How many records wait for the writer at most.
const DEPTH: usize = 64;

/// How long a device that is closed waits for a writer that gets no further.
const PATIENCE: Duration = if cfg!(test) {
    Duration::from_millis(200)
} else {
    Duration::from_secs(10)
};

/// The files that mirrors of one [`SimMgmt`](crate::SimMgmt) are written to: no two to the same. A value, not a global.
#[derive(Clone, Default)]
pub struct Mirrors(Arc<Mutex<Files>>);

/// Files and what is under way to each.
type Files = Vec<(PathBuf, Weak<Reel>)>;

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// Another device's mirror is being written to the file: of the two the later one would be left.
    #[error("{}: another device's mirror: name a file of its own", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// A port of which all that passes is captured.
///
/// Frames are in the order in which workers passed them, and as they are on a cable: checksums completed, large packets
/// segmented. What is sent while nobody is there, or received by no queue, did not pass. The file is whole when the
/// device is closed.
pub struct Mirror {
    port: Arc<dyn Port>,
    tape: Arc<Tape>,
    longest: usize,
}

/// What the lanes and the writer share.
struct Tape {
    reel: Arc<Reel>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What is under way to the writer.
struct Reel {
    records: ArrayQueue<Record>,
    /// What lanes that are closed had no room for: behind all records.
    rest: Mutex<VecDeque<Record>>,
    empty: ArrayQueue<Box<FrameBatch>>,
    bell: Arc<Bell>,
    presence: Arc<Presence>,
    /// A lane waits for room.
    blocked: AtomicBool,
    /// There will be no more.
    ended: AtomicBool,
    /// Frames in the file.
    written: AtomicU64,
}

/// Frames that passed at one time.
struct Record {
    time: Timestamp,
    batch: Box<FrameBatch>,
}

impl Mirrors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the capture `file` of what passes `port`.
    ///
    /// * `pairs`, `longest`: the device's queue pairs, and the bytes of its longest frame
    ///
    /// # Errors
    /// [`MirrorError`]: the file is another mirror's, it cannot be made, or there can be no writer.
    pub fn start(
        &self,
        file: &Path,
        port: Arc<dyn Port>,
        presence: Arc<Presence>,
        pairs: u16,
        longest: usize,
    ) -> Result<Mirror, MirrorError> {
        let mut files = lock(&self.0);
        files.retain(|(_, reel)| reel.strong_count() != 0);
        let place = place(file);
        if let Some(place) = &place
            && files.iter().any(|(taken, _)| taken == place)
        {
            return Err(MirrorError::Taken {
                path: file.to_owned(),
            });
        }
        let (reel, writer) = start(file, presence, pairs)?;
        if let Some(place) = place {
            files.push((place, Arc::downgrade(&reel)));
        }
        Ok(Mirror {
            port,
            tape: Arc::new(Tape {
                reel,
                writer: Mutex::new(Some(writer)),
            }),
            longest,
        })
    }
}

/// Where a file is or will be, whatever its name leads over; `None` for one that may be written by many, such as a pipe
/// or `/dev/null`.
fn place(file: &Path) -> Option<PathBuf> {
    if let Ok(there) = file.canonicalize() {
        return there.is_file().then_some(there);
    }
    let parent = file.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
    Some(parent.join(file.file_name()?))
}

/// Makes the file, and starts its writer.
fn start(
    file: &Path,
    presence: Arc<Presence>,
    pairs: u16,
) -> Result<(Arc<Reel>, JoinHandle<()>), CaptureError> {
    let capture = CaptureWriter::create(file, TimeResolution::Nanos)?;
    let no_writer = |source| CaptureError::Write {
        path: file.to_owned(),
        source,
    };
    let sleeper = Sleeper::new().map_err(|e| no_writer(std::io::Error::other(e)))?;
    let depth = DEPTH.max(usize::from(pairs).saturating_mul(2));
    let reel = Arc::new(Reel {
        records: ArrayQueue::new(depth),
        rest: Mutex::default(),
        empty: ArrayQueue::new(depth),
        bell: Bell::new(&sleeper),
        presence,
        blocked: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        written: AtomicU64::new(0),
    });
    let writer = Writer {
        file: file.display().to_string(),
        capture: Some(capture),
        reel: Arc::clone(&reel),
        plain: Plain::new(),
    };
    let writer = std::thread::Builder::new()
        .name("mirror".to_owned())
        .spawn(move || writer.run(&sleeper))
        .map_err(no_writer)?;
    Ok((reel, writer))
}

impl Port for Mirror {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        Box::new(MirrorLane::new(
            self.port.lane(pair),
            &self.tape,
            self.longest,
        ))
    }

    fn changed(&self) {
        self.port.changed();
    }

    fn waiting(&self, to: &mut dyn FnMut(u16, &FrameBatch)) {
        self.port.waiting(to);
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        self.port.stats(to);
        let written = self.tape.reel.written.load(Ordering::Relaxed);
        to("port.mirrored", written);
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.reel.ended.store(true, Ordering::Release);
        self.reel.bell.ring();
        let Some(writer) = lock(&self.writer).take() else {
            return;
        };
        // As long as it gets on.
        let reel = &self.reel;
        let left = || (reel.written.load(Ordering::Relaxed), reel.records.len());
        let (mut seen, mut since) = (left(), Instant::now());
        while !writer.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
            let now = left();
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= PATIENCE {
                tracing::error!(
                    "a mirror's file takes nothing any more, as a pipe does that nobody reads: the capture ends after {} \
                     frames, and its writer is left behind",
                    seen.0
                );
                return;
            }
        }
        let _panicked = writer.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Null, Room};
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn a_file_that_takes_nothing_any_more_holds_up_no_worker_and_the_close_for_a_while_alone() {
        // A worker that is held up is so each time; one that does not get its turn is not.
        let mut each = (0..20).map(|_| holds_up());
        let well = |(worker, close)| worker < PATIENCE && close < 20 * PATIENCE;
        assert!(each.any(well), "each time");
    }

    /// How long a worker is held up as it lets go of such a file, and how long the close is then: for a while.
    fn holds_up() -> (Duration, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Open, and never read.
        let mut options = File::options();
        let options = options.read(true).custom_flags(nix::libc::O_NONBLOCK);
        let _reader = options.open(&pipe).unwrap();
        let (mirrors, presence) = (Mirrors::new(), Presence::new(true));
        let mirror = mirrors
            .start(&pipe, Arc::new(Null), presence, 1, 1514)
            .unwrap();
        let mut lane = mirror.lane(0);
        let mut batch = FrameBatch::new(1514);
        let mut still = 0;
        while still < 20 {
            if lane.room() == Room::Yes {
                assert!(batch.push_frame(&[7; 1514]));
                batch = lane.send(batch);
                still = 0;
            } else {
                still += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let begun = Instant::now();
        drop(lane);
        let held_up = begun.elapsed();
        let begun = Instant::now();
        drop(mirror);
        let took = begun.elapsed();
        assert!(took >= PATIENCE, "{took:?}");
        (held_up, took)
    }
}
