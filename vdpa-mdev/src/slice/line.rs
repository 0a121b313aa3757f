//! The device that is shared, driven: one pair of queues, and as little else as will do.

use std::os::fd::AsFd;
use std::time::Duration;

use vdpa_core::bits::{self, net};
use vdpa_core::config::net::NetStatus;
use vdpa_core::config::{Mac, NetConfig};
use vdpa_core::session::{Completions, Control, Lease, Negotiating, Part, Queue, QueueSetup};
use vdpa_core::{Device, DeviceType, Error, Features, QueueIndex, Result, Session, Sleeper};
use vdpa_mem::Deadline;
use vdpa_sim::frames::HEADER_BYTES;
use vdpa_sim::port::vlan::{Rewrite, TAG_BYTES};

use super::error::SliceError;
use super::tags::{TAG, TAG_AT};

/// How long the device may take for what it does at once: a reset, a command.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most descriptors of a queue.
const MOST: u16 = 256;

/// What is accepted wherever it is offered: nothing that changes what a frame is.
///
/// No receive offloads: what comes is a frame as on a cable. No transmit offloads: the uplink finishes what slices leave
/// to it, so that it does not matter what the device could. No MQ: one thread drives it.
const WANTED: Features = Features::of(&[
    bits::VERSION_1,
    bits::ACCESS_PLATFORM,
    bits::ORDER_PLATFORM,
    bits::RING_PACKED,
    bits::EVENT_IDX,
    net::MAC,
    net::MTU,
    net::STATUS,
    net::CTRL_VQ,
    net::CTRL_RX,
]);

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Bytes of VLAN tags that may come on top of the MTU.
const TAGS: usize = 2 * TAG_BYTES;

/// How many frames are taken from the device at once.
const BATCH: usize = 64;

/// What is known of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Its own address; `None` where it has none.
    pub(super) mac: Option<Mac>,
    /// The longest payload of a frame, in bytes.
    pub(super) mtu: u16,
}

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    /// In so many bytes.
    Yes(usize),
    /// Not now: there is room when the device calls.
    Full,
    /// Never: there is no device, or the frame is longer than its MTU allows.
    Never,
}

/// The device, running.
pub(super) struct Line {
    // Queues go before the device that they are of.
    receive: Queue,
    transmit: Queue,
    _commands: Option<Queue>,
    control: Control,
    pub(super) facts: Facts,
    done: Completions,
    frame: Box<[u8]>,
    /// Frames were put in the queue, and the device was not told.
    unpublished: bool,
    /// Somebody waits for room. Nobody sends before it is asked again.
    pub(super) full: bool,
    /// Calls of the transmit queue were asked for since its file was drained last.
    called: bool,
    /// Frames that it received, or gave back as sent.
    worked: u64,
}

impl Line {
    /// Takes hold of the device, and starts it.
    ///
    /// # Errors
    /// When it is no network device, or fails, or does not receive for others.
    pub(super) fn up(device: Device) -> Result<Self> {
        let (name, device_type) = (device.info().name.clone(), device.info().device_type);
        if device_type != DeviceType::Net {
            let device = name;
            return Err(SliceError::NotNet {
                device,
                device_type,
            }
            .into());
        }
        let session = Session::<Negotiating>::open(device, soon()).map_err(|(_, e)| e)?;
        let wanted = session.acceptable() & WANTED;
        let wanted = vdpa_core::graph::close_down(DeviceType::Net, wanted);
        let mut session = session.negotiate(wanted).map_err(|(_, e)| e)?;
        let facts = facts(|to| session.read_config(0, to), wanted, session.device())?;

        let longest = usize::from(facts.mtu)
            .saturating_add(ETHERNET)
            .saturating_add(TAGS);
        // Far below 4 GiB: the MTU has 16 bits.
        let buffer_len = HEADER_BYTES.saturating_add(longest) as u32;
        for q in [RECEIVE, TRANSMIT] {
            let size = size(&session, q, MOST)?;
            let setup = QueueSetup {
                size,
                buffers: size.into(),
                buffer_len,
                indirect: 0,
                ..QueueSetup::default()
            };
            session.queue(q, setup)?;
        }
        let promiscuous = wanted.contains(net::CTRL_RX);
        if promiscuous {
            let size = size(&session, COMMANDS, 4)?;
            let setup = QueueSetup {
                size,
                buffers: 1,
                buffer_len: 4,
                indirect: 0,
                ..QueueSetup::default()
            };
            session.queue(COMMANDS, setup)?;
        }
        let session = session.run().map_err(|(_, e)| e)?;
        let (control, queues) = session.split();
        let mut queues = queues.into_iter();
        // Both were set up, and come in ascending order.
        let (Some(receive), Some(transmit)) = (queues.next(), queues.next()) else {
            return Err(Error::QueueAbsent { queue: TRANSMIT });
        };
        let mut commands = queues.next();
        match &mut commands {
            Some(commands) => open_ears(commands, &name)?,
            None => tracing::warn!(
                "{name}: cannot be asked to be promiscuous: if it receives for its own address alone, its slices receive \
                 nothing from the wire"
            ),
        }
        let mut line = Self {
            receive,
            transmit,
            _commands: commands,
            control,
            facts,
            done: Completions::new(BATCH),
            frame: vec![0; longest].into_boxed_slice(),
            unpublished: false,
            full: false,
            called: false,
            worked: 0,
        };
        while let Some(lease) = line.receive.lease() {
            line.offer(lease)?;
        }
        line.receive.publish();
        Ok(line)
    }

