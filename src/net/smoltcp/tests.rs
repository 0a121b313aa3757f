use smoltcp::iface::{Interface, SocketSet};
use smoltcp::socket::udp;
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpCidr, IpEndpoint};
use vdpa_core::bits::net;

use super::*;
use crate::net::Setup;

struct Host {
    phy: Phy,
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Host {
    fn new(registry: &crate::Registry, number: u8, setup: &Setup) -> Self {
        let spec = format!("sim:net,port=wire:w,queue_pairs=4,mac=52:54:00:00:00:{number:02x}");
        let device = registry.open(&spec).unwrap();
        let mut phy = Phy::new(NetDriver::start(device, setup).unwrap()).unwrap();
        let mut interface = Interface::new(phy.config(), &mut phy, Instant::now());
        for address in [
            IpAddress::v4(192, 0, 2, number),
            IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
        ] {
            let cidr = IpCidr::new(address, 24);
            interface.update_ip_addrs(|all| all.push(cidr).unwrap());
        }
        Self {
            phy,
            interface,
            sockets: SocketSet::new(Vec::new()),
        }
    }

    fn poll(&mut self) {
        self.interface
            .poll(Instant::now(), &mut self.phy, &mut self.sockets);
        self.phy.flush().unwrap();
    }

    fn socket(&mut self, port: u16) -> smoltcp::iface::SocketHandle {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 64 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }
}

/// Datagrams of sixteen flows arrive as they were sent, whatever was negotiated.
fn datagrams_arrive(ask: Features, pairs: u16) -> [Host; 2] {
    let registry = crate::registry();
    let setup = Setup {
        pairs,
        ..Setup::asking(ask)
    };
    let mut hosts = [1, 2].map(|number| Host::new(&registry, number, &setup));
    let flows: Vec<_> = (0..16).map(|at| hosts[0].socket(1000 + at)).collect();
    let there = hosts[1].socket(7);
    let to_v4: IpEndpoint = (IpAddress::v4(192, 0, 2, 2), 7).into();
    let to_v6: IpEndpoint = (IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2), 7).into();
    for (at, flow) in (0u8..).zip(&flows) {
        let socket = hosts[0].sockets.get_mut::<udp::Socket>(*flow);
        let to = if at % 2 == 0 { to_v4 } else { to_v6 };
        socket.send_slice(&[at; 1000], to).unwrap();
    }
    let by = Deadline::after(std::time::Duration::from_secs(20));
    let mut got = Vec::new();
    while got.len() < flows.len() {
        assert!(!by.expired(), "{} of {} arrived", got.len(), flows.len());
        hosts.iter_mut().for_each(Host::poll);
        let socket = hosts[1].sockets.get_mut::<udp::Socket>(there);
        while let Ok((bytes, _)) = socket.recv() {
            assert_eq!(bytes.len(), 1000);
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            got.push(bytes[0]);
        }
        std::thread::yield_now();
    }
    got.sort();
    assert!(got.into_iter().eq(0..16));
    hosts
}

#[test]
fn datagrams_arrive_with_and_without_offloads() {
    for ask in [
        Features::NONE,
        net::CSUM.mask(),
        net::GUEST_CSUM.mask(),
        Phy::ASK,
    ] {
        for pairs in [1, 4] {
            let [client, server] = datagrams_arrive(ask, pairs);
            assert_eq!(server.phy.wrong_checksums(), 0);
            let partial: u64 = (0..pairs).map(|at| client.phy.sent(at).partial).sum();
            let negotiated = client.phy.driver().features();
            assert_eq!(partial > 0, negotiated.contains(net::CSUM));
        }
    }
}

#[test]
fn flows_leave_by_different_pairs() {
    let [client, _] = datagrams_arrive(Phy::ASK, 4);
    let used = (0..4).filter(|pair| client.phy.sent(*pair).frames > 0);
    assert!(used.count() >= 3);
}

#[test]
fn a_driver_that_gets_datagrams_together_is_refused() {
    let device = crate::open("sim:net").unwrap();
    let ask = net::GUEST_CSUM | net::GUEST_USO4;
    let driver = NetDriver::start(device, &Setup::asking(ask)).unwrap();
    if !driver.features().contains(net::GUEST_USO4) {
        return;
    }
    let error = Phy::new(driver).unwrap_err();
    assert!(error.to_string().contains("GUEST_USO4"), "{error}");
}
