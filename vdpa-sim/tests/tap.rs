//! A tap interface as a port: the kernel's stack at the other end, in a network namespace of the test's own.

mod netns;
mod rig;

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use etherparse::{
    NetHeaders, NetSlice, PacketBuilder, PacketHeaders, SlicedPacket, TransportHeader,
    TransportSlice,
};
use netns::{ip, within};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use rig::*;
use vdpa_core::bits::net;
use vdpa_core::config::net::NetStatus;
use vdpa_core::{Attr, ErrorKind, Event, LinkState, MgmtDevice};
use vdpa_sim::offload::{self, Header, Sum};

/// The driver's addresses, and its port.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 7];
const ADDRESS: [u8; 4] = [10, 77, 0, 2];
const PORT: u16 = 7000;

const SPEC: &str = "sim:net,mac=52:54:00:00:00:07,port=tap:tap0";

/// Gives the kernel's side an address, and tells it where the driver's is.
fn address() {
    ip("addr add 10.77.0.1/24 dev tap0");
    ip("link set tap0 up");
    ip("neigh add 10.77.0.2 lladdr 52:54:00:00:00:07 dev tap0 nud permanent");
}

fn has_carrier() -> bool {
    ip("-o link show tap0").contains("LOWER_UP")
}

fn kernel_mac() -> [u8; 6] {
    let said = ip("-o link show tap0");
    let text = said.split_once("link/ether ").unwrap().1;
    let mut mac = [0; 6];
    for (byte, hex) in mac.iter_mut().zip(text[..17].split(':')) {
        *byte = u8::from_str_radix(hex, 16).unwrap();
    }
    mac
}

