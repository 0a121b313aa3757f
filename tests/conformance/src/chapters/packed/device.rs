//! What a device has to do with a packed ring.

use vdpa_core::{Area, DeviceType, bits::net};
use vdpa_ring::{Completion, Pos, layout};

use super::super::net::longest_frame;
use super::super::ringside::{complete, each, links, live, spot};
use crate::checked::{ensure, fail, skip};
use crate::hand::{AVAIL, Hand, Link, USED};
use crate::lane::{Cut, Lane, NET_HEADER, Request, Traffic, frame};
use crate::{Bench, Checked, Rig, Ring, Variant};

/// Has the device complete what was given by hand.
fn finish(
    rig: &Rig<'_>,
    lane: &mut Lane,
    hand: &mut Hand,
    given: &[(u16, Request)],
) -> Checked<Vec<Completion>> {
    lane.ring.kick();
    let requests: Vec<Request> = given.iter().map(|(_, request)| request.clone()).collect();
    lane.provoke(rig, &requests)?;
    let room = requests.iter().map(Request::room).max().unwrap_or(0);
    let all = hand.wait(rig, given.len(), room)?;
    for done in &all {
        let found = given.iter().find(|(id, _)| *id == done.id);
        let Some((_, request)) = found else {
            fail!("chain {} came back, which was not given", done.id);
        };
        lane.judge(rig, request, *done)?;
    }
    Ok(all)
}

fn request(rig: &Rig<'_>, lane: &mut Lane) -> Checked<(Request, Vec<Link>)> {
    let request = lane.request(rig)?;
    let chain = links(&request, Cut::Whole);
    Ok((request, chain))
}

pub(super) fn flips_after_the_last_slot(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 6, |rig, lane| {
        let size = lane.ring.size();
        let mut hand = Hand::of(rig, &lane.ring);
        let mut slots = 0;
        while slots < 3 * size {
            // Where the ring stands by the count of slots, not by what anybody remembers.
            let (slot, wrap) = (slots % size, slots / size % 2 == 0);
            let (request, chain) = request(rig, lane)?;
            slots += chain.len() as u16;
            let id = hand.give(&chain)?;
            lane.ring.kick();
            lane.provoke(rig, std::slice::from_ref(&request))?;
            let lap = if wrap { AVAIL | USED } else { 0 };
            let flags = || hand.meta(slot).2 & (AVAIL | USED);
            spot(rig, "the use of a descriptor", || {
                // Available are neither both nor none.
                Ok(matches!(flags(), both if both == AVAIL | USED || both == 0))
            })?;
            let seen = flags();
            ensure!(
                seen == lap,
                "slot {slot} was used with flags {seen:#x} where the wrap counter is {wrap}"
            );
            for done in hand.wait(rig, 1, request.room())? {
                ensure!(done.id == id, "chain {} came back for {id}", done.id);
                lane.judge(rig, &request, done)?;
            }
        }
        Ok(())
    })
}

pub(super) fn starts_in_ring_order(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        let mut hand = Hand::of(rig, &lane.ring);
        for _ in 0..2 {
            // The second chain is there, the first one is not yet: it is not passed over.
            let (first, chain) = request(rig, lane)?;
            let placed = hand.place(&chain)?;
            let (second, chain) = request(rig, lane)?;
            let beside = hand.place(&chain)?;
            let second_id = hand.show(beside);
            let before = rig.image();
            lane.ring.kick();
            rig.bench().quiet();
            ensure!(
                !hand.is_used(hand.used_pos()),
                "slot {} was used before it was available",
                hand.used_pos().index
            );
            let mut allowed = lane.beside();
            allowed.push(lane.ring.area(Area::Device));
            rig.only_changed(&before, &allowed)
                .map_err(|stop| stop.about("a chain behind one that is not available"))?;
            // By hand it was shown in another order than it is started.
            let first_id = hand.show_before(placed);
            let given = [(first_id, first), (second_id, second)];
            finish(rig, lane, &mut hand, &given)?;
        }
        // And what is there together comes in the order it was given in.
        in_order_of_giving(rig, lane, &mut hand)
    })
}

