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
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut found = 0;
    for protocol in ["Tcp:", "Udp:"] {
        let mut lines = text.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            if name == "InCsumErrors" {
                found += 1;
                assert_eq!(value, "0", "{protocol} {name}");
            }
        }
    }
    assert_eq!(found, 2, "{text}");
    let text = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let wrong = |line: &&str| line.starts_with("Udp6InCsumErrors") && !line.ends_with("\t0");
    assert_eq!(text.lines().find(wrong), None);
}
