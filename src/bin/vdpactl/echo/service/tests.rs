use std::time::Instant as Clock;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
};
use vdpa::net::{NetDriver, Setup};

use super::*;

const OURS: Ipv4Address = Ipv4Address::new(192, 0, 2, 1);
const THEIRS: Ipv4Address = Ipv4Address::new(192, 0, 2, 2);
const OUR_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);
const THEIR_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 2]);

/// A service, and a peer that makes its packets by hand.
struct Peer {
    driver: NetDriver,
    service: Service,
}

impl Peer {
    fn new() -> Self {
        let registry = vdpa::registry();
        let start = |mac: EthernetAddress| {
            let device = registry
                .open(&format!("sim:net,port=wire:w,mac={mac}"))
                .unwrap();
            NetDriver::start(device, &Setup::default()).unwrap()
        };
        let driver = start(OUR_MAC);
        let phy = Phy::new(start(THEIR_MAC)).unwrap();
        let address = IpCidr::new(THEIRS.into(), 24);
        let service = Service::new(phy, &[address], 7, 2);
        let mut peer = Self { driver, service };
        peer.ask_arp();
        peer
    }

    fn send(&mut self, frame: &[u8]) {
        while self.driver.send(0, [frame]).unwrap() == 0 {
            self.service.step();
        }
    }

    /// Lets the service work until a frame has come that `wanted` makes something of.
    #[track_caller]
    fn until<T>(&mut self, wanted: impl Fn(&[u8]) -> Option<T>) -> T {
        let began = Clock::now();
        loop {
            self.work();
            let mut found = None;
            let each = |frame: &vdpa::net::Frame<'_>| {
                let mut bytes = Vec::new();
                frame.copy_to(&mut bytes);
                found = found.take().or_else(|| wanted(&bytes));
            };
            self.driver.receive(0, each).unwrap();
            if let Some(found) = found {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "no such frame");
            std::thread::yield_now();
        }
    }

    fn work(&mut self) {
        self.service.step();
        self.service.phy.flush().unwrap();
    }

    /// The service learns our address by being asked for its own.
    fn ask_arp(&mut self) {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: OUR_MAC,
            source_protocol_addr: OURS,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: THEIRS,
        };
        let mut frame = ethernet(EthernetProtocol::Arp, arp.buffer_len());
        arp.emit(&mut ArpPacket::new_unchecked(&mut frame[14..]));
        self.send(&frame);
        self.until(|bytes| (bytes[12..14] == [8, 6]).then_some(()));
    }

    /// Works until this holds for the bytes that were taken out of connections, and those that wait in them.
    #[track_caller]
    fn until_bytes(&mut self, hold: impl Fn(usize, usize) -> bool) {
        let began = Clock::now();
        loop {
            let Service {
                sockets,
                connections,
                answered,
                ..
            } = &self.service;
            let waiting = |one: &Connection| sockets.get::<tcp::Socket>(one.socket).recv_queue();
            let waiting = connections.iter().map(waiting).sum();
            if hold(answered.stream_bytes as usize, waiting) {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{waiting} bytes wait"
            );
            self.work();
        }
    }

    fn send_tcp(
        &mut self,
        control: TcpControl,
        seq: u32,
        ack: Option<TcpSeqNumber>,
        window_len: u16,
        payload: &[u8],
    ) {
        let tcp = TcpRepr {
            src_port: 4000,
            dst_port: 7,
            control,
            seq_number: TcpSeqNumber(seq as i32),
            ack_number: ack,
            window_len,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let mut frame = ipv4(IpProtocol::Tcp, tcp.buffer_len());
        let mut packet = TcpPacket::new_unchecked(&mut frame[34..]);
        tcp.emit(
            &mut packet,
            &OURS.into(),
            &THEIRS.into(),
            &ChecksumCapabilities::default(),
        );
        self.send(&frame);
    }

    fn echoes_datagrams(&mut self) {
        let udp = UdpRepr {
            src_port: 5000,
            dst_port: 7,
        };
        let mut frame = ipv4(IpProtocol::Udp, 8 + 5);
        let mut packet = UdpPacket::new_unchecked(&mut frame[34..]);
        let caps = ChecksumCapabilities::default();
        let (from, to) = (OURS.into(), THEIRS.into());
        udp.emit(
            &mut packet,
            &from,
            &to,
            5,
            |bytes| bytes.copy_from_slice(b"hello"),
            &caps,
        );
        self.send(&frame);
        self.until(|bytes| (bytes.get(42..47)? == b"hello").then_some(()));
    }
}