    /// Resets the device, and gives it back.
    ///
    /// # Errors
    /// When it does not reset in time.
    pub(super) fn down(self) -> Result<Device> {
        let Self {
            receive,
            transmit,
            _commands: commands,
            control,
            ..
        } = self;
        drop((receive, transmit, commands));
        control.close(soon()).map_err(|(_, e)| e)
    }

    /// Whether the device has a carrier, or does not say.
    pub(super) fn has_carrier(&self) -> Result<bool> {
        if !self.control.features().contains(net::STATUS) {
            return Ok(true);
        }
        let mut bytes = [0; NetConfig::SIZE];
        let size = (self.control.device().info().config_size as usize).min(NetConfig::SIZE);
        let known = bytes.get_mut(..size).unwrap_or_default();
        self.control.read_config(0, known)?;
        let status = NetConfig::from_bytes(&bytes).status();
        Ok(status.contains(NetStatus::LINK_UP))
    }

    /// Whether a frame can be sent now. Without, the device calls once one can.
    ///
    /// # Errors
    /// When the device broke the queue.
    pub(super) fn has_room(&mut self) -> Result<bool> {
        let lease = self.room()?;
        let there = lease.is_some();
        if let Some(lease) = lease {
            self.transmit.put(lease);
        }
        Ok(there)
    }

    /// A buffer to be sent.
    fn room(&mut self) -> Result<Option<Lease>> {
        // Who was told that there is none comes first when there is some.
        if self.full {
            return Ok(None);
        }
        let lease = match self.transmit.lease() {
            Some(lease) => Some(lease),
            None => self.reclaim()?,
        };
        self.full = lease.is_none();
        Ok(lease)
    }

    /// How many frames the device received, or sent and gave back, since it was started.
    pub(super) fn worked(&mut self) -> u64 {
        // It may have given back what nobody has looked for yet. One that breaks the queue has shown no more than before.
        if let Ok(Some(lease)) = self.reclaim() {
            self.transmit.put(lease);
        }
        self.worked
    }

    /// Puts a frame in the transmit queue. The device sees it after [`publish`](Self::publish).
    ///
    /// * `rewrite`: what is done to its tag
    ///
    /// # Errors
    /// When the device broke the queue.
    pub(super) fn send(&mut self, frame: &[u8], rewrite: Rewrite) -> Result<Sent> {
        let (tag, skip) = match rewrite {
            Rewrite::Keep => (None, 0),
            Rewrite::Tag(vlan) => (Some(vlan), 0),
            Rewrite::Untag => (None, TAG_BYTES),
        };
        let added = if tag.is_some() { TAG_BYTES } else { 0 };
        let len = HEADER_BYTES
            .saturating_add(frame.len().saturating_sub(skip))
            .saturating_add(added);
        if len > self.transmit.buffer_len() as usize {
            return Ok(Sent::Never);
        }
        let Some(lease) = self.room()? else {
            return Ok(Sent::Full);
        };
        // Nothing else writes to the buffer's header: it is all zeros, which says that the frame is finished.
        let mut at = HEADER_BYTES;
        let mut put = |queue: &mut Queue, piece: &[u8]| {
            at = at.saturating_add(queue.write(&lease, at, piece));
        };
        match (tag, skip) {
            (None, 0) => put(&mut self.transmit, frame),
            (tag, skip) => {
                let rest = frame.get(TAG_AT.saturating_add(skip)..).unwrap_or_default();
                put(&mut self.transmit, frame.get(..TAG_AT).unwrap_or_default());
                if let Some(vlan) = tag {
                    put(&mut self.transmit, &TAG);
                    put(&mut self.transmit, &vlan.to_be_bytes());
                }
                put(&mut self.transmit, rest);
            }
        }
        // It is not longer than the buffer.
        match self.transmit.send(lease, at as u32) {
            Ok(()) => {
                self.unpublished = true;
                Ok(Sent::Yes(at.saturating_sub(HEADER_BYTES)))
            }
            Err(refused) => {
                self.transmit.put(refused.lease);
                Err(refused.why)
            }
        }
    }

