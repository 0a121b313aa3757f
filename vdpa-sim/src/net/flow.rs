//! Which flow a frame belongs to: what the hash of virtio 1.4 §5.1.9.4.3 is calculated over.
//!
//! ```text
//!   Ethernet | up to two VLAN tags | IPv4                     | TCP or UDP      addresses, and ports
//!                                  | IPv6 | extension headers | TCP or UDP
//! ```
//! Of a packet in fragments only the first has ports: all of them count as packets without, so that they stay together.

use vdpa_core::config::net::HashTypes;

use super::toeplitz::INPUT;

/// How many extension headers are looked at: a chain that is longer has no ports for us.
const HEADERS: usize = 8;

/// TCP and UDP among the protocols.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The input of the hash, and what the hash is reported as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    input: [u8; INPUT],
    len: usize,
    /// The hash type, one bit.
    pub(super) kind: HashTypes,
}

impl Flow {
    /// The bytes to hash.
    #[inline]
    pub(super) fn input(&self) -> &[u8] {
        self.input.get(..self.len).unwrap_or_default()
    }

    fn new(source: &[u8], destination: &[u8], ports: Option<[u8; 4]>, kind: HashTypes) -> Self {
        let ports = ports.as_ref().map_or(&[][..], |ports| ports);
        let mut input = [0; INPUT];
        let from = source.iter().chain(destination).chain(ports);
        let len = input
            .iter_mut()
            .zip(from)
            .map(|(to, from)| *to = *from)
            .count();
        Self { input, len, kind }
    }
}

/// The types of one IP version, from the most to the least specific.
struct Kinds {
    tcp: HashTypes,
    udp: HashTypes,
    ip: HashTypes,
}

const V4: Kinds = Kinds {
    tcp: HashTypes::TCPV4,
    udp: HashTypes::UDPV4,
    ip: HashTypes::IPV4,
};
const V6: Kinds = Kinds {
    tcp: HashTypes::TCPV6,
    udp: HashTypes::UDPV6,
    ip: HashTypes::IPV6,
};
const EXTENDED: Kinds = Kinds {
    tcp: HashTypes::TCP_EX,
    udp: HashTypes::UDP_EX,
    ip: HashTypes::IP_EX,
};

impl Kinds {
    /// The first of these that is enabled and fits the packet.
    #[inline]
    fn choose(
        &self,
        types: HashTypes,
        l4: Option<(u8, [u8; 4])>,
    ) -> Option<(HashTypes, Option<[u8; 4]>)> {
        match l4 {
            Some((TCP, ports)) if types.contains(self.tcp) => Some((self.tcp, Some(ports))),
            Some((UDP, ports)) if types.contains(self.udp) => Some((self.udp, Some(ports))),
            _ => types.contains(self.ip).then_some((self.ip, None)),
        }
    }
}

/// The flow of a frame, by the hash types that are enabled; `None` if no hash is calculated.
#[inline]
pub(super) fn flow(frame: &[u8], types: HashTypes) -> Option<Flow> {
    let mut rest = frame.get(12..)?;
    for _ in 0..3 {
        let (kind, behind) = rest.split_first_chunk()?;
        match kind {
            [0x08, 0x00] => return v4(behind, types),
            [0x86, 0xdd] => return v6(behind, types),
            // 802.1Q and 802.1ad: a tag, and the type behind it.
            [0x81, 0x00] | [0x88, 0xa8] => rest = behind.get(2..)?,
            _ => return None,
        }
    }
    None
}

/// The ports at the head of a transport header.
#[inline]
fn ports(protocol: u8, header: Option<&[u8]>) -> Option<(u8, [u8; 4])> {
    let header = header?;
    // A header that is cut short is none.
    let least = match protocol {
        TCP => 20,
        UDP => 8,
        _ => return None,
    };
    let ports = header.first_chunk().filter(|_| header.len() >= least)?;
    Some((protocol, *ports))
}

