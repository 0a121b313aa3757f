//! TCP between two hosts, each with a network card of its own: the stack `smoltcp` on `vdpa::net::smoltcp::Phy`.
//!
//! The cards are simulated, and on a wire. Any other device string makes the same program run over another device.

use std::thread;
use std::time::Duration;

use smoltcp::iface::{Interface, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpCidr};
use vdpa::net::smoltcp::Phy;
use vdpa::net::{NetDriver, Setup};
use vdpa::{Deadline, Registry};

const TRANSFER: usize = 16 << 20;
const PORT: u16 = 7;
const LONG: Duration = Duration::from_millis(10);
type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Host {
    phy: Phy,
    interface: Interface,
}

impl Host {
    fn new(registry: &Registry, number: u8) -> Result<Self, Failure> {
        let spec = format!("sim:net,port=wire:example,mac=52:54:00:00:00:{number:02x}");
        // All that can be left to the device is.
        let driver = NetDriver::start(registry.open(&spec)?, &Setup::asking(Phy::ASK))?;
        let mut phy = Phy::new(driver)?;
        let mut interface = Interface::new(phy.config(), &mut phy, Instant::now());
        let address = IpCidr::new(IpAddress::v4(192, 0, 2, number), 24);
        interface.update_ip_addrs(|addresses| _ = addresses.push(address));
        Ok(Self { phy, interface })
    }

    /// Lets the stack work, and `step` with its socket, until that says that it is done.
    fn run(
        &mut self,
        socket: Socket<'static>,
        mut step: impl FnMut(&mut Socket<'_>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let Self { phy, interface } = self;
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        loop {
            interface.poll(Instant::now(), phy, &mut sockets);
            if step(sockets.get_mut(handle))? {
                return Ok(());
            }
            interface.poll(Instant::now(), phy, &mut sockets);
            let sleep = interface.poll_delay(Instant::now(), &sockets);
            let sleep = sleep.map_or(LONG, Duration::from).min(LONG);
            phy.wait(Deadline::after(sleep))?;
        }
    }
}

/// The byte at this place of the stream.
fn byte(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

fn socket() -> Socket<'static> {
    // More would need window scaling, whose rounding this version of the stack takes amiss.
    let buffer = || SocketBuffer::new(vec![0; 65_535]);
    Socket::new(buffer(), buffer())
}

fn main() -> Result<(), Failure> {
    let registry = vdpa::registry();
    let mut client = Host::new(&registry, 1)?;
    let mut server = Host::new(&registry, 2)?;

    let server = thread::spawn(move || {
        let mut received = 0;
        let mut socket = socket();
        socket.listen(PORT)?;
        server.run(socket, |socket| {
            while socket.can_recv() {
                received += socket.recv(|bytes| {
                    let mut places = bytes.iter().zip(received..);
                    assert!(places.all(|(is, at)| *is == byte(at)), "altered");
                    (bytes.len(), bytes.len())
                })?;
            }
            if received == TRANSFER {
                socket.close();
            }
            Ok(!socket.is_open())
        })?;
        assert_eq!(received, TRANSFER);
        Ok::<_, Failure>(())
    });

    let mut socket = socket();
    let there = (IpAddress::v4(192, 0, 2, 2), PORT);
    socket.connect(client.interface.context(), there, 49_152)?;
    let mut sent = 0;
    client.run(socket, |socket| {
        while socket.can_send() && sent < TRANSFER {
            sent += socket.send(|room| {
                let len = room.len().min(TRANSFER - sent);
                (0..len).for_each(|at| room[at] = byte(sent + at));
                (len, len)
            })?;
        }
        if socket.state() == State::CloseWait {
            socket.close();
        }
        // Until then the other side may miss an acknowledgement.
        Ok(server.is_finished())
    })?;
    server.join().map_err(|_| "the server died")??;
    let frames = client.phy.sent(0);
    println!("received  {sent} bytes, as they were sent");
    println!("sent in   {} frames, {} large", frames.frames, frames.large);
    Ok(())
}
