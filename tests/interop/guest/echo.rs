//! Gives back what is sent.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;

use super::Done;

/// At this port of every address, until the process ends.
pub(super) fn give_back(port: u16) -> Done {
    // Of both families.
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listener = TcpListener::bind((any, port))?;
    let socket = UdpSocket::bind((any, port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One that ends badly is the other side's to see.
            thread::spawn(move || stream_back(stream).ok());
        }
    });
    let mut bytes = vec![0; 1 << 16];
    println!("echo");
    loop {
        let (len, from) = socket.recv_from(&mut bytes)?;
        socket.send_to(&bytes[..len], from)?;
    }
}

fn stream_back(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = vec![0; 1 << 18];
    loop {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&bytes[..len])?;
    }
}
