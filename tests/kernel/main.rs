//! The kernel's own stack against `vdpactl echo`: through a tap, a simulated card, and our driver, whose stack is not ours.
//!
//! ```text
//!   ping, TcpStream, UdpSocket ─ kernel ─ tap0 ─ sim:net ─ virtqueues ─ NetDriver ─ smoltcp ─ vdpactl echo
//! ```
//! Everything in a network namespace that the test makes for itself.
#![cfg(feature = "cli")]

mod bridge;
mod datagrams;
mod host;
#[path = "../../vdpa-sim/tests/netns/mod.rs"]
mod netns;
mod ping;
mod responder;
mod streams;

use host::{ADDRESS_V4, ADDRESS_V6};
use netns::{ip, within};
use responder::Responder;

/// How a responder is set up.
#[derive(Clone, Copy)]
struct Setup {
    ring: &'static str,
    pairs: u16,
    offloads: bool,
}

/// Source ports of the flows: with these every one of four pairs has some.
const FLOWS: u16 = 8;

fn answered_in_full(name: &'static str, setup: Setup) {
    within(name, move || {
        if !ping::is_installed(name) {
            return;
        }
        let Setup {
            ring,
            pairs,
            offloads,
        } = setup;
        let spec = format!("sim:net,port=tap:tap0,queue_pairs={pairs},mac=52:54:00:00:00:07");
        let pairs_text = pairs.to_string();
        let mut words = vec!["--ring", ring, "--pairs", &pairs_text];
        if !offloads {
            words.push("--no-offloads");
        }
        let responder = Responder::start(&spec, &words);
        host::address("tap0");
        host::has_carrier("tap0");

        for size in [56, 1400] {
            ping::answers(ADDRESS_V4, size, 20);
        }
        ping::answers_in_fragments(ADDRESS_V4, 6000, 5);
        ping::answers(ADDRESS_V6, 1400, 20);
        ping::all_answered();
        streams::come_back(ADDRESS_V4, 20_000, FLOWS, 2 << 20);
        streams::come_back(ADDRESS_V6, 21_000, 1, 4 << 20);
        datagrams::come_back(ADDRESS_V4, 22_000, FLOWS, 600);
        datagrams::come_back(ADDRESS_V6, 23_000, FLOWS, 600);
        datagrams::come_back_in_fragments(ADDRESS_V4, 20);

        // What the kernel has checked was right.
        host::no_wrong_checksums();
        let totals = responder.stop();
        totals.are_without_loss();
        for way in ["received", "sent"] {
            for kind in ["large", "partial"] {
                let count = totals.number(way, kind);
                assert_eq!(count > 0, offloads, "{way} {kind}: {count}");
            }
            for pair in 0..pairs {
                assert!(totals.frames(pair, way) > 0, "pair {pair} {way} nothing");
            }
        }
    });
}

macro_rules! answered_in_full {
    ($($name:ident: $ring:literal, $pairs:literal, $offloads:literal;)*) => {$(
        #[test]
        fn $name() {
            let (ring, pairs, offloads) = ($ring, $pairs, $offloads);
            answered_in_full(stringify!($name), Setup { ring, pairs, offloads });
        }
    )*};
}

answered_in_full! {
    split_rings_one_pair_with_offloads: "split", 1, true;
    split_rings_one_pair_without_offloads: "split", 1, false;
    split_rings_four_pairs_with_offloads: "split", 4, true;
    split_rings_four_pairs_without_offloads: "split", 4, false;
    packed_rings_one_pair_with_offloads: "packed", 1, true;
    packed_rings_one_pair_without_offloads: "packed", 1, false;
    packed_rings_four_pairs_with_offloads: "packed", 4, true;
    packed_rings_four_pairs_without_offloads: "packed", 4, false;
}

#[test]
fn two_kernels_talk_through_two_cards_and_keep_large_packets_large() {
    within(
        "two_kernels_talk_through_two_cards_and_keep_large_packets_large",
        || bridge::carries(16 << 20),
    );
}

#[test]
fn the_interface_that_goes_ends_nothing_badly() {
    within("the_interface_that_goes_ends_nothing_badly", || {
        ip("tuntap add dev tap0 mode tap");
        let responder = Responder::start("sim:net,port=tap:tap0,mac=52:54:00:00:00:07", &[]);
        host::address("tap0");
        host::has_carrier("tap0");
        ip("link set tap0 down");
        std::thread::sleep(std::time::Duration::from_millis(100));
        ip("link set tap0 up");
        responder.stop();
    });
}
