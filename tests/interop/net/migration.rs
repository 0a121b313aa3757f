//! A guest moves from one QEMU to another while traffic passes: each QEMU has a back end and a tap of its own.
//!
//! ```text
//!   host ─┬─ tap0 ─ vdpactl serve ─ socket ─ QEMU │ guest
//!         │                                    │ a unix socket
//!         └─ tap1 ─ vdpactl serve ─ socket ─ QEMU │ the same guest, later
//! ```
//! The host's side looks the same on both taps. What it sends goes over `tap1` once the second back end runs: by a route,
//! since a bridge would drop frames until its port is up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use vdpa::Deadline;

use super::flows::{Flows, Outcome};
use super::{CARD, Card, DEVICE, traffic, with_a_tap};
use crate::harness::migration::{self, WAITS, WRITES, Way};
use crate::harness::{BackEnd, Guest};
use crate::host;
use crate::machine::Machine;
use crate::netns::ip;

/// The host's address on both taps: the guest finds no other one when it has moved.
const HOST: &str = "02:00:00:00:00:01";

/// As [`DEVICE`], on the other tap.
const OTHER: &str = "sim:net,port=tap:tap1,queue_pairs=4,mac=52:54:00:00:00:07";

/// Who says in the network where the guest went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// The guest, since its card has GUEST_ANNOUNCE.
    ByItself,
    /// The other back end, since it has not.
    ByTheDevice,
}

impl Announced {
    fn machine(self, card: Card, socket: &Path) -> Machine {
        let words: &[&str] = match self {
            Self::ByItself => &[],
            Self::ByTheDevice => &["-global", "virtio-net-device.guest_announce=off"],
        };
        card.machine(socket).words(words)
    }
}

/// Another tap beside `tap0`, like it; no route leads there yet.
fn beside() {
    ip("tuntap add dev tap1 mode tap multi_queue vnet_hdr");
    for tap in ["tap0", "tap1"] {
        ip(&format!("link set {tap} address {HOST}"));
    }
    host::is_patient("tap1");
    ip("addr add 10.78.0.1/24 dev tap1 noprefixroute");
    ip("addr add fd78::1/64 dev tap1 nodad noprefixroute");
    ip("link set tap1 up");
}

/// From here on the guest is reached over `tap1`.
#[track_caller]
fn reach_the_other() {
    host::has_carrier("tap1");
    ip("route add 10.78.0.2 dev tap1 src 10.78.0.1");
    ip("route add fd78::2 dev tap1");
}

/// Bytes that lie in the guest unread as it moves: fewer than it takes unread, and than there is room for in buffers that the
/// card had before.
const UNREAD: u64 = 64 << 10;

/// A connection of which the guest's side reads nothing for a while. Of frames as large as these the driver touches the first
/// buffer, and nobody the others before they are read.
struct Unread {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Unread {
    /// Nothing is read from here on.
    #[track_caller]
    fn begin(guest: &mut Guest) -> Self {
        let mut stream = TcpStream::connect((host::ADDRESS_V4, host::PORT)).unwrap();
        stream.set_read_timeout(Some(host::PATIENCE)).unwrap();
        // It was taken in: there is somebody to be stopped.
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        guest.does("kill -STOP $echo");
        let bytes = (0..UNREAD).map(|at| host::byte(5, at)).collect();
        Self { stream, bytes }
    }

