//! What a sector holds, from its number and how often it was written: a test reads the same on the host.

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;

/// Fills `to`, whole sectors from number `first` on, with their version `version`; version 0 is zeroes.
pub(crate) fn fill(to: &mut [u8], first: u64, version: u64) {
    for (bytes, sector) in to.chunks_exact_mut(SECTOR).zip(first..) {
        let mut state = sector ^ version.rotate_left(32);
        for (place, word) in bytes.chunks_exact_mut(8).enumerate() {
            let value = match (version, place) {
                (0, _) => 0,
                (_, 0) => sector,
                (_, 1) => version,
                _ => mixed(&mut state),
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Compares `bytes`, whole sectors from number `first` on, with their version `version`.
///
/// # Errors
/// What the first sector that is another one holds instead.
pub(crate) fn judge(bytes: &[u8], first: u64, version: u64) -> Result<(), String> {
    let mut right = [0; SECTOR];
    for (found, sector) in bytes.chunks_exact(SECTOR).zip(first..) {
        fill(&mut right, sector, version);
        if found != right {
            let holds = told(found);
            return Err(format!(
                "sector {sector} is not version {version}, but {holds}"
            ));
        }
    }
    Ok(())
}

fn told(found: &[u8]) -> String {
    if found.iter().all(|byte| *byte == 0) {
        return "zeroes".to_owned();
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|place| found[at + place]));
    let (sector, version) = (word(0), word(8));
    let mut whole = [0; SECTOR];
    fill(&mut whole, sector, version);
    match found == whole {
        true => format!("version {version} of sector {sector}"),
        false => format!("no version of any: {:02x?}...", &found[..32]),
    }
}

/// SplitMix64: the next number after `state`.
pub(crate) fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
