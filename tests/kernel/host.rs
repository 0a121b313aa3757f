//! What the kernel's side of these tests does.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Where the responder is.
pub(crate) const ADDRESS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));
pub(crate) const ADDRESS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2));
/// The port that returns what it is sent.
pub(crate) const PORT: u16 = 7;
/// How long the other side may say nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The byte at this place of a stream: another order for each `seed`, and no two places near each other alike for long.
pub(crate) fn byte(seed: u64, at: u64) -> u8 {
    let mixed = (at ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// The kernel has seen no TCP or UDP packet with a wrong checksum in this thread's namespace.
#[track_caller]
pub(crate) fn no_wrong_checksums() {
    assert_eq!(counter("Tcp:", "InCsumErrors"), 0);
    assert_eq!(counter("Udp:", "InCsumErrors"), 0);
    assert_eq!(counter6("Udp6InCsumErrors"), 0);
}

/// A counter of the kernel in this thread's namespace; they stand in two lines, the names and the values.
#[track_caller]
pub(crate) fn counter(protocol: &str, name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(known, _)| *known == name).unwrap();
    value.parse().unwrap()
}

/// The same for IPv6, where they stand one a line.
#[track_caller]
pub(crate) fn counter6(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let mut lines = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let (_, value) = lines.find(|(known, _)| *known == name).unwrap();
    value.trim().parse().unwrap()
}
