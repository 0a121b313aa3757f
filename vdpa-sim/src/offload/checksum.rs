//! The internet checksum (RFC 1071): summed eight bytes at a time, completed, verified.
//!
//! The sum does not care in which order the bytes of its words stand, as long as it is the same for all: words are taken
//! in little-endian, and turned round once at the end.

use super::headers::{Headers, Ip, Transport, put, word};

/// Bytes in a turn of the loop: two vector registers of every machine that has some.
const TURN: usize = 32;

/// A ones' complement sum that is not folded yet.
///
/// Holds sums of 2^31 turns, 64 GiB, which no slice of a packet comes near.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The sum of these bytes, with a zero behind an odd one.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        let mut lanes = [0_u64; 4];
        let mut turns = bytes.chunks_exact(TURN);
        for turn in &mut turns {
            add_turn(&mut lanes, turn);
        }
        Self::join(lanes).and(Self::short(turns.remainder()))
    }

    /// Copies `from` to `to`, which is as long, and sums it up meanwhile.
    #[inline]
    pub fn copy(from: &[u8], to: &mut [u8]) -> Self {
        let mut lanes = [0_u64; 4];
        let (mut turns, mut places) = (from.chunks_exact(TURN), to.chunks_exact_mut(TURN));
        for (turn, place) in (&mut turns).zip(&mut places) {
            place.copy_from_slice(turn);
            add_turn(&mut lanes, turn);
        }
        let rest = turns.remainder();
        if let Some(place) = places.into_remainder().get_mut(..rest.len()) {
            place.copy_from_slice(rest);
        }
        Self::join(lanes).and(Self::short(rest))
    }

    fn join([a, b, c, d]: [u64; 4]) -> Self {
        Self(a.wrapping_add(b).wrapping_add(c).wrapping_add(d))
    }

    /// The sum of less than a turn.
    #[inline]
    fn short(bytes: &[u8]) -> Self {
        let mut sum = 0_u64;
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            if let Some(word) = word.first_chunk() {
                sum = sum.wrapping_add(u32::from_le_bytes(*word).into());
            }
        }
        let last = match *words.remainder() {
            [a] => u32::from_le_bytes([a, 0, 0, 0]),
            [a, b] => u32::from_le_bytes([a, b, 0, 0]),
            [a, b, c] => u32::from_le_bytes([a, b, c, 0]),
            _ => 0,
        };
        Self(sum.wrapping_add(last.into()))
    }

    /// This and another one, of bytes behind an even number of bytes.
    #[inline]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// This and a word.
    #[inline]
    #[must_use]
    pub fn and_word(self, word: u16) -> Self {
        Self(self.0.wrapping_add(word.swap_bytes().into()))
    }

    /// This without a word that is in it.
    #[inline]
    #[must_use]
    pub fn without_word(self, word: u16) -> Self {
        self.and_word(!word)
    }

    /// The sum as a word.
    #[inline]
    pub fn fold(self) -> u16 {
        let folded = (self.0 >> 32).wrapping_add(self.0 & 0xffff_ffff);
        let folded = (folded >> 16 & 0xffff)
            .wrapping_add(folded & 0xffff)
            .wrapping_add(folded >> 32);
        let folded = (folded >> 16).wrapping_add(folded & 0xffff);
        let folded = (folded >> 16).wrapping_add(folded & 0xffff);
        (folded as u16).swap_bytes()
    }

    /// The checksum: what makes the sum of everything 0xffff.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum of a transport: UDP has no checksum 0, which would say that there is none.
    #[inline]
    pub(super) fn checksum_at(self, csum_offset: u16) -> u16 {
        match self.checksum() {
            0 if csum_offset == Transport::Udp.csum_offset() => 0xffff,
            checksum => checksum,
        }
    }
}

#[inline(always)]
fn add_turn(lanes: &mut [u64; 4], turn: &[u8]) {
    for (lane, eight) in lanes.iter_mut().zip(turn.chunks_exact(8)) {
        if let Some(eight) = eight.first_chunk() {
            let both = u64::from_le_bytes(*eight);
            *lane = lane.wrapping_add((both & 0xffff_ffff).wrapping_add(both >> 32));
        }
    }
}