/// A datagram from the driver to port `to` of the kernel.
fn datagram(to: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(MAC, kernel_mac())
        .ipv4(ADDRESS, [10, 77, 0, 1], 64)
        .udp(PORT, to);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

/// The source ports and payloads of the datagrams for the driver among these frames: the kernel has more to say.
fn datagrams(frames: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
    let ours = |frame: &Vec<u8>| {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (Some(NetSlice::Ipv4(v4)), Some(TransportSlice::Udp(udp))) =
            (packet.net, packet.transport)
        else {
            return None;
        };
        assert_eq!(frame[..6], MAC);
        assert_eq!(v4.header().destination(), ADDRESS);
        Some((udp.source_port(), udp.payload().to_vec()))
    };
    frames.iter().filter_map(ours).collect()
}

/// Whether the checksums of a datagram are right, in the frame as it is.
fn is_finished(frame: &[u8]) -> bool {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let (Some(NetHeaders::Ipv4(v4, _)), Some(TransportHeader::Udp(udp))) =
        (packet.net, packet.transport)
    else {
        panic!("no datagram");
    };
    let sum = udp.calc_checksum_ipv4(&v4, packet.payload.slice()).unwrap();
    v4.calc_header_checksum() == v4.header_checksum && sum == udp.checksum
}

fn card(rig: Rig) -> Card {
    let features = with(&rig, false, true, true, false);
    Card::new(rig, features, 128, 2048)
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
    socket
        .connect((ADDRESS.map(u8::into), PORT).into_addr())
        .unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

trait IntoAddr {
    fn into_addr(self) -> (std::net::Ipv4Addr, u16);
}

impl IntoAddr for ([u8; 4], u16) {
    fn into_addr(self) -> (std::net::Ipv4Addr, u16) {
        (self.0.into(), self.1)
    }
}

/// Datagrams both ways, of many lengths, one after the other, so that the device falls asleep in between now and then.
fn talk(card: &mut Card, socket: &UdpSocket, count: usize) {
    let port = socket.local_addr().unwrap().port();
    let payload = |i: usize| -> Vec<u8> { (0..(i * 37) % 1473).map(|at| (i + at) as u8).collect() };
    let before = datagrams(&card.rx.got).len();
    for i in 0..count {
        socket.send(&payload(i)).unwrap();
        until("arrival at the driver", || {
            card.rx.poll();
            datagrams(&card.rx.got).len() > before
        });
        assert_eq!(datagrams(&card.rx.got).pop(), Some((port, payload(i))));
        let last = card
            .rx
            .got
            .iter()
            .rfind(|frame| !datagrams(std::slice::from_ref(*frame)).is_empty());
        assert!(
            is_finished(last.unwrap()),
            "the kernel left its checksum to the tap"
        );
        card.rx.got.clear();
        card.send_all(&[datagram(port, &payload(i))]);
        let mut bytes = [0; 2000];
        let len = socket.recv(&mut bytes).unwrap();
        assert_eq!(bytes[..len], payload(i)[..]);
        if i % 8 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn datagrams_go_both_ways_between_the_driver_and_the_kernel() {
    within(
        "tap::datagrams_go_both_ways_between_the_driver_and_the_kernel",
        || {
            let lab = Lab::new();
            let rig = lab.open(SPEC);
            address();
            assert!(!has_carrier(), "the driver is not ready");
            let socket = socket();
            // Nobody is there to take it.
            socket.send(b"early").unwrap();
            let mut card = card(rig);
            until("the carrier", has_carrier);
            talk(&mut card, &socket, 100);
            let name = card.rig.device.info().name.clone();
            lab.sim.dev_set(&name, Attr::Link(LinkState::Down)).unwrap();
            assert!(!has_carrier());
            lab.sim.dev_set(&name, Attr::Link(LinkState::Up)).unwrap();
            until("the carrier", has_carrier);
            talk(&mut card, &socket, 20);
            card.rig.reset();
            assert!(!has_carrier());
            // It goes with the device.
            card.rig.close();
            assert!(!ip("link").contains("tap0"));
        },
    );
}

/// How many datagrams of the kernel come to each pair, of 200 from sockets of their own.
fn spread(rx: &mut [Rx]) -> Vec<usize> {
    let sockets: Vec<_> = (0..200).map(|_| socket()).collect();
    for (i, socket) in sockets.iter().enumerate() {
        socket.send(&[i as u8; 100]).unwrap();
    }
    let mut counts = vec![0; rx.len()];
    until("all datagrams", || {
        for (rx, count) in rx.iter_mut().zip(&mut counts) {
            rx.poll();
            *count += datagrams(&rx.got).len();
            rx.got.clear();
        }
        counts.iter().sum::<usize>() == sockets.len()
    });
    counts
}

#[test]
fn each_pair_in_use_has_a_queue_and_the_kernel_uses_no_other() {
    within(
        "tap::each_pair_in_use_has_a_queue_and_the_kernel_uses_no_other",
        || {
            ip("tuntap add dev tap0 mode tap multi_queue");
            let lab = Lab::new();
            let rig = lab.open(&format!("{SPEC},queue_pairs=4,workers=2"));
            address();
            rig.negotiate(with(&rig, false, true, true, false).with(net::MQ));
            let mut rx: Vec<_> = (0..4)
                .map(|pair| Rx::new(&rig, rig.queue(2 * pair, 256), 2048))
                .collect();
            let mut tx: Vec<_> = (0..4)
                .map(|pair| Tx::new(&rig, rig.queue(2 * pair + 1, 64), 2048))
                .collect();
            let mut ctrl = Ctrl::new(&rig, rig.queue(8, 16));
            rx.iter_mut().for_each(|rx| rx.post(256));
            rig.run();
            until("the carrier", has_carrier);
            assert_eq!(spread(&mut rx), [200, 0, 0, 0]);
            for (pairs, used) in [(4, 4), (2, 2), (3, 3), (1, 1), (4, 4)] {
                assert_eq!(ctrl.command(&[4, 0, pairs, 0]), 0);
                let counts = spread(&mut rx);
                let (on, off) = counts.split_at(used);
                assert!(on.iter().all(|count| *count > 0), "{counts:?}");
                assert!(off.iter().all(|count| *count == 0), "{counts:?}");
            }
            // Each pair sends; a flow that the driver sent on a pair comes back on it.
            let socket = socket();
            let port = socket.local_addr().unwrap().port();
            for (i, tx) in tx.iter_mut().enumerate() {
                until("sending", || {
                    tx.send(&[datagram(port, &[i as u8; 30])]) == 1
                });
                let mut bytes = [0; 100];
                assert_eq!(socket.recv(&mut bytes).unwrap(), 30);
                assert_eq!(bytes[..30], [i as u8; 30]);
                // The kernel notes the queue after it has passed the datagram on: the first answer may be too early.
                until("the answer", || {
                    socket.send(&[i as u8; 4]).unwrap();
                    rx[i].poll();
                    let got = datagrams(&rx[i].got);
                    got.iter().any(|(_, payload)| *payload == [i as u8; 4])
                });
            }
            rig.close();
            assert!(ip("link").contains("tap0"), "it was there before");
        },
    );
}

#[test]
fn a_tap_that_is_there_is_used_as_it_was_made() {
    within("tap::a_tap_that_is_there_is_used_as_it_was_made", || {
        for kind in ["", " multi_queue", " vnet_hdr"] {
            ip(&format!("tuntap add dev tap0 mode tap{kind}"));
            let lab = Lab::new();
            for _ in 0..2 {
                let mut card = card(lab.open(SPEC));
                if !ip("addr").contains("10.77.0.1") {
                    address();
                }
                talk(&mut card, &socket(), 10);
                card.rig.close();
            }
            ip("link del tap0");
        }
    });
}

#[test]
fn an_interface_that_is_down_discards_and_goes_on_when_it_is_up() {
    within(
        "tap::an_interface_that_is_down_discards_and_goes_on_when_it_is_up",
        || {
            let mut card = card(Lab::new().open(SPEC));
            address();
            talk(&mut card, &socket(), 5);
            let port = socket().local_addr().unwrap().port();
            let late = datagram(port, b"late");
            ip("link set tap0 down");
            let dropped = |card: &Card| {
                card.rig.stat("port.dropped.tx_down") + card.rig.stat("queue1.dropped.tx_no_peer")
            };
            let before = dropped(&card);
            for _ in 0..100 {
                card.send_all(std::slice::from_ref(&late));
            }
            until("discarding", || dropped(&card) - before == 100);
            ip("link set tap0 up");
            // The interface forgot it.
            ip("neigh replace 10.77.0.2 lladdr 52:54:00:00:00:07 dev tap0 nud permanent");
            talk(&mut card, &socket(), 5);
        },
    );
}

/// Ten datagrams of a thousand bytes that the kernel is given as one, and cuts where nobody else does.
fn burst(socket: &UdpSocket) -> Vec<u8> {
    setsockopt(socket, UdpGsoSegment, &1000).unwrap();
    let burst: Vec<u8> = (0..10_000).map(|at| (at / 7) as u8).collect();
    assert_eq!(socket.send(&burst).unwrap(), burst.len());
    burst
}

#[test]
fn what_the_kernel_leaves_undone_is_done_for_a_driver_that_does_not_take_it_so() {
    within(
        "tap::what_the_kernel_leaves_undone_is_done_for_a_driver_that_does_not_take_it_so",
        || {
            let mut card = card(Lab::new().open(SPEC));
            address();
            let socket = socket();
            for _ in 0..20 {
                let sent = burst(&socket);
                until("all datagrams", || {
                    card.rx.poll();
                    datagrams(&card.rx.got).len() == 10
                });
                let got = std::mem::take(&mut card.rx.got);
                let port = socket.local_addr().unwrap().port();
                let expected = sent.chunks(1000).map(|part| (port, part.to_vec()));
                assert!(datagrams(&got).into_iter().eq(expected));
                let ours = got
                    .iter()
                    .filter(|f| !datagrams(std::slice::from_ref(*f)).is_empty());
                assert!(ours.clone().all(|frame| is_finished(frame)));
            }
            // From Linux 6.2 on they come whole, and are cut here.
            println!("segmented: {}", card.rig.stat("queue0.segmented"));
        },
    );
}

#[test]
fn what_is_left_undone_passes_both_ways_for_a_driver_that_takes_it_so() {
    within(
        "tap::what_is_left_undone_passes_both_ways_for_a_driver_that_takes_it_so",
        || {
            let rig = Lab::new().open(SPEC);
            let features = with(&rig, true, true, true, false)
                | (rig.device.offered() & (offload::TRANSMIT | offload::RECEIVE));
            // Without the first, packets of the kernel come in segments, but with partial checksums.
            let mut card = Card::new(rig, features, 64, 65_600);
            address();
            let socket = socket();
            let port = socket.local_addr().unwrap().port();
            socket.send(&[5; 500]).unwrap();
            let sent = burst(&socket);
            let mut bytes = 0;
            until("all bytes", || {
                card.rx.poll();
                let got = datagrams(&card.rx.got);
                bytes = got.iter().map(|(_, payload)| payload.len()).sum();
                bytes == 10_500
            });
            let mut whole = 0;
            for (header, frame) in card.rx.headers.iter().zip(&card.rx.got) {
                if datagrams(std::slice::from_ref(frame)).is_empty() {
                    continue;
                }
                let header = Header::of(header);
                assert!(
                    header.needs_csum(),
                    "a checksum that nobody needed was computed"
                );
                assert_eq!((header.csum_start, header.csum_offset), (34, 6));
                if header.is_gso() {
                    assert_eq!((header.gso(), header.gso_size), (Header::GSO_UDP_L4, 1000));
                    assert!(frame.ends_with(&sent));
                    whole += 1;
                }
            }
            println!("whole: {whole}");
            // And the other way: the kernel cuts, and completes.
            let mut large = datagram(port, &sent);
            let partial = |frame: &mut Vec<u8>, gso_type: u8| {
                // The sum of the pseudo header, as a driver leaves it there.
                let len = (frame.len() - 34) as u16;
                let sum = Sum::of(&frame[26..34]).and_word(17).and_word(len);
                frame[40..42].copy_from_slice(&sum.fold().to_be_bytes());
                let header = Header {
                    flags: Header::NEEDS_CSUM,
                    gso_type,
                    hdr_len: 42,
                    gso_size: 1000,
                    csum_start: 34,
                    csum_offset: 6,
                };
                let mut bytes = [0; HEADER];
                header.put(&mut bytes);
                bytes
            };
            let header = partial(&mut large, Header::GSO_UDP_L4);
            assert_eq!(
                card.tx.send_with([(header, large.as_slice())].into_iter()),
                1
            );
            let mut some = [0; 2000];
            for part in sent.chunks(1000) {
                let len = socket.recv(&mut some).unwrap();
                assert_eq!(some[..len], *part);
            }
            let mut small = datagram(port, b"partial");
            let header = partial(&mut small, Header::GSO_NONE);
            assert_eq!(
                card.tx.send_with([(header, small.as_slice())].into_iter()),
                1
            );
            let len = socket.recv(&mut some).unwrap();
            assert_eq!(some[..len], *b"partial");
            assert_eq!(card.rig.stat("port.dropped.tx_refused"), 0);
        },
    );
}

/// CPU time of the device's worker so far.
fn worker_time() -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let dir = task.unwrap().path();
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        if read("comm").trim() == "sim0-0" {
            let stat = read("stat");
            let fields: Vec<_> = stat
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .collect();
            ticks += [11, 12]
                .map(|i| fields[i].parse::<u64>().unwrap())
                .iter()
                .sum::<u64>();
        }
    }
    Duration::from_millis(ticks * 10)
}

#[test]
fn an_interface_removed_under_a_device_takes_its_link_down_and_nothing_spins() {
    within(
        "tap::an_interface_removed_under_a_device_takes_its_link_down_and_nothing_spins",
        || {
            let lab = Lab::new();
            let rig = lab.open(SPEC);
            let events = rig.device.events().unwrap();
            let mut card = card(rig);
            address();
            let socket = socket();
            talk(&mut card, &socket, 5);
            let port = socket.local_addr().unwrap().port();
            let late = datagram(port, b"late");
            let generation = card.rig.device.config_generation().unwrap();
            // Nothing is under way: the device is told by the kernel alone.
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(events.try_next(), None);
            ip("link del tap0");
            let mut told = None;
            until("the event", || {
                told = events.try_next();
                told.is_some()
            });
            assert_eq!(told, Some(Event::Config));
            let up = |card: &Card| card.rig.config().status().contains(NetStatus::LINK_UP);
            assert!(!up(&card));
            assert_ne!(card.rig.device.config_generation().unwrap(), generation);
            for _ in 0..100 {
                card.send_all(std::slice::from_ref(&late));
            }
            until("discarding", || {
                card.rig.stat("queue1.dropped.tx_link_down") == 100
            });
            let (begun, before) = (Instant::now(), worker_time());
            std::thread::sleep(Duration::from_millis(500));
            let spent = worker_time() - before;
            assert!(
                spent <= Duration::from_millis(100),
                "{spent:?} of {:?}",
                begun.elapsed()
            );
            assert_eq!(events.try_next(), None, "told once");
            // Nobody can link it up again, and it can be reset and closed as ever.
            let name = card.rig.device.info().name.clone();
            lab.sim.dev_set(&name, Attr::Link(LinkState::Up)).unwrap();
            until("the link's going down again", || !up(&card));
            card.rig.reset();
            card.rig.close();
        },
    );
}

#[test]
fn what_is_no_tap_of_ours_is_refused_by_name_with_the_way_out() {
    within(
        "tap::what_is_no_tap_of_ours_is_refused_by_name_with_the_way_out",
        || {
            let lab = Lab::new();
            let refused = |spec: &str| {
                let error = lab.registry.open(spec).unwrap_err();
                (error.kind(), error.to_string())
            };
            let (kind, why) = refused("sim:net,port=tap:lo");
            assert_eq!(kind, ErrorKind::Misuse);
            assert!(
                why.contains("lo is an interface already, and no tap"),
                "{why}"
            );
            ip("tuntap add dev tun0 mode tun");
            assert!(refused("sim:net,port=tap:tun0").1.contains("no tap"));
            ip("tuntap add dev tap1 mode tap");
            let (kind, why) = refused("sim:net,port=tap:tap1,queue_pairs=2");
            assert_eq!(kind, ErrorKind::Misuse);
            assert!(
                why.contains("single queue") && why.contains("multi_queue"),
                "{why}"
            );
            let _first = lab.open("sim:net,port=tap:tap1");
            let (kind, why) = refused("sim:net,port=tap:tap1");
            assert_eq!(kind, ErrorKind::Busy);
            assert!(why.contains("tap1 is in use"), "{why}");
            assert!(
                refused("sim:net,port=tap:tap1,queue_pairs=2")
                    .1
                    .contains("single queue")
            );
            // No more than the one.
            assert_eq!(lab.sim.devices().len(), 1);
        },
    );
}

#[test]
fn without_the_capability_the_way_out_is_named() {
    const CHILD: &str = "VDPA_TEST_TAP_CHILD";
    const NAME: &str = "without_the_capability_the_way_out_is_named";
    if std::env::var_os(CHILD).is_some() {
        let error = Lab::new()
            .registry
            .open("sim:net,port=tap:tap0,queue_pairs=2")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let why = error.to_string();
        for part in [
            "CAP_NET_ADMIN",
            "ip tuntap add dev tap0 mode tap multi_queue user",
        ] {
            assert!(why.contains(part), "{why}");
        }
        println!("the child ran");
        return;
    }
    within(&format!("tap::{NAME}"), || {
        let child = Command::new("setpriv")
            .arg("--bounding-set=-net_admin")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("the child ran"),
            "{said}"
        );
    });
}

#[test]
fn without_the_tun_driver_the_way_out_is_named() {
    const NAME: &str = "tap::without_the_tun_driver_the_way_out_is_named";
    within(NAME, || {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};

        if let Err(e) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("SKIP {NAME}: no mount namespace: {e}");
            return;
        }
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).unwrap();
        let tmpfs = Some("tmpfs");
        mount(tmpfs, "/dev/net", tmpfs, MsFlags::empty(), none).unwrap();
        let lab = Lab::new();
        let error = lab.registry.open("sim:net,port=tap:tap0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let why = error.to_string();
        for part in ["tap:tap0", "/dev/net/tun", "modprobe tun"] {
            assert!(why.contains(part), "{why}");
        }
        assert!(lab.sim.devices().is_empty());
    });
}
