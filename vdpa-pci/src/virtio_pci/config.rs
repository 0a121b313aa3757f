//! Device configuration, accessed in the natural width of its fields, virtio 1.4 §4.1.3.1.

use vdpa_core::config::{self, Field, Writable};
use vdpa_core::{DeviceType, Result};

use crate::access::Width;
use crate::layout::Structure;
use crate::registers::Registers;

/// What one access covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unit {
    pub(super) at: u32,
    pub(super) width: Width,
    pub(super) writable: bool,
}

impl Unit {
    fn new(at: u32, width: Width, writable: bool) -> Self {
        Self {
            at,
            width,
            writable,
        }
    }

    pub(super) fn end(&self) -> u32 {
        self.at + u32::from(self.width.bytes())
    }
}

/// The access that covers byte `at`, of which the caller wants those below `end`.
///
/// * `size`: of the structure; an access ends before it
pub(super) fn unit(device_type: DeviceType, at: u32, end: u32, size: u32) -> Unit {
    let fields = config::fields(device_type);
    let field = fields.iter().find(|f| (f.offset()..f.end()).contains(&at));
    let whole = field.map(|field| of_field(field, at));
    match whole {
        Some(unit) if unit.end() <= size => unit,
        // Cut off by the end of the structure.
        Some(unit) => Unit::new(at, Width::U8, unit.writable),
        // Nothing is known of it but what the caller wants: the widest access that is aligned and not wider.
        None => {
            let known = fields.iter().map(Field::offset).find(|&next| next > at);
            let end = known.map_or(end, |next| next.min(end));
            let fits = |width: &Width| {
                let bytes = u32::from(width.bytes());
                at.is_multiple_of(bytes) && end.saturating_sub(at) >= bytes
            };
            let width = [Width::U32, Width::U16].into_iter().find(fits);
            // Between known fields there is padding, which nobody writes.
            Unit::new(at, width.unwrap_or(Width::U8), known.is_none())
        }
    }
}

/// The access to the part of a field that byte `at` is in.
fn of_field(field: &Field, at: u32) -> Unit {
    let writable = field.writable() == Writable::ByDriver;
    match field.width() {
        2 => Unit::new(field.offset(), Width::U16, writable),
        4 => Unit::new(field.offset(), Width::U32, writable),
        // As two of 32 bits, each by itself.
        8 => Unit::new(at - (at - field.offset()) % 4, Width::U32, writable),
        // Bytes, and a MAC address, which is six of them.
        _ => Unit::new(at, Width::U8, writable),
    }
}

/// Reads bytes from `at` on.
pub(super) fn read(
    registers: &Registers,
    structure: &Structure,
    device_type: DeviceType,
    at: u32,
    to: &mut [u8],
) -> Result<()> {
    registers.check()?;
    let size = u32::try_from(structure.len).unwrap_or(u32::MAX);
    let mut at = at;
    let mut rest = to;
    while !rest.is_empty() {
        let end = at.saturating_add(u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let unit = unit(device_type, at, end, size);
        let bytes = registers
            .read(structure, unit.at, unit.width)?
            .to_le_bytes();
        let skip = usize::try_from(at - unit.at).unwrap_or(0);
        let len = usize::try_from(unit.end().min(end) - at).unwrap_or(0);
        let (part, after) = rest.split_at_mut(len.min(rest.len()));
        if let Some(from) = bytes.get(skip..skip + part.len()) {
            part.copy_from_slice(from);
        }
        rest = after;
        at = unit.end().min(end);
    }
    Ok(())
}

/// Writes bytes from `at` on; those of fields that a driver does not write are left out.
pub(super) fn write(
    registers: &Registers,
    structure: &Structure,
    device_type: DeviceType,
    at: u32,
    from: &[u8],
) -> Result<()> {
    registers.check()?;
    let size = u32::try_from(structure.len).unwrap_or(u32::MAX);
    let mut at = at;
    let mut rest = from;
    while !rest.is_empty() {
        let end = at.saturating_add(u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let unit = unit(device_type, at, end, size);
        let skip = usize::try_from(at - unit.at).unwrap_or(0);
        let len = usize::try_from(unit.end().min(end) - at).unwrap_or(0);
        let (part, after) = rest.split_at(len.min(rest.len()));
        if unit.writable {
            let whole = part.len() == usize::from(unit.width.bytes());
            // A part of a field goes out with the rest of it as it is.
            let mut bytes = match whole {
                true => [0; 4],
                false => registers
                    .read(structure, unit.at, unit.width)?
                    .to_le_bytes(),
            };
            if let Some(to) = bytes.get_mut(skip..skip + part.len()) {
                to.copy_from_slice(part);
            }
            registers.write(structure, unit.at, unit.width, u32::from_le_bytes(bytes))?;
        }
        rest = after;
        at = unit.end().min(end);
    }
    Ok(())
}
