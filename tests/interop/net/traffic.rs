//! What passes between the host's stack and a guest's, and is looked at.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use crate::harness::Guest;
use crate::host::{self, ADDRESS_V4, ADDRESS_V6, PATIENCE};
use crate::{datagrams, ping, streams};

/// Source ports of the flows: with these every one of four pairs has some.
const FLOWS: u16 = 8;

/// The port of a transfer in one direction.
const TRANSFER: u16 = 5001;

/// Loads the driver, gives the guest its addresses, and has it give back what it is sent at port 7.
#[track_caller]
pub(crate) fn answers(guest: &mut Guest) {
    // As the host: see `host::address`.
    for family in ["ipv4", "ipv6"] {
        let keys = ["ucast_solicit", "mcast_solicit"]
            .map(|key| format!("net.{family}.neigh.default.{key}=100"));
        guest.does(&format!("sysctl -w {}", keys.join(" ")));
    }
    guest.does("sysctl -w net.ipv6.conf.default.accept_dad=0; modprobe virtio_net");
    // A datagram that waits counts with the whole buffer that it came in, which may be a page.
    guest.does("sysctl -w net.core.rmem_default=2097152");
    // Debian's fq_codel drops what has waited for some milliseconds again and again, as frames do on a busy machine where
    // each is translated by QEMU first.
    guest.does("sysctl -w net.core.default_qdisc=pfifo_fast");
    is_addressed(guest);
    // The line comes when both ports are open.
    guest.does("mkfifo /run/up; talker echo 7 >/run/up & read -r up </run/up; rm /run/up");
}

/// Gives the guest's interface its addresses, as after its driver was bound.
#[track_caller]
pub(crate) fn is_addressed(guest: &mut Guest) {
    guest.does("ip addr add 10.78.0.2/24 dev eth0 && ip addr add fd78::2/64 dev eth0 && ip link set eth0 up");
}

/// Everything that the host sends comes back as it was, and files arrive as they were, both ways.
#[track_caller]
pub(crate) fn passes(guest: &mut Guest) {
    for size in [56, 1400] {
        ping::answers(ADDRESS_V4, size, 5);
    }
    ping::answers_in_fragments(ADDRESS_V4, 6000, 2);
    ping::answers(ADDRESS_V6, 1400, 5);
    guest.does("ping -c 3 -i 0.05 -s 1400 10.78.0.1");
    ping::all_answered();
    streams::come_back(ADDRESS_V4, 20_000, FLOWS, 128 << 10);
    streams::come_back(ADDRESS_V6, 21_000, 1, 256 << 10);
    datagrams::come_back(ADDRESS_V4, 22_000, FLOWS, 60);
    datagrams::come_back(ADDRESS_V6, 23_000, 1, 60);
    datagrams::come_back_in_fragments(ADDRESS_V4, 5);
    file_comes(guest, 4);
    file_goes(guest, 4);
    host::no_wrong_checksums();
    let [v4, v6] = ["snmp", "snmp6"].map(|file| guest.does(&format!("cat /proc/net/{file}")));
    host::none_wrong_in(&v4, &v6);
}

/// A file of so many MiB goes from the guest to the host.
#[track_caller]
fn file_comes(guest: &mut Guest, mebibytes: u32) {
    let make = format!("dd if=/dev/urandom of=/dev/shm/file bs=1M count={mebibytes} 2>/dev/null");
    let sum = guest.does(&format!("{make}; sha256sum </dev/shm/file"));
    let receiving = accepted(|mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    guest.does(&format!(
        "nc 10.78.0.1 {TRANSFER} </dev/shm/file; rm /dev/shm/file"
    ));
    assert_eq!(checksum(&receiving.join().unwrap()), sum);
}

/// A file of so many MiB goes from the host to the guest.
#[track_caller]
fn file_goes(guest: &mut Guest, mebibytes: u64) {
    let bytes: Vec<u8> = (0..mebibytes << 20).map(|at| host::byte(9, at)).collect();
    let sum = checksum(&bytes);
    let sending = accepted(move |mut stream| stream.write_all(&bytes).unwrap());
    let said = guest.does(&format!("nc 10.78.0.1 {TRANSFER} </dev/null | sha256sum"));
    sending.join().unwrap();
    assert_eq!(said, sum);
}

/// What is done with the one connection that the guest makes.
fn accepted<T: Send + 'static>(
    then: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> JoinHandle<T> {
    let listener = TcpListener::bind(("10.78.0.1", TRANSFER)).unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        then(stream)
    })
}

/// What `sha256sum` says of these bytes.
#[track_caller]
fn checksum(bytes: &[u8]) -> String {
    let mut command = Command::new("sha256sum");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    String::from_utf8(out).unwrap().trim().to_owned()
}
