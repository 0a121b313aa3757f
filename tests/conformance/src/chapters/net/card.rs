//! A network card with its queues: what is sent, what comes back, and commands.

use std::time::{Duration, Instant};

use vdpa_core::bits::net;
use vdpa_core::config::NetConfig;
use vdpa_core::{DeviceType, Features, graph};

use super::inlet::{Came, Inlet};
use super::packet::{ETHERNET, Header, frame};
use crate::checked::{ensure, fail, skip};
use crate::lane::NET_HEADER;
use crate::{Bench, Checked, Rig, Ring, Variant};

/// The address that all frames come from, by which those of others are told apart.
pub(super) const OURS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// Chains in a queue.
const SIZE: u16 = 64;
/// How long the first frame may take to come back, at least.
const LEAST: Duration = Duration::from_secs(1);
/// Bytes that HASH_REPORT adds to a header.
const REPORT: u32 = 8;

pub(super) const OK: u8 = 0;
pub(super) const ERR: u8 = 1;

/// A card: its first pair, and its control queue if there is one.
pub(super) struct Card<'b> {
    pub(super) rig: Rig<'b>,
    pub(super) rx: Inlet,
    pub(super) tx: Ring,
    pub(super) control: Option<Ring>,
    header: u32,
}

impl<'b> Card<'b> {
    /// A card that runs with what any driver can live with, and `more` of it as far as it is offered and its
    /// dependencies are met, without any of `less`. Its receive queue has no buffers.
    pub(super) fn open(
        bench: &'b Bench<'b>,
        variant: Variant,
        more: Features,
        less: Features,
    ) -> Checked<Self> {
        bench.require_type(DeviceType::Net)?;
        let rig = bench.open()?;
        Self::around(rig, variant, more, less)
    }

    /// The same with a device that is in reset.
    pub(super) fn around(
        rig: Rig<'b>,
        variant: Variant,
        more: Features,
        less: Features,
    ) -> Checked<Self> {
        let card = Self::prepare(rig, variant, more, less)?;
        card.rig.run()?;
        Ok(card)
    }

    /// The same, not live yet.
    pub(super) fn prepare(
        rig: Rig<'b>,
        variant: Variant,
        more: Features,
        less: Features,
    ) -> Checked<Self> {
        let wanted = (rig.plain(variant) | (more & rig.device.offered())) - less;
        let wanted = graph::close_down(DeviceType::Net, wanted);
        rig.negotiate(wanted)?;
        let header = match wanted.contains(net::HASH_REPORT) {
            true => NET_HEADER + REPORT,
            false => NET_HEADER,
        };
        let control = match wanted.contains(net::CTRL_VQ) {
            true => Some(rig.queue(2 * pairs(&rig)?, SIZE)?),
            false => None,
        };
        let rx = Inlet::new(&rig, rig.queue(0, SIZE)?, header);
        let tx = rig.queue(1, SIZE)?;
        Ok(Self {
            rig,
            rx,
            tx,
            control,
            header,
        })
    }

    /// The same as [`open`](Self::open), of a card that gives back what is sent, with `count` buffers of `len` bytes.
    pub(super) fn looping(
        bench: &'b Bench<'b>,
        variant: Variant,
        [more, less]: [Features; 2],
        count: usize,
        len: u32,
    ) -> Checked<Self> {
        require_loop(bench)?;
        let mut card = Self::open(bench, variant, more, less)?;
        card.rx.post(&card.rig, count, len)?;
        Ok(card)
    }

    pub(super) fn bench(&self) -> &'b Bench<'b> {
        self.rig.bench()
    }

    /// Bytes of a packet's header.
    pub(super) fn header(&self) -> u32 {
        self.header
    }

    pub(super) fn has(&self, bit: vdpa_core::FeatureBit) -> bool {
        self.rig.device.negotiated().contains(bit)
    }

    /// A packet as it is in a buffer.
    pub(super) fn packet(&self, header: Header, frame: &[u8]) -> Vec<u8> {
        let mut bytes = header.to_bytes();
        bytes.resize(self.header as usize, 0);
        bytes.extend(frame);
        bytes
    }

    /// Sends a packet, and waits until its buffer comes back.
    pub(super) fn send(&mut self, header: Header, frame: &[u8]) -> Checked {
        let piece = self.rig.place(&self.packet(header, frame))?;
        self.tx.add(&[piece], &[])?;
        self.tx.publish();
        self.tx.wait(&self.rig, 1)?;
        Ok(())
    }

    /// Waits for our next packet.
    pub(super) fn receive(&mut self) -> Checked<Came> {
        self.rx.receive(&self.rig)
    }

    /// Sends a frame and waits for it.
    pub(super) fn echo(&mut self, frame: &[u8]) -> Checked<Came> {
        self.send(Header::default(), frame)?;
        let came = self.receive()?;
        ensure!(
            came.frame == frame,
            "a frame of {} bytes was sent, and another one of {} bytes came",
            frame.len(),
            came.frame.len()
        );
        Ok(came)
    }

    /// Waits for the packets of a frame that was sent, which may come in pieces, until `payload` bytes of theirs are
    /// there. What comes must be one of the four kinds.
    pub(super) fn parts(&mut self, payload: usize) -> Checked<Vec<Came>> {
        let (mut parts, mut have) = (Vec::new(), 0);
        while have < payload {
            let came = self.receive()?;
            let Some(found) = super::packet::dissect(&came.frame) else {
                fail!("what came is not what was sent: {:02x?}", came.frame);
            };
            // Or a card that sends such without end would keep us for ever.
            ensure!(
                !found.payload.is_empty(),
                "a part of what was sent came without payload"
            );
            have += found.payload.len();
            parts.push(came);
        }
        ensure!(
            have == payload,
            "{payload} bytes of payload were sent, and {have} came"
        );
        Ok(parts)
    }