/// Where frames show which buffer was taken when: those that are sent come out in the order they were given in, and those
/// that come in fill one buffer after the other.
fn in_order_of_giving(rig: &Rig<'_>, lane: &mut Lane, hand: &mut Hand) -> Checked {
    if !matches!(lane.traffic, Traffic::Transmit | Traffic::Receive) {
        return Ok(());
    }
    let mut given = Vec::new();
    for _ in 0..hand.room().min(6) {
        let (request, chain) = request(rig, lane)?;
        given.push((hand.give(&chain)?, request));
    }
    if lane.traffic == Traffic::Receive {
        // Judged by what is in each of them.
        return finish(rig, lane, hand, &given).map(drop);
    }
    // What was sent before is no longer on its way, or comes first.
    finish(rig, lane, hand, &given)?;
    if !super::super::net::loops(rig.bench())? {
        return Ok(());
    }
    let wanted: Vec<Vec<u8>> = given
        .iter()
        .flat_map(|(_, request)| request.readable.iter().map(|piece| rig.read(*piece)))
        .map(|packet| packet.into_iter().skip(NET_HEADER as usize).collect())
        .collect();
    let mut got = Vec::new();
    rig.bench().until("the arrival of the frames", || {
        let frames = lane.arrivals(rig)?;
        got.extend(frames.into_iter().filter(|frame| wanted.contains(frame)));
        Ok(got.len() >= wanted.len())
    })?;
    ensure!(
        got == wanted,
        "frames came out in another order than they were given in"
    );
    Ok(())
}

pub(super) fn uses_in_completion_order(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 32, |rig, lane| {
        let mut hand = Hand::of(rig, &lane.ring);
        for count in [1_usize, 4, 6, 3] {
            let mut given = Vec::new();
            for number in 0..count {
                let request = lane.request(rig)?;
                let cut = if number % 2 == 0 {
                    Cut::Whole
                } else {
                    Cut::After(12)
                };
                let mut chain = links(&request, cut);
                if chain.len() > hand.room() {
                    chain = links(&request, Cut::Whole);
                }
                if chain.len() > hand.room() {
                    break;
                }
                given.push((hand.give(&chain)?, request));
            }
            let count = given.len();
            // One used descriptor after the other without a gap, each naming what is in flight, until all are back.
            finish(rig, lane, &mut hand, &given)?;
            ensure!(
                hand.used_pos() == hand.avail_pos(),
                "{count} chains came back up to {:?}, and were given up to {:?}",
                hand.used_pos(),
                hand.avail_pos()
            );
        }
        Ok(())
    })
}

pub(super) fn waits_for_avail(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 4, |rig, lane| {
        let size = lane.ring.size();
        let mut hand = Hand::of(rig, &lane.ring);
        // Three times with slots that were never used, that were used on a lap of ones, and on one of zeroes.
        for lap in 0..3 {
            let before = lane.ring.image(Area::Descriptor);
            lane.ring.kick();
            rig.bench().quiet();
            let after = lane.ring.image(Area::Descriptor);
            ensure!(
                before == after,
                "lap {lap}: a kick, and descriptors change that are not available"
            );
            let mut slots = 0;
            while slots < size {
                let (request, chain) = request(rig, lane)?;
                slots += chain.len() as u16;
                // All of it is there but for the flags of the first.
                let placed = hand.place(&chain)?;
                let idle = rig.image();
                if lap == 0 && slots == chain.len() as u16 {
                    lane.ring.kick();
                    rig.bench().quiet();
                    let mut allowed = lane.beside();
                    allowed.push(lane.ring.area(Area::Device));
                    rig.only_changed(&idle, &allowed)
                        .map_err(|stop| stop.about("before the descriptor is available"))?;
                }
                let id = hand.show(placed);
                finish(rig, lane, &mut hand, &[(id, request)])?;
            }
        }
        Ok(())
    })
}

pub(super) fn leaves_used_descriptors(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 32, |rig, lane| {
        let mut hand = Hand::of(rig, &lane.ring);
        // As far as a lap goes, after which the first one's slot is the driver's again.
        let (mut first, mut left) = (None, usize::from(lane.ring.size()));
        for round in 0..12 {
            let (request, chain) = request(rig, lane)?;
            if chain.len() > left {
                break;
            }
            left -= chain.len();
            let at = hand.used_pos();
            let id = hand.give(&chain)?;
            lane.ring.kick();
            lane.provoke(rig, std::slice::from_ref(&request))?;
            spot(rig, "the use of a descriptor", || Ok(hand.is_used(at)))?;
            // What it says in the moment that it shows is what it says from then on.
            let said = words(&hand, at);
            let seen = first.get_or_insert((at, said));
            for done in hand.wait(rig, 1, request.room())? {
                ensure!(done.id == id, "chain {} came back for {id}", done.id);
                lane.judge(rig, &request, done)?;
            }
            lane.ring.kick();
            for (at, said) in [(at, said), *seen] {
                let says = words(&hand, at);
                ensure!(
                    says == said,
                    "round {round}: the used descriptor in slot {} was {said:x?} and is {says:x?}",
                    at.index
                );
            }
        }
        Ok(())
    })
}

