//! How packets are in receive buffers, and how long they may be.

use vdpa_core::Features;
use vdpa_core::bits::net;

use super::card::{Card, config, longest_frame, require_loop};
use super::offload::{GUEST, HOST};
use super::packet::{ETHERNET, Header, TCP4, frame, payload};
use crate::checked::{ensure, fail, skip};
use crate::lane::Cut;
use crate::{Bench, Checked, Variant};

/// Bytes of buffers for packets of an MTU of up to 2000.
const BUFFER: u32 = 2048;

/// Bytes of the payload of a packet that is to be segmented, at most: its length is a number of 16 bits.
const LARGEST: usize = 60_000;

/// Bytes of the longest frames here, as far as the card's MTU lets them pass.
const LONGEST: usize = 1514;

/// Descriptors of the least queue in which buffers are merged here: a packet takes twelve.
const LEAST: u16 = 16;

/// A card with buffers that are longer than its MTU needs, and its MTU.
fn roomy<'b>(bench: &'b Bench<'b>, variant: Variant) -> Checked<(Card<'b>, usize)> {
    require_loop(bench)?;
    bench.require(net::MTU)?;
    let off = Features::NONE.with(net::MRG_RXBUF);
    let mut card = Card::open(bench, variant, HOST, off)?;
    let mtu = config(&card.rig)?.mtu();
    card.rx.post(&card.rig, 4, u32::from(mtu) + 1024)?;
    Ok((card, mtu.into()))
}

pub(super) fn nothing_over_the_mtu(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (mut card, mtu) = roomy(bench, variant)?;
    for (seed, over) in (0..).zip([1, 8, 500]) {
        card.send(Header::default(), &frame(seed, ETHERNET + mtu + over))?;
        // What comes next is this one.
        card.echo(&frame(100 + seed, 60))
            .map_err(|e| e.about(format!("after a packet of {over} bytes over the mtu")))?;
    }
    if card.has(net::HOST_TSO4) && mtu > 200 && mtu < LARGEST {
        let flow = TCP4.flow([1, 2]);
        // What there is no larger packet for is not segmented.
        let data = payload(9, (3 * mtu).min(LARGEST));
        // Segments that fit are frames that fit; of those that do not none may come.
        for (size, fits) in [(mtu - 40, true), (mtu, false)] {
            let (header, large) = TCP4.large(&flow, &data, size as u16);
            card.send(header, &large)?;
            let mut lens = Vec::new();
            if fits {
                let parts = card.parts(data.len())?;
                lens.extend(parts.iter().map(|part| part.frame.len()));
            } else {
                let came = card.before(&frame(200, 60))?;
                lens.extend(came.iter().map(|came| came.frame.len()));
            }
            let longest = lens.iter().max().copied().unwrap_or(0);
            ensure!(
                longest <= ETHERNET + mtu,
                "a frame of {longest} bytes came, with an mtu of {mtu}"
            );
        }
    }
    Ok(())
}

pub(super) fn up_to_the_mtu_whole(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (mut card, mtu) = roomy(bench, variant)?;
    for (seed, len) in (0..).zip([46, mtu / 2, mtu - 1, mtu]) {
        card.echo(&frame(seed, ETHERNET + len))
            .map_err(|e| e.about(format!("{len} bytes with an mtu of {mtu}")))?;
    }
    Ok(())
}

pub(super) fn one_buffer_without_merging(bench: &Bench<'_>, variant: Variant) -> Checked {
    let off = Features::NONE.with(net::MRG_RXBUF);
    let mut card = Card::looping(bench, variant, [Features::NONE, off], 16, BUFFER)?;
    for (seed, len) in (0..).zip(lens(&card, [60, 61, 500, LONGEST])?) {
        let frame = frame(seed, len);
        card.send(Header::default(), &frame)?;
        bench.until("a packet", || {
            card.rx.look(&card.rig)?;
            Ok(!card.rx.came.is_empty())
        })?;
        let first = card.rx.came.front().map(|(bytes, _)| bytes.as_slice());
        let header = first.and_then(Header::from_bytes).unwrap_or_default();
        ensure!(
            header.num_buffers == 1,
            "num_buffers is {} without MRG_RXBUF, for a packet of {len} bytes",
            header.num_buffers
        );
        let came = card.receive()?;
        ensure!(came.frame == frame, "another packet came");
    }
    Ok(())
}

/// These lengths of frames, none more than the card's MTU lets pass.
fn lens<const N: usize>(card: &Card<'_>, lens: [usize; N]) -> Checked<[usize; N]> {
    let most = match card.has(net::MTU) {
        true => longest_frame(&card.rig)?,
        false => LONGEST,
    };
    Ok(lens.map(|len| len.min(most)))
}

/// A card that merges buffers of these lengths.
fn merging<'b>(bench: &'b Bench<'b>, variant: Variant, lens: &[u32]) -> Checked<Card<'b>> {
    bench.require(net::MRG_RXBUF)?;
    let merge = Features::NONE.with(net::MRG_RXBUF);
    let mut card = Card::looping(bench, variant, [merge, Features::NONE], 0, 0)?;
    let size = card.rx.ring.size();
    if size < LEAST {
        skip!("a queue of {size} has no room for the buffers of a packet");
    }
    for len in lens.iter().cycle().take(usize::from(size).min(48)) {
        let piece = card.rig.alloc(*len)?;
        card.rx.give(vec![piece], Cut::Whole)?;
    }
    card.rx.ring.publish();
    Ok(card)
}

