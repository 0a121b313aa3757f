//! What writes the file of a mirror.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use vdpa_core::Sleeper;

use super::{Record, Reel};
use crate::frames::FrameBatch;
use crate::offload::Plain;
use crate::pcap::{CaptureError, CaptureWriter, Timestamp};
use crate::shared::lock;

/// The writer, in a thread of its own.
pub(super) struct Writer {
    pub(super) file: String,
    /// `None` once it could not be written.
    pub(super) capture: Option<CaptureWriter>,
    pub(super) reel: Arc<Reel>,
    pub(super) plain: Plain,
}

impl Writer {
    /// Writes until there will be no more, and gives the file its name.
    pub(super) fn run(mut self, sleeper: &Sleeper) {
        let reel = Arc::clone(&self.reel);
        loop {
            // Before the records: what comes after the last one rings again.
            reel.bell.take();
            // Acquire pairs with the release in `Tape::drop`: all records are there.
            let ended = reel.ended.load(Ordering::Acquire);
            self.drain();
            if ended {
                for Record { time, batch } in std::mem::take(&mut *lock(&reel.rest)) {
                    self.write(time, &batch);
                }
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

/// An error of the file with what the system said.
fn with_reason(e: &CaptureError) -> String {
    match e.source() {
        Some(reason) => format!("{e}: {reason}"),
        None => e.to_string(),
    }
}