fn words(hand: &Hand, at: Pos) -> [u64; 2] {
    let begin = layout::descriptor(at.index);
    let area = hand.area(Area::Descriptor);
    [area.load_u64(begin), area.load_u64(begin | 8)]
}

pub(super) fn takes_chains_in_order(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 64, |rig, lane| {
        // Pieces that lie the wrong way round in memory: only the list says in which order they are.
        for sizes in [&[12, 20][..], &[5, 7, 3, 11], &[1, 1, 1, 1, 1, 1]] {
            let request = lane.request(rig)?.scattered(rig, sizes)?;
            if !lane.fits(&request, Cut::Whole) {
                continue;
            }
            complete(rig, lane, &request, Cut::Whole)
                .map_err(|stop| stop.about(format_args!("pieces of {sizes:?}")))?;
            if lane.traffic == Traffic::Entropy {
                // Nobody knows what is in them, but that they are filled from the first one on.
                let lens = request.writable.iter();
                let filled = lens.map(|piece| rig.read(*piece));
                let filled: Vec<bool> = filled.map(|bytes| touched(&bytes)).collect();
                let last = filled.iter().rposition(|filled| *filled).unwrap_or(0);
                let long = |at: usize| request.writable[at].len >= 3;
                let gap = (0..last).find(|at| long(*at) && !filled[*at]);
                ensure!(gap.is_none(), "piece {gap:?} is not filled, a later one is");
            }
        }
        Ok(())
    })
}

fn touched(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| *byte != crate::rig::CANARY)
}

pub(super) fn one_used_descriptor_a_list(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 32, |rig, lane| {
        let size = lane.ring.size();
        let mut hand = Hand::of(rig, &lane.ring);
        for (number, sizes) in [&[12][..], &[1, 1, 1], &[7, 9], &[2; 6]].iter().enumerate() {
            let request = lane.request(rig)?.scattered(rig, sizes)?;
            let chain = links(&request, Cut::Whole);
            if chain.len() > hand.room() {
                continue;
            }
            let last = chain.len() - 1;
            let own = (number as u16 + 20) % size;
            // Only the last one's id is the list's.
            let placed = hand.place_as(&chain, |at| match at == last {
                true => own,
                false => (own + 1) % size,
            })?;
            let at = hand.used_pos();
            let id = hand.show(placed);
            let before: Vec<_> = (1..=last as u16)
                .map(|by| words(&hand, at.advance(by, size)))
                .collect();
            let done = finish(rig, lane, &mut hand, &[(id, request)])?;
            ensure!(
                done.first().is_some_and(|done| done.id == own),
                "list {own} came back as {done:?}"
            );
            let after: Vec<_> = (1..=last as u16)
                .map(|by| words(&hand, at.advance(by, size)))
                .collect();
            ensure!(
                before == after,
                "of a list of {} descriptors more than the first one was written",
                last + 1
            );
            let next = at.advance(last as u16 + 1, size);
            ensure!(
                hand.used_pos() == next,
                "the list ends before {next:?}, and {:?} comes next",
                hand.used_pos()
            );
        }
        Ok(())
    })
}

pub(super) fn marks_the_first_of_a_packet_last(bench: &Bench<'_>, variant: Variant) -> Checked {
    const BUFFER: u32 = 64;
    const LONGEST: usize = 600;
    if bench.info()?.device_type != DeviceType::Net {
        skip!("its requests are of one buffer each");
    }
    bench.require(net::MRG_RXBUF)?;
    if !super::super::net::loops(bench)? {
        skip!("what is sent does not come back");
    }
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant).with(net::MRG_RXBUF))?;
    let mut transmit = rig.queue(1, 16)?;
    let receive: Ring = rig.queue(0, 64)?;
    let header = NET_HEADER as usize;
    let packet_len = match rig.device.negotiated().contains(net::MTU) {
        true => LONGEST.min(header + longest_frame(&rig)?),
        false => LONGEST,
    };
    let buffers_of_one = packet_len.div_ceil(BUFFER as usize);
    receive.takes(buffers_of_one)?;
    rig.run()?;
    let mut hand = Hand::of(&rig, &receive);
    for round in 0..bench.times(20, 4) {
        let mut pieces = Vec::new();
        for _ in 0..buffers_of_one {
            let piece = rig.alloc(BUFFER)?;
            pieces.push(piece);
            hand.give(&[Link::writable(piece)])?;
        }
        receive.kick();
        let mut packet = frame(round);
        packet.resize(packet_len - header, 0);
        let packet = [vec![0; header], packet].concat();
        transmit.add(&[rig.place(&packet)?], &[])?;
        transmit.publish();
        let at = hand.used_pos();
        spot(&rig, "the arrival of a packet", || Ok(hand.is_used(at)))?;
        // The first one shows: all of the packet is there.
        let told = rig.read(pieces[0]);
        let buffers = u16::from_le_bytes([told[10], told[11]]);
        ensure!(
            usize::from(buffers) == buffers_of_one,
            "num_buffers is {buffers} where a packet of {packet_len} bytes fills {buffers_of_one} of {BUFFER}"
        );
        for by in 1..buffers {
            let slot = at.advance(by, receive.size());
            ensure!(
                hand.is_used(slot),
                "round {round}: buffer 0 of {buffers} is used, and buffer {by} is not yet"
            );
        }
        hand.wait(&rig, buffers_of_one, BUFFER)?;
        transmit.wait(&rig, 1)?;
    }
    Ok(())
}

