//! Where each structure of a function lies: BAR, offset, length.

use vdpa_pci::BARS;

use crate::pci::layout::{Layout, Order};

/// What lies in BARs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Structure {
    /// virtio 1.4 §4.1.4.3.
    Common,
    /// virtio 1.4 §4.1.4.4.
    Notify,
    /// virtio 1.4 §4.1.4.5.
    Isr,
    /// virtio 1.4 §4.1.4.6.
    Device,
    /// The MSI-X table.
    Table,
    /// The MSI-X pending bits.
    Pending,
    /// A region of shared memory, by its id: virtio 1.4 §4.1.4.7.
    Shared(u8),
}

/// A structure's place in a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) what: Structure,
    pub(crate) bar: u8,
    /// It begins at the next multiple of this, a power of two.
    pub(crate) align: u32,
}

/// A structure's place in a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Region {
    pub(crate) what: Structure,
    pub(crate) bar: u8,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

/// Bytes of the common configuration structure of virtio 1.4, with the fields of the administration queues.
pub(crate) const COMMON_BYTES: u32 = 0x40;

/// Bytes of a region of shared memory.
pub(crate) const SHARED_BYTES: u32 = 0x4000;

/// What a function's regions depend on beside its layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// With administration queues.
    pub(crate) queues: u16,
    pub(crate) config: u32,
    /// 0: no MSI-X.
    pub(crate) vectors: u16,
}

/// The regions of a function, and how long each BAR is.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    list: Vec<Region>,
    /// A power of two, or 0.
    bars: [u64; BARS as usize],
}

impl Regions {
    /// Places the parts of a layout.
    pub(crate) fn place(layout: &Layout, sizes: Sizes) -> Self {
        let mut list: Vec<Region> = Vec::new();
        for part in layout.parts {
            let len = length(layout, part.what, sizes);
            if len == 0 {
                continue;
            }
            let end = |region: &Region| region.at.saturating_add(region.len);
            let own = list.iter().filter(|region| region.bar == part.bar);
            let after = own.map(end).max().unwrap_or(0);
            let at = after.checked_next_multiple_of(part.align.max(1));
            list.push(Region {
                what: part.what,
                bar: part.bar,
                at: at.unwrap_or(after),
                len,
            });
        }
        let mut bars = [0_u64; BARS as usize];
        for region in &list {
            if let Some(bar) = bars.get_mut(usize::from(region.bar)) {
                let end = u64::from(region.at).saturating_add(region.len.into());
                *bar = end.next_power_of_two().max(0x1000).max(*bar);
            }
        }
        Self { list, bars }
    }

    /// The region of a structure, if the function has it.
    pub(crate) fn of(&self, what: Structure) -> Option<Region> {
        self.list.iter().find(|region| region.what == what).copied()
    }

    /// The ids of the regions of shared memory.
    pub(crate) fn shared(&self) -> impl Iterator<Item = u8> {
        self.list.iter().filter_map(|region| match region.what {
            Structure::Shared(id) => Some(id),
            _ => None,
        })
    }

    /// How long a BAR is; 0: there is none.
    pub(crate) fn bar_len(&self, bar: u8) -> u64 {
        self.bars.get(usize::from(bar)).copied().unwrap_or(0)
    }

    /// The structure that `len` bytes are in, and where in it.
    pub(crate) fn find(&self, bar: u8, at: u64, len: u8) -> Option<(Structure, u32)> {
        let at = u32::try_from(at).ok()?;
        let end = at.checked_add(len.into())?;
        self.list.iter().find_map(|region| {
            let inside = at.checked_sub(region.at)?;
            let last = region.at.saturating_add(region.len);
            (region.bar == bar && end <= last).then_some((region.what, inside))
        })
    }
}

/// `queue_notify_off` of a queue.
///
/// * `queues`: how many there are
pub(crate) fn notify_off(order: Order, q: u16, queues: u16) -> u16 {
    match order {
        Order::Ascending => q,
        Order::Reversed => queues.saturating_sub(q).saturating_sub(1),
    }
}

/// The length of a structure in bytes; 0 where the function has none.
fn length(layout: &Layout, what: Structure, sizes: Sizes) -> u32 {
    let vectors = u32::from(sizes.vectors);
    match what {
        Structure::Common => COMMON_BYTES,
        Structure::Isr => 1,
        Structure::Device => sizes.config,
        // virtio 1.4 §4.1.4.4.1: room for the last queue's doorbell, of 32 bits where they fit.
        Structure::Notify => {
            let last = u32::from(sizes.queues.saturating_sub(1));
            let bell = if layout.multiplier == 2 { 2 } else { 4 };
            last.saturating_mul(layout.multiplier).saturating_add(bell)
        }
        Structure::Table => vectors.saturating_mul(16),
        Structure::Pending => vectors.div_ceil(64).saturating_mul(8),
        Structure::Shared(_) => SHARED_BYTES,
    }
}
