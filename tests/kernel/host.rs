//! What the kernel's side of these tests does.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use vdpa::Deadline;

use crate::netns::ip;

/// Where the responder is.
pub(crate) const ADDRESS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));
pub(crate) const ADDRESS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2));
/// The port that returns what it is sent.
pub(crate) const PORT: u16 = 7;
/// How long the other side may say nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Gives this side of an interface its addresses; whether it has a carrier is the other side's.
pub(crate) fn address(interface: &str) {
    is_patient(interface);
    ip(&format!("addr add 10.78.0.1/24 dev {interface}"));
    ip(&format!("addr add fd78::1/64 dev {interface} nodad"));
    ip(&format!("link set {interface} up"));
}

/// A neighbour that does not answer for three seconds, as on a busy machine, would be given up, and what is for it lost.
pub(crate) fn is_patient(interface: &str) {
    for cache in ["arp_cache", "ndisc_cache"] {
        ip(&format!(
            "ntable change name {cache} dev {interface} ucast_probes 100 mcast_probes 100"
        ));
    }
}

/// Waits until an interface has a carrier.
#[track_caller]
pub(crate) fn has_carrier(interface: &str) {
    let by = Deadline::after(PATIENCE);
    while !ip(&format!("-o link show {interface}")).contains("LOWER_UP") {
        assert!(!by.expired(), "{interface} has no carrier");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The byte at this place of a stream: another order for each `seed`, and no two places near each other alike for long.
pub(crate) fn byte(seed: u64, at: u64) -> u8 {
    let mixed = (at ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// The kernel has seen no TCP or UDP packet with a wrong checksum in this thread's namespace.
#[track_caller]
pub(crate) fn no_wrong_checksums() {
    none_wrong_in(&read(V4), &read(V6));
}

/// A kernel that says this of itself has seen no TCP or UDP packet with a wrong checksum.
///
/// * `v4`, `v6`: its `net/snmp` and `net/snmp6`
#[track_caller]
pub(crate) fn none_wrong_in(v4: &str, v6: &str) {
    assert_eq!(count_in(v4, "Tcp:", "InCsumErrors"), 0);
    assert_eq!(count_in(v4, "Udp:", "InCsumErrors"), 0);
    assert_eq!(count6_in(v6, "Udp6InCsumErrors"), 0);
}

/// A counter of the kernel in this thread's namespace.
#[track_caller]
pub(crate) fn counter(protocol: &str, name: &str) -> u64 {
    count_in(&read(V4), protocol, name)
}

/// The same for IPv6.
#[track_caller]
pub(crate) fn counter6(name: &str) -> u64 {
    count6_in(&read(V6), name)
}

const V4: &str = "/proc/thread-self/net/snmp";
const V6: &str = "/proc/thread-self/net/snmp6";

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

/// The counters stand in two lines, the names and the values.
#[track_caller]
fn count_in(text: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(known, _)| *known == name).unwrap();
    value.parse().unwrap()
}

/// They stand one a line.
#[track_caller]
fn count6_in(text: &str, name: &str) -> u64 {
    let mut lines = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let (_, value) = lines.find(|(known, _)| *known == name).unwrap();
    value.trim().parse().unwrap()
}
