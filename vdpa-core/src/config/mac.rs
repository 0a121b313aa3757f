//! The address of a network device.

use std::fmt;
use std::str::FromStr;

/// An IEEE 802 MAC address, in the order it goes over the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// All ones: everyone on the network.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address with these octets.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether it names a group; the broadcast address does.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it can be the address of a card: not a group, not all zeros.
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether it was given out locally and not by a manufacturer.
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 == 2
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

/// A text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no MAC address: it is written as 52:54:00:00:00:01")]
pub struct MacError {
    /// The text as it was given.
    pub text: String,
}

impl FromStr for Mac {
    type Err = MacError;

    /// Takes six pairs of hexadecimal digits in any case with `:` or `-` between them.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError { text: text.into() };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut pairs = text.split(separator);
        let mut octets = [0; 6];
        for octet in &mut octets {
            let pair = pairs.next().ok_or_else(wrong)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        match pairs.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(wrong()),
        }
    }
}
