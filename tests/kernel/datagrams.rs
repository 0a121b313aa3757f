//! Datagrams to the responder, no more under way than the buffers at both ends hold.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;

use crate::host::{PATIENCE, PORT, byte};

/// Datagrams that one socket has under way.
const WINDOW: usize = 8;

/// One socket for each of the ports from `first_port` on, each with `count` datagrams sent and received again; every one
/// comes back once, as it was.
pub(crate) fn come_back(to: IpAddr, first_port: u16, flows: u16, count: u64) {
    let open = |flow: u16| {
        thread::spawn(move || {
            let any: IpAddr = match to {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let port = first_port + flow;
            let socket = UdpSocket::bind((any, port)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(SocketAddr::new(to, PORT)).unwrap();
            talk(&socket, port.into(), count);
        })
    };
    let flows: Vec<_> = (0..flows).map(open).collect();
    for flow in flows {
        flow.join().unwrap();
    }
}

/// Datagrams of 4000 bytes, one after the other: the responder's stack puts one together, and takes one apart, at a time.
pub(crate) fn come_back_in_fragments(to: IpAddr, count: u64) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(SocketAddr::new(to, PORT)).unwrap();
    let mut bytes = vec![0; 65_536];
    for number in 0..count {
        let sent: Vec<u8> = (0..4000).map(|at| byte(number, at)).collect();
        socket.send(&sent).unwrap();
        let len = socket.recv(&mut bytes).unwrap();
        assert!(bytes[..len] == sent, "datagram {number}");
    }
}

fn talk(socket: &UdpSocket, seed: u64, count: u64) {
    let mut bytes = vec![0; 65_536];
    let mut next = 0;
    let mut under_way = BTreeSet::new();
    while next < count || !under_way.is_empty() {
        while next < count && under_way.len() < WINDOW {
            socket.send(&datagram(seed, next)).unwrap();
            under_way.insert(next);
            next += 1;
        }
        let len = socket.recv(&mut bytes).unwrap();
        let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
        let what = format!("datagram {number} of port {seed}");
        // The kernel may send a flow by another queue from now on, and what is in the old one comes later.
        assert!(under_way.remove(&number), "{what} again, or none at all");
        assert!(bytes[..len] == datagram(seed, number), "{what} is altered");
    }
}

/// The datagram of this number, of every length up to what a frame takes.
fn datagram(seed: u64, number: u64) -> Vec<u8> {
    let len = 8 + number * 37 % 1440;
    let mut bytes: Vec<u8> = (0..len).map(|at| byte(seed ^ (number << 8), at)).collect();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}
