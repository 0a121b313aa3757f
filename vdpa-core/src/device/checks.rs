//! What is checked of a queue's set-up before a parent sees it.

use vdpa_mem::{Access, Iova, Mapping};
use vdpa_ring::{AreaSizes, Format, QueueState, area_sizes};

use crate::{Area, Error, QueueConfig, QueueIndex, QueueLimits, Result};

/// What the checks need to know besides the set-up itself.
pub(super) struct Facts<'a> {
    pub(super) limits: QueueLimits,
    pub(super) format: Format,
    pub(super) event_idx: bool,
    /// `None`: the device waits for what is not mapped.
    pub(super) mappings: Option<&'a Vec<Mapping>>,
}

/// Size, state, alignment, overlap and mapping of queue `q`, in this order.
pub(super) fn queue(q: QueueIndex, c: &QueueConfig, facts: &Facts<'_>) -> Result<()> {
    size(q, c.size, facts)?;
    if let Some(state) = c.state {
        self::state(q, state, c.size, facts.format)?;
    }
    let sizes = area_sizes(facts.format, c.size, facts.event_idx);
    for area in Area::ALL {
        aligned(q, area, c.area(area), of(&sizes, area).align)?;
    }
    let pairs = [
        (Area::Descriptor, Area::Driver),
        (Area::Descriptor, Area::Device),
        (Area::Driver, Area::Device),
    ];
    for (first, second) in pairs {
        apart(q, c, &sizes, first, second)?;
    }
    let Some(mappings) = facts.mappings else {
        return Ok(());
    };
    for area in Area::ALL {
        let want = wanted(area, facts.format);
        mapped(
            q,
            area,
            c.area(area),
            of(&sizes, area).bytes,
            want,
            mappings,
        )?;
    }
    Ok(())
}

/// virtio 1.4 §2.7: a power of two. §2.8.10.1: any size to 32768.
fn size(q: QueueIndex, size: u16, facts: &Facts<'_>) -> Result<()> {
    let max = facts.limits.max_size.min(vdpa_ring::layout::MAX_SIZE);
    if max == 0 {
        return Err(Error::QueueAbsent { queue: q });
    }
    if size == 0 || size > max {
        return Err(Error::QueueSize {
            queue: q,
            size,
            max,
        });
    }
    if !vdpa_ring::legal_size(facts.format, size) {
        return Err(Error::QueueSizeNotPowerOfTwo { queue: q, size });
    }
    Ok(())
}

/// A state has to be one of this format, with no more in flight than the ring holds.
fn state(q: QueueIndex, state: QueueState, size: u16, format: Format) -> Result<()> {
    let legal = match (format, state) {
        (Format::Split, QueueState::Split { avail, used }) => {
            used.is_none_or(|used| avail.wrapping_sub(used) <= size)
        }
        (Format::Packed, QueueState::Packed { avail, used }) => {
            avail.index < size && used.index < size && avail.since(used, size).is_some()
        }
        (Format::Split, QueueState::Packed { .. }) | (Format::Packed, QueueState::Split { .. }) => {
            false
        }
    };
    if legal {
        Ok(())
    } else {
        Err(Error::QueueStateIllegal {
            queue: q,
            state,
            size,
        })
    }
}

fn aligned(q: QueueIndex, area: Area, at: Iova, align: u32) -> Result<()> {
    if at.get().is_multiple_of(u64::from(align)) {
        return Ok(());
    }
    Err(Error::AreaMisaligned {
        queue: q,
        area,
        at,
        align,
    })
}

fn apart(
    q: QueueIndex,
    c: &QueueConfig,
    sizes: &AreaSizes,
    first: Area,
    second: Area,
) -> Result<()> {
    let (a, b) = (c.area(first).get(), c.area(second).get());
    // Ends that run past 2^64 are found by `mapped`.
    let a_end = a.saturating_add(u64::from(of(sizes, first).bytes));
    let b_end = b.saturating_add(u64::from(of(sizes, second).bytes));
    if a < b_end && b < a_end {
        return Err(Error::AreasOverlap {
            queue: q,
            first,
            second,
            at: Iova::new(a.max(b)),
        });
    }
    Ok(())
}

/// What the device does in an area. It writes packed descriptors, to mark them used.
fn wanted(area: Area, format: Format) -> Access {
    match (area, format) {
        (Area::Descriptor, Format::Split) | (Area::Driver, _) => Access::DeviceReads,
        (Area::Descriptor, Format::Packed) => Access::Both,
        (Area::Device, _) => Access::DeviceWrites,
    }
}

/// Every byte is mapped, by one mapping or several that touch. Memory whose file was cut is none: the driver sees other
/// bytes there.
fn mapped(
    q: QueueIndex,
    area: Area,
    at: Iova,
    bytes: u32,
    want: Access,
    mappings: &[Mapping],
) -> Result<()> {
    let missing = |at| Error::AreaNotMapped { queue: q, area, at };
    let last = at
        .checked_add(u64::from(bytes.saturating_sub(1)))
        .ok_or(missing(at))?;
    let mut next = at;
    loop {
        let holds =
            |m: &&Mapping| m.iova.first() <= next && next <= m.iova.last() && !m.memory.is_lost();
        let mapping = mappings.iter().find(holds).ok_or(missing(next))?;
        if !mapping.access.allows(want) {
            return Err(Error::AreaAccess {
                queue: q,
                area,
                at: next,
            });
        }
        if mapping.iova.last() >= last {
            return Ok(());
        }
        // Cannot wrap: it is below `last`.
        next = mapping.iova.last().checked_add(1).ok_or(missing(next))?;
    }
}

fn of(sizes: &AreaSizes, area: Area) -> vdpa_ring::Area {
    match area {
        Area::Descriptor => sizes.descriptor,
        Area::Driver => sizes.driver,
        Area::Device => sizes.device,
    }
}
