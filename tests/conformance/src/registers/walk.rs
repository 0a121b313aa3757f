//! The capabilities of a function, read as the specification draws them and not as the driver that is judged reads them.

use vdpa_pci::{PciAccess, Width};

use crate::Checked;
use crate::checked::{ensure, fail};

/// Kinds of virtio structures, virtio 1.4 §4.1.4.
pub(crate) mod kind {
    pub(crate) const COMMON: u8 = 1;
    pub(crate) const NOTIFY: u8 = 2;
    pub(crate) const ISR: u8 = 3;
    pub(crate) const DEVICE: u8 = 4;
    pub(crate) const PCI_CFG: u8 = 5;
    pub(crate) const SHARED_MEMORY: u8 = 8;
}

/// The capability of a vendor's own.
pub(crate) const VENDOR: u8 = 9;
/// Offset of the pointer to the first one.
pub(crate) const FIRST: u16 = 0x34;
/// They are behind the header.
pub(crate) const HEADER: u16 = 0x40;

/// A capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Capability {
    pub(crate) id: u8,
    /// Where it is in configuration space.
    pub(crate) at: u16,
}

/// Where a virtio structure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Structure {
    pub(crate) cfg_type: u8,
    pub(crate) bar: u8,
    pub(crate) id: u8,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Of a notify structure; 0 for the others.
    pub(crate) multiplier: u32,
    /// Where its capability is, and how long it says that it is.
    pub(crate) at: u16,
    pub(crate) cap_len: u8,
}

impl Structure {
    /// Whether this register is one of its.
    pub(crate) fn covers(&self, bar: u8, at: u64) -> bool {
        let offset = at.checked_sub(self.offset);
        bar == self.bar && offset.is_some_and(|offset| offset < self.length)
    }

    /// Whether it lies inside its BAR, as far as that can be reached.
    pub(crate) fn is_inside(&self, function: &dyn PciAccess) -> bool {
        let end = self.offset.checked_add(self.length);
        end.is_some_and(|end| end <= function.bar_len(self.bar))
    }
}

/// Every capability, in order.
pub(crate) fn capabilities(function: &dyn PciAccess) -> Checked<Vec<Capability>> {
    /// Of 4 bytes each, there are no more.
    const MOST: usize = 48;
    const STATUS: u16 = 6;
    const HAS_LIST: u32 = 1 << 4;
    let mut found = Vec::new();
    if function.read_config(STATUS, Width::U16)? & HAS_LIST == 0 {
        return Ok(found);
    }
    let mut at = function.read_config(FIRST, Width::U8)? as u16 & !3;
    while at != 0 {
        ensure!(
            at >= HEADER,
            "a capability is at {at:#x}, inside of the header"
        );
        ensure!(found.len() < MOST, "the list of capabilities has no end");
        let id = function.read_config(at, Width::U8)? as u8;
        found.push(Capability { id, at });
        at = function.read_config(at + 1, Width::U8)? as u16 & !3;
    }
    Ok(found)
}

/// The virtio structures, in order.
pub(crate) fn structures(function: &dyn PciAccess) -> Checked<Vec<Structure>> {
    let mut found = Vec::new();
    for Capability { at, .. } in capabilities(function)?
        .into_iter()
        .filter(|cap| cap.id == VENDOR)
    {
        let byte = |offset: u16| function.read_config(at + offset, Width::U8);
        let word = |offset: u16| function.read_config(at + offset, Width::U32);
        let (cap_len, cfg_type) = (byte(2)? as u8, byte(3)? as u8);
        if at + 16 > 256 {
            fail!("the virtio capability at {at:#x} does not fit into configuration space");
        }
        let (low, length) = (word(8)?, word(12)?);
        let (high, long) = match cfg_type {
            kind::SHARED_MEMORY if cap_len >= 24 => (word(16)?, word(20)?),
            _ => (0, 0),
        };
        let wide = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        found.push(Structure {
            cfg_type,
            bar: byte(4)? as u8,
            id: byte(5)? as u8,
            offset: wide(high, low),
            length: wide(long, length),
            multiplier: match cfg_type {
                kind::NOTIFY => word(16)?,
                _ => 0,
            },
            at,
            cap_len,
        });
    }
    Ok(found)
}

/// Where the extended capability of this kind is, if there is one. `None`: that configuration space cannot be seen.
pub(crate) fn extended(function: &dyn PciAccess, id: u16) -> Checked<Option<Option<u16>>> {
    const BEGIN: u16 = 0x100;
    if function.config_len() < 4096 {
        return Ok(None);
    }
    let mut at = BEGIN;
    // As many as there is room for.
    for _ in 0..960 {
        let header = function.read_config(at, Width::U32)?;
        if header == 0 || header == u32::MAX {
            return Ok(Some(None));
        }
        if header as u16 == id {
            return Ok(Some(Some(at)));
        }
        at = (header >> 20) as u16 & !3;
        if at < BEGIN {
            return Ok(Some(None));
        }
    }
    fail!("the list of extended capabilities has no end")
}
