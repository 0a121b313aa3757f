//! A block driver over any device of the contract: reads and writes sectors through virtqueues.
//!
//! ```text
//!   submit, submit, ... ─▶ publish ─▶ request queue ─▶ device       shown and kicked once for all of them
//!   complete(each)      ◀─ wait    ◀─ request queue ◀─ device       each with its tag, in any order
//!
//!   read, write, flush, discard, write_zeroes, secure_erase, id     the same for whoever waits
//! ```
//!
//! Each queue has buffers of its own, made at the start: nothing is allocated per request. Data is copied to and from
//! them. Sectors are of 512 bytes everywhere, whatever the block size of the disk is.
//!
//! ```
//! # #[cfg(feature = "sim")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vdpa::blk::{BlkDriver, Setup};
//!
//! let mut disk = BlkDriver::start(vdpa::open("sim:blk,size=1M")?, &Setup::default())?;
//! disk.write(7, &[0x5a; 1024])?;
//! disk.flush()?;
//! let mut back = [0; 1024];
//! disk.read(7, &mut back)?;
//! assert_eq!(back, [0x5a; 1024]);
//! disk.stop()?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sim"))]
//! # fn main() {}
//! ```

mod error;
mod lane;
mod manage;
mod request;
mod setup;

use std::fmt;
use std::time::Duration;

use vdpa_core::config::{BlockConfig, block::SECTOR};
use vdpa_core::{Control, Device, Features, bits::block};
use vdpa_mem::Deadline;

use self::lane::Lane;

pub use self::error::{BlkError, Refusal};
pub use self::lane::Completion;
pub use self::request::{ID_BYTES, Op, Request};
pub use self::setup::Setup;
pub use crate::net::Ring;

/// How long a device may take for a reset, or a single request that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the cache mode is in the configuration space, virtio 1.4 §5.2.4.
const WRITEBACK_AT: u32 = 32;

/// A block device with its driver.
///
/// Dropping it resets the device; [`stop`](Self::stop) waits for that, and gives the device back.
pub struct BlkDriver {
    // Queues go before the device that they are of.
    lanes: Vec<Lane>,
    control: Control,
    disk: Disk,
    transfer: usize,
}

/// What is known of the disk.
struct Disk {
    config: BlockConfig,
}

impl Disk {
    /// Reads the configuration space. Which fields of it mean something is for whoever looks at them to know.
    fn of(device: &Device) -> Result<Self, BlkError> {
        let mut bytes = [0; BlockConfig::SIZE];
        let have = BlockConfig::SIZE.min(device.info().config_size as usize);
        device.read_config(0, &mut bytes[..have])?;
        Ok(Self {
            config: BlockConfig::from_bytes(&bytes),
        })
    }

    /// Whether `sectors` sectors from `sector` on are there.
    fn check(&self, op: Op, sector: u64, sectors: u64) -> Result<(), BlkError> {
        let capacity = self.config.capacity();
        match sector.checked_add(sectors) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(BlkError::Range {
                op,
                sector,
                sectors,
                capacity,
            }),
        }
    }
}

impl BlkDriver {
    /// Resets `device`, negotiates, sets the queues up and starts it.
    ///
    /// # Errors
    /// When it is no block device, cannot do what `setup` asks for, or fails.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, §5.2.5.
    pub fn start(device: Device, setup: &Setup) -> Result<Self, BlkError> {
        setup::start(device, setup)
    }

    /// The features agreed on.
    pub fn features(&self) -> Features {
        self.control.features()
    }

    /// The control side: the device, its configuration and its events.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The configuration, as it was read last.
    pub fn config(&self) -> &BlockConfig {
        &self.disk.config
    }

    /// Sectors of 512 bytes of the disk, as they were read last.
    pub fn capacity(&self) -> u64 {
        self.disk.config.capacity()
    }

