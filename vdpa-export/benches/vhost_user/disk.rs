//! Our block device behind our vhost-user end, with nothing behind it: reads leave the buffer alone, writes go nowhere.

use std::io;
use std::sync::Arc;

use vdpa_core::{Bell, Device, Relay};
use vdpa_mem::Bytes;
use vdpa_sim::SimDevice;
use vdpa_sim::blk::{Backend, Blk, Inline, Lane, Settings};

/// Serves on `socket` until told to end.
pub(crate) fn child(socket: &str) -> Result<(), String> {
    let settings = Settings {
        capacity: super::blocks::DISK / 512,
        queues: 1,
        queue_size: super::blocks::QUEUE_SIZE,
        blk_size: 512,
        id: *b"null                ",
        features: Settings::possible(false),
    };
    let class = Blk::new(settings, Box::new(Null));
    let device = SimDevice::new("null", Box::new(class), vdpa_sim::Options::default());
    let device = Device::new(Arc::new(device), Relay::new()).map_err(|e| e.to_string())?;
    super::served::serve(device, socket, |_| "unknown".to_owned())
}

/// What qemu-storage-daemon calls null-co.
struct Null;

impl Backend for Null {
    fn lane(&self, _depth: usize, _bell: &Arc<Bell>) -> Lane {
        Lane::Inline(Box::new(Self))
    }

    fn resize(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Inline for Null {
    fn read(&mut self, _at: u64, _to: &Bytes<'_>) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _at: u64, _from: &Bytes<'_>) -> io::Result<()> {
        Ok(())
    }

    fn zero(&mut self, _at: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _at: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
