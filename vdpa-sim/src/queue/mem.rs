//! The areas of a ring in a section, and its indirect tables.

use std::cell::Cell;

use vdpa_core::Area;
use vdpa_mem::{Access, Bytes, Fault, Hint, Iova, Section};
use vdpa_ring::{Areas, DeviceMem};

use super::Halt;

/// One area: where it is, and what was found there last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) area: Area,
    pub(super) at: Iova,
    pub(super) len: u32,
    pub(super) want: Access,
    pub(super) near: Hint,
}

impl Place {
    /// Where the area is not mapped, if that is what is wrong with it.
    #[cold]
    pub(super) fn missing(&mut self, section: &Section<'_>) -> Option<(Iova, Access)> {
        let at = missing(section, self.at, self.len, self.want, &mut self.near)?;
        Some((at, self.want))
    }

    #[inline]
    pub(super) fn open<'s>(&mut self, section: &'s Section<'_>) -> Result<Bytes<'s>, Halt> {
        match section.translate(self.at, self.len, self.want, &mut self.near) {
            Ok(bytes) if bytes.len() == self.len as usize => Ok(bytes),
            Ok(_) => Err(Halt::Scattered {
                area: self.area,
                at: self.at,
            }),
            Err(fault) => Err(Halt::Area {
                area: self.area,
                at: self.at,
                fault,
            }),
        }
    }
}

/// The areas of a queue in one section, and the way to its indirect tables.
pub struct QueueMem<'s> {
    pub(super) section: &'s Section<'s>,
    pub(super) areas: Areas<Bytes<'s>>,
    pub(super) tables: Cell<Hint>,
    pub(super) misses: bool,
    /// The first address of an indirect table that is not mapped.
    pub(super) gap: Cell<Option<Iova>>,
}

impl QueueMem<'_> {
    /// The section that it belongs to: for the buffers.
    #[inline]
    pub fn section(&self) -> &Section<'_> {
        self.section
    }
}

impl<'s> DeviceMem for QueueMem<'s> {
    type Ring = Bytes<'s>;

    #[inline]
    fn areas(&self) -> &Areas<Bytes<'s>> {
        &self.areas
    }

    fn table(&self, at: Iova, to: &mut [[u64; 2]]) -> Result<(), Fault> {
        let mut near = self.tables.get();
        let copied = copy_table(self.section, at, to, &mut near);
        self.tables.set(near);
        copied.map_err(|(at, fault)| {
            self.gap.set(Some(at));
            // Where nobody maps what is missing, the table cannot be waited for.
            if self.misses { fault } else { Fault::Denied }
        })
    }
}

/// The first address that is not mapped of `len` bytes from `at` on.
pub(super) fn missing(
    section: &Section<'_>,
    mut at: Iova,
    mut len: u32,
    want: Access,
    near: &mut Hint,
) -> Option<Iova> {
    while len != 0 {
        let bytes = match section.translate(at, len, want, near) {
            Ok(bytes) => bytes,
            Err(Fault::Miss) => return Some(at),
            Err(Fault::Denied) => return None,
        };
        len = len.saturating_sub(bytes.len() as u32);
        at = at.checked_add(bytes.len() as u64)?;
    }
    None
}

fn copy_table(
    section: &Section<'_>,
    mut at: Iova,
    to: &mut [[u64; 2]],
    near: &mut Hint,
) -> Result<(), (Iova, Fault)> {
    let mut raw = [0; 16];
    let mut have = 0_usize;
    let mut entries = to.iter_mut().peekable();
    while entries.peek().is_some() {
        // Up to a page at a time; a table may cross from one region to the next at any byte.
        let bytes = section
            .translate(at, 4096, Access::DeviceReads, near)
            .map_err(|fault| (at, fault))?;
        let mut used = 0_usize;
        while let Some(entry) = entries.peek_mut() {
            let Some(rest) = raw.get_mut(have..) else {
                break;
            };
            let read = bytes.read(used, rest);
            used = used.saturating_add(read);
            have = have.saturating_add(read);
            if have < raw.len() {
                break;
            }
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = raw;
            **entry = [
                u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                u64::from_le_bytes([i, j, k, l, m, n, o, p]),
            ];
            have = 0;
            entries.next();
        }
        if entries.peek().is_some() {
            // Nothing is ever mapped behind the last address.
            at = at.checked_add(used as u64).ok_or((at, Fault::Denied))?;
        }
    }
    Ok(())
}