    /// The request queues in use.
    pub fn queues(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// The most bytes of data in one request.
    pub fn transfer(&self) -> usize {
        self.transfer
    }

    /// Reads the configuration anew: after [`Event::Config`](vdpa_core::Event::Config) the capacity may be another.
    ///
    /// # Errors
    /// When the device is broken or gone.
    pub fn reload(&mut self) -> Result<&BlockConfig, BlkError> {
        self.disk = Disk::of(self.control.device())?;
        Ok(&self.disk.config)
    }

    /// Switches the cache mode: writeback (`true`), where [`flush`](Self::flush) makes writes durable, or writethrough.
    ///
    /// # Errors
    /// Without CONFIG_WCE, or when the device is broken or gone.
    ///
    /// # Spec
    /// virtio 1.4 §5.2.6.2.
    pub fn set_writeback(&mut self, writeback: bool) -> Result<(), BlkError> {
        if !self.features().contains(block::CONFIG_WCE) {
            return Err(BlkError::NotNegotiated {
                op: Op::Flush,
                feature: "CONFIG_WCE",
            });
        }
        self.control
            .write_config(WRITEBACK_AT, &[writeback.into()])?;
        self.reload().map(drop)
    }

    /// Puts a request into `queue`; the device sees it after [`publish`](Self::publish). Data to write is copied.
    /// `false`: the queue is full for now, and nothing was done.
    ///
    /// * `tag`: comes back with the completion
    ///
    /// # Errors
    /// When there is no such queue, the request is none for this disk or these features, or the device broke the queue.
    #[inline]
    pub fn submit(&mut self, queue: u16, tag: u64, request: Request<'_>) -> Result<bool, BlkError> {
        request.check(&self.disk, self.control.features(), self.transfer)?;
        self.lane(queue)?.submit(tag, &request)
    }

    /// Shows the device what was submitted, with one kick at most.
    ///
    /// # Errors
    /// When there is no such queue.
    #[inline]
    pub fn publish(&mut self, queue: u16) -> Result<(), BlkError> {
        self.lane(queue)?.publish();
        Ok(())
    }

    /// Calls `each` for every request of `queue` that is done. Returns how many that were, 0 if none is.
    ///
    /// # Errors
    /// When there is no such queue, or the device broke it.
    #[inline]
    pub fn complete(
        &mut self,
        queue: u16,
        each: impl FnMut(&Completion<'_>),
    ) -> Result<usize, BlkError> {
        self.lane(queue)?.complete(each)
    }

    /// Waits until something of `queue` is done. `false` when the deadline passes first.
    ///
    /// # Errors
    /// When there is no such queue, or the system cannot wait.
    pub fn wait(&mut self, queue: u16, by: Deadline) -> Result<bool, BlkError> {
        self.lane(queue)?.wait(by)
    }

    /// Reads `to.len()` bytes, a multiple of 512, from `sector` on, and waits for that.
    ///
    /// # Errors
    /// When they are not on the disk, or the device fails.
    pub fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), BlkError> {
        self.whole(Op::Read, to.len())?;
        let chunk = self.transfer;
        let len = to.len();
        self.all(
            len.div_ceil(chunk),
            |i| {
                let begin = i * chunk;
                Request::Read {
                    sector: sector.saturating_add(begin as u64 / SECTOR),
                    len: chunk.min(len - begin),
                }
            },
            |i, done| {
                let begin = i * chunk;
                let end = len.min(begin + chunk);
                done.read(&mut to[begin..end]);
            },
        )
    }

    /// Writes `from`, a multiple of 512 bytes, from `sector` on, and waits for that.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), BlkError> {
        self.whole(Op::Write, from.len())?;
        let chunk = self.transfer;
        let len = from.len();
        self.all(
            len.div_ceil(chunk),
            |i| {
                let begin = i * chunk;
                Request::Write {
                    sector: sector.saturating_add(begin as u64 / SECTOR),
                    data: &from[begin..len.min(begin + chunk)],
                }
            },
            |_, _| {},
        )
    }

    /// Makes durable what was written before, and waits for that.
    ///
    /// # Errors
    /// Without FLUSH, or when the device fails.
    pub fn flush(&mut self) -> Result<(), BlkError> {
        self.one(Request::Flush, |_| {})
    }

    /// Gives sectors up.
    ///
    /// # Errors
    /// Without DISCARD, when they are not on the disk or more than it takes at once, or the device fails.
    pub fn discard(&mut self, sector: u64, sectors: u32) -> Result<(), BlkError> {
        self.one(Request::Discard { sector, sectors }, |_| {})
    }

