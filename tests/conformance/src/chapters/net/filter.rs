//! Which packets a driver receives: modes, addresses, VLANs; and what it is asked to announce.
//!
//! A filter may let through more than it was told to (virtio 1.4 §5.1.9.5.1, §5.1.9.5.3): what is held here is that it
//! lets through what it has to.

use vdpa_core::bits::net;
use vdpa_core::config::net::NetStatus;
use vdpa_core::{Attr, DeviceType, Features};

use super::card::{Card, OK, OURS, config, loops, other_half, require_loop};
use super::packet::{ETHERNET, Header, frame, frame_to, payload};
use crate::checked::{ensure, skip};
use crate::{Bench, Checked, Variant};

/// Addresses that are nobody's.
const OTHER: [u8; 6] = [0x52, 0x54, 0x00, 0xab, 0xcd, 0x01];
const THIRD: [u8; 6] = [0x52, 0x54, 0x00, 0xab, 0xcd, 0x02];
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];

/// Commands: class and command.
const PROMISC: [u8; 2] = [0, 0];
const ALLMULTI: [u8; 2] = [0, 1];
const ALLUNI: [u8; 2] = [0, 2];
const NOMULTI: [u8; 2] = [0, 3];
const NOUNI: [u8; 2] = [0, 4];
const NOBCAST: [u8; 2] = [0, 5];
const TABLE_SET: [u8; 2] = [1, 0];
const ADDR_SET: [u8; 2] = [1, 1];
const VLAN_ADD: [u8; 2] = [2, 0];
const VLAN_DEL: [u8; 2] = [2, 1];
const ANNOUNCE_ACK: [u8; 2] = [3, 0];

const CONTROL: Features = Features::of(&[
    net::CTRL_VQ,
    net::CTRL_RX,
    net::CTRL_RX_EXTRA,
    net::CTRL_MAC_ADDR,
    net::CTRL_VLAN,
    net::GUEST_ANNOUNCE,
]);

/// Filters that are not the point of a statement stay out of it.
const VLAN: Features = Features::NONE.with(net::CTRL_VLAN);

fn open<'b>(bench: &'b Bench<'b>, variant: Variant, less: Features) -> Checked<Card<'b>> {
    require_loop(bench)?;
    let mut card = Card::open(bench, variant, CONTROL, less)?;
    card.rx.post(&card.rig, 16, 2048)?;
    Ok(card)
}

fn switch(card: &mut Card<'_>, mode: [u8; 2], on: bool) -> Checked {
    let [class, command] = mode;
    let what = format!("CTRL_RX {command} {on}");
    card.order(&what, &[class, command, on.into()])
}

/// A frame that is to be let through, virtio 1.4 §5.1.9.5.1.1: in all the modes a SHOULD.
fn passes(card: &mut Card<'_>, what: &str, to: [u8; 6], seed: u32) -> Checked {
    let echoed = card.echo(&frame_to(to, seed, 80));
    echoed.map_err(|e| {
        e.about(format!(
            "{what}: a frame to {to:02x?}, which SHOULD be received"
        ))
    })?;
    Ok(())
}

/// Whether a frame is let through: nobody says that it may not be.
fn comes(card: &mut Card<'_>, to: [u8; 6], seed: u32) -> Checked<bool> {
    let (asked, last) = (frame_to(to, seed, 80), frame(seed, 70));
    card.send(Header::default(), &asked)?;
    card.send(Header::default(), &last)?;
    let came = card.receive()?.frame;
    if came == asked {
        let next = card.receive()?.frame;
        ensure!(next == last, "another frame came");
        return Ok(true);
    }
    ensure!(came == last, "another frame came");
    Ok(false)
}

fn table(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut command = TABLE_SET.to_vec();
    for list in [unicast, multicast] {
        command.extend((list.len() as u32).to_le_bytes());
        command.extend(list.concat());
    }
    command
}

fn set_table(card: &mut Card<'_>, unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Checked {
    card.order("MAC_TABLE_SET", &table(unicast, multicast))
}

