//! `pcap:IN[:OUT]`: the driver receives the frames of one capture, and what it sends goes to another.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Lane, Port, Room};
use crate::frames::FrameBatch;
use crate::offload::Plain;
use crate::pcap::{Capture, CaptureError, CaptureWriter, TimeResolution, Timestamp};
use crate::shared::lock;

/// A capture to receive from, and perhaps one to send to.
///
/// The first pair receives the frames of IN, in their order and once in the life of the device, as fast as there are
/// buffers. OUT holds what the driver sends as it is on a cable: checksums completed, large packets segmented. It is
/// complete when the device is closed. Writing it takes a lock and system calls, batch by batch.
pub struct PcapPort {
    frames: Mutex<Option<Vec<Vec<u8>>>>,
    out: Option<Arc<Out>>,
}

struct Out {
    writer: Mutex<Option<CaptureWriter>>,
}

impl PcapPort {
    /// Reads all of `input`, and begins `output`.
    ///
    /// # Errors
    /// When `input` is not a whole capture, or `output` cannot be written.
    pub fn open(input: &Path, output: Option<&Path>) -> Result<Self, CaptureError> {
        let frames = Capture::open(input)?
            .map(|frame| frame.map(|frame| frame.data))
            .collect::<Result<Vec<_>, _>>()?;
        let writer = output
            .map(|path| CaptureWriter::create(path, TimeResolution::Nanos))
            .transpose()?;
        Ok(Self {
            frames: Mutex::new(Some(frames)),
            out: writer.map(|writer| {
                Arc::new(Out {
                    writer: Mutex::new(Some(writer)),
                })
            }),
        })
    }
}

impl Port for PcapPort {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        let frames = match pair {
            0 => lock(&self.frames).take().unwrap_or_default(),
            _ => Vec::new(),
        };
        let longest = frames.iter().map(Vec::len).max().unwrap_or(0);
        Box::new(PcapLane {
            batch: FrameBatch::new(longest),
            frames,
            next: 0,
            out: self.out.clone(),
            plain: Plain::new(),
        })
    }

    fn changed(&self) {}
}

impl Drop for Out {
    fn drop(&mut self) {
        let writer = lock(&self.writer).take();
        if let Some(Err(e)) = writer.map(CaptureWriter::finish) {
            tracing::error!("the capture of what was sent is lost: {e}");
        }
    }
}

impl Out {
    /// Writes the packets of a batch as the frames that they are on a cable.
    fn write(&self, batch: &FrameBatch, plain: &mut Plain) {
        let mut writer = lock(&self.writer);
        let Some(open) = writer.as_mut() else { return };
        let time = Timestamp::now();
        let mut failed = None;
        let _all_or_some = plain.batch(batch, |frame| match open.write(time, frame) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        });
        if let Some(e) = failed {
            tracing::error!("what is sent is not captured any more: {e}");
            *writer = None;
        }
    }
}

struct PcapLane {
    frames: Vec<Vec<u8>>,
    next: usize,
    batch: Box<FrameBatch>,
    out: Option<Arc<Out>>,
    plain: Plain,
}

impl Lane for PcapLane {
    fn room(&mut self) -> Room {
        Room::Yes
    }

    fn send(&mut self, mut batch: Box<FrameBatch>) -> Box<FrameBatch> {
        if let Some(out) = &self.out {
            out.write(&batch, &mut self.plain);
        }
        batch.clear();
        batch
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        if self.batch.is_empty() {
            self.batch.clear();
            while let Some(frame) = self.frames.get(self.next) {
                if !self.batch.push_frame(frame) {
                    break;
                }
                self.next = self.next.saturating_add(1);
            }
        }
        if !self.batch.is_empty() {
            take(&mut self.batch);
        }
        false
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn discard(&mut self) -> u64 {
        // They wait for a queue.
        0
    }
}