fn ethernet(ethertype: EthernetProtocol, len: usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + len];
    let header = EthernetRepr {
        src_addr: OUR_MAC,
        dst_addr: THEIR_MAC,
        ethertype,
    };
    header.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    frame
}

fn ipv4(next_header: IpProtocol, payload_len: usize) -> Vec<u8> {
    let mut frame = ethernet(EthernetProtocol::Ipv4, 20 + payload_len);
    let header = Ipv4Repr {
        src_addr: OURS,
        dst_addr: THEIRS,
        next_header,
        payload_len,
        hop_limit: 64,
    };
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    header.emit(&mut packet, &ChecksumCapabilities::default());
    frame
}

#[test]
fn the_link_local_address_is_made_of_the_cards() {
    let address = link_local(Mac::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert_eq!(address.to_string(), "fe80::5054:ff:fe12:3456/64");
}

/// The peer lets the service fill both its buffers, makes it take a little out of the one, and sends again before that was
/// said to be possible.
#[test]
fn a_peer_that_sends_more_than_the_window_ends_its_connection_and_not_the_service() {
    let mut peer = Peer::new();
    peer.echoes_datagrams();
    // As it is set up it acknowledges first, and then has nothing to look at.
    for connection in &peer.service.connections {
        let socket = peer
            .service
            .sockets
            .get_mut::<tcp::Socket>(connection.socket);
        socket.set_ack_delay(Some(smoltcp::time::Duration::from_millis(10)));
    }
    let mut seq = 1000;
    let send = |peer: &mut Peer, seq: &mut u32, ack, window, len: usize| {
        peer.send_tcp(TcpControl::None, *seq, ack, window, &vec![7; len]);
        *seq += len as u32;
    };
    peer.send_tcp(TcpControl::Syn, 999, None, 0, &[]);
    let first = peer.until(|bytes| {
        let packet = TcpPacket::new_checked(bytes.get(34..)?).ok()?;
        (packet.syn() && packet.ack()).then(|| packet.seq_number() + 1)
    });
    let ack = Some(first);
    let mut sent = 0;
    while sent < 2 * TCP_BYTES {
        let len = (2 * TCP_BYTES - sent).min(1000);
        send(&mut peer, &mut seq, ack, 0, len);
        sent += len;
        peer.until_bytes(|taken, waiting| taken + waiting == sent);
    }
    peer.until_bytes(|_, waiting| waiting == TCP_BYTES);

    // A thousand bytes come to us, and are acknowledged.
    send(&mut peer, &mut seq, ack, 1000, 0);
    peer.until(|bytes| (bytes.len() > 500).then_some(()));
    let ack = Some(first + 1000);
    send(&mut peer, &mut seq, ack, 0, 0);
    peer.until_bytes(|_, waiting| waiting < TCP_BYTES);
    send(&mut peer, &mut seq, ack, 0, 100);
    // It is there before the stack is asked to work, and so before the window opens.
    let by = vdpa::Deadline::after(Duration::from_secs(20));
    while !peer.service.phy.wait(by).unwrap() {
        assert!(!by.expired(), "it does not arrive");
    }
    peer.work();
    assert_eq!(peer.service.answered().connections, 1);
    assert_eq!(peer.service.answered().broken, 1);
    peer.echoes_datagrams();
}
