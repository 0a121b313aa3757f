//! The memory of a queue: how much, of which kind, and where the device sees it.
//!
//! ```text
//!   descriptor area │ driver area │ device area │ indirect tables │ … │ buffer 0 │ buffer 1 │ …
//!   ▲ iova, page-aligned                                          ▲ page-aligned, buffers 64-byte-aligned
//! ```

use std::sync::Arc;

use vdpa_mem::{Access, Barriers, HugePage, Iova, IovaRange, Mapping, Region, Window};
use vdpa_ring::{
    Areas, DriverMem, DriverRing, Format, RingFeatures, SetupError, Tables, area_sizes,
};

use super::cells::Cells;
use super::pool::{MOST, Pool};
use super::queue::{Notice, Queue};
use crate::{
    DmaLimits, Error, Features, QueueConfig, QueueIndex, QueueLimits, Reach, Result, bits,
};

/// Which memory a queue's ring and buffers are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Backing {
    /// Memory with a file, which another process can be given.
    #[default]
    Memfd,
    /// Memory of this process alone.
    Anonymous,
    /// Huge pages with a file.
    Huge(HugePage),
}

/// How a queue is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueSetup {
    /// Size in descriptors: a power of two for a split ring, any size for a packed one.
    pub size: u16,
    /// How many buffers there are.
    pub buffers: u32,
    /// Bytes in a buffer.
    pub buffer_len: u32,
    /// Segments that an indirect table has room for, where INDIRECT_DESC is negotiated; 0 for no tables.
    pub indirect: u16,
    /// Which memory.
    pub backing: Backing,
}

impl Default for QueueSetup {
    /// 256 descriptors, as many buffers of 2048 bytes, tables of 8 segments, in shared memory.
    fn default() -> Self {
        Self {
            size: 256,
            buffers: 256,
            buffer_len: 2048,
            indirect: 8,
            backing: Backing::default(),
        }
    }
}

/// Hands out device addresses, upwards within each range that the device has, with a gap after each.
pub(super) struct Iovas {
    /// The next address and the last one of each range.
    left: Vec<(u64, u64)>,
    /// What addresses and lengths are multiples of.
    granule: u64,
    legal: Vec<(Iova, Iova)>,
    /// Whether the platform translates for the device.
    translated: bool,
}

/// The first address handed out, where there is a choice. Not 0, so that an address that was forgotten is not a legal one.
const FIRST: u64 = 0x10_0000;
const PAGE: u64 = 4096;
/// Distance of two buffers, in multiples of: a cache line.
const LINE: u32 = 64;

impl Iovas {
    /// * `limits`: of a device that something else translates for; `None`: any address will do
    pub(super) fn new(limits: Option<&DmaLimits>) -> Self {
        let (legal, granule) = match limits {
            Some(limits) => (limits.ranges.clone(), limits.granule),
            None => (vec![(Iova::new(0), Iova::new(u64::MAX))], PAGE),
        };
        let left = legal.iter().map(|(first, last)| {
            let (first, last) = (first.get(), last.get());
            match first {
                0..FIRST if last > FIRST => (FIRST, last),
                0 => (PAGE, last),
                _ => (first, last),
            }
        });
        Self {
            left: left.collect(),
            granule: granule.max(PAGE),
            legal,
            translated: limits.is_some_and(|limits| limits.reach == Reach::Platform),
        }
    }

    /// The fences of a ring. What an IOMMU translates for is a device on a bus, whether it says so or not.
    ///
    /// # Spec
    /// virtio 1.4 §6, ORDER_PLATFORM.
    fn barriers(&self, features: Features) -> Barriers {
        match self.translated || features.contains(bits::ORDER_PLATFORM) {
            true => Barriers::Devices,
            false => Barriers::Processors,
        }
    }

    /// * `len`: a multiple of the granule
    fn take(&mut self, len: u64, align: u64) -> Result<IovaRange> {
        let align = align.max(self.granule);
        for (next, last) in &mut self.left {
            let Some(first) = next.checked_next_multiple_of(align) else {
                continue;
            };
            let Ok(range) = IovaRange::new(Iova::new(first), len) else {
                continue;
            };
            if range.last().get() <= *last {
                // A page that is never mapped shows whoever runs past the end.
                *next = range.last().get().saturating_add(PAGE);
                return Ok(range);
            }
        }
        Err(Error::DmaExhausted {
            len,
            legal: self.legal.clone(),
        })
    }
}

