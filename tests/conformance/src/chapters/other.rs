//! Other device types.

use vdpa_core::DeviceType;

use super::any;
use crate::checked::{ensure, skip};
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device};
use crate::{Bench, Checked, Cut, Lane, Rig, Traffic, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        203,
        "5.4.6.2",
        "rng: at least one byte",
        Rings(any, answers_with_random_bytes),
    ),
    device(
        204,
        "5.6.4.2",
        "scsi: sense 96 and cdb 32 at reset",
        Once(resets_sizes),
    ),
    device(
        205,
        "5.10.6.1.2",
        "vsock: TX progresses while RX is full",
        Once(sends_while_receive_is_full),
    ),
];

/// Bytes that no source of entropy has all alike.
const ENOUGH: usize = 32;

fn answers_with_random_bytes(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Entropy)?;
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    let mut lane = Lane::start(&rig, Traffic::Entropy, 16)?;
    rig.run()?;
    let mut all = Vec::new();
    // A device may answer with as little as a byte, virtio 1.4 §5.4.6.2.
    while all.len() < ENOUGH {
        for (len, cut) in [
            (1, Cut::Whole),
            (64, Cut::Whole),
            (64, Cut::Every(9)),
            (4096, Cut::After(1)),
        ] {
            let buffer = rig.alloc(len)?;
            lane.ring.add(&[], &cut.apply(&[buffer]))?;
            lane.ring.publish();
            for done in lane.ring.wait(&rig, 1)? {
                ensure!(
                    (1..=len).contains(&done.len),
                    "used.len is {} for a buffer of {len} bytes",
                    done.len
                );
                let mut bytes = rig.read(buffer);
                bytes.truncate(done.len as usize);
                all.extend(bytes);
            }
        }
    }
    let (first, rest) = all.split_first().unwrap_or((&0, &[]));
    ensure!(
        rest.iter().any(|byte| byte != first),
        "{} random bytes are all {first:#04x}",
        all.len()
    );
    Ok(())
}

/// Where the sizes are, and what they are after a reset, virtio 1.4 §5.6.4.
const SIZES: [(&str, u32, u32); 2] = [("sense_size", 20, 96), ("cdb_size", 24, 32)];

fn resets_sizes(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Scsi)?;
    let rig = bench.open()?;
    let check = |when: &str| -> Checked {
        for (name, at, wanted) in SIZES {
            let read = u32_at(&rig, at)?;
            ensure!(read == wanted, "{name} is {read} {when}, not {wanted}");
        }
        Ok(())
    };
    check("at first")?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    for (name, at, wanted) in SIZES {
        let other = wanted / 2;
        rig.device.write_config(at, &other.to_le_bytes())?;
        let read = u32_at(&rig, at)?;
        ensure!(
            read == other,
            "{other} was written to {name}, it reads {read}"
        );
    }
    rig.reset()?;
    check("after a reset")
}

/// The queue that sends.
const TRANSMIT: u16 = 1;
/// Packets that any device has resources to answer later.
const PACKETS: u32 = 4;
/// The address of the host, and a port where nobody is expected.
const HOST: u64 = 2;
const NOBODY: u32 = 0x7654_3210;

fn sends_while_receive_is_full(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Socket)?;
    let rig = bench.open()?;
    if rig.device.info().queues <= TRANSMIT {
        skip!("the device has no queue {TRANSMIT}");
    }
    let mut cid = [0; 8];
    rig.device.read_config(0, &mut cid)?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    // The device finds no buffer to answer into: for it the receive queue is full.
    let mut receive = rig.queue(0, 16)?;
    let mut transmit = rig.queue(TRANSMIT, 16)?;
    rig.run()?;
    for number in 0..PACKETS {
        let packet = rig.place(&request(u64::from_le_bytes(cid), number))?;
        transmit.add(&[packet], &[])?;
        transmit.publish();
        let sent = transmit.wait(&rig, 1);
        sent.map_err(|stop| stop.about(format!("packet {number} with no buffer to receive")))?;
    }
    let early = receive.poll()?.len();
    ensure!(
        early == 0,
        "{early} buffers came back of a queue that was given none"
    );
    Ok(())
}

/// The header of a packet that asks for a connection, virtio 1.4 §5.10.6.
fn request(cid: u64, number: u32) -> Vec<u8> {
    const STREAM: u16 = 1;
    const REQUEST: u16 = 1;
    let mut packet = Vec::new();
    packet.extend(cid.to_le_bytes());
    packet.extend(HOST.to_le_bytes());
    packet.extend((1024 + number).to_le_bytes());
    packet.extend(NOBODY.to_le_bytes());
    packet.extend([0; 4]);
    packet.extend(STREAM.to_le_bytes());
    packet.extend(REQUEST.to_le_bytes());
    packet.extend([0; 4]);
    // Room for answers, and nothing received yet.
    packet.extend(65536_u32.to_le_bytes());
    packet.extend([0; 4]);
    packet
}

fn u32_at(rig: &Rig<'_>, at: u32) -> Checked<u32> {
    let mut bytes = [0; 4];
    rig.device.read_config(at, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
