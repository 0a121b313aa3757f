//! The Toeplitz hash.
//!
//! For each bit of the input that is set, from the first on, the hash takes in (xor) the 32 bits of the key that begin
//! at the place of that bit. The contributions of each half byte are worked out when the key is set, so that a frame
//! costs one look into a table of 4.5 KiB for each.

/// Bytes of the longest key: enough for the longest input, two IPv6 addresses and two ports.
pub(super) const MAX_KEY: usize = INPUT + 4;

/// Bytes of the longest input.
pub(super) const INPUT: usize = 36;

/// What each value of each half byte of the input contributes.
type Tables = [[u32; 16]; INPUT * 2];

/// A key, ready for use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Key {
    bytes: Vec<u8>,
    tables: Box<Tables>,
}

impl Key {
    /// The key of these bytes. A short one goes on with zeroes; `None` for one that is longer than [`MAX_KEY`].
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; MAX_KEY];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let mut tables = Box::new([[0; 16]; INPUT * 2]);
        for (half, table) in tables.iter_mut().enumerate() {
            for (value, sum) in table.iter_mut().enumerate() {
                let bits = (0..4_usize).filter(|bit| value & (8 >> bit) != 0);
                *sum = bits.fold(0, |sum, bit| {
                    sum ^ window(&padded, half.saturating_mul(4).saturating_add(bit))
                });
            }
        }
        Some(Self {
            bytes: bytes.to_vec(),
            tables,
        })
    }

    /// The bytes that it was made of.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hash of `input`, of which the first [`INPUT`] bytes count.
    #[inline]
    pub(super) fn hash(&self, input: &[u8]) -> u32 {
        let (pairs, _) = self.tables.as_chunks::<2>();
        let bytes = input.iter().zip(pairs);
        bytes.fold(0, |sum, (byte, [high, low])| {
            // Four bits are below 16.
            let high = high.get(usize::from(byte >> 4)).copied().unwrap_or(0);
            let low = low.get(usize::from(byte & 15)).copied().unwrap_or(0);
            sum ^ high ^ low
        })
    }
}

impl Default for Key {
    /// The key without bytes: every hash is 0.
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            tables: Box::new([[0; 16]; INPUT * 2]),
        }
    }
}

/// The 32 bits of the key from bit `at` on.
fn window(key: &[u8; MAX_KEY], at: usize) -> u32 {
    let bytes = key.get(at >> 3..).unwrap_or_default();
    let eight = bytes.iter().chain(std::iter::repeat(&0)).take(8);
    let word = eight.fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    // The upper half, after the bits before `at` are gone.
    ((word << (at & 7)) >> 32) as u32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::{IpAddr, SocketAddr};

    /// The key of Microsoft's verification suite.
    pub(in super::super) const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Microsoft's verification suite ("Verifying the RSS Hash Calculation"): destination, source, the hash of the
    /// addresses, the hash of addresses and ports.
    pub(in super::super) const VECTORS: [(&str, &str, u32, u32); 8] = [
        (
            "161.142.100.80:1766",
            "66.9.149.187:2794",
            0x323e_8fc2,
            0x51cc_c178,
        ),
        (
            "65.69.140.83:4739",
            "199.92.111.2:14230",
            0xd718_262a,
            0xc626_b0ea,
        ),
        (
            "12.22.207.184:38024",
            "24.19.198.95:12898",
            0xd2d0_a5de,
            0x5c2b_394a,
        ),
        (
            "209.142.163.6:2217",
            "38.27.205.30:48228",
            0x8298_9176,
            0xafc7_327f,
        ),
        (
            "202.188.127.2:1303",
            "153.39.163.191:44251",
            0x5d18_09c5,
            0x10e8_28a2,
        ),
        (
            "[3ffe:2501:200:3::1]:1766",
            "[3ffe:2501:200:1fff::7]:2794",
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            "[ff02::1]:4739",
            "[3ffe:501:8::260:97ff:fe40:efab]:14230",
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            "[fe80::200:f8ff:fe21:67cf]:38024",
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn octets(ip: IpAddr) -> Vec<u8> {
        match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    #[test]
    fn the_published_vectors_come_out() {
        let key = Key::new(&KEY).unwrap();
        for (to, from, addresses, ports) in VECTORS {
            let [to, from] = [to, from].map(|text| text.parse::<SocketAddr>().unwrap());
            let mut input = [octets(from.ip()), octets(to.ip())].concat();
            assert_eq!(key.hash(&input), addresses, "{from} to {to}");
            input.extend(from.port().to_be_bytes());
            input.extend(to.port().to_be_bytes());
            assert_eq!(key.hash(&input), ports, "{from} to {to}, ports too");
        }
    }

    #[test]
    fn a_key_is_at_most_forty_bytes_and_a_short_one_goes_on_with_zeroes() {
        assert_eq!(Key::new(&[1; 41]), None);
        let (short, long) = ([0x80, 1], [&[0x80, 1][..], &[0; 38]].concat());
        let [short, long] = [&short[..], &long].map(|key| Key::new(key).unwrap());
        for bit in 0..36 * 8 {
            let mut input = [0; 36];
            input[bit / 8] = 0x80 >> (bit % 8);
            assert_eq!(short.hash(&input), long.hash(&input));
            let naive = if bit == 0 {
                0x8001_0000
            } else {
                0x1_0000_u32.checked_shl(bit as u32).unwrap_or(0)
            };
            assert_eq!(short.hash(&input), naive, "bit {bit}");
        }
        assert_eq!(Key::default().hash(&[0xff; 36]), 0);
    }
}
