//! Which pairs are used: by number, and when queues are reset.

use vdpa_core::bits::{self, net};
use vdpa_core::{DeviceType, Features, QueueIndex};

use super::card::{Card, config, loops, other_half, pairs, require_loop};
use super::inlet::{Came, Inlet};
use super::packet::{Header, TCP4, frame, payload};
use crate::checked::{ensure, fail, skip};
use crate::{Bench, Checked, Ring, Variant};

/// Pairs that are tried at most.
const MOST: u16 = 4;
/// Bytes of a segment's payload: no more than the least MTU that there is has room for.
pub(super) const SMALL: usize = 8;
/// Buffers in each receive queue.
const BUFFERS: usize = 32;

const PAIRS_SET: [u8; 2] = [4, 0];

pub(super) const MQ: Features = Features::NONE.with(net::MQ);
pub(super) const RSS: Features = Features::NONE.with(net::RSS);

/// A card with more pairs than the first.
pub(super) struct Pairs<'b> {
    pub(super) card: Card<'b>,
    /// Those behind the first pair.
    inlets: Vec<Inlet>,
    outlets: Vec<Ring>,
    /// How many there are; not all of them need be started.
    pub(super) most: u16,
}

impl<'b> Pairs<'b> {
    pub(super) fn open(
        bench: &'b Bench<'b>,
        variant: Variant,
        more: Features,
        less: Features,
    ) -> Checked<Self> {
        bench.require_type(DeviceType::Net)?;
        Self::started(Card::prepare(bench.open()?, variant, more, less)?)
    }

    /// Starts the other pairs, and the card.
    fn started(card: Card<'b>) -> Checked<Self> {
        let most = pairs(&card.rig)?;
        let (mut inlets, mut outlets) = (Vec::new(), Vec::new());
        for pair in 1..most.min(MOST) {
            inlets.push(Inlet::new(
                &card.rig,
                card.rig.queue(2 * pair, 64)?,
                card.header(),
            ));
            outlets.push(card.rig.queue(2 * pair + 1, 64)?);
        }
        let mut all = Self {
            card,
            inlets,
            outlets,
            most,
        };
        all.card.rig.run()?;
        all.post()?;
        Ok(all)
    }

    fn post(&mut self) -> Checked {
        let Self { card, inlets, .. } = self;
        card.rx.post(&card.rig, BUFFERS, 2048)?;
        for inlet in inlets {
            inlet.post(&card.rig, BUFFERS, 2048)?;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> u16 {
        self.inlets.len() as u16 + 1
    }

    /// The receive queue of a pair.
    fn inlet(&mut self, pair: u16) -> Option<&mut Inlet> {
        match usize::from(pair).checked_sub(1) {
            None => Some(&mut self.card.rx),
            Some(at) => self.inlets.get_mut(at),
        }
    }

    /// Sends a frame through the transmit queue of a pair.
    pub(super) fn send(&mut self, pair: u16, frame: &[u8]) -> Checked {
        let Self { card, outlets, .. } = self;
        let piece = card.rig.place(&card.packet(Header::default(), frame))?;
        let at = usize::from(pair).checked_sub(1);
        let ring = at
            .and_then(|at| outlets.get_mut(at))
            .unwrap_or(&mut card.tx);
        ring.add(&[piece], &[])?;
        ring.publish();
        ring.wait(&card.rig, 1)?;
        Ok(())
    }

    /// What there is by now: the pair that it came in, and the packet.
    fn look(&mut self) -> Checked<Option<(u16, Came)>> {
        let Self { card, inlets, .. } = self;
        for (pair, inlet) in (0..).zip(std::iter::once(&mut card.rx).chain(inlets)) {
            if let Some(came) = inlet.try_receive(&card.rig)? {
                return Ok(Some((pair, came)));
            }
        }
        Ok(None)
    }

    /// Takes what came until now.
    fn forget(&mut self) -> Checked {
        let by = self.card.bench().by();
        while self.look()?.is_some() {
            ensure!(!by.expired(), "packets come without end");
        }
        Ok(())
    }

    /// Waits for a packet, wherever it comes.
    pub(super) fn receive(&mut self) -> Checked<(u16, Came)> {
        let mut found = None;
        self.card.bench().until("a packet in any queue", || {
            found = self.look()?;
            Ok(found.is_some())
        })?;
        found.map_or_else(|| fail!("no packet came"), Ok)
    }

    /// Sends as many flows, through the transmit queues of the first `senders` pairs in turn, and answers with how many
    /// of them came where. All of them have to come.
    fn flows(&mut self, count: u16, senders: u16) -> Checked<Vec<u16>> {
        let mut came = vec![0; usize::from(self.len())];
        for flow in 0..count {
            let ports = [20_000 + 7 * flow, 80 + flow];
            let sent = TCP4.whole(&TCP4.flow(ports), &payload(flow.into(), SMALL));
            self.send(flow % senders, &sent)?;
            let (pair, packet) = self.receive()?;
            ensure!(packet.frame == sent, "another packet came");
            if let Some(count) = came.get_mut(usize::from(pair)) {
                *count += 1;
            }
        }
        Ok(came)
    }

    fn set(&mut self, count: u16) -> Checked {
        let [low, high] = count.to_le_bytes();
        let [class, command] = PAIRS_SET;
        self.card.order(
            &format!("VQ_PAIRS_SET {count}"),
            &[class, command, low, high],
        )
    }
}

/// Skips unless there are several pairs.
fn several<'b>(bench: &'b Bench<'b>, variant: Variant) -> Checked<Pairs<'b>> {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::MQ)?;
    let most = config(&bench.open()?)?.max_virtqueue_pairs();
    if most < 2 {
        skip!("it has one pair of queues");
    }
    require_loop(bench)?;
    Pairs::open(bench, variant, MQ, RSS)
}

/// That of these counts none is behind the first `pairs`.
fn within(came: &[u16], pairs: u16, when: &str) -> Checked {
    let over: u16 = came.iter().skip(pairs.into()).sum();
    ensure!(
        over == 0,
        "{when} packets came by pairs as {came:?}: {over} of them in pairs that are not used"
    );
    Ok(())
}

pub(super) fn one_pair_after_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut all = several(bench, variant)?;
    within(&all.flows(16, 1)?, 1, "at first")?;
    let pairs = all.len();
    all.set(pairs)?;
    all.flows(16, pairs)?;
    all.card.rig.reset()?;
    let card = Card::prepare(all.card.rig, variant, MQ, RSS)?;
    within(&Pairs::started(card)?.flows(16, 1)?, 1, "after a reset")
}