    /// Shows the device what was sent.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.transmit.publish();
        }
    }

    /// Calls `each` for every frame that has come, at most a batch of them. Answers with how many that were.
    ///
    /// # Errors
    /// When the device broke the queue.
    pub(super) fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<usize> {
        let Self {
            receive,
            done,
            frame,
            worked,
            ..
        } = self;
        let count = receive.poll(done)?;
        *worked = worked.saturating_add(count as u64);
        if count == 0 {
            return Ok(0);
        }
        let mut refused = None;
        for one in done.drain() {
            let len = (one.len as usize).saturating_sub(HEADER_BYTES);
            if let Some(to) = frame.get_mut(..len) {
                receive.read(&one.lease, HEADER_BYTES, to);
                each(to);
            }
            if let Err(back) = receive.receive(one.lease) {
                receive.put(back.lease);
                refused = Some(back.why);
            }
        }
        receive.publish();
        refused.map_or(Ok(count), Err)
    }

    /// Takes back what was sent. Answers with a buffer, if there is one.
    fn reclaim(&mut self) -> Result<Option<Lease>> {
        let Self {
            transmit,
            done,
            worked,
            ..
        } = self;
        // What is not shown yet is not sent either.
        if std::mem::take(&mut self.unpublished) {
            transmit.publish();
        }
        let count = transmit.poll(done)?;
        *worked = worked.saturating_add(count as u64);
        for one in done.drain() {
            transmit.put(one.lease);
        }
        Ok(transmit.lease())
    }

    /// Asks for calls, before a sleep. `true`: there is something to do already.
    pub(super) fn arm(&mut self) -> bool {
        let mut there = self.receive.arm();
        if self.full {
            self.called = true;
            there |= self.transmit.arm();
        } else if std::mem::take(&mut self.called) {
            // Its file may be readable still, and would end every sleep.
            self.transmit.arm();
            self.transmit.disarm();
        }
        there
    }

    /// Asks for silence, after a sleep.
    pub(super) fn disarm(&mut self) {
        self.receive.disarm();
        self.transmit.disarm();
    }

    /// Calls of the device end a sleep at `sleeper`, or do not any more.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn watch(&self, sleeper: &Sleeper, on: bool) -> Result<()> {
        for (queue, token) in [(&self.receive, 0), (&self.transmit, 1)] {
            match on {
                true => sleeper.watch(queue.as_fd(), token)?,
                false => sleeper.unwatch(queue.as_fd())?,
            }
        }
        Ok(())
    }

    fn offer(&mut self, lease: Lease) -> Result<()> {
        self.receive.receive(lease).map_err(|refused| {
            self.receive.put(refused.lease);
            refused.why
        })
    }
}

const RECEIVE: QueueIndex = QueueIndex::new(0);
const TRANSMIT: QueueIndex = QueueIndex::new(1);
/// Behind the one pair that there is without MQ: virtio 1.4 §5.1.2.
const COMMANDS: QueueIndex = QueueIndex::new(2);

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// The size of a queue: no more than `most`, and a power of two, which a ring of either format may have.
fn size(
    session: &Session<vdpa_core::session::Configured>,
    q: QueueIndex,
    most: u16,
) -> Result<u16> {
    let size = session.queue_limits(q)?.max_size.min(most);
    Ok(size.checked_ilog2().map_or(0, |log| 1 << log))
}

fn facts(
    read: impl FnOnce(&mut [u8]) -> Result<()>,
    features: Features,
    device: &Device,
) -> Result<Facts> {
    /// That of Ethernet: what a device without MTU takes.
    const USUAL: u16 = 1500;

    let mut bytes = [0; NetConfig::SIZE];
    let size = (device.info().config_size as usize).min(NetConfig::SIZE);
    read(bytes.get_mut(..size).unwrap_or_default())?;
    let config = NetConfig::from_bytes(&bytes);
    let mac = features.contains(net::MAC).then(|| config.mac());
    Ok(Facts {
        mac: mac.filter(|mac| mac.is_unicast()),
        mtu: match features.contains(net::MTU) {
            true => config.mtu(),
            false => USUAL,
        },
    })
}

/// Has the device receive for every address: virtio 1.4 §5.1.9.5.1.
fn open_ears(commands: &mut Queue, device: &str) -> Result<()> {
    /// VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, on.
    const COMMAND: [u8; 3] = [0, 0, 1];
    /// What no device answers with.
    const UNSAID: u8 = 0xa5;

    let refused = |answer: String| SliceError::Promiscuous {
        device: device.to_owned(),
        answer,
    };
    let Some(lease) = commands.lease() else {
        return Err(Error::QueueAbsent { queue: COMMANDS });
    };
    commands.write(&lease, 0, &COMMAND);
    commands.write(&lease, COMMAND.len(), &[UNSAID]);
    let parts = [Part::Readable(2), Part::Readable(1), Part::Writable(1)];
    commands.submit(lease, &parts).map_err(|e| e.why)?;
    commands.publish();
    let (mut done, by) = (Completions::new(1), soon());
    while commands.poll(&mut done)? == 0 {
        if !commands.wait(by)? {
            return Err(refused("no answer".to_owned()).into());
        }
    }
    let mut answer = [UNSAID];
    for one in done.drain() {
        commands.read(&one.lease, COMMAND.len(), &mut answer);
        commands.put(one.lease);
    }
    match answer {
        [0] => Ok(()),
        [answer] => Err(refused(format!("answer {answer}")).into()),
    }
}
