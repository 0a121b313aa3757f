//! A network driver over any device of the contract: sends and receives Ethernet frames through virtqueues.
//!
//! ```text
//!   push, push, ... ─▶ transmit queue ─▶ device ─▶ wire          publish: shown and kicked once for all of them
//!   receive(each)   ◀─ receive queue  ◀─ device ◀─ wire          the buffers go back once for all of them
//!   command         ◀▶ control queue
//! ```
//!
//! Each queue pair (virtio 1.4 §5.1.2) has buffers of its own, made at the start: nothing is allocated per packet. A
//! frame is behind a header, and may be spread over several receive buffers (MRG_RXBUF). What work on it is left to the
//! device, or was left to this driver, stands in the header ([`Header`]): only with what [`Setup::ask`] names.
//!
//! ```
//! # #[cfg(feature = "sim")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use vdpa::Deadline;
//! use vdpa::net::{NetDriver, Ring, Setup};
//!
//! let setup = Setup { ring: Ring::Packed, ..Setup::default() };
//! let mut driver = NetDriver::start(vdpa::open("sim:net")?, &setup)?;
//! assert_eq!(driver.send(0, [[0xff; 60], [0xff; 60]])?, 2);
//! let mut got = 0;
//! while got < 2 {
//!     assert!(driver.wait(0, Deadline::after(Duration::from_secs(5)))?);
//!     got += driver.receive(0, |frame| assert_eq!(frame.len(), 60))?;
//! }
//! driver.stop()?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sim"))]
//! # fn main() {}
//! ```

mod command;
mod control;
mod error;
mod ethernet;
mod features;
mod frame;
mod hashing;
mod header;
mod manage;
mod pair;
mod plan;
mod ring;
mod setup;
#[cfg(feature = "smoltcp")]
pub mod smoltcp;
mod wait;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use vdpa_core::{Control, Device, Features};
use vdpa_mem::Deadline;

use self::control::Commands;
use self::pair::Pair;

pub use self::command::Command;
pub use self::error::NetError;
pub use self::ethernet::Ethernet;
pub use self::features::{OFFLOADS, OPTIONAL, RECEIVE_OFFLOADS, TRANSMIT_OFFLOADS};
pub use self::frame::Frame;
pub use self::hashing::{HASH_KEY_BYTES, Hashing, Spread};
pub use self::header::{Checksum, Hash, Header, Segmented, Segments};
pub use self::manage::Way;
pub use self::ring::{Ring, UnknownRing};
pub use self::setup::{Setup, Step};

/// How long a device may take for what it does at once: reset, a control command.
const PATIENCE: Duration = Duration::from_secs(5);

/// A network device with its driver.
///
/// Dropping it resets the device; [`stop`](Self::stop) waits for that, and gives the device back.
pub struct NetDriver {
    // Queues go before the device that they are of.
    pairs: Vec<Pair>,
    commands: Option<Commands>,
    control: Control,
    ethernet: Ethernet,
}

impl NetDriver {
    /// Resets `device`, negotiates, sets the queues up and starts it.
    ///
    /// # Errors
    /// When it is no network device, cannot do what `setup` asks for, or fails.
    ///
    /// # Spec
    /// virtio 1.4 §3.1.1, §5.1.5.
    pub fn start(device: Device, setup: &Setup) -> Result<Self, NetError> {
        Self::start_watched(device, setup, &mut |_| {})
    }

