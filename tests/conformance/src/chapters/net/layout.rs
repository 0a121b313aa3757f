//! What a card's configuration space may say.

use vdpa_core::bits::net;
use vdpa_core::{DeviceType, Features};

use super::card::{Card, config};
use super::packet::{Header, frame};
use crate::checked::ensure;
use crate::{Bench, Checked, Variant};

/// Where `mtu` is, virtio 1.4 §5.1.4.
const MTU_AT: u32 = 10;

pub(super) fn pairs_are_some_and_not_too_many(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::MQ)?;
    let rig = bench.open()?;
    let pairs = config(&rig)?.max_virtqueue_pairs();
    ensure!(
        (1..=0x8000).contains(&pairs),
        "max_virtqueue_pairs is {pairs}"
    );
    Ok(())
}

pub(super) fn mtu_is_in_range_and_stays(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::MTU)?;
    let rig = bench.open()?;
    let mtu = config(&rig)?.mtu();
    ensure!(mtu >= 68, "mtu is {mtu}");
    let mut card = Card::around(rig, Variant::SPLIT, Features::NONE, Features::NONE)?;
    for life in 0..3 {
        card.send(Header::default(), &frame(life, 60))?;
        // It is no field of the driver's, virtio 1.4 §5.1.4: whether that is refused or ignored, it changes nothing.
        let other = mtu.wrapping_sub(1).to_le_bytes();
        let _refused = card.rig.device.write_config(MTU_AT, &other).is_err();
        let read = config(&card.rig)?.mtu();
        ensure!(read == mtu, "mtu was {mtu} and is {read}");
        card = card.again(Variant::SPLIT, Features::NONE, Features::NONE)?;
        let read = config(&card.rig)?.mtu();
        ensure!(read == mtu, "mtu was {mtu} and is {read} after a reset");
    }
    Ok(())
}

pub(super) fn key_and_table_have_room(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Net)?;
    let offered = bench.offered()?;
    if !offered.contains(net::HASH_REPORT) {
        bench.require(net::RSS)?;
    }
    let rig = bench.open()?;
    let config = config(&rig)?;
    let key = config.rss_max_key_size();
    ensure!(key >= 40, "rss_max_key_size is {key}");
    if offered.contains(net::RSS) {
        let table = config.rss_max_indirection_table_length();
        ensure!(table >= 128, "rss_max_indirection_table_length is {table}");
    }
    Ok(())
}
