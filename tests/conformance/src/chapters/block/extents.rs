//! Discards, write-zeroes and secure erases.

use vdpa_core::DeviceType;
use vdpa_core::bits::block;

use super::disk::{
    DISCARD, Disk, EXTENT_KINDS, Extent, OK, SECURE_ERASE, UNMAP, UNSUPP, WRITE_ZEROES, difference,
    pattern,
};
use crate::checked::{ensure, fail, skip};
use crate::{Bench, Checked, Variant};

/// Bytes of an extent in a request.
const EXTENT: usize = 16;
/// The most extents that are put into a request, where a device takes any number.
const MANY: u32 = 1024;
/// The most sectors that are discarded at once.
const LONG: u64 = 1 << 16;

pub(super) fn refuses_unknown_flags(bench: &Bench<'_>) -> Checked {
    let (mut disk, kinds) = with_any(bench)?;
    let (at, step) = (disk.scratch()?, disk.step());
    for (kind, name) in kinds {
        for flags in [1 << 1, 1 << 31, 1 << 16 | UNMAP, u32::MAX] {
            let odd = extent(at, step, flags);
            refuses(&mut disk, kind, name, &[odd])?;
            if most_segments(&disk, kind) > 1 {
                // Any of them counts, wherever it stands.
                refuses(&mut disk, kind, name, &[extent(at + step, step, 0), odd])?;
                refuses(&mut disk, kind, name, &[odd, extent(at + step, step, 0)])?;
            }
        }
    }
    disk.serves()
}

pub(super) fn refuses_to_unmap_a_discard(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::DISCARD)?;
    let mut disk = Disk::open(bench, Variant::SPLIT)?;
    let (at, step) = (disk.scratch()?, disk.step());
    let unmap = extent(at, step, UNMAP);
    refuses(&mut disk, DISCARD, "discard", &[unmap])?;
    if disk.space.max_discard_seg() > 1 {
        let plain = extent(at + step, step, 0);
        refuses(&mut disk, DISCARD, "discard", &[plain, unmap])?;
        refuses(&mut disk, DISCARD, "discard", &[unmap, plain])?;
    }
    // The flag was it, and nothing else.
    succeeds(&mut disk, DISCARD, "discard", &[extent(at, step, 0)])
}

pub(super) fn zeroes_read_as_zeroes(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::WRITE_ZEROES)?;
    let mut disk = Disk::open(bench, Variant::SPLIT)?;
    let (at, unit, step) = (disk.scratch()?, disk.unit(), disk.step());
    let several = disk.space.max_write_zeroes_seg() > 1;
    for unmap in [0, UNMAP] {
        let data = pattern(8 * unit, unmap as u8);
        disk.write(at, &data)?;
        let mut wanted = data;
        let mut extents = vec![(1, 2)];
        if several {
            extents.push((5, 1));
        }
        let asked: Vec<_> = extents
            .iter()
            .map(|(first, units)| extent(at + first * step, units * step, unmap))
            .collect();
        succeeds(&mut disk, WRITE_ZEROES, "write-zeroes", &asked)?;
        for (first, units) in extents {
            let begin = first as usize * unit as usize;
            let len = units as usize * unit as usize;
            wanted[begin..begin + len].fill(0);
        }
        let read = disk.read(at, 8 * unit)?;
        if let Some(seen) = difference(&wanted, &read) {
            fail!("after a write-zeroes of blocks 1 and 2 of 8, and 5, with unmap {unmap}: {seen}");
        }
    }
    Ok(())
}

pub(super) fn takes_as_many_segments_as_it_says(bench: &Bench<'_>) -> Checked {
    let (mut disk, kinds) = with_any(bench)?;
    let (at, step) = (disk.scratch()?, disk.step());
    for (kind, name) in kinds {
        let most = most_segments(&disk, kind);
        let as_many = |count: u32| -> Vec<_> {
            let of = 0..u64::from(count);
            of.map(|n| extent(at + n % 8 * step, step, 0)).collect()
        };
        succeeds(&mut disk, kind, name, &as_many(most.clamp(1, MANY)))?;
        // No driver may ask for more. Whatever comes of it, the request comes back.
        if most < MANY {
            disk.ask_about(kind, &as_many(most + 1))
                .map_err(|stop| stop.about(format!("{name} of {} segments", most + 1)))?;
            disk.ask_about(kind, &as_many(MANY))
                .map_err(|stop| stop.about(format!("{name} of {MANY} segments")))?;
        }
        // Nor for part of one, or for none.
        let whole: Vec<u8> = as_many(2).iter().flat_map(|one| one.bytes()).collect();
        for len in [0, 1, EXTENT - 1, EXTENT + 1] {
            let answer = disk.ask(kind, 0, &whole[..len], 0);
            answer.map_err(|stop| stop.about(format!("{name} of {len} bytes")))?;
        }
        disk.serves()?;
    }
    Ok(())
}

