//! From a device to a running driver.

use vdpa_core::bits::{self, net};
use vdpa_core::config::NetConfig;
use vdpa_core::session::{Configured, Negotiating, QueueSetup};
use vdpa_core::{Control, Device, DeviceType, Features, Queue, QueueIndex, Session, Status, graph};
use vdpa_mem::Deadline;

use super::control::{self, Commands};
use super::frame::HEADER_BYTES;
use super::pair::{Layout, Pair};
use super::{Command, Ethernet, NetDriver, NetError, PATIENCE, Ring};

/// What a driver asks of its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The rings.
    pub ring: Ring,
    /// Queue pairs, at least 1. More than one needs MQ.
    pub pairs: u16,
    /// Descriptors in a queue, at most: the largest legal size that neither this nor the device's limit exceeds.
    pub queue_size: u16,
    /// Whether to receive what is for others too. Where the device filters, and can be told not to (CTRL_RX).
    pub promiscuous: bool,
}

impl Default for Setup {
    /// Split rings as large as the device has them, one pair, and every frame is received.
    fn default() -> Self {
        Self {
            ring: Ring::default(),
            pairs: 1,
            queue_size: vdpa_ring::layout::MAX_SIZE,
            promiscuous: true,
        }
    }
}

/// A step on the way to a running driver that was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// The device was reset, and acknowledged; these are its features.
    Offered(Features),
    /// The device agreed to these: FEATURES_OK was read back.
    Accepted(Features),
    /// The device is live.
    Live {
        /// Its status byte.
        status: Status,
        /// The features agreed on.
        features: Features,
        /// How many queues were started.
        queues: u16,
        /// Descriptors in the first one.
        size: u16,
        /// Address and MTU.
        ethernet: Ethernet,
    },
}

/// What this driver understands, the rings apart. CTRL_VLAN is not among it: with it the device drops every VLAN that
/// it was not told of.
const KNOWN: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::INDIRECT_DESC,
    bits::EVENT_IDX,
    net::MAC,
    net::MTU,
    net::STATUS,
    net::SPEED_DUPLEX,
    net::MRG_RXBUF,
    net::CTRL_VQ,
    net::CTRL_RX,
    net::CTRL_RX_EXTRA,
    net::CTRL_MAC_ADDR,
]);

/// The most bytes in a receive buffer where frames may be spread over several.
const MERGED_BYTES: usize = 2048;
/// A command is a chain of two descriptors: what is asked, and the answer.
const COMMAND_PARTS: u16 = 2;
/// A cache line.
const LINE: usize = 64;

pub(super) fn start(
    device: Device,
    setup: &Setup,
    watch: &mut dyn FnMut(Step),
) -> Result<NetDriver, NetError> {
    let device_type = device.info().device_type;
    if device_type != DeviceType::Net {
        return Err(NetError::NotNet { device_type });
    }
    let by = Deadline::after(PATIENCE);
    let session = Session::open(device, by).map_err(|(_, error)| error)?;
    watch(Step::Offered(session.offered()));

    let wanted = choose(&session, setup)?;
    let session = session.negotiate(wanted).map_err(|(_, error)| error)?;
    watch(Step::Accepted(session.features()));

    let plan = Plan::of(&session, setup)?;
    let (control, queues) = plan.run(session)?;
    let (status, features) = (control.status()?, control.features());
    watch(Step::Live {
        status,
        features,
        queues: u16::try_from(queues.len()).unwrap_or(u16::MAX),
        size: queues.first().map_or(0, Queue::size),
        ethernet: plan.ethernet,
    });
    plan.drive(control, queues, setup)
}

/// The features to ask for.
fn choose(session: &Session<Negotiating>, setup: &Setup) -> Result<Features, NetError> {
    let acceptable = session.acceptable();
    let missing = setup.ring.features() - acceptable;
    if !missing.is_empty() {
        return Err(NetError::RingNotOffered {
            ring: setup.ring,
            missing: missing.display(DeviceType::Net).to_string(),
        });
    }
    let mut known = KNOWN | setup.ring.features();
    if setup.pairs > 1 {
        known |= net::MQ;
    }
    let limits = session.device().queue_limits(QueueIndex::new(0))?;
    if limits.max_size.min(setup.queue_size) < COMMAND_PARTS {
        known -= net::CTRL_VQ;
    }
    Ok(graph::close_down(DeviceType::Net, acceptable & known))
}

/// Which queues there are to be, and what is in them.
struct Plan {
    ethernet: Ethernet,
    layout: Layout,
    pairs: u16,
    /// The number of the control queue.
    commands: Option<QueueIndex>,
    size: u16,
    split: bool,
}