    /// Has sectors read as zeroes; `unmap`: their storage may be given up.
    ///
    /// # Errors
    /// As for [`discard`](Self::discard), by WRITE_ZEROES.
    pub fn write_zeroes(&mut self, sector: u64, sectors: u32, unmap: bool) -> Result<(), BlkError> {
        let request = Request::WriteZeroes {
            sector,
            sectors,
            unmap,
        };
        self.one(request, |_| {})
    }

    /// Erases sectors for good.
    ///
    /// # Errors
    /// As for [`discard`](Self::discard), by SECURE_ERASE.
    pub fn secure_erase(&mut self, sector: u64, sectors: u32) -> Result<(), BlkError> {
        self.one(Request::SecureErase { sector, sectors }, |_| {})
    }

    /// The identity of the disk, filled up with zeroes.
    ///
    /// # Errors
    /// When the device fails.
    pub fn id(&mut self) -> Result<[u8; ID_BYTES], BlkError> {
        let mut id = [0; ID_BYTES];
        self.one(Request::Id, |done| {
            done.read(&mut id);
        })?;
        Ok(id)
    }

    /// Resets the device and gives it back.
    ///
    /// # Errors
    /// When the device does not reset in time.
    pub fn stop(self) -> Result<Device, BlkError> {
        let Self { lanes, control, .. } = self;
        drop(lanes);
        let closed = control.close(Deadline::after(PATIENCE));
        closed.map_err(|(_, error)| error.into())
    }

    fn whole(&self, op: Op, len: usize) -> Result<(), BlkError> {
        if len.is_multiple_of(SECTOR as usize) {
            return Ok(());
        }
        let most = usize::MAX - (SECTOR as usize - 1);
        Err(BlkError::Length { op, len, most })
    }

    fn one(
        &mut self,
        request: Request<'_>,
        mut then: impl FnMut(&Completion<'_>),
    ) -> Result<(), BlkError> {
        self.all(1, |_| request, |_, done| then(done))
    }

    /// Does `count` requests on the first queue, as many at once as it has room for, and waits for all of them. The first
    /// failure ends it, when nothing is under way any more.
    fn all<'r>(
        &mut self,
        count: usize,
        request: impl Fn(usize) -> Request<'r>,
        mut then: impl FnMut(usize, &Completion<'_>),
    ) -> Result<(), BlkError> {
        let under_way = self.lane(0)?.under_way();
        if under_way != 0 {
            let (queue, count) = (0, under_way);
            return Err(BlkError::UnderWay { queue, count });
        }
        let (mut next, mut done) = (0, 0);
        let mut failed = Ok(());
        let mut by = Deadline::after(PATIENCE);
        while done < next || (next < count && failed.is_ok()) {
            while next < count && failed.is_ok() {
                match self.submit(0, next as u64, request(next)) {
                    Ok(true) => next += 1,
                    Ok(false) => break,
                    Err(e) => failed = Err(e),
                }
            }
            self.publish(0)?;
            let came = self.complete(0, |completion| {
                match completion.result() {
                    // Below `count`.
                    Ok(()) => then(completion.tag() as usize, completion),
                    Err(e) if failed.is_ok() => failed = Err(e),
                    Err(_) => {}
                }
            })?;
            done += came;
            if came != 0 {
                by = Deadline::after(PATIENCE);
            } else if done < next && !self.wait(0, by)? {
                let (op, seconds) = (request(done).op(), PATIENCE.as_secs());
                return Err(BlkError::Timeout { op, seconds });
            }
        }
        failed
    }

    #[inline]
    fn lane(&mut self, queue: u16) -> Result<&mut Lane, BlkError> {
        let count = self.queues();
        let place = usize::from(queue);
        self.lanes
            .get_mut(place)
            .ok_or(BlkError::NoQueue { queue, count })
    }
}

impl fmt::Debug for BlkDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlkDriver")
            .field("control", &self.control)
            .field("capacity", &self.capacity())
            .field("queues", &self.lanes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