/// A queue that is ready to start, and what has to be mapped for it.
pub(super) struct Prepared {
    pub(super) queue: Queue,
    pub(super) mapping: Mapping,
    pub(super) range: IovaRange,
}

pub(super) fn prepare(
    q: QueueIndex,
    setup: &QueueSetup,
    limits: QueueLimits,
    features: Features,
    iovas: &mut Iovas,
) -> Result<Prepared> {
    let format = if features.contains(bits::RING_PACKED) {
        Format::Packed
    } else {
        Format::Split
    };
    if setup.size == 0 || setup.size > limits.max_size {
        return Err(Error::QueueSize {
            queue: q,
            size: setup.size,
            max: limits.max_size,
        });
    }
    let ring_features = ring_features(features);
    let ring = DriverRing::new(format, setup.size, ring_features, None)
        .map_err(|e| refused(q, e, limits))?;

    let event_idx = ring_features.contains(RingFeatures::EVENT_IDX);
    let sizes = area_sizes(format, setup.size, event_idx);
    let placed = sizes.placed();
    let entries = match ring_features.contains(RingFeatures::INDIRECT_DESC) {
        true => setup.indirect,
        false => 0,
    };
    let table_bytes = u64::from(setup.size) * u64::from(entries) * 16;
    let table_at = u64::from(placed.bytes);
    let pool_at = (table_at + table_bytes).next_multiple_of(PAGE);
    let too_large = Error::Buffer {
        queue: q,
        why: "buffers are too many or too large",
    };
    let stride = setup.buffer_len.checked_next_multiple_of(LINE);
    let Some(stride) = stride.filter(|_| setup.buffers <= MOST) else {
        return Err(too_large);
    };
    // Below 2^64: a 52-bit offset and a product of two 32-bit numbers.
    let pool_bytes = u64::from(stride) * u64::from(setup.buffers);
    let Some(bytes) = pool_at.checked_add(pool_bytes) else {
        return Err(too_large);
    };

    // Memory is aligned to pages: where the granule is larger, to have it aligned takes more.
    let slack = iovas.granule - PAGE;
    let room = bytes.checked_next_multiple_of(iovas.granule);
    let Some(room) = room.and_then(|room| room.checked_add(slack)) else {
        return Err(too_large);
    };
    let (region, align) = match setup.backing {
        Backing::Memfd => (Region::memfd(room)?, PAGE),
        Backing::Anonymous => (Region::anonymous(room)?, PAGE),
        Backing::Huge(page) => (Region::huge(room, page)?, align_of(page)),
    };
    let (memory, _) = region.into_shared();
    let host = memory.hva().as_ptr() as u64;
    let lead = host.next_multiple_of(iovas.granule) - host;
    let whole = memory.len() - slack;
    let range = iovas.take(whole - whole % iovas.granule, align)?;
    let base = range.first();
    let at = |offset: u64| Iova::new(base.get().saturating_add(offset));
    let window = |offset: u64, len: u64| Window::new(Arc::clone(&memory), lead + offset, len);
    let barriers = iovas.barriers(features);
    let area = |offset: u32, area: vdpa_ring::Area| {
        window(u64::from(offset), u64::from(area.bytes)).map(|window| Cells(window, barriers))
    };
    let tables = match table_bytes {
        0 => None,
        _ => Some(Tables {
            memory: Cells(window(table_at, table_bytes)?, barriers),
            base: at(table_at),
            entries,
        }),
    };
    let mem = DriverMem {
        areas: Areas {
            descriptor: area(placed.descriptor, sizes.descriptor)?,
            driver: area(placed.driver, sizes.driver)?,
            device: area(placed.device, sizes.device)?,
        },
        tables,
    };
    let config = QueueConfig::new(
        setup.size,
        at(u64::from(placed.descriptor)),
        at(u64::from(placed.driver)),
        at(u64::from(placed.device)),
    );
    let pool = Pool::new(q, window(pool_at, pool_bytes)?, at(pool_at), stride, setup);
    let notice = match features.contains(bits::NOTIFICATION_DATA) {
        true => Notice::Position,
        false => Notice::Index,
    };
    Ok(Prepared {
        queue: Queue::new(q, config, ring, mem, pool, notice)?,
        mapping: Mapping {
            iova: range,
            memory,
            offset: lead,
            access: Access::Both,
            dirty: None,
        },
        range,
    })
}

