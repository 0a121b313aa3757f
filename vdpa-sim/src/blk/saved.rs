//! The state of a block device besides its queues and its data, as bytes.
//!
//! ```text
//!  "vblk" | version u16 = 1 | writeback u8 | 0 u8 | capacity u64
//! ```
//! All little-endian. The bytes come from anywhere: everything is checked, and nothing may be left over.

use super::MAX_SECTORS;

const MAGIC: [u8; 4] = *b"vblk";
const VERSION: u16 = 1;
const BYTES: usize = 16;

/// What was saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Saved {
    /// Sectors that the driver saw. They are compared, and not restored: the disk is the device's.
    pub(super) capacity: u64,
    pub(super) writeback: bool,
}

pub(super) fn save(state: &Saved) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([state.writeback.into(), 0]);
    bytes.extend(state.capacity.to_le_bytes());
    bytes
}

/// Reads a state.
pub(super) fn load(from: &[u8]) -> Result<Saved, String> {
    let Ok(bytes) = <[u8; BYTES]>::try_from(from) else {
        return Err(format!("it has {} bytes, not {BYTES}", from.len()));
    };
    let [a, b, c, d, e, f, writeback, padding, capacity @ ..] = bytes;
    if [a, b, c, d] != MAGIC {
        let found = [a, b, c, d];
        return Err(format!(
            "it begins with {found:02x?}, a block device's with {MAGIC:02x?}"
        ));
    }
    let version = u16::from_le_bytes([e, f]);
    if version != VERSION {
        return Err(format!("its version is {version}, known is {VERSION}"));
    }
    if writeback > 1 || padding != 0 {
        return Err(format!(
            "its cache mode is {writeback} with {padding} behind it: 0 or 1 with 0 are legal"
        ));
    }
    let capacity = u64::from_le_bytes(capacity);
    if capacity > MAX_SECTORS {
        return Err(format!(
            "its capacity is {capacity} sectors: {MAX_SECTORS} are legal"
        ));
    }
    Ok(Saved {
        capacity,
        writeback: writeback != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_is_wrong_is_refused_with_a_reason() {
        let state = Saved {
            capacity: 12345,
            writeback: true,
        };
        let good = save(&state);
        assert_eq!(load(&good), Ok(state));
        for len in 0..good.len() {
            assert!(load(&good[..len]).unwrap_err().contains("bytes"));
        }
        let long = [good.as_slice(), &[0]].concat();
        assert!(load(&long).is_err());
        for (at, byte, part) in [
            (0, b'x', "begins"),
            (4, 2, "version"),
            (6, 2, "cache mode"),
            (7, 1, "cache mode"),
            (15, 0x80, "capacity"),
        ] {
            let mut bad = good.clone();
            bad[at] = byte;
            let why = load(&bad).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
