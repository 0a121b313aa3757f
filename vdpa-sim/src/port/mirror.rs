//! `mirror=FILE`: a capture of all that a device sends and receives at its port, whatever port that is.
//!
//! ```text
//!   lane of the port ◀── MirrorLane ◀──▶ the device              each worker copies what passes
//!                            │ records ══▶ queue ══▶ writer      one thread: the file, finished frames, and their times
//! ```
//! The capture is whole: a writer that falls behind holds the device back, as a slow peer would, and nothing is left
//! out. If the file cannot be written any more, that is said once, and the device goes on without it.

use std::collections::VecDeque;
use std::error::Error;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_queue::ArrayQueue;
use vdpa_core::{Bell, Sleeper};

use super::{Lane, Port, Presence, Room};
use crate::frames::FrameBatch;
use crate::offload::{Header, Plain};
use crate::pcap::{CaptureError, CaptureWriter, TimeResolution, Timestamp};
use crate::shared::lock;

/// How many records wait for the writer at most.
const DEPTH: usize = 64;

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

impl Mirror {
    /// Begins the capture `file` of what passes `port`.
    ///
    /// * `pairs`, `longest`: the device's queue pairs, and the bytes of its longest frame
    ///
    /// # Errors
    /// When the file cannot be made, or there can be no writer.
    pub fn start(
        file: &Path,
        port: Arc<dyn Port>,
        presence: Arc<Presence>,
        pairs: u16,
        longest: usize,
    ) -> Result<Self, CaptureError> {
        let capture = CaptureWriter::create(file, TimeResolution::Nanos)?;
        let no_writer = |source| CaptureError::Write {
            path: file.to_owned(),
            source,
        };
        let sleeper = Sleeper::new().map_err(|e| no_writer(std::io::Error::other(e)))?;
        let depth = DEPTH.max(usize::from(pairs).saturating_mul(2));
        let reel = Arc::new(Reel {
            records: ArrayQueue::new(depth),
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
        Ok(Self {
            port,
            tape: Arc::new(Tape {
                reel,
                writer: Mutex::new(Some(writer)),
            }),
            longest,
        })
    }
}

impl Port for Mirror {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        Box::new(MirrorLane {
            lane: self.port.lane(pair),
            recorder: Recorder {
                tape: Arc::clone(&self.tape),
                backlog: VecDeque::new(),
                longest: self.longest,
            },
        })
    }

    fn changed(&self) {
        self.port.changed();
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
        if let Some(writer) = lock(&self.writer).take() {
            let _panicked = writer.join();
        }
    }
}

/// What copies what passes a lane.
struct Recorder {
    tape: Arc<Tape>,
    /// What the writer had no room for.
    backlog: VecDeque<Record>,
    longest: usize,
}

impl Recorder {
    /// Gives the writer what waits. `false`: not all of it; the device is rung when there is room.
    fn flush(&mut self) -> bool {
        while let Some(record) = self.backlog.pop_front() {
            if let Err(record) = self.offer(record) {
                self.backlog.push_front(record);
                return false;
            }
        }
        true
    }

    fn offer(&self, record: Record) -> Result<(), Record> {
        let reel = &self.tape.reel;
        let mut record = record;
        for last in [false, true] {
            match reel.records.push(record) {
                Ok(()) => {
                    reel.bell.ring();
                    return Ok(());
                }
                Err(back) if last => return Err(back),
                Err(back) => record = back,
            }
            reel.blocked.store(true, Ordering::Relaxed);
            // Between "I wait" and the second try; pairs with the fence in `Writer::drain`.
            fence(Ordering::SeqCst);
        }
        Err(record)
    }

