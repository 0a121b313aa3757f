//! TCP and UDP over any network device of the contract: the stack [`smoltcp`] on a [`NetDriver`].
//!
//! ```text
//!   sockets ─ Interface::poll ─▶ transmit ─▶ Merge ─▶ NetDriver::push_with ─▶ device
//!                             ◀─ receive  ◀─ inbox ◀─ NetDriver::receive   ◀─ device
//!   then wait, which shows the device what was sent
//! ```
//!
//! What was negotiated is used: with CSUM the device completes checksums, with HOST_TSO4 and HOST_TSO6 consecutive
//! segments of a connection go to it as one large segment; with GUEST_CSUM and GUEST_TSO4 and GUEST_TSO6 the stack takes
//! what another host never put on a wire as it is, up to 64 KiB at a time. [`Phy::ASK`] is all of these. All queue pairs
//! are served; a connection's packets leave by the same one.
//!
//! The stack is version 0.12, which panics when a peer sends more than the window that a TCP socket gave it last, and takes
//! a scaled window that shrank in rounding for such a case. With a receive buffer of at most 65,535 bytes nothing is
//! scaled; against peers that break the rules a socket without [acknowledgement
//! delay](::smoltcp::socket::tcp::Socket::set_ack_delay) is safe as long as it is polled before its delay is asked for.
//!
//! ```
//! # #[cfg(feature = "sim")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use smoltcp::iface::Interface;
//! use smoltcp::time::Instant;
//! use vdpa::net::smoltcp::Phy;
//! use vdpa::net::{NetDriver, Setup};
//!
//! let driver = NetDriver::start(vdpa::open("sim:net")?, &Setup::asking(Phy::ASK))?;
//! let mut phy = Phy::new(driver)?;
//! let interface = Interface::new(phy.config(), &mut phy, Instant::now());
//! # drop(interface);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sim"))]
//! # fn main() {}
//! ```

mod merge;
mod outbox;
mod packet;

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::BorrowedFd;

use smoltcp::iface::Config;
use smoltcp::phy::{Checksum as Duty, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress};
use vdpa_core::bits::net;
use vdpa_core::{DeviceType, Features};
use vdpa_mem::Deadline;

use self::outbox::Outbox;
use self::packet::Transport;
use super::{Checksum, Frame, NetDriver, NetError};

/// What went through a queue pair in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Frames; a large one counts once.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are cut into segments elsewhere.
    pub large: u64,
    /// Those whose checksum is completed elsewhere.
    pub partial: u64,
}

/// A [`Device`] for smoltcp: what it sends and receives goes through a [`NetDriver`].
pub struct Phy {
    outbox: Outbox,
    inbox: Inbox,
    fault: Option<NetError>,
}

/// Frames that arrived and that the stack has not seen.
struct Inbox {
    frames: VecDeque<Vec<u8>>,
    /// Memory for more of them.
    spare: Vec<Vec<u8>>,
    traffic: Vec<Traffic>,
    /// Frames that were dropped since their checksum is wrong.
    wrong: u64,
    /// Whether the stack leaves TCP and UDP checksums to this side.
    verifies: bool,
}

impl Phy {
    /// What to ask a device for: all that a [`Phy`] can use.
    pub const ASK: Features = Features::of(&[
        net::CSUM,
        net::HOST_TSO4,
        net::HOST_TSO6,
        net::GUEST_CSUM,
        net::GUEST_TSO4,
        net::GUEST_TSO6,
    ]);

    /// A device for smoltcp over `driver`.
    ///
    /// # Errors
    /// When the driver negotiated that it receives several UDP datagrams as one (GUEST_USO4, GUEST_USO6), which the stack
    /// does not understand.
    pub fn new(driver: NetDriver) -> Result<Self, NetError> {
        let features = driver.features();
        let unusable = features & (net::GUEST_USO4 | net::GUEST_USO6);
        if !unusable.is_empty() {
            return Err(NetError::FeatureUnknown {
                features: unusable.display(DeviceType::Net).to_string(),
                known: Self::ASK.display(DeviceType::Net).to_string(),
            });
        }
        let pairs = usize::from(driver.pairs());
        Ok(Self {
            outbox: Outbox::new(driver),
            inbox: Inbox {
                frames: VecDeque::new(),
                spare: Vec::new(),
                traffic: vec![Traffic::default(); pairs],
                wrong: 0,
                verifies: features.contains(net::GUEST_CSUM),
            },
            fault: None,
        })
    }

    /// How an interface begins: with the address of the device, or a locally administered one where it has none, and a
    /// random seed.
    pub fn config(&self) -> Config {
        let mac = self.driver().ethernet().mac.map(|mac| mac.octets());
        let address = EthernetAddress(mac.unwrap_or([0x02, 0, 0, 0, 0, 0x01]));
        let mut config = Config::new(HardwareAddress::Ethernet(address));
        config.random_seed = RandomState::new().build_hasher().finish();
        config
    }

    /// The driver.
    pub fn driver(&self) -> &NetDriver {
        &self.outbox.driver
    }

    /// The driver, for commands.
    pub fn driver_mut(&mut self) -> &mut NetDriver {
        &mut self.outbox.driver
    }

    /// Gives the driver back. What was not flushed is lost.
    pub fn into_driver(self) -> NetDriver {
        self.outbox.driver
    }

