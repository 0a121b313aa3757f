//! The queues of a driver: how many, how large, with which buffers.

use vdpa_core::bits::{self, net};
use vdpa_core::config::NetConfig;
use vdpa_core::session::{Configured, QueueSetup};
use vdpa_core::{Control, Features, Queue, QueueIndex, Session};

use super::control::{self, Commands};
use super::features::{receives_large, sends_large};
use super::header::MAX_LARGE;
use super::pair::{Layout, Pair};
use super::{Command, Ethernet, NetDriver, NetError, Setup};

/// The most bytes in a receive buffer where frames may be spread over several.
const MERGED_BYTES: usize = 2048;
/// The same where frames may be large, and at least so many in a transmit buffer then.
const LARGE_BYTES: usize = 4096;
/// The most receive buffers that each have room for a large frame.
const LARGE_BUFFERS: u16 = 256;
/// A cache line.
const LINE: usize = 64;

/// Which queues there are to be, and what is in them.
pub(super) struct Plan {
    pub(super) ethernet: Ethernet,
    features: Features,
    layout: Layout,
    pairs: u16,
    /// The number of the control queue.
    commands: Option<QueueIndex>,
    size: u16,
    split: bool,
}

impl Plan {
    pub(super) fn of(session: &Session<Configured>, setup: &Setup) -> Result<Self, NetError> {
        let features = session.features();
        let mut bytes = [0; NetConfig::SIZE];
        let have = NetConfig::SIZE.min(session.device().info().config_size as usize);
        session.read_config(0, &mut bytes[..have])?;
        let config = NetConfig::from_bytes(&bytes);
        let most = match features.intersects(net::MQ | net::RSS) {
            // Queues are numbered with 16 bits.
            true => config.max_virtqueue_pairs().clamp(1, 0x7fff),
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
            features,
            layout: Layout::of(features),
            pairs: setup.pairs,
            commands: commands.map(QueueIndex::new),
            size: setup.queue_size,
            split: !features.contains(bits::RING_PACKED),
        })
    }

    /// Sets every queue up, and starts them with the device.
    pub(super) fn run(
        &self,
        mut session: Session<Configured>,
    ) -> Result<(Control, Vec<Queue>), NetError> {
        for pair in 0..self.pairs {
            let (receive, transmit) = (QueueIndex::new(pair * 2), QueueIndex::new(pair * 2 + 1));
            let size = self.legal_size(&session, receive)?;
            session.queue(receive, self.receive_queue(size))?;
            let size = self.legal_size(&session, transmit)?;
            session.queue(transmit, self.transmit_queue(size))?;
        }
        if let Some(commands) = self.commands {
            let size = self.legal_size(&session, commands)?;
            let setup = QueueSetup {
                buffers: 1,
                indirect: 2,
                ..queue(size, Command::MAX_BYTES)
            };
            session.queue(commands, setup)?;
        }
        let session = session.run().map_err(|(_, error)| error)?;
        Ok(session.split())
    }

    /// Gives the queues, in ascending order, what they are for.
    pub(super) fn drive(
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

    /// The longest frame that goes on a network, or any that is `large`, with its header.
    fn frame_bytes(&self, large: bool) -> usize {
        let most = if large { MAX_LARGE } else { 0 };
        self.layout.header + self.ethernet.max_tagged().max(most)
    }

    /// Every frame fits into a receive buffer, or into all of the queue.
    fn receive_queue(&self, size: u16) -> QueueSetup {
        let large = receives_large(self.features);
        let longest = self.frame_bytes(large);
        if self.layout.is_merged() {
            let most = if large { LARGE_BYTES } else { MERGED_BYTES };
            return queue(size, longest.min(most).max(share(longest, size)));
        }
        let buffers = if large { size.min(LARGE_BUFFERS) } else { size };
        QueueSetup {
            buffers: buffers.into(),
            ..queue(size, longest)
        }
    }

    /// A frame that goes on a network fits into a transmit buffer; a large one is a chain of several, in an indirect
    /// table where there are such.
    fn transmit_queue(&self, size: u16) -> QueueSetup {
        let frame = self.frame_bytes(false);
        if !sends_large(self.features) {
            return queue(size, frame);
        }
        let longest = self.frame_bytes(true);
        let bytes = frame.max(LARGE_BYTES).max(share(longest, size));
        QueueSetup {
            // At most 17.
            indirect: longest.div_ceil(bytes) as u16,
            ..queue(size, bytes)
        }
    }
}

/// What a buffer has to hold for a queue of `size` of them to hold `bytes`.
fn share(bytes: usize, size: u16) -> usize {
    bytes.div_ceil(usize::from(size.max(1)))
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