pub(super) fn ring_features(features: Features) -> RingFeatures {
    let known = [
        (bits::INDIRECT_DESC, RingFeatures::INDIRECT_DESC),
        (bits::EVENT_IDX, RingFeatures::EVENT_IDX),
        (bits::IN_ORDER, RingFeatures::IN_ORDER),
    ];
    known
        .into_iter()
        .filter(|(bit, _)| features.contains(*bit))
        .map(|(_, ring)| ring)
        .collect()
}

/// The ring knows what is legal; only the names differ.
fn refused(q: QueueIndex, error: SetupError, limits: QueueLimits) -> Error {
    match error {
        SetupError::Size {
            format: Format::Split,
            size,
        } if size != 0 && size <= limits.max_size => {
            Error::QueueSizeNotPowerOfTwo { queue: q, size }
        }
        SetupError::Size { size, .. } => Error::QueueSize {
            queue: q,
            size,
            max: limits.max_size,
        },
        SetupError::State { state, size, .. } => Error::QueueStateIllegal {
            queue: q,
            state,
            size,
        },
        _ => Error::QueueAbsent { queue: q },
    }
}

fn align_of(page: HugePage) -> u64 {
    match page {
        HugePage::Size2M => 2 << 20,
        HugePage::Size1G => 1 << 30,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn limits(ranges: &[(u64, u64)], granule: u64) -> DmaLimits {
        let range = |(first, last): &(u64, u64)| (Iova::new(*first), Iova::new(*last));
        DmaLimits {
            ranges: ranges.iter().map(range).collect(),
            granule,
            max_entries: None,
            reach: Reach::Platform,
        }
    }

    #[test]
    fn fences_are_those_of_devices_where_the_device_is_one() {
        let order = bits::ORDER_PLATFORM.mask();
        let software = Iovas::new(None);
        assert_eq!(software.barriers(Features::NONE), Barriers::Processors);
        assert_eq!(software.barriers(order), Barriers::Devices);
        let told = Iovas::new(Some(&limits(&[(0, u64::MAX)], 4096)));
        assert_eq!(told.barriers(Features::NONE), Barriers::Devices);
        let mut process = limits(&[(0, u64::MAX)], 4096);
        process.reach = Reach::Process;
        let process = Iovas::new(Some(&process));
        assert_eq!(process.barriers(Features::NONE), Barriers::Processors);
        for barriers in [Barriers::Processors, Barriers::Devices] {
            barriers.acquire();
            barriers.release();
            barriers.full();
        }
    }

    #[test]
    fn addresses_are_taken_within_the_ranges_and_never_twice_to_their_last_byte() {
        let ranges = [
            (0, 0x3fff),
            (0x10_0000, 0x10_5fff),
            (u64::MAX - 0xfff, u64::MAX),
        ];
        let mut iovas = Iovas::new(Some(&limits(&ranges, 1)));
        let mut take = |len, align| iovas.take(len, align).map(|range| range.first().get());
        // A window follows each, where there is room for one; address 0 is not handed out.
        assert_eq!(take(0x1000, 1).unwrap(), 0x1000);
        assert_eq!(take(0x1000, 1).unwrap(), 0x3000);
        assert_eq!(take(0x2000, 0x2000).unwrap(), 0x10_0000);
        assert_eq!(take(0x3000, 1).unwrap(), 0x10_3000);
        assert_eq!(take(0x1000, 1).unwrap(), u64::MAX - 0xfff);
        assert!(matches!(
            take(0x1000, 1),
            Err(Error::DmaExhausted { len: 0x1000, .. })
        ));
        let mut none = Iovas::new(Some(&DmaLimits::NOTHING));
        assert!(none.take(0x1000, 1).is_err());
        let mut coarse = Iovas::new(Some(&limits(&[(0x1000, 0x4_ffff)], 0x1_0000)));
        assert_eq!(coarse.take(0x1_0000, 1).unwrap().first().get(), 0x1_0000);
        assert_eq!(coarse.take(0x1_0000, 1).unwrap().first().get(), 0x3_0000);
    }
}
