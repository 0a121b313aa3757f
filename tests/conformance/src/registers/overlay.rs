//! A configuration space with other virtio capabilities than the function's own.

use vdpa_core::Result;
use vdpa_pci::{PciAccess, Width};

use super::walk::{FIRST, HEADER, VENDOR, kind};
use super::{Between, Structure};
use crate::Checked;
use crate::checked::ensure;

const BYTES: usize = 256;

/// A virtio capability as it is to be shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) cfg_type: u8,
    pub(crate) bar: u8,
    pub(crate) id: u8,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) multiplier: u32,
    pub(crate) cap_len: u8,
    /// Bytes that it takes, whatever it says.
    pub(crate) takes: u8,
    /// Where the next one is; `None`: right behind.
    pub(crate) next: Option<u8>,
}

impl From<Structure> for Planned {
    fn from(own: Structure) -> Self {
        let takes = match own.cfg_type {
            kind::NOTIFY | kind::PCI_CFG => 20,
            _ => 16,
        };
        Self {
            cfg_type: own.cfg_type,
            bar: own.bar,
            id: own.id,
            offset: own.offset as u32,
            length: own.length as u32,
            multiplier: own.multiplier,
            cap_len: takes,
            takes,
            next: None,
        }
    }
}

/// Shows planned capabilities in place of all that the function has.
pub(crate) struct Overlay {
    image: [u8; BYTES],
}

impl Overlay {
    /// Lays out a plan, from the first byte behind the header on.
    pub(crate) fn of(plan: &[Planned]) -> Checked<Self> {
        let mut image = [0; BYTES];
        let mut at = usize::from(HEADER);
        image[usize::from(FIRST)] = at as u8;
        for (number, planned) in plan.iter().enumerate() {
            let behind = at + usize::from(planned.takes.next_multiple_of(4));
            ensure!(
                behind <= BYTES,
                "a plan of {} capabilities is too long",
                plan.len()
            );
            let next = match planned.next {
                Some(next) => next,
                None if number + 1 == plan.len() => 0,
                None => behind as u8,
            };
            let bytes = [
                [VENDOR, next, planned.cap_len, planned.cfg_type],
                [planned.bar, planned.id, 0, 0],
                planned.offset.to_le_bytes(),
                planned.length.to_le_bytes(),
                planned.multiplier.to_le_bytes(),
            ]
            .concat();
            for (to, byte) in image[at..behind].iter_mut().zip(bytes) {
                *to = byte;
            }
            at = behind;
        }
        Ok(Self { image })
    }

    fn shows(at: u16) -> bool {
        at == FIRST || (usize::from(HEADER)..BYTES).contains(&usize::from(at))
    }
}

impl Between for Overlay {
    fn read_config(&self, to: &dyn PciAccess, at: u16, width: Width) -> Result<u32> {
        if !Self::shows(at) {
            return to.read_config(at, width);
        }
        let bytes = self.image.iter().skip(at.into());
        let bytes = bytes.take(width.bytes().into());
        Ok(bytes
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    /// What a driver writes to a capability that is not there reaches nobody.
    fn write_config(&self, to: &dyn PciAccess, at: u16, width: Width, value: u32) -> Result<()> {
        match Self::shows(at) {
            true => Ok(()),
            false => to.write_config(at, width, value),
        }
    }
}