impl Plan {
    fn of(session: &Session<Configured>, setup: &Setup) -> Result<Self, NetError> {
        let features = session.features();
        let mut bytes = [0; NetConfig::SIZE];
        let have = NetConfig::SIZE.min(session.device().info().config_size as usize);
        session.read_config(0, &mut bytes[..have])?;
        let config = NetConfig::from_bytes(&bytes);
        let most = match features.contains(net::MQ) {
            true => config.max_virtqueue_pairs().max(1),
            false => 1,
        };
        if setup.pairs == 0 || setup.pairs > most {
            return Err(NetError::Pairs {
                asked: setup.pairs,
                most,
            });
        }
        // Behind all pairs that there could be, virtio 1.4 §5.1.2.
        let commands = features.contains(net::CTRL_VQ).then_some(most * 2);
        Ok(Self {
            ethernet: Ethernet::of(features, &config),
            layout: match features.contains(net::MRG_RXBUF) {
                true => Layout::Merged,
                false => Layout::Single,
            },
            pairs: setup.pairs,
            commands: commands.map(QueueIndex::new),
            size: setup.queue_size,
            split: !features.contains(bits::RING_PACKED),
        })
    }

    /// Sets every queue up, and starts them with the device.
    fn run(&self, mut session: Session<Configured>) -> Result<(Control, Vec<Queue>), NetError> {
        for pair in 0..self.pairs {
            let (receive, transmit) = (QueueIndex::new(pair * 2), QueueIndex::new(pair * 2 + 1));
            let size = self.legal_size(&session, receive)?;
            session.queue(receive, queue(size, self.receive_bytes(size)))?;
            let size = self.legal_size(&session, transmit)?;
            session.queue(transmit, queue(size, self.frame_bytes()))?;
        }
        if let Some(commands) = self.commands {
            let size = self.legal_size(&session, commands)?;
            let setup = QueueSetup {
                buffers: 1,
                indirect: 2,
                ..queue(size, LINE)
            };
            session.queue(commands, setup)?;
        }
        let session = session.run().map_err(|(_, error)| error)?;
        Ok(session.split())
    }

    /// Gives the queues, in ascending order, what they are for.
    fn drive(
        &self,
        control: Control,
        queues: Vec<Queue>,
        setup: &Setup,
    ) -> Result<NetDriver, NetError> {
        let features = control.features();
        let mut queues = queues.into_iter();
        let mut pairs = Vec::with_capacity(usize::from(self.pairs));
        for (number, (receive, transmit)) in (0..self.pairs).zip(TwoByTwo(&mut queues)) {
            pairs.push(Pair::new(number, self.layout, receive, transmit)?);
        }
        let mut commands = queues.next().map(Commands::new);
        let mut tell = |command| control::run(commands.as_mut(), features, command);
        // Either way: devices differ in what they begin with.
        if features.contains(net::CTRL_RX) {
            tell(Command::Promiscuous(setup.promiscuous))?;
        }
        if self.pairs > 1 {
            tell(Command::Pairs(self.pairs))?;
        }
        Ok(NetDriver {
            pairs,
            commands,
            control,
            ethernet: self.ethernet,
        })
    }

    fn legal_size(&self, session: &Session<Configured>, q: QueueIndex) -> Result<u16, NetError> {
        let size = self.size.min(session.queue_limits(q)?.max_size);
        // A size of 0 is for the session to refuse.
        Ok(match size.checked_ilog2() {
            Some(log) if self.split => 1 << log,
            _ => size,
        })
    }

    /// The longest frame, with its header.
    fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.ethernet.max_tagged()
    }

    /// A receive buffer: every frame fits into one, or into all of the queue.
    fn receive_bytes(&self, size: u16) -> usize {
        match self.layout {
            Layout::Single => self.frame_bytes(),
            Layout::Merged => {
                let least = self.frame_bytes().div_ceil(usize::from(size.max(1)));
                self.frame_bytes().min(MERGED_BYTES).max(least)
            }
        }
    }
}

/// A queue with a buffer for each descriptor.
///
/// Buffers are an odd number of cache lines apart: at a power of two their first lines, which are all that small packets
/// touch, would compete for a few sets of the cache.
fn queue(size: u16, bytes: usize) -> QueueSetup {
    let lines = bytes.div_ceil(LINE) | 1;
    QueueSetup {
        size,
        buffers: size.into(),
        // Below 2^17: an MTU has 16 bits.
        buffer_len: (lines * LINE) as u32,
        indirect: 0,
        ..QueueSetup::default()
    }
}

/// The next two of an iterator at a time.
struct TwoByTwo<'i, I>(&'i mut I);

impl<I: Iterator> Iterator for TwoByTwo<'_, I> {
    type Item = (I::Item, I::Item);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}
