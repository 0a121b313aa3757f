//! A disk's contents, compared from both sides: what the test wrote to it is read, and what is written here the test reads.

use std::error::Error;

use serde_json::{Value, json};
use vdpa::Device;
use vdpa::blk::{BlkDriver, Setup};
use vdpa::net::Ring;

const SECTOR: usize = 512;
/// Sectors of one read or write: more than a request of the driver has room for.
const CHUNK: u64 = 256;

/// The first half of the disk has sectors that say which they are; the second half gets such, inverted.
pub(crate) fn compare(device: Device, ring: Ring) -> Result<Value, Box<dyn Error>> {
    let setup = Setup {
        ring,
        ..Setup::default()
    };
    let mut disk = BlkDriver::start(device, &setup)?;
    let sectors = disk.capacity();
    let half = sectors / 2;
    let mut bytes = vec![0; CHUNK as usize * SECTOR];

    for first in (0..half).step_by(CHUNK as usize) {
        bytes.fill(0);
        disk.read(first, &mut bytes)?;
        for (sector, number) in bytes.chunks(SECTOR).zip(first..) {
            if sector != contents(number) {
                return Err(format!("sector {number} is another").into());
            }
        }
    }
    for first in (half..sectors).step_by(CHUNK as usize) {
        for (sector, number) in bytes.chunks_mut(SECTOR).zip(first..) {
            sector.copy_from_slice(&contents(!number));
        }
        disk.write(first, &bytes)?;
    }
    disk.flush()?;
    let features = disk.features();
    let packed = features.contains(vdpa::core::bits::RING_PACKED);
    disk.stop()?;
    Ok(json!({ "read": half, "written": sectors - half, "packed": packed }))
}

/// The test has the same.
fn contents(number: u64) -> [u8; SECTOR] {
    std::array::from_fn(|at| number.to_le_bytes()[at % 8])
}