    /// The same, and tells `watch` of each step when it is done.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_watched(
        device: Device,
        setup: &Setup,
        watch: &mut dyn FnMut(Step),
    ) -> Result<Self, NetError> {
        setup::start(device, setup, watch)
    }

    /// The features agreed on.
    pub fn features(&self) -> Features {
        self.control.features()
    }

    /// Address and MTU.
    pub fn ethernet(&self) -> Ethernet {
        self.ethernet
    }

    /// The queue pairs in use.
    pub fn pairs(&self) -> u16 {
        u16::try_from(self.pairs.len()).unwrap_or(u16::MAX)
    }

    /// The control side: the device, its configuration and its events.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// How many frames of `len` bytes the receive buffers of a pair have room for, at least 1: who has more under way
    /// to this driver loses some.
    pub fn frames_in_flight(&self, len: usize) -> usize {
        self.pairs.first().map_or(1, |pair| pair.capacity(len))
    }

    /// Puts a frame, from the destination address to the end of the payload, into the transmit queue of `pair`. The
    /// device sees it after [`publish`](Self::publish). `false`: the queue is full for now, and nothing was done.
    ///
    /// # Errors
    /// When there is no such pair, the frame is shorter than an Ethernet header or longer than the MTU allows, or the
    /// device broke the queue.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.6.2.
    #[inline]
    pub fn push(&mut self, pair: u16, frame: &[u8]) -> Result<bool, NetError> {
        let least = Ethernet::HEADER_BYTES;
        let most = self.ethernet.max_frame(frame);
        if frame.len() < least || frame.len() > most {
            let len = frame.len();
            return Err(NetError::FrameLength { len, least, most });
        }
        self.pair(pair)?.push(None, frame)
    }

    /// The same, with work on the frame left to the device: a checksum to be completed, a large frame to be cut into
    /// segments. A large frame may have up to 65550 bytes; each of its segments is bound by the MTU.
    ///
    /// # Errors
    /// As for [`push`](Self::push); also when the header needs a feature that was not negotiated ([`Setup::ask`]), or
    /// does not describe the frame.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.9.2.1.
    pub fn push_with(
        &mut self,
        pair: u16,
        header: &Header,
        frame: &[u8],
    ) -> Result<bool, NetError> {
        let least = Ethernet::HEADER_BYTES;
        let most = match header.segments {
            Some(_) => header::MAX_LARGE,
            None => self.ethernet.max_frame(frame),
        };
        if frame.len() < least || frame.len() > most {
            let len = frame.len();
            return Err(NetError::FrameLength { len, least, most });
        }
        header.check(frame, self.control.features(), &self.ethernet)?;
        self.pair(pair)?.push(Some(header), frame)
    }

    /// Shows the device what was pushed, with one kick at most, and takes back the buffers that it is done with.
    ///
    /// # Errors
    /// When there is no such pair, or the device broke the queue.
    #[inline]
    pub fn publish(&mut self, pair: u16) -> Result<(), NetError> {
        self.pair(pair)?.publish()
    }

    /// Pushes as many of `frames` as the queue has room for, and publishes them. Returns how many that were.
    ///
    /// # Errors
    /// As for [`push`](Self::push); the frames before the one at fault are published.
    pub fn send<F: AsRef<[u8]>>(
        &mut self,
        pair: u16,
        frames: impl IntoIterator<Item = F>,
    ) -> Result<usize, NetError> {
        let mut sent = 0;
        let mut pushed = Ok(true);
        for frame in frames {
            pushed = self.push(pair, frame.as_ref());
            if !matches!(pushed, Ok(true)) {
                break;
            }
            sent += 1;
        }
        self.publish(pair)?;
        pushed.map(|_| sent)
    }

    /// Calls `each` for every frame that has arrived at `pair`, at most as many as the queue has buffers, and gives the
    /// buffers back. Returns how many frames that were, 0 if none is there.
    ///
    /// # Errors
    /// When there is no such pair, or the device broke the queue. Frames before the fault were passed on.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.6.4.
    #[inline]
    pub fn receive(&mut self, pair: u16, each: impl FnMut(&Frame<'_>)) -> Result<usize, NetError> {
        self.pair(pair)?.receive(each)
    }

    /// Kicks the queues of `pair`, whether the device asks for it or not: for whoever waits in vain, and does not trust a
    /// device to hear every kick. What it missed it finds then.
    ///
    /// # Errors
    /// When there is no such pair.
    pub fn kick(&mut self, pair: u16) -> Result<(), NetError> {
        self.pair(pair)?.kick();
        Ok(())
    }

    /// Waits until something has arrived at `pair`. `false` when the deadline passes first.
    ///
    /// # Errors
    /// When there is no such pair, or the system cannot wait.
    pub fn wait(&mut self, pair: u16, by: Deadline) -> Result<bool, NetError> {
        self.pair(pair)?.wait(by)
    }

    /// Waits until something has arrived at any pair, or one of these files is readable. `false` when the deadline passes
    /// first.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn wait_any(&mut self, also: &[BorrowedFd<'_>], by: Deadline) -> Result<bool, NetError> {
        let mut there = false;
        for pair in &mut self.pairs {
            there |= pair.arm();
        }
        let fds = self.pairs.iter().map(Pair::fd).chain(also.iter().copied());
        let waited = match there {
            true => Ok(true),
            false => wait::readable(fds, by),
        };
        self.pairs.iter_mut().for_each(Pair::disarm);
        waited
    }

    /// Asks the device for calls when something arrives at `pair`, for whoever waits on [`fd`](Self::fd) himself. `true`
    /// if something is there already.
    ///
    /// # Errors
    /// When there is no such pair.
    pub fn arm(&mut self, pair: u16) -> Result<bool, NetError> {
        Ok(self.pair(pair)?.arm())
    }

    /// Asks for silence again.
    ///
    /// # Errors
    /// When there is no such pair.
    pub fn disarm(&mut self, pair: u16) -> Result<(), NetError> {
        self.pair(pair)?.disarm();
        Ok(())
    }

    /// A file that is readable when something has arrived at `pair`, after [`arm`](Self::arm).
    ///
    /// # Errors
    /// When there is no such pair.
    pub fn fd(&self, pair: u16) -> Result<BorrowedFd<'_>, NetError> {
        let count = self.pairs();
        let there = self.pairs.get(usize::from(pair));
        Ok(there.ok_or(NetError::NoPair { pair, count })?.fd())
    }

    /// How many frames were dropped, since what the device wrote in front of them cannot be.
    pub fn malformed(&self) -> u64 {
        self.pairs.iter().map(Pair::malformed).sum()
    }

    /// Has the device carry out a command, and waits for that.
    ///
    /// # Errors
    /// When the feature for it was not negotiated, or the device refuses it or does not answer.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.9.
    pub fn command(&mut self, command: Command) -> Result<(), NetError> {
        let features = self.control.features();
        control::run(self.commands.as_mut(), features, command)
    }

    /// Resets the device and gives it back.
    ///
    /// # Errors
    /// When the device does not reset in time.
    pub fn stop(self) -> Result<Device, NetError> {
        let Self {
            pairs,
            commands,
            control,
            ethernet: _,
        } = self;
        drop((pairs, commands));
        let closed = control.close(Deadline::after(PATIENCE));
        closed.map_err(|(_, error)| error.into())
    }

    #[inline]
    fn pair(&mut self, pair: u16) -> Result<&mut Pair, NetError> {
        let count = self.pairs();
        let place = usize::from(pair);
        self.pairs
            .get_mut(place)
            .ok_or(NetError::NoPair { pair, count })
    }
}

impl fmt::Debug for NetDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetDriver")
            .field("control", &self.control)
            .field("ethernet", &self.ethernet)
            .field("pairs", &self.pairs.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
