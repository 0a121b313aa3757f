//! A disk with request queues, asked one request at a time.

use vdpa_core::bits::block;
use vdpa_core::config::BlockConfig;
use vdpa_core::config::block::{SECTOR, ZoneModel};
use vdpa_core::{DeviceType, Features};

use crate::checked::{ensure, fail, skip};
use crate::rig::CANARY;
use crate::{Bench, Checked, Piece, Rig, Ring, Variant};

// Types of requests, virtio 1.4 §5.2.6.
pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;
pub(super) const DISCARD: u32 = 11;
pub(super) const WRITE_ZEROES: u32 = 13;
pub(super) const SECURE_ERASE: u32 = 14;

// Status bytes.
pub(super) const OK: u8 = 0;
pub(super) const IOERR: u8 = 1;
pub(super) const UNSUPP: u8 = 2;

/// The flag of a segment that its storage may be given up.
pub(super) const UNMAP: u32 = 1;

/// Where the zone model is in the configuration space.
const MODEL_AT: u32 = 92;

/// Units at the end of the disk that statements write to.
const SCRATCH: u64 = 8;

/// A disk that is live, with a queue, or two where there are several.
pub(super) struct Disk<'b> {
    pub(super) rig: Rig<'b>,
    pub(super) rings: Vec<Ring>,
    /// Its configuration when it went live.
    pub(super) space: BlockConfig,
    features: Features,
    read_only: bool,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u8,
    /// What is in the buffer before the status byte.
    pub(super) data: Vec<u8>,
}

/// A part of the disk that a discard and its like is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) sector: u64,
    pub(super) sectors: u64,
    pub(super) flags: u32,
}

impl Extent {
    /// As it is in the request.
    pub(super) fn bytes(self) -> Vec<u8> {
        let sectors = u32::try_from(self.sectors).unwrap_or(u32::MAX);
        let mut bytes = self.sector.to_le_bytes().to_vec();
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes
    }
}

/// The header of a request.
pub(super) fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}

/// Bytes that differ from place to place and from `seed` to `seed`.
pub(super) fn pattern(len: u32, seed: u8) -> Vec<u8> {
    let byte = |at: u32| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed;
    (0..len).map(byte).collect()
}

/// What a device shows of its configuration, as far as there is any. Comes after FEATURES_OK: before it nobody reads
/// `writeback`, virtio 1.4 §5.2.5.1.
pub(super) fn space(rig: &Rig<'_>) -> Checked<BlockConfig> {
    let len = rig.device.info().config_size as usize;
    let mut bytes = vec![0; len.min(BlockConfig::SIZE)];
    rig.device.read_config(0, &mut bytes)?;
    Ok(BlockConfig::from_bytes(&bytes))
}

/// How the zones behave, of a disk that offers ZONED: what a driver looks at before FEATURES_OK.
pub(super) fn model(rig: &Rig<'_>) -> Checked<ZoneModel> {
    let mut byte = [0];
    rig.device.read_config(MODEL_AT, &mut byte)?;
    Ok(ZoneModel::from_u8(byte[0]))
}

/// All that a driver of disks without zones can live with.
pub(super) fn usual(rig: &Rig<'_>, variant: Variant) -> Features {
    rig.plain(variant).without(block::ZONED)
}

/// Skips what is written for disks without zones, or whose zones are their own affair.
pub(super) fn require_usual(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Block)?;
    if bench.offered()?.contains(block::ZONED) && model(&bench.open()?)? == ZoneModel::HostManaged {
        skip!("the disk is host-managed, and of no use without ZONED");
    }
    Ok(())
}

impl<'b> Disk<'b> {
    /// Opens a disk with all usual features.
    pub(super) fn open(bench: &'b Bench<'b>, variant: Variant) -> Checked<Self> {
        Self::without(bench, variant, Features::NONE)
    }

    /// The same without some of them.
    pub(super) fn without(
        bench: &'b Bench<'b>,
        variant: Variant,
        left_out: Features,
    ) -> Checked<Self> {
        require_usual(bench)?;
        let rig = bench.open()?;
        let features = usual(&rig, variant).difference(left_out);
        let mut disk = Self {
            features,
            read_only: rig.device.offered().contains(block::RO),
            rig,
            rings: Vec::new(),
            space: BlockConfig::default(),
        };
        disk.live()?;
        Ok(disk)
    }

    fn live(&mut self) -> Checked {
        self.rig.negotiate(self.features)?;
        self.space = space(&self.rig)?;
        let many = self.features.contains(block::MQ) && self.space.num_queues() > 1;
        self.rings = (0..if many { 2 } else { 1 })
            .map(|q| self.rig.queue(q, 32))
            .collect::<Checked<_>>()?;
        self.rig.run()
    }

    /// Resets it and makes it live again.
    pub(super) fn again(&mut self) -> Checked {
        self.rig.reset()?;
        self.live()
    }

    /// Whether this was negotiated.
    pub(super) fn has(&self, features: Features) -> bool {
        self.features.intersects(features)
    }

    /// The last of its queues that were started.
    pub(super) fn last_queue(&self) -> usize {
        self.rings.len().saturating_sub(1)
    }

