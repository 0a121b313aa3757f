//! Requests that have data, and requests that nobody knows.

use vdpa_core::DeviceType;
use vdpa_core::bits::block;
use vdpa_core::config::block::SECTOR;

use super::disk::{
    Disk, EXTENT_KINDS, Extent, GET_ID, IN, IOERR, OK, OUT, UNSUPP, difference, header, pattern,
};
use crate::checked::{ensure, fail};
use crate::rig::CANARY;
use crate::{Bench, Checked, Cut, Variant};

/// Bytes of an identity, virtio 1.4 §5.2.6.1.
const ID_BYTES: u32 = 20;

/// Requests of disks with zones: type, bytes that the device reads, room for what it writes.
const ZONES: [(&str, u32, usize, u32); 7] = [
    ("ZONE_APPEND", 15, 512, 8),
    ("ZONE_REPORT", 16, 0, 64 + 64),
    ("ZONE_OPEN", 18, 0, 0),
    ("ZONE_CLOSE", 20, 0, 0),
    ("ZONE_FINISH", 22, 0, 0),
    ("ZONE_RESET", 24, 0, 0),
    ("ZONE_RESET_ALL", 26, 0, 0),
];

/// Types that neither virtio 1.4 knows nor the legacy interface knew.
const UNKNOWN: [u32; 5] = [9, 12, 17, 0x7fff_fff0, 0x0100_0000];

pub(super) fn refuses_writes_if_read_only(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::RO)?;
    // It is what was offered that counts, virtio 1.4 §5.2.6.2.
    for left_out in [vdpa_core::Features::NONE, block::RO.mask()] {
        let mut disk = Disk::without(bench, variant, left_out)?;
        let (at, unit) = (disk.tail(1)?, disk.unit());
        let before = disk.read(at, unit)?;
        let other: Vec<u8> = before.iter().map(|byte| !byte).collect();
        let status = disk.ask(OUT, at, &other, 0)?.status;
        ensure!(
            status == IOERR,
            "a write to a read-only disk came back with status {status}, not IOERR"
        );
        let after = disk.read(at, unit)?;
        if let Some(seen) = difference(&before, &after) {
            fail!("a refused write changed the disk: {seen}");
        }
    }
    Ok(())
}

pub(super) fn knows_no_zones(bench: &Bench<'_>) -> Checked {
    let mut disk = Disk::open(bench, Variant::SPLIT)?;
    let at = disk.tail(1)?;
    for (name, kind, len, room) in ZONES {
        // The disk begins where its first zone would.
        let sector = if kind == 26 { 0 } else { at };
        let status = disk.ask(kind, sector, &vec![CANARY; len], room)?.status;
        ensure!(
            status == UNSUPP,
            "{name} came back with status {status}, not UNSUPP"
        );
    }
    disk.serves()
}

pub(super) fn reaches_past_no_end(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut disk = Disk::open(bench, variant)?;
    let (last, unit, step) = (disk.tail(2)? + disk.step(), disk.unit(), disk.step());
    let end = disk.capacity();
    // The first sector whose place in bytes does not fit 64 bits.
    let wraps = 1 << (u64::BITS - SECTOR.ilog2());
    let cases = [
        ("from the end on", end, unit),
        (
            "over the end",
            last,
            (end - last) as u32 * SECTOR as u32 + unit,
        ),
        (
            "over the end by a byte",
            last,
            (end - last) as u32 * SECTOR as u32 + 1,
        ),
        ("from the last number on", u64::MAX, unit),
        ("from where a place in bytes is 0 again", wraps, unit),
        (
            "from where a place in bytes is a block again",
            wraps + step,
            unit,
        ),
        (
            "up to where a place in bytes is a block again",
            wraps - step,
            2 * unit,
        ),
        ("of a byte", 0, 1),
        ("of a sector but a byte", 0, SECTOR as u32 - 1),
        ("of a sector and a byte", last, SECTOR as u32 + 1),
    ];
    let before = [disk.read(0, 2 * unit)?, disk.read(last, unit)?];
    for (what, sector, len) in cases {
        let answer = disk.ask(IN, sector, &[], len)?;
        let status = answer.status;
        ensure!(
            status == IOERR,
            "a read {what} ({len} bytes from sector {sector} of {end}) came back with status {status}, not IOERR"
        );
        let copied = answer.data.iter().filter(|byte| **byte != CANARY).count();
        ensure!(
            copied == 0,
            "a refused read {what} ({len} bytes from sector {sector} of {end}) copied {copied} bytes"
        );
        let status = disk.ask(OUT, sector, &pattern(len, 0x6d), 0)?.status;
        ensure!(
            status == IOERR,
            "a write {what} ({len} bytes to sector {sector} of {end}) came back with status {status}, not IOERR"
        );
        for (at, before) in [0, last].into_iter().zip(&before) {
            let after = disk.read(at, before.len() as u32)?;
            if let Some(seen) = difference(before, &after) {
                fail!(
                    "a refused write {what} ({len} bytes to sector {sector} of {end}) changed sector {at}: {seen}"
                );
            }
        }
    }
    for (bit, kind, name) in EXTENT_KINDS {
        if !disk.has(bit.mask()) {
            continue;
        }
        let beyond = [
            (end, step),
            (last, end - last + step),
            (u64::MAX, step),
            (wraps, step),
        ];
        for (sector, sectors) in beyond {
            let flags = 0;
            let status = disk
                .ask_about(
                    kind,
                    &[Extent {
                        sector,
                        sectors,
                        flags,
                    }],
                )?
                .status;
            ensure!(
                status == IOERR,
                "{name} of {sectors} sectors from {sector} of {end} came back with status {status}, not IOERR"
            );
        }
    }
    disk.serves()
}