    /// Sends a frame, and answers with all packets that come before it.
    pub(super) fn before(&mut self, last: &[u8]) -> Checked<Vec<Came>> {
        self.send(Header::default(), last)?;
        let (by, mut came) = (self.bench().by(), Vec::new());
        loop {
            let next = self.receive()?;
            if next.frame == last {
                return Ok(came);
            }
            came.push(next);
            ensure!(
                !by.expired(),
                "{} packets came, and the frame that was sent after them is not among them",
                came.len()
            );
        }
    }

    /// Sends a command, its kind and its data apart, as drivers do, and answers with all that is writable, once it was
    /// used. What was not written is canaries.
    pub(super) fn ask(&mut self, command: &[u8], room: u32) -> Checked<Vec<u8>> {
        let Some(control) = &mut self.control else {
            skip!("CTRL_VQ is not offered");
        };
        let (kind, data) = command.split_at(command.len().min(2));
        let mut readable = Vec::new();
        for part in [kind, data] {
            if !part.is_empty() {
                readable.push(self.rig.place(part)?);
            }
        }
        let answer = self.rig.alloc(room)?;
        let writable = if room > 0 { vec![answer] } else { Vec::new() };
        control.add(&readable, &writable)?;
        control.publish();
        control.wait(&self.rig, 1)?;
        Ok(self.rig.read(answer))
    }

    /// Sends a command, and answers with what it came back with: the last byte that is writable.
    pub(super) fn command(&mut self, command: &[u8]) -> Checked<u8> {
        let said = self.ask(command, 1)?;
        Ok(said.last().copied().unwrap_or(ERR))
    }

    /// A command that has to be carried out.
    pub(super) fn order(&mut self, what: &str, command: &[u8]) -> Checked {
        let ack = self.command(command)?;
        ensure!(ack == OK, "{what} came back with {ack}");
        Ok(())
    }

    /// A command that has to be refused.
    pub(super) fn refused(&mut self, what: &str, command: &[u8]) -> Checked {
        let ack = self.command(command)?;
        ensure!(ack == ERR, "{what} came back with {ack}, not with ERR");
        Ok(())
    }

    /// Resets it, and brings it up again as `prepare` does; its queue has no buffers.
    pub(super) fn again(self, variant: Variant, more: Features, less: Features) -> Checked<Self> {
        self.rig.reset()?;
        Self::around(self.rig, variant, more, less)
    }
}

/// The configuration space, as much of it as there is.
pub(super) fn config(rig: &Rig<'_>) -> Checked<NetConfig> {
    let size = (rig.device.info().config_size as usize).min(NetConfig::SIZE);
    let mut bytes = vec![0; size];
    rig.device.read_config(0, &mut bytes)?;
    Ok(NetConfig::from_bytes(&bytes))
}

/// Bytes of the longest frame that the card's MTU lets pass: of a card that agreed on it.
pub(crate) fn longest_frame(rig: &Rig<'_>) -> Checked<usize> {
    Ok(ETHERNET + usize::from(config(rig)?.mtu()))
}

/// How many pairs of queues there are: virtio 1.4 §5.1.2.
pub(super) fn pairs(rig: &Rig<'_>) -> Checked<u16> {
    let features = rig.device.negotiated();
    match features.contains(net::MQ) || features.contains(net::RSS) {
        true => Ok(config(rig)?.max_virtqueue_pairs()),
        false => Ok(1),
    }
}

/// Whether what is sent comes back: found out once, with a frame to everybody. Comes before a card is opened, since
/// there may be only one.
pub(crate) fn loops(bench: &Bench<'_>) -> Checked<bool> {
    bench.require_type(DeviceType::Net)?;
    bench.loops(|| probe(bench))
}

/// Skips unless what is sent comes back.
pub(super) fn require_loop(bench: &Bench<'_>) -> Checked {
    if !loops(bench)? {
        skip!("what is sent does not come back");
    }
    Ok(())
}

/// The end of a statement of which half was kept, and the other half is seen only in what comes back.
pub(super) fn other_half(loops: bool) -> Checked {
    if !loops {
        skip!(
            "commands are answered rightly; what they bring about is not seen, since what is sent does not come back"
        );
    }
    Ok(())
}

/// Takes what a port that gives back what is sent still holds for this device, sent by those before it: all that comes
/// before a frame of its own. The device is then of no further use.
pub(crate) fn rinse(rig: Rig<'_>, number: u32) -> Checked {
    /// More than a port keeps.
    const BUFFERS: usize = 64;
    let mut card = Card::around(rig, Variant::SPLIT, Features::NONE, Features::NONE)?;
    card.rx.post(&card.rig, BUFFERS, 2048)?;
    card.before(&frame(number, 61)).map(drop)
}

fn probe(bench: &Bench<'_>) -> Checked<bool> {
    let mut card = Card::open(bench, Variant::SPLIT, Features::NONE, Features::NONE)?;
    card.rx.post(&card.rig, 8, 2048)?;
    card.send(Header::default(), &frame(0, 60))?;
    // Whether a packet is as it has to be is asked elsewhere: here it is enough that it is ours.
    let ours = |(bytes, _): &(Vec<u8>, u32)| bytes.get(18..24) == Some(&OURS[..]);
    let (begun, most) = (Instant::now(), (bench.patience() / 2).max(LEAST));
    while begun.elapsed() < most {
        card.rx.look(&card.rig)?;
        if card.rx.came.iter().any(ours) {
            return Ok(true);
        }
        std::thread::yield_now();
    }
    Ok(false)
}
