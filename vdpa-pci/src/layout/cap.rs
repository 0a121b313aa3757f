//! One virtio capability, read and checked.

use vdpa_core::Result;

use super::{Ignored, Kind, Layout, Reach, Reason, Structure, VendorData};
use crate::access::{BARS, PciAccess, Width};
use crate::pci::{Bar, Capability, Header};

/// A vendor-specific capability of a known type, whole.
pub(super) struct Cap {
    pub(super) at: u16,
    pub(super) kind: Kind,
    pub(super) id: u8,
    /// What follows the plain structure, as far as the type has it: one or two registers.
    pub(super) extra: [u32; 2],
    len: u8,
    vendor: u16,
    bar: u8,
    offset: u32,
    length: u32,
}

impl Cap {
    /// Reads a capability; inside, why it is passed over.
    pub(super) fn read(
        access: &dyn PciAccess,
        entry: &Capability,
    ) -> Result<Result<Self, Ignored>> {
        let [len, cfg_type] = entry.body;
        let at = entry.at;
        let kind = Kind::from_cfg_type(cfg_type);
        let ignored = |reason| Ignored {
            at,
            cfg_type,
            kind,
            reason,
        };
        let Some(kind) = kind else {
            return Ok(Err(ignored(Reason::UnknownType)));
        };
        let need = match kind {
            Kind::Vendor => 6,
            Kind::Common | Kind::Isr | Kind::Device => 16,
            Kind::Notify | Kind::Window => 20,
            Kind::SharedMemory => 24,
        };
        if len < need {
            return Ok(Err(ignored(Reason::Short { len, need })));
        }
        let room = entry.room();
        // A longer one is legal as long as what is used of it is there.
        if room < u16::from(need) {
            return Ok(Err(ignored(Reason::CutOff { room, need })));
        }
        let mut words = [0_u32; 5];
        // What the window shows is not to be read before it is aimed, virtio 1.4 §4.1.4.9.2.
        let end = match kind {
            Kind::Window => 0,
            _ => u16::from(need),
        };
        for (word, offset) in words.iter_mut().zip((4..end).step_by(4)) {
            *word = access.read_config(at + offset, Width::U32)?;
        }
        let [first, offset, length, extra @ ..] = words;
        let [bar, id, ..] = first.to_le_bytes();
        Ok(Ok(Self {
            at,
            kind,
            id,
            extra,
            len,
            vendor: u16::from_le_bytes([bar, id]),
            bar,
            offset,
            length,
        }))
    }

    pub(super) fn ignored(&self, reason: Reason) -> Ignored {
        Ignored {
            at: self.at,
            cfg_type: match self.kind {
                Kind::Common => 1,
                Kind::Notify => 2,
                Kind::Isr => 3,
                Kind::Device => 4,
                Kind::Window => 5,
                Kind::SharedMemory => 8,
                Kind::Vendor => 9,
            },
            kind: Some(self.kind),
            reason,
        }
    }

    pub(super) fn vendor_data(&self) -> VendorData {
        VendorData {
            capability: self.at,
            len: self.len,
            vendor: self.vendor,
        }
    }

    /// The structure that it points to, if that can be used. `window`: where the configuration access window is.
    pub(super) fn structure(
        &self,
        access: &dyn PciAccess,
        header: &Header,
        window: Option<u16>,
    ) -> Result<Structure, Reason> {
        let bar = self.bar;
        let Some(register) = header.bars.get(usize::from(bar)) else {
            return Err(Reason::UnknownBar { bar });
        };
        debug_assert!(bar < BARS, "as many registers as BARs");
        let [high_offset, high_len] = match self.kind {
            Kind::SharedMemory => self.extra,
            _ => [0, 0],
        };
        let offset = u64::from(high_offset) << 32 | u64::from(self.offset);
        let len = u64::from(high_len) << 32 | u64::from(self.length);
        let (align, need) = match self.kind {
            Kind::Common => (4, Layout::COMMON_LEN),
            Kind::Notify => (2, 2),
            Kind::Isr => (1, 1),
            Kind::Device => (4, 1),
            Kind::Window | Kind::SharedMemory | Kind::Vendor => (1, 1),
        };
        if len < need {
            return Err(Reason::TooSmall { len, need });
        }
        if !offset.is_multiple_of(align) {
            return Err(Reason::Misaligned { offset, align });
        }
        let outside = |size| Reason::OutsideBar {
            bar,
            offset,
            len,
            size,
        };
        let end = offset.checked_add(len).ok_or(outside(0))?;
        let size = access.bar_len(bar);
        let reach = match size {
            // The window's offset has 32 bits.
            0 if *register == Bar::None || *register == Bar::Upper => {
                return Err(Reason::NoBar { bar });
            }
            0 if window.is_none() => return Err(Reason::Unreachable { bar }),
            0 if end > 1 << 32 => return Err(outside(1 << 32)),
            0 => Reach::Window,
            _ if end > size => return Err(outside(size)),
            _ => Reach::Bar,
        };
        Ok(Structure {
            kind: self.kind,
            capability: self.at,
            bar,
            offset,
            len,
            reach,
        })
    }
}
