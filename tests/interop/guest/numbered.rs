//! Datagrams with numbers, by which it is seen which were lost, doubled or altered. Both sides of a guest's card have this
//! module.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

/// The length of each.
const LEN: usize = 700;

/// The number of a datagram after which there are no more.
const LAST: u64 = u64::MAX;

/// How often the last one is sent at most, which may be lost as well, and how long its answer is waited for.
const LAST_TIMES: u32 = 200;
const LAST_GAP: Duration = Duration::from_millis(100);

/// What became of the datagrams of one sender.
#[derive(Default, Debug)]
pub(crate) struct Heard {
    /// How often each number came.
    times: BTreeMap<u64, u64>,
    /// Datagrams that were not as they were sent.
    altered: u64,
}

/// Sends datagrams until it is enough, and that there are no more; how many.
///
/// While nobody can be reached they are lost, and numbered all the same.
pub(crate) fn send(
    socket: &UdpSocket,
    gap: Duration,
    is_enough: impl Fn() -> bool,
) -> io::Result<u64> {
    let mut next = 0;
    while !is_enough() {
        send_one(socket, next)?;
        next += 1;
        std::thread::sleep(gap);
    }
    socket.set_read_timeout(Some(LAST_GAP))?;
    for _ in 0..LAST_TIMES {
        send_one(socket, LAST)?;
        if socket.recv(&mut [0; LEN]).is_ok() {
            break;
        }
    }
    Ok(next)
}

fn send_one(socket: &UdpSocket, number: u64) -> io::Result<()> {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
    match socket.send(&datagram(number)) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            ConnectionRefused | HostUnreachable | NetworkDown | NetworkUnreachable => Ok(()),
            _ => Err(error),
        },
    }
}

/// Receives until there are no more, and answers the last one.
///
/// * `came`: called for each
pub(crate) fn hear(socket: &UdpSocket, mut came: impl FnMut()) -> io::Result<Heard> {
    let mut heard = Heard::default();
    // More than is sent, so that one that is too long is seen.
    let mut bytes = [0; 2 * LEN];
    loop {
        let (len, from) = socket.recv_from(&mut bytes)?;
        let number = bytes[..8].try_into().map(u64::from_be_bytes);
        match number
            .ok()
            .filter(|number| bytes[..len] == datagram(*number))
        {
            None => heard.altered += 1,
            Some(LAST) => {
                socket.send_to(&bytes[..len], from)?;
                return Ok(heard);
            }
            Some(number) => *heard.times.entry(number).or_default() += 1,
        }
        came();
    }
}

/// The datagram of this number.
fn datagram(number: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (at, byte) in (0_u64..).zip(&mut bytes) {
        let mixed = (at ^ (number << 16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *byte = (mixed >> 56) as u8;
    }
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// An object: how many there were, how many of them altered and doubled, the first and the last, and the gaps between: the
/// first number of each, and how many.
impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, altered } = self;
        let all: u64 = times.values().sum();
        let doubled = all - times.len() as u64;
        let ends = [times.keys().next(), times.keys().next_back()];
        let [first, last] = ends.map(|end| end.map_or("null".to_owned(), u64::to_string));
        write!(
            f,
            r#"{{"heard":{all},"altered":{altered},"doubled":{doubled},"first":{first},"last":{last},"gaps":["#
        )?;
        let mut apart = "";
        for (before, after) in times.keys().zip(times.keys().skip(1)) {
            let lost = after - before - 1;
            if lost > 0 {
                write!(f, "{apart}[{},{lost}]", before + 1)?;
                apart = ",";
            }
        }
        f.write_str("]}")
    }
}
