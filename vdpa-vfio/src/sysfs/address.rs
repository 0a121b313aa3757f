//! Where a function is on the bus.

use std::fmt;
use std::str::FromStr;

use super::SysfsError;

/// A PCI function's address, written `0000:01:00.1`: domain, bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    domain: u32,
    bus: u8,
    /// Device in the upper five bits, function in the lower three.
    devfn: u8,
}

impl Address {
    /// The address of a function.
    ///
    /// * `domain`: PCI segment; those above 0xffff are made up by the kernel (VMD)
    /// * `devfn`: device times eight plus function
    pub const fn new(domain: u32, bus: u8, devfn: u8) -> Self {
        Self { domain, bus, devfn }
    }

    /// The function so many routing numbers further on, within the domain; `None` past its end.
    pub fn further(self, by: u16) -> Option<Self> {
        let here = u16::from(self.bus) << 8 | u16::from(self.devfn);
        let [bus, devfn] = here.checked_add(by)?.to_be_bytes();
        Some(Self::new(self.domain, bus, devfn))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, devfn } = self;
        let text = format!("{domain:04x}:{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7);
        f.pad(&text)
    }
}

/// With or without the domain: `0000:01:00.1` and `01:00.1` are the same.
impl FromStr for Address {
    type Err = SysfsError;

    fn from_str(text: &str) -> Result<Self, SysfsError> {
        parsed(text).ok_or_else(|| SysfsError::Address {
            text: excerpt(text),
        })
    }
}

fn parsed(text: &str) -> Option<Address> {
    let (front, function) = text.split_once('.')?;
    let mut parts = front.rsplit(':');
    let (device, bus) = (parts.next()?, parts.next()?);
    let domain = parts.next().unwrap_or("0000");
    if parts.next().is_some() {
        return None;
    }
    let device = hex(device, 2..=2).filter(|device| *device < 32)?;
    let function = hex(function, 1..=1).filter(|function| *function < 8)?;
    let devfn = u8::try_from(device << 3 | function).ok()?;
    let bus = u8::try_from(hex(bus, 2..=2)?).ok()?;
    Some(Address::new(hex(domain, 4..=8)?, bus, devfn))
}

/// Digits only: what the standard library takes beside them, a sign, is none of an address.
fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let all = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    (all && digits.contains(&text.len())).then(|| u32::from_str_radix(text, 16).ok())?
}

/// The beginning of a text that somebody else wrote, fit for a message.
pub fn excerpt(text: &str) -> String {
    const LEN: usize = 40;
    let start: String = text
        .chars()
        .take(LEN)
        .flat_map(char::escape_debug)
        .collect();
    match text.chars().nth(LEN) {
        Some(_) => start + "...",
        None => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "0000:01:00.1",
            "0000:ff:1f.7",
            "10000:00:00.0",
            "ffff:00:02.0",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let short: Address = "01:00.1".parse().unwrap();
        assert_eq!(short.to_string(), "0000:01:00.1");
        assert_eq!(
            "0000:AB:00.0".parse::<Address>().unwrap().to_string(),
            "0000:ab:00.0"
        );
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_one_looks_like() {
        for text in [
            "",
            ".",
            ":",
            "0000:01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "0:01:00.0",
            "+000:01:00.0",
            "0000:1:00.0",
            "0000:01:00.0x",
            "0:0000:01:00.0",
            "123456789:01:00.0",
            "eth0",
            "../../..",
            "0000:01:00.0/../0000:02:00.0",
            "0000:01:0\u{661}.0",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("0000:01:00.0"), "{text}: {error}");
        }
        let long = "\u{1b}[31m".repeat(1000);
        let error = long.parse::<Address>().unwrap_err().to_string();
        assert!(error.len() < 400 && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn virtual_functions_may_be_on_the_next_bus() {
        let at: Address = "0000:01:1f.7".parse().unwrap();
        assert_eq!(at.further(1).unwrap().to_string(), "0000:02:00.0");
        let last: Address = "0000:ff:1f.7".parse().unwrap();
        assert_eq!(last.further(1), None);
    }
}