    /// Copies packets that pass now.
    fn record<'a>(&mut self, packets: impl Iterator<Item = (Header, &'a [u8])>) {
        let mut time = None;
        let mut filling: Option<Box<FrameBatch>> = None;
        for (header, frame) in packets {
            let time = *time.get_or_insert_with(now);
            let longest = self.longest.max(frame.len());
            let mut batch = filling.take().unwrap_or_else(|| self.blank(longest));
            if !batch.push_packet(header, frame) {
                self.backlog.push_back(Record { time, batch });
                batch = self.blank(longest);
                // There is room for the longest.
                let _fits = batch.push_packet(header, frame);
            }
            filling = Some(batch);
        }
        if let (Some(batch), Some(time)) = (filling, time) {
            self.backlog.push_back(Record { time, batch });
            self.flush();
        }
    }

    /// An empty batch: one that came back, or else one that is made. In the steady state there are as many as wait.
    fn blank(&self, longest: usize) -> Box<FrameBatch> {
        let empty = self.tape.reel.empty.pop();
        empty
            .filter(|batch| batch.holds(longest))
            .unwrap_or_else(|| FrameBatch::new(longest))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The device is closed: there is nobody to hold back, and the writer still works.
        let tape = Arc::clone(&self.tape);
        let works = || {
            lock(&tape.writer)
                .as_ref()
                .is_some_and(|w| !w.is_finished())
        };
        while !self.flush() && works() {
            std::thread::yield_now();
        }
    }
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    // A capture ends in 2106.
    let secs = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    Timestamp::new(secs, now.subsec_nanos()).unwrap_or_default()
}

/// An error of the file with what the system said.
fn with_reason(e: &CaptureError) -> String {
    match e.source() {
        Some(reason) => format!("{e}: {reason}"),
        None => e.to_string(),
    }
}

/// A lane of which all that passes is recorded.
struct MirrorLane {
    lane: Box<dyn Lane>,
    recorder: Recorder,
}

impl Lane for MirrorLane {
    fn room(&mut self) -> Room {
        if self.recorder.flush() {
            self.lane.room()
        } else {
            Room::Full
        }
    }

    fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch> {
        self.recorder.record(batch.packets());
        self.lane.send(batch)
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        let Self { lane, recorder } = self;
        if !recorder.flush() {
            return false;
        }
        lane.receive(&mut |frames| {
            let before = frames.taken();
            take(frames);
            recorder.record(frames.taken_since(before));
        })
    }

    fn discard(&mut self) -> u64 {
        self.lane.discard()
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        self.lane.sources()
    }
}

/// What writes the file, in a thread of its own.
struct Writer {
    file: String,
    /// `None` once it could not be written.
    capture: Option<CaptureWriter>,
    reel: Arc<Reel>,
    plain: Plain,
}

impl Writer {
    fn run(mut self, sleeper: &Sleeper) {
        let reel = Arc::clone(&self.reel);
        loop {
            // Before the records: what comes after the last one rings again.
            reel.bell.take();
            // Acquire pairs with the release in `Tape::drop`: all records are there.
            let ended = reel.ended.load(Ordering::Acquire);
            self.drain();
            if ended {
                break;
            }
            if sleeper
                .sleep_unless(|| reel.bell.is_pending(), None, |_| {})
                .is_err()
            {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let Some(capture) = self.capture else { return };
        match capture.finish() {
            Ok(frames) => tracing::info!("mirror {}: {frames} frames", self.file),
            Err(e) => tracing::error!("mirror {}; the capture is lost", with_reason(&e)),
        }
    }

    /// Writes all that waits.
    fn drain(&mut self) {
        let reel = Arc::clone(&self.reel);
        while let Some(Record { time, mut batch }) = reel.records.pop() {
            // Between making room and looking whether a lane waits for it; pairs with the fence in `Recorder::offer`.
            fence(Ordering::SeqCst);
            if reel.blocked.load(Ordering::Relaxed) && reel.blocked.swap(false, Ordering::Relaxed) {
                reel.presence.ring_all();
            }
            self.write(time, &batch);
            batch.clear();
            let _freed = reel.empty.push(batch);
        }
    }

    /// Writes the packets of a batch as the frames that they are on a cable.
    fn write(&mut self, time: Timestamp, batch: &FrameBatch) {
        let Some(capture) = &mut self.capture else {
            return;
        };
        let mut failed = None;
        let mut written = 0_u64;
        let _all_or_some = self
            .plain
            .batch(batch, |frame| match capture.write(time, frame) {
                Ok(()) => {
                    written = written.saturating_add(1);
                    ControlFlow::Continue(())
                }
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            });
        let before = self.reel.written.fetch_add(written, Ordering::Relaxed);
        if let Some(e) = failed {
            let frames = before.saturating_add(written);
            let e = with_reason(&e);
            tracing::error!("mirror {e}, after {frames} frames; the device goes on without it");
            self.capture = None;
        }
    }
}
