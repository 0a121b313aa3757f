//! The stack and its sockets.

use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpCidr};
use vdpa::Deadline;
use vdpa::core::config::Mac;
use vdpa::net::NetError;
use vdpa::net::smoltcp::Phy;

/// Bytes under way in each direction of a connection. More would need window scaling, whose rounding this version of the
/// stack takes amiss in what it receives.
const TCP_BYTES: usize = 65_535;
/// Datagrams that wait, and their bytes.
const DATAGRAMS: usize = 256;
const DATAGRAM_BYTES: usize = 512 << 10;
/// A peer that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest datagram.
const LONGEST: usize = 65_535;

/// What was answered.
#[derive(Clone, Copy, Default)]
pub(super) struct Answered {
    pub(super) datagrams: u64,
    pub(super) datagram_bytes: u64,
    pub(super) connections: u64,
    pub(super) stream_bytes: u64,
    /// How often all connections ended over what a peer had sent.
    pub(super) broken: u64,
}

/// Answers ARP, neighbour discovery and echo requests by the stack; datagrams and streams to one port by itself.
pub(super) struct Service {
    phy: Phy,
    interface: Interface,
    sockets: SocketSet<'static>,
    datagrams: SocketHandle,
    connections: Vec<Connection>,
    answered: Answered,
    port: u16,
    scratch: Vec<u8>,
}

struct Connection {
    socket: SocketHandle,
    /// It was seen with a peer.
    open: bool,
}

impl Service {
    pub(super) fn new(mut phy: Phy, addresses: &[IpCidr], port: u16, connections: u16) -> Self {
        let mut interface = Interface::new(phy.config(), &mut phy, Instant::now());
        let mac = phy.driver().ethernet().mac;
        interface.update_ip_addrs(|all| {
            // There is room for one more than can be given.
            for address in addresses.iter().copied().chain(mac.map(link_local)) {
                let _full = all.push(address);
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let datagrams = sockets.add(datagram_socket(port));
        let connections = (0..connections)
            .map(|_| Connection {
                socket: sockets.add(stream_socket()),
                open: false,
            })
            .collect();
        Self {
            phy,
            interface,
            sockets,
            datagrams,
            connections,
            answered: Answered::default(),
            port,
            scratch: vec![0; LONGEST],
        }
    }

    pub(super) fn phy(&self) -> &Phy {
        &self.phy
    }

    pub(super) fn into_phy(self) -> Phy {
        self.phy
    }

    pub(super) fn answered(&self) -> Answered {
        self.answered
    }

    pub(super) fn addresses(&self) -> &[IpCidr] {
        self.interface.ip_addrs()
    }

    /// Takes what has come, and answers it. Returns how long there is nothing more to do, if nothing comes.
    pub(super) fn step(&mut self) -> Duration {
        // This version of the stack panics over a peer that sends more than the window it was given, if it looks at the
        // window before it acknowledges. That ends connections, and not the service; standard error was told.
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        worked.unwrap_or_else(|_| {
            self.renew();
            Duration::ZERO
        })
    }

    fn work(&mut self) -> Duration {
        self.interface
            .poll(Instant::now(), &mut self.phy, &mut self.sockets);
        let answered = self.answer_datagrams() | self.answer_streams();
        if answered {
            return Duration::ZERO;
        }
        let delay = self.interface.poll_delay(Instant::now(), &self.sockets);
        delay.map_or(Duration::MAX, Duration::from)
    }

    /// Waits until something comes, or one of these files is readable, or the deadline passes.
    pub(super) fn wait(&mut self, also: &[BorrowedFd<'_>], by: Deadline) -> Result<bool, NetError> {
        self.phy.wait_also(also, by)
    }

    /// Every connection ends, and is answered anew.
    fn renew(&mut self) {
        self.answered.broken += 1;
        for connection in &mut self.connections {
            self.sockets.remove(connection.socket);
            connection.socket = self.sockets.add(stream_socket());
            connection.open = false;
        }
    }

    fn answer_datagrams(&mut self) -> bool {
        let socket = self.sockets.get_mut::<udp::Socket>(self.datagrams);
        let mut answered = false;
        // What cannot be answered yet stays.
        while let Ok((bytes, from)) = socket.peek() {
            let (len, to) = (bytes.len(), *from);
            self.scratch[..len].copy_from_slice(bytes);
            match socket.send_slice(&self.scratch[..len], to) {
                Ok(()) => {
                    self.answered.datagrams += 1;
                    self.answered.datagram_bytes += len as u64;
                    answered = true;
                }
                Err(udp::SendError::BufferFull) => break,
                // From nowhere: there is no answer to that.
                Err(udp::SendError::Unaddressable) => {}
            }
            let _answered = socket.recv();
        }
        answered
    }

    fn answer_streams(&mut self) -> bool {
        let mut worked = false;
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket>(connection.socket);
            if socket.is_active() && !connection.open && socket.may_send() {
                connection.open = true;
                self.answered.connections += 1;
            }
            while socket.can_recv() && socket.can_send() {
                let room = socket.send_capacity() - socket.send_queue();
                let most = room.min(self.scratch.len());
                let Ok(len) = socket.recv_slice(&mut self.scratch[..most]) else {
                    break;
                };
                let sent = socket.send_slice(&self.scratch[..len]).unwrap_or(0);
                self.answered.stream_bytes += sent as u64;
                worked = true;
            }
            if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
                socket.close();
                worked = true;
            }
            if !socket.is_open() {
                connection.open = false;
                // It is closed, and the port is not 0.
                worked |= socket.listen(self.port).is_ok();
            }
        }
        worked
    }
}

fn datagram_socket(port: u16) -> udp::Socket<'static> {
    let buffer = || {
        udp::PacketBuffer::new(
            vec![udp::PacketMetadata::EMPTY; DATAGRAMS],
            vec![0; DATAGRAM_BYTES],
        )
    };
    let mut socket = udp::Socket::new(buffer(), buffer());
    // It is new, and the port is not 0.
    let _bound = socket.bind(port);
    socket
}

fn stream_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BYTES]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.set_timeout(Some(SILENCE.into()));
    socket
}

/// The address by which a host is known on its own link, RFC 4291 §2.5.6: that of its card.
fn link_local(mac: Mac) -> IpCidr {
    let [a, b, c, d, e, f] = mac.octets();
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let host = [word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f)];
    let address = IpAddress::v6(0xfe80, 0, 0, 0, host[0], host[1], host[2], host[3]);
    IpCidr::new(address, 64)
}

#[cfg(test)]
mod tests;
