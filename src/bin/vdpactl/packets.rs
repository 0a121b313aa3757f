//! Frames that say which one they are.

use vdpa::core::config::Mac;
use vdpa::net::Frame;

/// Where the sequence number stands: behind the Ethernet header.
const NUMBER_AT: usize = 14;
/// Bytes of the sequence number.
const NUMBER_BYTES: usize = 8;
/// IEEE 802 local experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// A locally administered address, as of a machine elsewhere.
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A frame with room for a sequence number in front and another at its end, so that neither a frame in the wrong place
/// nor one that is cut or spliced is taken for right.
pub(crate) struct Stamped {
    bytes: Vec<u8>,
}

impl Stamped {
    /// Frames of `size` bytes, at least 60, to this address.
    pub(crate) fn new(size: usize, destination: Mac) -> Self {
        let mut bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
        bytes[..6].copy_from_slice(&destination.octets());
        bytes[6..12].copy_from_slice(&SOURCE);
        bytes[12..NUMBER_AT].copy_from_slice(&ETHERTYPE);
        Self { bytes }
    }

    /// The frame with this number.
    pub(crate) fn numbered(&mut self, number: u64) -> &[u8] {
        let number = number.to_be_bytes();
        let tail_at = self.bytes.len() - NUMBER_BYTES;
        self.bytes[NUMBER_AT..NUMBER_AT + NUMBER_BYTES].copy_from_slice(&number);
        self.bytes[tail_at..].copy_from_slice(&number);
        &self.bytes
    }

    /// Whether `frame` is the one with this number.
    pub(crate) fn is_numbered(&self, frame: &Frame<'_>, number: u64) -> bool {
        let (mut head, mut tail) = ([0; NUMBER_BYTES], [0; NUMBER_BYTES]);
        frame.len() == self.bytes.len()
            && frame.read(NUMBER_AT, &mut head) == NUMBER_BYTES
            && frame.read(self.bytes.len() - NUMBER_BYTES, &mut tail) == NUMBER_BYTES
            && head == number.to_be_bytes()
            && tail == head
    }
}
