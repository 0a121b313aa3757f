//! A disk image, and what `guest disk` has made of it.

use std::fs;
use std::path::Path;

const SECTOR: usize = 512;

/// An image whose first half says which sectors they are: the guest has the same.
pub(crate) fn make(path: &Path, sectors: u64) {
    let bytes: Vec<u8> = (0..sectors)
        .flat_map(|number| contents(if number < sectors / 2 { number } else { 0 }))
        .collect();
    fs::write(path, bytes).unwrap();
}

/// The second half is what the guest has written, and the first half as it was.
#[track_caller]
pub(crate) fn is_as_written(path: &Path, sectors: u64) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes.len() as u64, sectors * SECTOR as u64);
    for (sector, number) in bytes.chunks(SECTOR).zip(0..) {
        let written = number >= sectors / 2;
        let expected = contents(if written { !number } else { number });
        assert!(sector == expected, "sector {number} of the image");
    }
}

fn contents(number: u64) -> [u8; SECTOR] {
    std::array::from_fn(|at| number.to_le_bytes()[at % 8])
}
