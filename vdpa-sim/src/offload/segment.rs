//! Segmentation: one packet with much payload becomes frames with a little each.
//!
//! ```text
//!   headers | payload ......................................      the packet, and its trusted header
//!   headers'| part 0      headers''| part 1     headers'''| rest  each written to a caller's buffer, in any order
//! ```
//! What differs from segment to segment: the lengths in the IP and UDP headers, the IPv4 identification (counted up),
//! the TCP sequence number, CWR (in the first alone), FIN and PSH (in the last alone), and the checksums. Their sums
//! over what stays the same are made once.
//!
//! The checksum is made from the partial one that the driver stored, less the length of the packet, plus that of the
//! segment: what the driver got wrong stays wrong, whoever segments.

use super::check::CWR;
use super::checksum::Sum;
use super::header::Header;
use super::headers::{Headers, Ip, Transport, put, put_word, word};

/// FIN and PSH.
const LAST_ALONE: u8 = 0x01 | 0x08;

/// What becomes of a segment's checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// It is complete.
    Complete,
    /// It is the sum of the pseudo header, for a driver that completes it ([`Segments::partial`] is its header).
    Partial,
}

/// A packet to be segmented, segment by segment.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'f> {
    frame: &'f [u8],
    headers: Headers,
    /// Bytes of payload in a segment.
    size: usize,
    count: u32,
    /// The IPv4 header without length, identification and checksum.
    network: Sum,
    /// The pseudo header without a length.
    pseudo: Sum,
    /// The transport header, without what differs.
    transport: Sum,
    id: u16,
    sequence: u32,
    /// Data offset and flags of a TCP header.
    flags: [u8; 2],
}

impl<'f> Segments<'f> {
    /// The segments of `frame`, which `header` describes. `None` if it does not, or has nothing to be segmented.
    pub fn new(header: Header, frame: &'f [u8]) -> Option<Self> {
        let size = usize::from(header.gso_size);
        let headers = Headers::of(frame)?;
        let payload = frame.len().checked_sub(headers.payload)?;
        let count = u32::try_from(payload.div_ceil(size.max(1))).ok()?;
        if !headers.are(header.kind()?) || size == 0 || headers.end != frame.len() {
            return None;
        }
        let start = frame.get(headers.start..headers.payload)?;
        let whole = u16::try_from(frame.len().checked_sub(headers.start)?).ok()?;
        let partial = word(start, headers.transport.csum_offset().into())?;
        let pseudo = Sum::default().and_word(partial).without_word(whole);
        let mut segments = Self {
            frame,
            headers,
            size,
            count,
            network: Sum::default(),
            pseudo,
            transport: Sum::of(start).without_word(partial),
            id: 0,
            sequence: 0,
            flags: [0; 2],
        };
        match headers.transport {
            Transport::Tcp => {
                let sequence: [u8; 4] = *start.get(4..)?.first_chunk()?;
                segments.flags = *start.get(12..)?.first_chunk()?;
                segments.sequence = u32::from_be_bytes(sequence);
                segments.transport = segments
                    .transport
                    .without_word(word(start, 4)?)
                    .without_word(word(start, 6)?)
                    .without_word(word(start, 12)?);
            }
            Transport::Udp => {
                segments.transport = segments.transport.without_word(word(start, 4)?);
            }
        }
        if headers.ip == Ip::V4 {
            let header = frame.get(headers.network..headers.start)?;
            segments.id = word(header, 4)?;
            segments.network = Sum::of(header)
                .without_word(word(header, 2)?)
                .without_word(segments.id)
                .without_word(word(header, 10)?);
        }
        Some(segments)
    }

    /// How many there are, at least 1 where there is payload.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the longest of them.
    pub fn longest(&self) -> usize {
        self.headers
            .payload
            .saturating_add(self.size)
            .min(self.frame.len())
    }

    /// Where the headers are, in the packet and in each segment.
    pub fn headers(&self) -> Headers {
        self.headers
    }

    /// What is to be said of a segment with a [`Partial`](Finish::Partial) checksum.
    pub fn partial(&self) -> Header {
        Header {
            flags: Header::NEEDS_CSUM,
            // Where a 16-bit length has been counted behind.
            csum_start: u16::try_from(self.headers.start).unwrap_or(u16::MAX),
            csum_offset: self.headers.transport.csum_offset(),
            ..Header::NONE
        }
    }

    /// Writes segment `index`, counted from 0, to the front of `to`. Answers with its length in bytes; `None` if there
    /// is no such segment or no room for it.
    pub fn write(&self, index: u32, finish: Finish, to: &mut [u8]) -> Option<usize> {
        let Headers {
            network,
            start,
            payload,
            ..
        } = self.headers;
        let first = payload.checked_add(self.size.checked_mul(index as usize)?)?;
        let part = self.frame.get(first..)?;
        if part.is_empty() {
            return None;
        }
        let part = part.get(..self.size).unwrap_or(part);
        let len = payload.checked_add(part.len())?;
        let to = to.get_mut(..len)?;
        let (headers, place) = to.split_at_mut_checked(payload)?;
        headers.copy_from_slice(self.frame.get(..payload)?);
        let data = match finish {
            Finish::Complete => Sum::copy(part, place),
            Finish::Partial => {
                place.copy_from_slice(part);
                Sum::default()
            }
        };
        // Both are below the packet's, which have 16 bits.
        let packet = len.saturating_sub(network) as u16;
        let segment = len.saturating_sub(start) as u16;
        match self.headers.ip {
            Ip::V4 => self.put_ipv4(headers.get_mut(network..)?, packet, index),
            Ip::V6 => put_word(headers.get_mut(network..)?, 4, packet.saturating_sub(40)),
        }
        let header = headers.get_mut(start..)?;
        let own = match self.headers.transport {
            Transport::Tcp => self.put_tcp(header, index),
            Transport::Udp => {
                put_word(header, 4, segment);
                Sum::default().and_word(segment)
            }
        };
        let pseudo = self.pseudo.and_word(segment);
        let offset = self.headers.transport.csum_offset();
        let field = match finish {
            Finish::Complete => pseudo
                .and(self.transport)
                .and(own)
                .and(data)
                .checksum_at(offset),
            Finish::Partial => pseudo.fold(),
        };
        put_word(header, offset.into(), field);
        Some(len)
    }

    fn put_ipv4(&self, header: &mut [u8], len: u16, index: u32) {
        // Modulo 2^16.
        let id = self.id.wrapping_add(index as u16);
        let checksum = self.network.and_word(len).and_word(id).checksum();
        put_word(header, 2, len);
        put_word(header, 4, id);
        put_word(header, 10, checksum);
    }

    /// Answers with the sum of what was put.
    fn put_tcp(&self, header: &mut [u8], index: u32) -> Sum {
        // Modulo 2^32; the size has 16 bits.
        let sequence = self
            .sequence
            .wrapping_add(index.wrapping_mul(self.size as u32));
        let [offset, mut flags] = self.flags;
        if index != 0 {
            flags &= !CWR;
        }
        if index.wrapping_add(1) != self.count {
            flags &= !LAST_ALONE;
        }
        put(header, 4, sequence.to_be_bytes());
        put(header, 12, [offset, flags]);
        Sum::default()
            .and_word((sequence >> 16) as u16)
            .and_word(sequence as u16)
            .and_word(u16::from_be_bytes([offset, flags]))
    }
}

#[cfg(test)]
mod tests;
