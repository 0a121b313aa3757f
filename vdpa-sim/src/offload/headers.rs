//! Where the headers of a frame are: Ethernet, VLAN tags, IP, TCP or UDP.

/// Bytes of an Ethernet header without tags.
const ETHERNET: usize = 14;
/// Bytes of a VLAN tag.
const TAG: usize = 4;
/// How many VLAN tags a frame may have.
const TAGS: usize = 2;
/// How many extension headers an IPv6 packet may have: each of them once, and destination options twice (RFC 8200 §4.1).
const EXTENSIONS: usize = 8;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Which IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ip {
    /// Version 4, with options or without.
    V4,
    /// Version 6, with extension headers or without.
    V6,
}

/// Which transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Where the checksum is in its header.
    pub const fn csum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// Its number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

/// Where the headers of a TCP or UDP frame are, in bytes from its start. All of them are in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers {
    /// Which IP.
    pub ip: Ip,
    /// Which transport.
    pub transport: Transport,
    /// The IP header.
    pub network: usize,
    /// The transport header.
    pub start: usize,
    /// The payload.
    pub payload: usize,
    /// The end of the IP packet, by its own length: what is behind it is padding.
    pub end: usize,
}

impl Headers {
    /// Whether they are of this kind.
    pub fn are(&self, (transport, ip): (Transport, Option<Ip>)) -> bool {
        self.transport == transport && ip.is_none_or(|ip| self.ip == ip)
    }

    /// The headers of `frame`; `None` if it is no whole TCP or UDP packet over IP, or a fragment of one.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (ip, network) = network(frame)?;
        let (transport, start, end) = match ip {
            Ip::V4 => ipv4(frame, network)?,
            Ip::V6 => ipv6(frame, network)?,
        };
        let inside = frame.get(start..end)?;
        let len = match transport {
            TCP => usize::from(inside.get(..20)?.get(12)? >> 4).checked_mul(4)?,
            UDP => 8,
            _ => return None,
        };
        if len > inside.len() || (transport == TCP && len < 20) {
            return None;
        }
        Some(Self {
            ip,
            transport: if transport == TCP {
                Transport::Tcp
            } else {
                Transport::Udp
            },
            network,
            start,
            payload: start.checked_add(len)?,
            end,
        })
    }
}

/// Behind the Ethernet header and its tags: which IP, and where.
pub(super) fn network(frame: &[u8]) -> Option<(Ip, usize)> {
    let mut at = ETHERNET;
    for _ in 0..=TAGS {
        let kind = word(frame, at.checked_sub(2)?)?;
        match kind {
            0x0800 => return Some((Ip::V4, at)),
            0x86dd => return Some((Ip::V6, at)),
            0x8100 | 0x88a8 => at = at.checked_add(TAG)?,
            _ => return None,
        }
    }
    None
}

/// The transport's number, where it begins, and where the packet ends.
fn ipv4(frame: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let header = frame.get(at..)?.get(..20)?;
    let first = *header.first()?;
    let len = usize::from(first & 0xf).checked_mul(4)?;
    let total = usize::from(word(header, 2)?);
    // More fragments, or a fragment's offset.
    let fragment = word(header, 6)? & 0x3fff != 0;
    if first >> 4 != 4 || len < 20 || total < len || fragment {
        return None;
    }
    let end = at.checked_add(total).filter(|end| *end <= frame.len())?;
    Some((*header.get(9)?, at.checked_add(len)?, end))
}

/// The same, behind all extension headers.
fn ipv6(frame: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let header = frame.get(at..)?.get(..40)?;
    if header.first()? >> 4 != 6 {
        return None;
    }
    let mut start = at.checked_add(40)?;
    let end = start.checked_add(word(header, 4)?.into())?;
    let packet = frame.get(..end)?;
    let mut next = *header.get(6)?;
    for _ in 0..EXTENSIONS {
        match next {
            // Hop-by-hop options, routing, destination options. A fragment is none of those.
            0 | 43 | 60 => {
                let [following, eights] = *packet.get(start..)?.first_chunk()?;
                next = following;
                start = start.checked_add(usize::from(eights).checked_add(1)?.checked_mul(8)?)?;
            }
            _ => return Some((next, start, end)),
        }
    }
    None
}

/// The big-endian word at `at`.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Writes a big-endian word at `at`, if it is inside.
#[inline]
pub(super) fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, value.to_be_bytes());
}

/// Writes bytes at `at`, if they are inside.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}