    /// What was received through `pair`; nothing for one that is not in use.
    pub fn received(&self, pair: u16) -> Traffic {
        let traffic = self.inbox.traffic.get(usize::from(pair));
        traffic.copied().unwrap_or_default()
    }

    /// What was sent through `pair`; nothing for one that is not in use.
    pub fn sent(&self, pair: u16) -> Traffic {
        self.outbox.sent(pair)
    }

    /// How many received packets were dropped since their TCP or UDP checksum is wrong. The stack itself looks where the
    /// device leaves none to the driver (GUEST_CSUM), and does not count.
    pub fn wrong_checksums(&self) -> u64 {
        self.inbox.wrong
    }

    /// Shows the device all that the stack has sent. Belongs behind the polls of the interface, unless a
    /// [`wait`](Self::wait) follows.
    ///
    /// # Errors
    /// When the device broke a queue, now or since the last time.
    pub fn flush(&mut self) -> Result<(), NetError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.outbox.flush()
    }

    /// Flushes, and waits until something has arrived, or can be sent again after the device was behind. `false` when the
    /// deadline passes first.
    ///
    /// The interface sends one packet a socket at each poll, and has a delay of 0 while there is more. So with a deadline
    /// that has passed, what was sent since the last time may stay for what follows it to be put together with.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush), or when the system cannot wait.
    pub fn wait(&mut self, by: Deadline) -> Result<bool, NetError> {
        self.wait_also(&[], by)
    }

    /// The same, and also until one of these files is readable.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_also(&mut self, also: &[BorrowedFd<'_>], by: Deadline) -> Result<bool, NetError> {
        if !self.outbox.grows() || !by.expired() {
            self.flush()?;
        }
        if !self.inbox.frames.is_empty() {
            return Ok(true);
        }
        match self.outbox.is_behind() {
            // Nobody tells when the device has sent something.
            true => self.outbox.driver.wait_any(also, by.min(outbox::soon())),
            false => self.outbox.driver.wait_any(also, by),
        }
    }

    /// Takes what has arrived at all pairs into the inbox.
    fn fetch(&mut self) -> Result<(), NetError> {
        for pair in 0..self.outbox.driver.pairs() {
            let inbox = &mut self.inbox;
            self.outbox
                .driver
                .receive(pair, |frame| inbox.take(pair, frame))?;
        }
        Ok(())
    }
}

impl Inbox {
    fn take(&mut self, pair: u16, frame: &Frame<'_>) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        frame.copy_to(&mut bytes);
        let header = frame.header();
        if let Some(traffic) = self.traffic.get_mut(usize::from(pair)) {
            traffic.count(bytes.len(), &header);
        }
        let unseen = self.verifies && header.checksum == Checksum::Whole;
        let wrong = |transport: Transport| !transport.is_right(&bytes);
        if unseen && Transport::find(&bytes).is_some_and(wrong) {
            self.wrong = self.wrong.wrapping_add(1);
            self.spare.push(bytes);
        } else {
            self.frames.push_back(bytes);
        }
    }
}

impl Traffic {
    fn count(&mut self, len: usize, header: &super::Header) {
        self.frames = self.frames.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(len as u64);
        let partial = matches!(header.checksum, Checksum::Partial { .. });
        self.partial = self.partial.wrapping_add(u64::from(partial));
        let large = header.segments.is_some();
        self.large = self.large.wrapping_add(u64::from(large));
    }
}

impl Device for Phy {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if self.inbox.frames.is_empty() && self.fault.is_none() {
            self.fault = self.fetch().err();
        }
        // What is received may have to be answered.
        if self.inbox.frames.is_empty() || self.outbox.is_behind() {
            return None;
        }
        let received = Received {
            inbox: &mut self.inbox,
        };
        let (outbox, fault) = (&mut self.outbox, &mut self.fault);
        Some((received, Sending { outbox, fault }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        if self.outbox.is_behind() || self.fault.is_some() {
            return None;
        }
        let (outbox, fault) = (&mut self.outbox, &mut self.fault);
        Some(Sending { outbox, fault })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let features = self.driver().features();
        let duty = match (
            features.contains(net::GUEST_CSUM),
            features.contains(net::CSUM),
        ) {
            (false, false) => Duty::Both,
            (false, true) => Duty::Rx,
            (true, false) => Duty::Tx,
            (true, true) => Duty::None,
        };
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.driver().ethernet().max_untagged();
        capabilities.checksum.tcp = duty;
        capabilities.checksum.udp = duty;
        capabilities
    }
}

/// A frame for the stack.
pub struct Received<'a> {
    inbox: &'a mut Inbox,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        // A token is only made where there is one; the stack drops a frame without a byte.
        let frame = self.inbox.frames.pop_front().unwrap_or_default();
        let result = f(&frame);
        self.inbox.spare.push(frame);
        result
    }
}

/// Room for a frame of the stack.
pub struct Sending<'a> {
    outbox: &'a mut Outbox,
    fault: &'a mut Option<NetError>,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let (result, sent) = self.outbox.write(len, f);
        if let Err(error) = sent {
            self.fault.get_or_insert(error);
        }
        result
    }
}

impl std::fmt::Debug for Phy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Phy")
            .field("driver", self.driver())
            .field("waiting", &self.inbox.frames.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests;