pub(super) fn promiscuous_and_all_multicast(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::CTRL_RX)?;
    let loops = loops(bench)?;
    let mut card = Card::open(bench, variant, CONTROL, VLAN)?;
    card.rx.post(&card.rig, 16, 2048)?;
    for mode in [PROMISC, ALLMULTI] {
        for on in [false, true, true, false] {
            switch(&mut card, mode, on)?;
        }
    }
    // All that is visible without frames that come back. That the commands are supported is a MUST, and what they let
    // through a SHOULD.
    other_half(loops)?;
    passes(&mut card, "all modes off", [0xff; 6], 1)?;
    switch(&mut card, ALLMULTI, true)?;
    passes(&mut card, "ALLMULTI", GROUP, 2)?;
    passes(&mut card, "ALLMULTI", [0xff; 6], 3)?;
    switch(&mut card, ALLMULTI, false)?;
    switch(&mut card, PROMISC, true)?;
    for (seed, to) in (4..).zip([OTHER, GROUP, [0xff; 6], OURS]) {
        passes(&mut card, "PROMISC", to, seed)?;
    }
    Ok(())
}

pub(super) fn four_more_modes(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::CTRL_RX_EXTRA)?;
    let loops = loops(bench)?;
    let mut card = Card::open(bench, variant, CONTROL, VLAN)?;
    card.rx.post(&card.rig, 16, 2048)?;
    for mode in [ALLUNI, NOMULTI, NOUNI, NOBCAST] {
        for on in [true, true, false] {
            switch(&mut card, mode, on)?;
        }
    }
    other_half(loops)?;
    switch(&mut card, PROMISC, false)?;
    switch(&mut card, ALLUNI, true)?;
    passes(&mut card, "ALLUNI", OTHER, 1)?;
    // Broadcast is no multicast here.
    switch(&mut card, NOMULTI, true)?;
    passes(&mut card, "NOMULTI", [0xff; 6], 2)?;
    passes(&mut card, "NOMULTI and ALLUNI", OTHER, 3)?;
    switch(&mut card, NOMULTI, false)?;
    switch(&mut card, ALLMULTI, true)?;
    switch(&mut card, NOUNI, true)?;
    passes(&mut card, "NOUNI and ALLMULTI", GROUP, 4)?;
    passes(&mut card, "NOUNI", [0xff; 6], 5)?;
    switch(&mut card, NOUNI, false)?;
    passes(&mut card, "ALLUNI again", OTHER, 6)?;
    switch(&mut card, NOBCAST, true)?;
    passes(&mut card, "NOBCAST and ALLUNI", OTHER, 7)?;
    passes(&mut card, "NOBCAST and ALLMULTI", GROUP, 8)?;
    // Promiscuous mode comes before all of them.
    switch(&mut card, NOMULTI, true)?;
    switch(&mut card, NOUNI, true)?;
    switch(&mut card, PROMISC, true)?;
    for (seed, to) in (9..).zip([OTHER, GROUP, [0xff; 6]]) {
        passes(&mut card, "PROMISC and no others", to, seed)?;
    }
    Ok(())
}

pub(super) fn no_addresses_after_reset(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::CTRL_RX)?;
    let mut card = open(bench, variant, VLAN)?;
    let strict = |card: &mut Card<'_>| {
        switch(card, PROMISC, false)?;
        switch(card, ALLMULTI, false)
    };
    strict(&mut card)?;
    let before = [comes(&mut card, OTHER, 1)?, comes(&mut card, GROUP, 2)?];
    set_table(&mut card, &[OTHER], &[GROUP])?;
    passes(&mut card, "in the table", OTHER, 3)?;
    passes(&mut card, "in the table", GROUP, 4)?;
    let mut card = card.again(variant, CONTROL, VLAN)?;
    card.rx.post(&card.rig, 16, 2048)?;
    strict(&mut card)?;
    let after = [comes(&mut card, OTHER, 5)?, comes(&mut card, GROUP, 6)?];
    ensure!(
        after == before,
        "of a frame to an address and one to a group a card passed {before:?} at first, and passes {after:?} after a \
         table with both and a reset"
    );
    if before == [true, true] {
        skip!("it passes frames to any address, so that its table is not seen");
    }
    Ok(())
}

pub(super) fn the_table_counts_at_once(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::CTRL_RX)?;
    let mut card = open(bench, variant, VLAN)?;
    switch(&mut card, PROMISC, false)?;
    set_table(&mut card, &[], &[])?;
    let filters = !comes(&mut card, OTHER, 0)?;
    for round in 0..bench.times(8, 2) {
        let seed = round * 10;
        set_table(&mut card, &[OTHER], &[])?;
        passes(&mut card, "in the new table", OTHER, seed + 1)?;
        set_table(&mut card, &[THIRD], &[GROUP])?;
        passes(&mut card, "in the new table", THIRD, seed + 2)?;
        passes(&mut card, "in the new table", GROUP, seed + 3)?;
        // As at first, of one that filters by address at all.
        set_table(&mut card, &[], &[])?;
        ensure!(
            !filters || !comes(&mut card, OTHER, seed + 4)?,
            "a frame came to an address, and the table is empty"
        );
    }
    Ok(())
}