/// The driver's event suppression structure, behind the driver half's back.
fn ask(lane: &Lane, mode: u16, at: Pos) {
    lane.ring
        .store_u16(Area::Driver, layout::EVENT_POS, at.bits());
    lane.ring.store_u16(Area::Driver, layout::EVENT_MODE, mode);
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

pub(super) fn obeys_event_modes(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 8, |rig, lane| {
        let size = lane.ring.size();
        let used = |lane: &Lane| match lane.ring.half().state() {
            vdpa_ring::QueueState::Packed { used, .. } => used,
            vdpa_ring::QueueState::Split { .. } => Pos::START,
        };
        let exchange = |lane: &mut Lane| lane.exchange(rig, 1, Cut::Whole);
        // Enabled, over more than a lap: always.
        for _ in 0..9 {
            let calls = lane.ring.calls();
            let here = used(lane);
            ask(lane, 0, here);
            exchange(lane)?;
            lane.ring
                .called(rig, calls)
                .map_err(|stop| stop.about("events are enabled"))?;
        }
        // Disabled: never.
        let here = used(lane);
        ask(lane, 1, here);
        rig.bench().quiet();
        let before = lane.ring.calls();
        for _ in 0..4 {
            exchange(lane)?;
        }
        rig.bench().quiet();
        let calls = lane.ring.calls() - before;
        ensure!(calls == 0, "{calls} calls with events disabled");
        if !variant.event_idx {
            return Ok(());
        }
        // At one descriptor: each on two laps, next to be used.
        for _ in 0..9 {
            let calls = lane.ring.calls();
            let here = used(lane);
            ask(lane, 2, here);
            exchange(lane)?;
            lane.ring
                .called(rig, calls)
                .map_err(|stop| stop.about(format_args!("events are enabled at {here:?}")))?;
        }
        // Not at its slot of the other lap: what was just used, until it comes round again.
        let here = used(lane);
        exchange(lane)?;
        let by = used(lane).since(here, size).unwrap_or(1);
        ask(lane, 2, here.advance(size, size));
        let before = lane.ring.calls();
        let mut left = size - by;
        while left >= by {
            let calls = lane.ring.calls() - before;
            ensure!(
                calls == 0,
                "{calls} calls with an event one lap after {here:?}, at {:?}",
                used(lane)
            );
            exchange(lane)?;
            left -= by;
        }
        let calls = lane.ring.calls() - before;
        ensure!(
            calls == 0,
            "{calls} calls before {:?}, with an event at it",
            here.advance(size, size)
        );
        exchange(lane)?;
        lane.ring
            .called(rig, before)
            .map_err(|stop| stop.about(format_args!("the lap after {here:?}")))
    })
}

pub(super) fn wraps_at_an_odd_size(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in bench.traffic()? {
        let about = |stop: crate::Stop| stop.about(format_args!("{traffic:?}"));
        let (rig, mut lane) = live(bench, variant, traffic, 7)?;
        let size = lane.ring.size();
        if size != 7 {
            skip!("its queues have at most {size} descriptors");
        }
        // Seven laps and more, with lists that lie across the end.
        for round in 0..bench.times(16, 8) {
            let cut = match round % 3 {
                0 => Cut::Whole,
                1 => Cut::After(12),
                _ => Cut::After(5),
            };
            let pieces = lane.request(&rig)?;
            let slots = cut.apply(&pieces.readable).len() + cut.apply(&pieces.writable).len();
            let count = (7 / slots.max(1)).min(1 + round as usize % 3);
            let calls = lane.ring.calls();
            lane.ring.arm();
            let requests: Vec<Request> = (1..count)
                .map(|_| lane.request(&rig))
                .collect::<Checked<_>>()?;
            let requests = [vec![pieces], requests].concat();
            lane.complete(&rig, &requests, cut).map_err(about)?;
            lane.ring.called(&rig, calls).map_err(about)?;
        }
    }
    Ok(())
}