/// Completes the checksum that `start` and `offset` name: the field holds the sum of the pseudo header.
///
/// * `start`: in bytes from the start of the frame; `offset`: in bytes from there
///
/// Answers whether the field is in the frame; nothing is written otherwise.
///
/// # Spec
/// virtio 1.4 §5.1.9.2, the packet transmission's first point.
pub fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let Some(covered) = frame.get_mut(usize::from(start)..) else {
        return false;
    };
    let checksum = Sum::of(covered).checksum_at(offset);
    let field = usize::from(offset);
    if field.saturating_add(2) > covered.len() {
        return false;
    }
    put(covered, field, checksum.to_be_bytes());
    true
}

/// What a frame's checksums are worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// All of them are right: the transport's, and the IPv4 header's.
    Valid,
    /// One is wrong.
    Wrong,
    /// There is none to be verified: no TCP or UDP, a fragment, or UDP without a checksum.
    None,
}

/// Verifies the checksums of a finished frame.
pub fn verify(frame: &[u8]) -> Validity {
    judge(frame).unwrap_or(Validity::None)
}

fn judge(frame: &[u8]) -> Option<Validity> {
    let headers = Headers::of(frame)?;
    let header = frame.get(headers.network..headers.start)?;
    let covered = frame.get(headers.start..headers.end)?;
    let addresses = match headers.ip {
        Ip::V4 => {
            if Sum::of(header).checksum() != 0 {
                return Some(Validity::Wrong);
            }
            header.get(12..20)?
        }
        // With a routing header another destination may be the last one.
        Ip::V6 if header.len() != 40 => return None,
        Ip::V6 => header.get(8..40)?,
    };
    if headers.transport == Transport::Udp {
        let (field, len) = (word(covered, 6)?, word(covered, 4)?);
        if field == 0 {
            return None;
        }
        if usize::from(len) != covered.len() {
            return Some(Validity::Wrong);
        }
    }
    // An IP packet's length has 16 bits.
    let len = u16::try_from(covered.len()).ok()?;
    let sum = Sum::of(covered)
        .and(Sum::of(addresses))
        .and_word(headers.transport.number().into())
        .and_word(len);
    Some(if sum.checksum() == 0 {
        Validity::Valid
    } else {
        Validity::Wrong
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Word by word, as RFC 1071 says it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn sums_are_those_of_the_words_one_by_one_whatever_the_length() {
        let bytes: Vec<u8> = (0..700_u32).map(|i| (i * i * 7 + i / 3) as u8).collect();
        for from in 0..9 {
            for to in from..bytes.len() {
                let part = &bytes[from..to];
                assert_eq!(Sum::of(part).fold(), naive(part), "{from}..{to}");
            }
        }
        for len in [1, 31, 64, 1449, 65_535, 1 << 20] {
            let full = vec![0xff; len];
            assert_eq!(Sum::of(&full).fold(), naive(&full), "{len} bytes of 0xff");
        }
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
        assert_eq!(sum.without_word(0xf203).and_word(0xf203).fold(), 0xddf2);
    }

    #[test]
    fn a_copy_sums_up_what_it_copied() {
        let bytes: Vec<u8> = (0..2000_u32).map(|i| (i * 31) as u8).collect();
        for len in [0, 1, 3, 31, 32, 33, 63, 1447, 1448, 2000] {
            let mut to = vec![0; len];
            assert_eq!(Sum::copy(&bytes[..len], &mut to), Sum::of(&bytes[..len]));
            assert_eq!(to, bytes[..len]);
        }
    }

    #[test]
    fn a_checksum_of_0_is_stored_as_0xffff_for_udp_alone() {
        // All words sum up to 0xffff without the field.
        for (offset, stored) in [(6, [0xff, 0xff]), (16, [0, 0])] {
            let mut frame = [0_u8; 40];
            frame[20..22].copy_from_slice(&[0xff, 0xff]);
            assert!(complete(&mut frame, 14, offset));
            let at = 14 + usize::from(offset);
            assert_eq!(frame[at..at + 2], stored);
        }
    }

    #[test]
    fn a_field_outside_the_frame_changes_nothing() {
        let before = [7_u8; 20];
        for (start, offset) in [(0, 19), (19, 0), (20, 0), (21, 0), (10, 9), (0, u16::MAX)] {
            let mut frame = before;
            assert!(!complete(&mut frame, start, offset), "{start} {offset}");
            assert_eq!(frame, before);
        }
        let mut frame = before;
        assert!(complete(&mut frame, 10, 8));
    }
}