pub(super) fn survives_odd_lengths(bench: &Bench<'_>) -> Checked {
    let mut disk = Disk::open(bench, Variant::SPLIT)?;
    let (at, sector) = (disk.tail(2)?, SECTOR as u32);
    for len in [1, sector - 1, sector + 1, 3 * sector / 2] {
        let status = disk.ask(IN, at, &[], len)?.status;
        ensure!(
            status != OK,
            "a read of {len} bytes came back with status OK"
        );
        let status = disk.ask(OUT, at, &pattern(len, 1), 0)?.status;
        ensure!(
            status != OK,
            "a write of {len} bytes came back with status OK"
        );
    }
    // No data at all is a multiple of everything: any answer will do.
    disk.ask(IN, at, &[], 0)?;
    disk.ask(OUT, at, &[], 0)?;
    let id = disk.ask(GET_ID, 0, &[], ID_BYTES)?;
    for room in [0, 1, ID_BYTES - 1, ID_BYTES + 1, 3 * ID_BYTES] {
        let other = disk.ask(GET_ID, 0, &[], room)?;
        let both = (id.status, other.status) == (OK, OK);
        let same = id.data.iter().zip(&other.data).all(|(a, b)| a == b);
        ensure!(
            !both || same,
            "GET_ID with room for {room} bytes answered {:02x?}, with {ID_BYTES} {:02x?}",
            other.data,
            id.data
        );
    }
    let again = disk.ask(GET_ID, 0, &[], ID_BYTES)?;
    ensure!(
        again == id,
        "GET_ID answered {id:02x?} at first, and {again:02x?} after requests of odd lengths"
    );
    if id.status == OK {
        let name = id.data.split(|byte| *byte == 0).next().unwrap_or_default();
        let padding = id.data.get(name.len()..).unwrap_or_default();
        ensure!(
            name.is_ascii() && padding.iter().all(|byte| *byte == 0),
            "the identity {:02x?} is not ASCII padded with zeroes",
            id.data
        );
    }
    disk.serves()
}

pub(super) fn puts_the_status_last(bench: &Bench<'_>, variant: Variant) -> Checked {
    let mut disk = Disk::open(bench, variant)?;
    let (at, unit) = (disk.tail(1)?, disk.unit());
    let wanted = disk.read(at, unit)?;
    // Requests that are done and requests that are unknown, cut in every way that matters to where the last byte is.
    let cuts = [
        Cut::Whole,
        Cut::After(8),
        Cut::After(1),
        Cut::After(unit),
        Cut::After(unit - 1),
    ];
    for cut in cuts {
        let readable = cut.apply(&[disk.rig.place(&header(IN, at))?]);
        let writable = cut.apply(&[disk.rig.alloc(unit + 1)?]);
        let answer = disk.send(0, &readable, &writable)?;
        ensure!(
            answer.status == OK,
            "a read of {unit} bytes in {} pieces came back with status {}",
            writable.len(),
            answer.status
        );
        if let Some(seen) = difference(&wanted, &answer.data) {
            fail!(
                "a read of {unit} bytes in {} pieces: {seen}",
                writable.len()
            );
        }
        for kind in UNKNOWN {
            let readable = cut.apply(&[disk.rig.place(&header(kind, 0))?]);
            let writable = cut.apply(&[disk.rig.alloc(unit + 1)?]);
            let status = disk.send(0, &readable, &writable)?.status;
            ensure!(
                status == UNSUPP,
                "the unknown type {kind:#x} came back with status {status}, not UNSUPP"
            );
        }
    }
    // There may be room for the status alone, and data that an unknown type might have meant.
    for kind in UNKNOWN {
        for data in [0, 512] {
            let status = disk.ask(kind, at, &vec![CANARY; data], 0)?.status;
            ensure!(
                status == UNSUPP,
                "the unknown type {kind:#x} with {data} bytes came back with status {status}, not UNSUPP"
            );
        }
    }
    disk.serves()
}