pub(super) fn counts_discards_in_sectors(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    bench.require(block::DISCARD)?;
    let mut disk = Disk::open(bench, Variant::SPLIT)?;
    let (scratch, unit, step) = (disk.scratch()?, disk.unit(), disk.step());
    // What is as many blocks long as it should be sectors is on the disk, too.
    let at = disk.tail(8 + 8 * step).unwrap_or(scratch);
    let alignment = u64::from(disk.space.discard_sector_alignment());
    // One block is given up, and what is beside it stays: the place and the length are in sectors, whatever the block size.
    let data = pattern(8 * unit, 0x33);
    disk.write(at, &data)?;
    succeeds(
        &mut disk,
        DISCARD,
        "discard",
        &[extent(at + 3 * step, step, 0)],
    )?;
    let read = disk.read(at, 8 * unit)?;
    let (begin, end) = (3 * unit as usize, 4 * unit as usize);
    for (name, part) in [("before", 0..begin), ("behind", end..8 * unit as usize)] {
        if let Some(seen) = difference(&data[part.clone()], &read[part]) {
            fail!("{name} a discarded block of {unit} bytes: {seen}");
        }
    }
    // As much at once as it says.
    let most = u64::from(disk.space.max_discard_sectors());
    let room = disk.capacity().min(LONG).min(most);
    // A hint for those who split, of which the text does not say that it is in whole blocks.
    let aligned = match alignment.is_multiple_of(step) {
        true => alignment.max(step),
        false => step,
    };
    let long = room / aligned * aligned;
    if long > 0 {
        succeeds(&mut disk, DISCARD, "discard", &[extent(0, long, 0)])?;
    }
    disk.serves()
}

/// A disk, and which of the three it knows; skips where it knows none.
fn with_any<'b>(bench: &'b Bench<'b>) -> Checked<(Disk<'b>, Vec<(u32, &'static str)>)> {
    bench.require_type(DeviceType::Block)?;
    let offered = bench.offered()?;
    let kinds: Vec<_> = EXTENT_KINDS
        .iter()
        .filter(|(bit, _, _)| offered.contains(*bit))
        .map(|(_, kind, name)| (*kind, *name))
        .collect();
    if kinds.is_empty() {
        skip!("neither DISCARD, WRITE_ZEROES nor SECURE_ERASE is offered");
    }
    Ok((Disk::open(bench, Variant::SPLIT)?, kinds))
}

fn extent(sector: u64, sectors: u64, flags: u32) -> Extent {
    Extent {
        sector,
        sectors,
        flags,
    }
}

/// How many segments the configuration space allows.
fn most_segments(disk: &Disk<'_>, kind: u32) -> u32 {
    match kind {
        DISCARD => disk.space.max_discard_seg(),
        WRITE_ZEROES => disk.space.max_write_zeroes_seg(),
        SECURE_ERASE => disk.space.max_secure_erase_seg(),
        _ => 0,
    }
}

fn refuses(disk: &mut Disk<'_>, kind: u32, name: &str, extents: &[Extent]) -> Checked {
    let status = disk.ask_about(kind, extents)?.status;
    let flags: Vec<_> = extents.iter().map(|extent| extent.flags).collect();
    ensure!(
        status == UNSUPP,
        "{name} with flags {flags:x?} came back with status {status}, not UNSUPP"
    );
    Ok(())
}

fn succeeds(disk: &mut Disk<'_>, kind: u32, name: &str, extents: &[Extent]) -> Checked {
    let status = disk.ask_about(kind, extents)?.status;
    let sectors: u64 = extents.iter().map(|extent| extent.sectors).sum();
    ensure!(
        status == OK,
        "{name} of {sectors} sectors in {} segments came back with status {status}",
        extents.len()
    );
    Ok(())
}