    /// Sends all, and waits until the guest has acknowledged it.
    #[track_caller]
    fn arrives(&mut self) {
        self.stream.write_all(&self.bytes).unwrap();
        let own = format!(":{:04X} ", self.stream.local_addr().unwrap().port());
        let by = Deadline::after(host::PATIENCE);
        loop {
            let all = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            let line = all.lines().find(|line| line.contains(&own)).unwrap();
            // `sl local remote state sent:received ...`: what is not acknowledged.
            if line
                .split_whitespace()
                .nth(4)
                .unwrap()
                .starts_with("00000000:")
            {
                return;
            }
            assert!(!by.expired(), "the guest does not take it: {line}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The guest reads it now, and gives it back.
    #[track_caller]
    fn comes_back_as_it_was(mut self, guest: &mut Guest) {
        guest.does("kill -CONT $echo");
        let mut back = vec![0; self.bytes.len()];
        self.stream.read_exact(&mut back).unwrap();
        let pairs = back.iter().zip(&self.bytes);
        let altered = pairs.filter(|(back, sent)| back != sent).count();
        assert_eq!(altered, 0, "bytes altered, of {UNREAD}");
    }
}

/// Moves the guest to where it is waited for; what is here afterwards.
///
/// * `capture`: gets all that passes the other back end
#[track_caller]
fn moves(
    guest: Guest,
    arriving: Machine,
    socket: &Path,
    capture: &Path,
    unread: &mut Unread,
) -> (Guest, BackEnd) {
    let spec = format!("{OTHER},mirror={}", capture.display());
    let mut back_end = BackEnd::start(&spec, socket, &[]);
    let arriving = Guest::arriving(arriving.words(&WAITS));
    // So its monitor listens.
    back_end.event("connected");
    let way = Way::begin(&guest, &arriving, &socket.with_file_name("way"));
    // What comes now lies in pages that went over before.
    unread.arrives();
    way.end();
    back_end.event("running");
    reach_the_other();
    guest.kill();
    (arriving, back_end)
}

/// What was sent to the guest is lost while it is in neither place, and at no other time; nothing that it has sent is.
#[track_caller]
fn lost_nothing_else([there, back]: &[Outcome; 2]) {
    assert!(there.gaps.len() <= 1, "{:?}", there.gaps);
    assert_eq!(there.last + 1, there.sent);
    assert_eq!((back.heard, back.last + 1), (back.sent, back.sent));
}

/// How often the device asked everyone for the address of the guest's card, by what passed it: RFC 903.
fn announcements(capture: &Path) -> usize {
    let mac = [0x52, 0x54, 0, 0, 0, 7];
    let request = [
        &[0xff; 6][..],
        &mac,
        &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3],
        &mac,
        &[0; 4],
        &mac,
    ]
    .concat();
    let all = std::fs::read(capture).unwrap();
    let found = all.windows(request.len()).filter(|bytes| *bytes == request);
    found.count()
}

/// A guest with this card is on its way while datagrams pass and a stream, which it does not read until it is there.
fn migrates(name: &str, card: Card, announced: Announced) {
    with_a_tap(name, move |home| {
        let _alone = migration::alone();
        beside();
        let (socket, other) = (home.join("net"), home.join("other"));
        let back_end = BackEnd::start(DEVICE, &socket, &[]);
        let mut guest = Guest::start(announced.machine(card, &socket));
        traffic::answers(&mut guest);
        guest.does("echo=$!");
        host::has_carrier("tap0");
        card.is_as_asked(&mut guest);
        // As much as comes while nobody reads.
        guest.does(
            "sysctl -w net.core.rmem_default=67108864 net.ipv4.tcp_rmem='4096 4194304 4194304'",
        );
        let flows = Flows::begin(&mut guest);
        guest.does(WRITES);
        migration::is_given_up(&guest, || flows.go_on());
        flows.go_on();
        guest.does("kill -STOP $hear");
        let mut unread = Unread::begin(&mut guest);
        let capture = home.join("capture");
        let arriving = announced.machine(card, &other);
        let (mut guest, other) = moves(guest, arriving, &other, &capture, &mut unread);
        back_end.stop();

        guest.does("kill $writes; kill -CONT $hear");
        unread.comes_back_as_it_was(&mut guest);
        flows.go_on();
        lost_nothing_else(&flows.end(&mut guest));
        card.is_as_asked(&mut guest);
        traffic::passes(&mut guest);
        guest.ends();
        other.stop();
        let by_the_device = announcements(&capture) > 0;
        assert_eq!(by_the_device, announced == Announced::ByTheDevice);
    });
}

#[test]
fn a_guest_migrates_under_load_and_loses_nothing_but_in_the_pause() {
    migrates(
        "net::migration::a_guest_migrates_under_load_and_loses_nothing_but_in_the_pause",
        CARD,
        Announced::ByItself,
    );
}

#[test]
fn a_guest_with_packed_rings_migrates_as_well_and_is_announced() {
    let card = Card {
        packed: true,
        ..CARD
    };
    migrates(
        "net::migration::a_guest_with_packed_rings_migrates_as_well_and_is_announced",
        card,
        Announced::ByTheDevice,
    );
}