pub(super) fn the_address_is_shown_at_once(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::CTRL_MAC_ADDR)?;
    bench.require(net::MAC)?;
    let loops = loops(bench)?;
    let mut card = Card::open(bench, variant, CONTROL, VLAN)?;
    card.rx.post(&card.rig, 16, 2048)?;
    for (seed, mac) in (0..).zip([OTHER, THIRD, OURS, OTHER]) {
        card.order("MAC_ADDR_SET", &[&ADDR_SET[..], &mac].concat())?;
        let shown = config(&card.rig)?.mac().octets();
        ensure!(
            shown == mac,
            "MAC_ADDR_SET {mac:02x?} was used, and mac is {shown:02x?}"
        );
        if loops {
            if card.has(net::CTRL_RX) {
                switch(&mut card, PROMISC, false)?;
            }
            passes(&mut card, "the new address", mac, seed)?;
        }
    }
    other_half(loops)
}

/// A frame to everybody with an 802.1Q tag.
fn tagged(tag: u16, seed: u32) -> Vec<u8> {
    let [high, low] = tag.to_be_bytes();
    let mut frame = [&[0xff; 6][..], &OURS, &[0x81, 0x00, high, low, 0x88, 0xb5]].concat();
    frame.extend(payload(seed, 80 - ETHERNET));
    frame
}

/// VLANs at both ends and in between, with priorities too.
const TAGS: [u16; 6] = [0x0001, 0x0005, 0x0fff - 1, 0xe007, 0x0040, 0x0800];
const ID: u16 = 0x0fff;

pub(super) fn all_tags_without_a_filter(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut card = open(bench, variant, VLAN)?;
    for (seed, tag) in (0..).zip(TAGS) {
        let echoed = card.echo(&tagged(tag, seed));
        echoed.map_err(|e| e.about(format!("a frame with tag {tag:#x}")))?;
    }
    Ok(())
}

pub(super) fn listed_tags_with_it(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::CTRL_VLAN)?;
    let mut card = open(bench, variant, Features::NONE)?;
    let vlan = |command: [u8; 2], tag: u16| {
        let id = (tag & ID).to_le_bytes();
        [command, id].concat()
    };
    for tag in TAGS {
        card.order("VLAN_ADD", &vlan(VLAN_ADD, tag))?;
    }
    let mut seed = 0;
    let mut listed = |card: &mut Card<'_>, tags: &[u16]| {
        for tag in tags {
            seed += 1;
            let echoed = card.echo(&tagged(*tag, seed));
            echoed.map_err(|e| e.about(format!("a frame with the listed tag {tag:#x}")))?;
        }
        // The table is about tagged frames alone.
        seed += 1;
        card.echo(&frame(seed, 60))
            .map_err(|e| e.about("an untagged frame"))
    };
    listed(&mut card, &TAGS)?;
    // One less leaves the others.
    let (gone, rest) = TAGS.split_first().map_or((0, &[][..]), |(a, b)| (*a, b));
    card.order("VLAN_DEL", &vlan(VLAN_DEL, gone))?;
    listed(&mut card, rest)?;
    card.order("VLAN_ADD", &vlan(VLAN_ADD, gone))?;
    listed(&mut card, &TAGS)?;
    Ok(())
}

pub(super) fn announce_is_cleared_at_once(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::GUEST_ANNOUNCE)?;
    bench.require(net::STATUS)?;
    let mut card = Card::open(bench, variant, CONTROL, VLAN)?;
    for _ in 0..3 {
        bench.manage(&card.rig, Attr::Announce)?;
        bench.until("ANNOUNCE in the configuration", || {
            Ok(config(&card.rig)?.status().contains(NetStatus::ANNOUNCE))
        })?;
        let ack = card.command(&ANNOUNCE_ACK)?;
        let status = config(&card.rig)?.status();
        ensure!(ack == OK, "ANNOUNCE_ACK came back with {ack}");
        ensure!(
            !status.contains(NetStatus::ANNOUNCE),
            "ANNOUNCE_ACK was used, and the status is {:#x}",
            status.bits()
        );
    }
    Ok(())
}
