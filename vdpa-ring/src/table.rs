//! Indirect tables, copied once before anything in them is believed.

use vdpa_mem::{Fault, Iova};

use crate::{chain::Stop, error::RingError, layout::DESCRIPTOR_BYTES, mem::DeviceMem};

/// Checks a table's length and copies the table into `to`, once.
pub(crate) fn copy_table<'t, D: DeviceMem>(
    mem: &D,
    to: &'t mut [[u64; 2]],
    head: u16,
    size: u16,
    addr: u64,
    len: u32,
) -> Result<&'t [[u64; 2]], Stop> {
    let entries = (len >> 4) as usize;
    let whole = len.is_multiple_of(DESCRIPTOR_BYTES) && entries != 0;
    let Some(table) = to.get_mut(..entries).filter(|_| whole) else {
        return Err(RingError::TableLength { head, len, size }.into());
    };
    let at = Iova::new(addr);
    match mem.table(at, table) {
        Ok(()) => Ok(table),
        Err(Fault::Miss) => Err(Stop::Parked(at)),
        Err(_) => Err(RingError::TableDenied { head, at }.into()),
    }
}