    /// Bytes that any disk reads and writes: a sector, or a block where blocks are larger.
    pub(super) fn unit(&self) -> u32 {
        let sector = SECTOR as u32;
        match self.has(block::BLK_SIZE.mask()) {
            true => self.space.blk_size().max(sector).next_multiple_of(sector),
            false => sector,
        }
    }

    /// Sectors of a unit.
    pub(super) fn step(&self) -> u64 {
        u64::from(self.unit()) / SECTOR
    }

    /// Sectors of the disk.
    pub(super) fn capacity(&self) -> u64 {
        self.space.capacity()
    }

    /// The first sector of the last `units` units; skips where there are fewer.
    pub(super) fn tail(&self, units: u64) -> Checked<u64> {
        let (all, step) = (self.capacity(), self.step());
        let begin = (all / step).checked_sub(units).map(|unit| unit * step);
        match begin {
            Some(begin) => Ok(begin),
            None => skip!("a disk of {all} sectors is too small to try it"),
        }
    }

    /// The first sector of 8 units that may be written over; skips where nothing may be written.
    pub(super) fn scratch(&self) -> Checked<u64> {
        if self.read_only {
            skip!("the disk is read-only");
        }
        self.tail(SCRATCH)
    }

    /// A request in the usual shape: a header, data, room for data, a status byte, a descriptor each.
    pub(super) fn ask(
        &mut self,
        kind: u32,
        sector: u64,
        data: &[u8],
        room: u32,
    ) -> Checked<Answer> {
        self.ask_on(0, kind, sector, data, room)
    }

    /// The same through the queue in place `q`.
    pub(super) fn ask_on(
        &mut self,
        q: usize,
        kind: u32,
        sector: u64,
        data: &[u8],
        room: u32,
    ) -> Checked<Answer> {
        let mut readable = vec![self.rig.place(&header(kind, sector))?];
        if !data.is_empty() {
            readable.push(self.rig.place(data)?);
        }
        let mut writable = Vec::new();
        if room > 0 {
            writable.push(self.rig.alloc(room)?);
        }
        writable.push(self.rig.alloc(1)?);
        self.send(q, &readable, &writable)
            .map_err(|stop| stop.about(format!("type {kind}, sector {sector}")))
    }

    /// A discard and its like.
    pub(super) fn ask_about(&mut self, kind: u32, extents: &[Extent]) -> Checked<Answer> {
        let data: Vec<u8> = extents.iter().flat_map(|extent| extent.bytes()).collect();
        self.ask(kind, 0, &data, 0)
    }

    /// A request in any shape that has a status byte.
    pub(super) fn send(
        &mut self,
        q: usize,
        readable: &[Piece],
        writable: &[Piece],
    ) -> Checked<Answer> {
        let Some(ring) = self.rings.get_mut(q) else {
            fail!("queue {q} was not started");
        };
        ring.add(readable, writable)?;
        ring.publish();
        let room: u32 = writable.iter().map(|piece| piece.len).sum();
        for done in ring.wait(&self.rig, 1)? {
            ensure!(
                done.len <= room,
                "used.len is {} where {room} bytes are writable",
                done.len
            );
        }
        let mut data: Vec<u8> = writable
            .iter()
            .flat_map(|piece| self.rig.read(*piece))
            .collect();
        let status = data.pop().unwrap_or(CANARY);
        ensure!(
            status <= UNSUPP,
            "the status byte is {status:#x}; it was {CANARY:#x} before"
        );
        Ok(Answer { status, data })
    }

    /// Reads, which must succeed.
    pub(super) fn read(&mut self, sector: u64, len: u32) -> Checked<Vec<u8>> {
        let answer = self.ask(IN, sector, &[], len)?;
        let status = answer.status;
        ensure!(
            status == OK,
            "a read of {len} bytes from sector {sector} on came back with status {status}"
        );
        Ok(answer.data)
    }

    /// Writes, which must succeed.
    pub(super) fn write(&mut self, sector: u64, data: &[u8]) -> Checked {
        let status = self.ask(OUT, sector, data, 0)?.status;
        ensure!(
            status == OK,
            "a write of {} bytes from sector {sector} on came back with status {status}",
            data.len()
        );
        Ok(())
    }

    /// Whether it still serves, as it is and after a reset: a read of its last unit.
    pub(super) fn serves(&mut self) -> Checked {
        let (at, unit) = (self.tail(1)?, self.unit());
        for when in ["afterwards", "after a reset"] {
            let read = self.read(at, unit);
            read.map_err(|stop| stop.about(when))?;
            self.again()?;
        }
        Ok(())
    }
}

/// What differs between what a disk had and what it has, in a few words; `None` if nothing does.
pub(super) fn difference(had: &[u8], has: &[u8]) -> Option<String> {
    let at = had.iter().zip(has).position(|(a, b)| a != b)?;
    let (was, is) = (had.get(at)?, has.get(at)?);
    Some(format!("byte {at} is {is:#04x} where {was:#04x} belongs"))
}

/// What it can be asked of discards and their like, by what was offered.
pub(super) const EXTENT_KINDS: [(vdpa_core::FeatureBit, u32, &str); 3] = [
    (block::DISCARD, DISCARD, "discard"),
    (block::WRITE_ZEROES, WRITE_ZEROES, "write-zeroes"),
    (block::SECURE_ERASE, SECURE_ERASE, "secure-erase"),
];