pub(super) fn no_pair_above_those_set(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut all = several(bench, variant)?;
    let most = all.len();
    for pairs in (1..=most).chain((1..most).rev()) {
        all.set(pairs)?;
        let came = all.flows(12, pairs)?;
        within(&came, pairs, &format!("with {pairs} set"))?;
    }
    Ok(())
}

pub(super) fn queues_in_reset_stall_nothing(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(bits::RING_RESET)?;
    require_loop(bench)?;
    let mut all = Pairs::open(bench, variant, MQ, RSS)?;
    let pairs = all.len();
    if all.card.has(net::MQ) {
        all.set(pairs)?;
    }
    all.flows(8, pairs)?;
    // One after the other, until none is left. Each packet goes to another queue, or nowhere; its buffer comes back.
    for pair in 0..pairs {
        let q = QueueIndex::new(2 * pair);
        all.card.rig.device.reset_queue(q, bench.by())?;
        if let Some(inlet) = all.inlet(pair) {
            inlet.stopped = true;
        }
        // What came before that.
        all.forget()?;
        for flow in 0..40 {
            let ports = [30_000 + flow, 90];
            let sent = TCP4.whole(&TCP4.flow(ports), &payload(flow.into(), SMALL));
            all.send(flow % pairs, &sent)
                .map_err(|e| e.about(format!("with {} receive queues reset", pair + 1)))?;
        }
        let by = bench.by();
        while let Some((into, _)) = all.look()? {
            ensure!(!by.expired(), "packets come without end");
            ensure!(
                into > pair,
                "a packet came in queue {}, which is reset",
                2 * into
            );
        }
    }
    // They come up again, and packets come again.
    let header = all.card.header();
    for pair in 0..pairs {
        let inlet = Inlet::new(&all.card.rig, all.card.rig.queue(2 * pair, 64)?, header);
        if let Some(old) = all.inlet(pair) {
            *old = inlet;
        }
    }
    all.post()?;
    let last = frame(1, 60);
    all.send(0, &last)?;
    // What came for no queue may have been kept for one.
    let by = bench.by();
    while all.receive()?.1.frame != last {
        ensure!(
            !by.expired(),
            "packets come, and not the one that was sent after a queue reset"
        );
    }
    Ok(())
}

pub(super) fn wrong_numbers_of_pairs(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::MQ)?;
    let loops = loops(bench)?;
    let mut all = Pairs::open(bench, variant, MQ, RSS)?;
    let (pairs, most) = (all.len(), all.most);
    all.set(pairs)?;
    for wrong in [0, most.saturating_add(1), 0x8001, u16::MAX] {
        let command = [PAIRS_SET, wrong.to_le_bytes()].concat();
        all.card
            .refused(&format!("VQ_PAIRS_SET {wrong}"), &command)?;
        if loops {
            within(&all.flows(8, pairs)?, pairs, "after a refusal")?;
        }
    }
    all.set(1)?;
    if loops {
        let command = [PAIRS_SET, [0, 0]].concat();
        all.card.refused("VQ_PAIRS_SET 0", &command)?;
        within(&all.flows(8, 1)?, 1, "after a refusal, with one set")?;
    }
    other_half(loops)
}