pub(super) fn merged_buffers_are_counted(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = merging(bench, variant, &[256])?;
    for (seed, len) in (0..).zip(lens(&card, [60, 244, 245, 300, 756, 757, LONGEST])?) {
        let sent = frame(seed, len);
        let all = card.header() as usize + len;
        card.send(Header::default(), &sent)?;
        bench.until("as many bytes as were sent", || {
            card.rx.look(&card.rig)?;
            let came = card.rx.came.iter().map(|(bytes, _)| bytes.len());
            Ok(came.sum::<usize>() >= all)
        })?;
        let count = card.rx.came.len();
        let first = card.rx.came.front().map(|(bytes, _)| bytes.as_slice());
        let said = first.and_then(Header::from_bytes).unwrap_or_default();
        ensure!(
            usize::from(said.num_buffers) == count,
            "num_buffers is {} where a packet of {len} bytes is in {count} buffers",
            said.num_buffers
        );
        let came = card.receive()?;
        ensure!(came.frame == sent, "another packet came");
    }
    Ok(())
}

pub(super) fn all_but_the_last_are_full(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = merging(bench, variant, &[64, 300, 100, 513, 77, 2048])?;
    for (seed, len) in (0..).zip(lens(&card, [LONGEST, 700, 60, 1000, LONGEST, 1400])?) {
        let sent = frame(seed, len);
        card.send(Header::default(), &sent)?;
        let came = card.receive()?;
        let full = came.buffers.split_last().map_or(&[][..], |(_, full)| full);
        for (at, (used, room)) in full.iter().enumerate() {
            ensure!(
                used == room,
                "buffer {at} of {} has {room} bytes, and {used} are used",
                came.buffers.len()
            );
        }
        ensure!(came.frame == sent, "another packet came");
    }
    Ok(())
}

pub(super) fn buffers_of_a_packet_together(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = merging(bench, variant, &[128])?;
    let [len] = lens(&card, [1400])?;
    for round in 0..bench.times(10, 3) {
        let mut left = 3;
        for seed in 0..left {
            let packet = card.packet(Header::default(), &frame(round * 8 + seed, len));
            let piece = card.rig.place(&packet)?;
            card.tx.add(&[piece], &[])?;
        }
        card.tx.publish();
        // Whatever a look at the ring finds is whole packets.
        bench.until("all packets", || {
            if card.rx.look(&card.rig)? == 0 {
                return Ok(left == 0);
            }
            while let Some(came) = card.rx.packet()? {
                left -= u32::from(came.frame.get(6..12) == Some(&super::card::OURS[..])).min(left);
            }
            let over = card.rx.came.len();
            ensure!(
                over == 0,
                "{over} buffers of a packet are used, and the others are not"
            );
            Ok(left == 0)
        })?;
        card.tx.wait(&card.rig, 3)?;
    }
    Ok(())
}

pub(super) fn a_single_chain_without_merging(bench: &Bench<'_>, variant: Variant) -> Checked {
    let off = Features::NONE.with(net::MRG_RXBUF);
    // Chains of several descriptors: what does not fit into the first one goes on in the next of the same chain.
    let mut card = Card::looping(bench, variant, [Features::NONE, off], 0, 0)?;
    card.rx.ring.takes(4)?;
    for cut in [Cut::Every(400), Cut::After(7), Cut::After(12)].repeat(2) {
        // Four descriptors at most.
        if card.rx.has_room(4) {
            let piece = card.rig.alloc(1600)?;
            card.rx.give(vec![piece], cut)?;
        }
    }
    card.rx.ring.publish();
    for (seed, len) in (0..).zip(lens(&card, [LONGEST, 1513, 401, 1200, 60, LONGEST])?) {
        let sent = frame(seed, len);
        card.send(Header::default(), &sent)?;
        bench.until("a chain", || {
            card.rx.look(&card.rig)?;
            Ok(!card.rx.came.is_empty())
        })?;
        let Some((bytes, _)) = card.rx.came.pop_front() else {
            fail!("no chain came");
        };
        let wanted = card.header() as usize + len;
        ensure!(
            bytes.len() == wanted,
            "a chain came with {} bytes of a packet of {wanted}",
            bytes.len()
        );
        ensure!(
            bytes.get(card.header() as usize..) == Some(&sent[..]),
            "another packet came"
        );
    }
    if !super::formats(&variant) {
        return Ok(());
    }
    // Longer packets too, where the driver takes them. There may be one device at a time.
    drop(card);
    let mut card = Card::looping(bench, variant, [HOST | GUEST, off], 2, 0x1_0080)?;
    // Of a segment's length: the longest frame of it is 1054 bytes.
    let [longest] = lens(&card, [1054])?;
    if longest == 1054 && card.has(net::HOST_TSO4) && card.has(net::GUEST_TSO4) {
        let data = payload(5, 20_000);
        let (header, large) = TCP4.large(&TCP4.flow([1, 2]), &data, 1000);
        card.send(header, &large)?;
        for part in card.parts(data.len())? {
            ensure!(
                part.buffers.len() == 1,
                "a packet of {} bytes is in {} chains",
                part.frame.len(),
                part.buffers.len()
            );
        }
    }
    Ok(())
}