#[inline]
fn v4(packet: &[u8], types: HashTypes) -> Option<Flow> {
    let head: &[u8; 20] = packet.first_chunk()?;
    let bytes = usize::from(head[0] & 15) << 2;
    if head[0] >> 4 != 4 || bytes < 20 {
        return None;
    }
    // More fragments, or not the first one.
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
    let header = packet.get(bytes..).filter(|_| !fragment);
    let (kind, ports) = V4.choose(types, ports(head[9], header))?;
    let (source, destination) = head.get(12..)?.split_at_checked(4)?;
    Some(Flow::new(source, destination, ports, kind))
}

/// What the extension headers of an IPv6 packet say.
struct Extensions<'a> {
    any: bool,
    /// The home address, from the destination options: the source as its peers know it.
    home: Option<&'a [u8]>,
    /// The address in a routing header of type 2: the destination as its peers know it.
    routed: Option<&'a [u8]>,
    l4: Option<(u8, [u8; 4])>,
}

#[inline]
fn v6(packet: &[u8], types: HashTypes) -> Option<Flow> {
    let (head, rest) = packet.split_first_chunk::<40>()?;
    if head[0] >> 4 != 6 {
        return None;
    }
    let (source, destination) = head.get(8..)?.split_at_checked(16)?;
    let extensions = extensions(head[6], rest);
    if extensions.any
        && let Some((kind, ports)) = EXTENDED.choose(types, extensions.l4)
    {
        let source = extensions.home.unwrap_or(source);
        let destination = extensions.routed.unwrap_or(destination);
        return Some(Flow::new(source, destination, ports, kind));
    }
    let (kind, ports) = V6.choose(types, extensions.l4)?;
    Some(Flow::new(source, destination, ports, kind))
}

/// Walks over the extension headers, RFC 8200 §4.
#[inline]
fn extensions(mut next: u8, mut rest: &[u8]) -> Extensions<'_> {
    let mut found = Extensions {
        any: false,
        home: None,
        routed: None,
        l4: None,
    };
    for _ in 0..HEADERS {
        let bytes = match next {
            // Hop by hop, routing, destination options, mobility, host identity, shim: in units of 8 bytes.
            0 | 43 | 60 | 135 | 139 | 140 => {
                let len = rest.get(1).map_or(0, |len| usize::from(*len));
                len.saturating_add(1).saturating_mul(8)
            }
            // Authentication: in units of 4 bytes.
            51 => {
                let len = rest.get(1).map_or(0, |len| usize::from(*len));
                len.saturating_add(2).saturating_mul(4)
            }
            44 => 8,
            _ => {
                found.l4 = ports(next, Some(rest));
                return found;
            }
        };
        found.any = true;
        let Some((header, behind)) = rest.split_at_checked(bytes) else {
            return found;
        };
        match (next, header) {
            (43, header) => found.routed = routed(header).or(found.routed),
            (60, header) => found.home = home(header).or(found.home),
            // More fragments, or not the first one: bits 0 and 3 to 15.
            (44, [_, _, high, low, ..]) if *high != 0 || *low & 0xf9 != 0 => return found,
            _ => {}
        }
        let Some(following) = header.first() else {
            return found;
        };
        (next, rest) = (*following, behind);
    }
    found
}

/// The address in a routing header of type 2, RFC 6275 §6.4.
fn routed(header: &[u8]) -> Option<&[u8]> {
    match header {
        [_, 2, 2, 1, _, _, _, _, address @ ..] => Some(address),
        _ => None,
    }
}

/// The home address among destination options, RFC 6275 §6.3.
fn home(header: &[u8]) -> Option<&[u8]> {
    let mut options = header.get(2..)?;
    loop {
        let (kind, rest) = options.split_first()?;
        // One byte of padding has no length.
        if *kind == 0 {
            options = rest;
            continue;
        }
        let (len, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(*len))?;
        if *kind == 201 && value.len() == 16 {
            return Some(value);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests;
