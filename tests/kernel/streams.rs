//! TCP connections to the responder, all at once.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::host::{PATIENCE, PORT, byte};

/// `flows` connections, each with `bytes` sent and received again while more are sent; every byte is looked at.
pub(crate) fn come_back(to: IpAddr, first_seed: u16, flows: u16, bytes: u64) {
    let open = |flow: u16| {
        thread::spawn(move || {
            let seed = u64::from(first_seed + flow);
            let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let writer = stream.try_clone().unwrap();
            let sending = thread::spawn(move || send(writer, seed, bytes));
            receive(stream, seed, bytes);
            sending.join().unwrap();
        })
    };
    let flows: Vec<_> = (0..flows).map(open).collect();
    for flow in flows {
        flow.join().unwrap();
    }
}

/// Sends so many bytes, and that there are no more.
pub(crate) fn send(mut stream: TcpStream, seed: u64, bytes: u64) {
    let mut sent = 0;
    while sent < bytes {
        let len = (bytes - sent).min(256 << 10);
        let chunk: Vec<u8> = (sent..sent + len).map(|at| byte(seed, at)).collect();
        stream.write_all(&chunk).unwrap();
        sent += len;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Receives exactly so many bytes, as they were sent.
pub(crate) fn receive(mut stream: TcpStream, seed: u64, bytes: u64) {
    let mut chunk = vec![0; 256 << 10];
    let mut received = 0;
    loop {
        let len = stream.read(&mut chunk).unwrap();
        if len == 0 {
            break;
        }
        let places = chunk[..len].iter().zip(received..);
        for (value, at) in places {
            assert_eq!(*value, byte(seed, at), "byte {at} of {bytes}");
        }
        received += len as u64;
    }
    assert_eq!(received, bytes);
}
