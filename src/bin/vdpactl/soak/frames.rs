//! Frames that say which one they are, and show every byte that is wrong.
//!
//! ```text
//!   Ethernet header │ mark 4 │ pair 2 │ length 4 │ number 8 │ check of the above 4 │ anything │ check of the above 4
//! ```

use vdpa::core::config::Mac;

/// IEEE 802 local experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// A locally administered address, as of a machine elsewhere.
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Marks these frames among others.
const MARK: [u8; 4] = *b"soak";
const MARK_AT: usize = 12;
const PAIR_AT: usize = 18;
const LENGTH_AT: usize = 20;
const NUMBER_AT: usize = 24;
const CHECK_AT: usize = 32;
const BODY_AT: usize = 36;
/// The shortest one: what an Ethernet frame has at least.
pub(crate) const SHORTEST: usize = 60;

/// Makes them.
pub(crate) struct Frames {
    destination: Mac,
    /// Random bytes, more than a frame has.
    pool: Vec<u8>,
    bytes: Vec<u8>,
}

/// What came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// A frame of others.
    Foreign,
    /// This one, whole.
    Whole { pair: u16, number: u64 },
    /// Other bytes than were sent, and which it was, if that can be read.
    Damaged(Option<(u16, u64)>),
}

impl Frames {
    /// Frames to this address, of up to `longest` bytes.
    pub(crate) fn new(destination: Mac, longest: usize, mut random: impl FnMut() -> u64) -> Self {
        let words = longest.div_ceil(8) * 2;
        Self {
            destination,
            pool: (0..words).flat_map(|_| random().to_le_bytes()).collect(),
            bytes: Vec::with_capacity(longest),
        }
    }

    /// The frame with this number of this pair, of `len` bytes.
    pub(crate) fn make(&mut self, pair: u16, number: u64, len: usize) -> &[u8] {
        let len = len.max(SHORTEST);
        let Self { pool, bytes, .. } = self;
        // Each number begins elsewhere, so that bytes of another frame of the same length are wrong ones.
        let spare = (pool.len() - len.min(pool.len())) as u64;
        let from = (number.wrapping_mul(31) % spare.max(1)) as usize;
        bytes.clear();
        bytes.extend_from_slice(&self.destination.octets());
        bytes.extend_from_slice(&SOURCE);
        bytes.extend_from_slice(&ETHERTYPE);
        bytes.extend_from_slice(&MARK);
        bytes.extend_from_slice(&pair.to_be_bytes());
        bytes.extend_from_slice(&(len as u32).to_be_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&crc32fast::hash(bytes).to_be_bytes());
        bytes.extend(pool.iter().skip(from).take(len - 4 - BODY_AT));
        bytes.resize(len - 4, 0);
        bytes.extend_from_slice(&crc32fast::hash(bytes).to_be_bytes());
        bytes
    }

    /// What these bytes are.
    pub(crate) fn read(bytes: &[u8]) -> Reading {
        if bytes.get(MARK_AT..PAIR_AT) != Some(&[&ETHERTYPE[..], &MARK].concat()[..]) {
            return Reading::Foreign;
        }
        let known = identity(bytes);
        match known {
            Some((pair, length, number)) if length == bytes.len() && body_is_whole(bytes) => {
                Reading::Whole { pair, number }
            }
            _ => Reading::Damaged(known.map(|(pair, _, number)| (pair, number))),
        }
    }
}

fn identity(bytes: &[u8]) -> Option<(u16, usize, u64)> {
    let head = bytes.get(..CHECK_AT)?;
    if crc32fast::hash(head).to_be_bytes() != array(bytes, CHECK_AT)? {
        return None;
    }
    Some((
        u16::from_be_bytes(array(bytes, PAIR_AT)?),
        u32::from_be_bytes(array(bytes, LENGTH_AT)?) as usize,
        u64::from_be_bytes(array(bytes, NUMBER_AT)?),
    ))
}

fn body_is_whole(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<4>()
        .is_some_and(|(body, check)| crc32fast::hash(body).to_be_bytes() == *check)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Frames {
        let mut state = 1_u64;
        Frames::new(Mac::new([2, 0, 0, 0, 0, 1]), 1514, move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state
        })
    }

    #[test]
    fn a_frame_says_which_one_it_is() {
        let mut frames = frames();
        for (number, len) in [(0, 60), (1, 61), (u64::MAX, 1514), (77, 300)] {
            let bytes = frames.make(3, number, len).to_vec();
            assert_eq!(bytes.len(), len);
            assert_eq!(Frames::read(&bytes), Reading::Whole { pair: 3, number });
        }
        let one = frames.make(0, 1, 900).to_vec();
        assert_ne!(one[40..], frames.make(0, 2, 900)[40..]);
    }

    #[test]
    fn every_bit_that_is_wrong_shows() {
        let mut frames = frames();
        let bytes = frames.make(1, 9, 80).to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let read = Frames::read(&wrong);
            assert!(
                !matches!(read, Reading::Whole { .. }),
                "bit {bit}: {read:?}"
            );
            if bit / 8 >= BODY_AT {
                assert_eq!(read, Reading::Damaged(Some((1, 9))));
            }
        }
        for len in 0..bytes.len() {
            assert!(!matches!(
                Frames::read(&bytes[..len]),
                Reading::Whole { .. }
            ));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Frames::read(&longer), Reading::Damaged(Some((1, 9))));
    }
}
