//! What translates addresses for queues of the `virtio-driver` crate: each to itself.
//!
//! The crate's trait answers with a type that it does not export, so nobody else can implement it. This is taken from its
//! vhost-user transport, after a handshake with a back end that knows four requests: there, a device address is that of
//! this process.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use virtio_driver::{IovaTranslator, VhostUser, VirtioBlkConfig, VirtioTransport as _};

/// Answers a front end's first questions.
fn greet(listener: &UnixListener) {
    const GET_FEATURES: u32 = 1;
    const GET_PROTOCOL_FEATURES: u32 = 15;
    const GET_MAX_MEM_SLOTS: u32 = 36;

    let (mut socket, _) = listener.accept().unwrap();
    loop {
        let mut header = [0; 12];
        socket.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        socket.read_exact(&mut vec![0; word(8) as usize]).unwrap();
        let request = word(0);
        let answer: u64 = match request {
            // PROTOCOL_FEATURES.
            GET_FEATURES => 1 << 30,
            // REPLY_ACK, CONFIG, CONFIGURE_MEM_SLOTS.
            GET_PROTOCOL_FEATURES => 1 << 3 | 1 << 9 | 1 << 15,
            GET_MAX_MEM_SLOTS => 8,
            _ => continue,
        };
        // Version 1, a reply, eight bytes.
        let mut reply = [request, 1 | 1 << 2, 8].map(u32::to_le_bytes).concat();
        reply.extend(answer.to_le_bytes());
        socket.write_all(&reply).unwrap();
        if request == GET_MAX_MEM_SLOTS {
            return;
        }
    }
}

/// What translates addresses of this process to themselves.
pub(crate) fn translator() -> Box<dyn IovaTranslator> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vhost-user");
    let listener = UnixListener::bind(&path).unwrap();
    let backend = std::thread::spawn(move || greet(&listener));
    let transport = VhostUser::<VirtioBlkConfig, u8>::new(&path.to_string_lossy(), 0).unwrap();
    backend.join().unwrap();
    transport.iova_translator()
}
