//! DPDK's virtio-user driver, in every ring mode, in front of devices that are served to it.

mod course;
mod frames;
mod modes;
pub(crate) mod served;
mod testpmd;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use course::{Course, DRIVERS};
use modes::{
    Mode, PACKED, PACKED_IN_ORDER, PACKED_IN_ORDER_MERGEABLE, PACKED_MERGEABLE, PACKED_VECTORISED,
    PACKED_VECTORISED_MERGEABLE, SPLIT, SPLIT_IN_ORDER, SPLIT_IN_ORDER_MERGEABLE, SPLIT_MERGEABLE,
    SPLIT_VECTORISED,
};
use served::{Makes, Served, net_vhost};
use tempfile::TempDir;
use testpmd::{Setup, Testpmd, number};
use vdpa::Deadline;
use vdpa::net::Ring;

use crate::harness::{BackEnd, PATIENCE};
use crate::station::{Station, talk};

/// Runs one test of these at a time, since each keeps all processors busy, if its program is there.
fn alone(name: &str, test: impl FnOnce(&Path)) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one: MutexGuard<'_, ()> = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if testpmd::is_installed(name) {
        let home = TempDir::with_prefix("dpdk.").unwrap();
        test(home.path());
    }
}

/// Not of ours at all: what fails here is a fault of these tests, or of the machine.
#[test]
fn its_own_back_end_carries_frames() {
    alone("dpdk::its_own_back_end_carries_frames", |home| {
        let back_end = net_vhost(home, 2);
        let mut course = Course::begin(PACKED_MERGEABLE, 2, home, Makes::BackEnd);
        course.go();
        course.arrives();
        course.testpmd.quit();
        back_end.quit();
    });
}

/// The same back end under our own driver, in both ring formats, one after the other on the same sockets.
#[test]
fn its_back_end_carries_frames_of_our_driver() {
    alone("dpdk::its_back_end_carries_frames_of_our_driver", |home| {
        let back_end = net_vhost(home, 1);
        let [one, other] = served::sockets(home);
        for rings in [
            [Ring::Split, Ring::Split],
            [Ring::Packed, Ring::Packed],
            [Ring::Packed, Ring::Split],
        ] {
            let mut one = Station::new(1, &one, rings[0], false);
            let mut other = Station::new(2, &other, rings[1], false);
            talk(&mut one, &mut other);
        }
        back_end.quit();
    });
}

/// Frames go through two cards of ours on a wire.
fn carries(name: &str, mode: Mode, pairs: u16) {
    if mode.packed && mode.vectorised && !testpmd::has_avx512() {
        println!("SKIP {name}: no AVX-512: this processor has no packed vectorised path in DPDK");
        return;
    }
    alone(name, |home| {
        let mut served = Served::wired(home, pairs, Makes::BackEnd);
        let mut course = Course::begin(mode, pairs, home, Makes::BackEnd);
        served.has_on(pairs);
        course.go();
        course.arrives();
        course.testpmd.quit();
        served.stop();
    });
}

macro_rules! carries {
    ($($name:ident: $mode:ident, $pairs:literal;)*) => {$(
        #[test]
        fn $name() {
            carries(concat!("dpdk::", stringify!($name)), $mode, $pairs);
        }
    )*};
}

carries! {
    split_one_pair: SPLIT, 1;
    split_two_pairs: SPLIT, 2;
    split_mergeable: SPLIT_MERGEABLE, 2;
    split_in_order: SPLIT_IN_ORDER, 2;
    split_in_order_mergeable: SPLIT_IN_ORDER_MERGEABLE, 1;
    split_vectorised: SPLIT_VECTORISED, 2;
    packed: PACKED, 2;
    packed_mergeable_one_pair: PACKED_MERGEABLE, 1;
    packed_mergeable_two_pairs: PACKED_MERGEABLE, 2;
    packed_in_order: PACKED_IN_ORDER, 1;
    packed_in_order_mergeable: PACKED_IN_ORDER_MERGEABLE, 2;
    packed_vectorised_one_pair: PACKED_VECTORISED, 1;
    packed_vectorised_two_pairs: PACKED_VECTORISED, 2;
    packed_vectorised_mergeable: PACKED_VECTORISED_MERGEABLE, 2;
}

/// The address of the driver's port.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0x0d, 7];
/// Frames that go round.
const ROUND: usize = 4000;

/// A card receives what is in a capture, and its driver, which is DPDK's, sends that back, readdressed as it says.
fn goes_round(name: &str, mode: Mode, forwarding: &str, becomes: impl Fn(&[u8]) -> Vec<u8>) {
    alone(name, |home| {
        let sent = frames::frames(1, ROUND);
        let [from, to, socket] = ["in", "out", "socket"].map(|name| home.join(name));
        frames::write(&from, &sent);
        let spec = format!("sim:net,port=pcap:{}:{}", from.display(), to.display());
        let mut back_end = BackEnd::start(&spec, &socket, &["--stats", "0.1"]);
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        let mut testpmd = Testpmd::start(&Setup {
            cores: 1,
            devices: vec![format!(
                "net_virtio_user0,path={},mac={mac},queue_size=1024,{}",
                socket.display(),
                mode.options()
            )],
            pairs: 1,
            words: vec!["--port-topology=loop".to_owned()],
        });
        mode.is_taken(0, &testpmd.log());
        testpmd.forward(forwarding);
        testpmd.ask_until("show port stats 0", |stats| {
            number(stats, "TX-packets:") >= ROUND as u64
        });
        // What the driver has sent the device may not have taken yet.
        let by = Deadline::after(PATIENCE);
        while back_end.event("statistics")["counters"]["queue1.packets"].as_u64()
            < Some(ROUND as u64)
        {
            assert!(!by.expired(), "not all that was sent was taken");
        }
        testpmd.quit();
        // Its capture is whole when it has ended.
        back_end.stop();
        let became: Vec<_> = sent.iter().map(|frame| becomes(frame)).collect();
        frames::same(
            &format!("{mode:?}, {forwarding}"),
            &frames::read(&to),
            &became,
        );
    });
}

#[test]
fn what_is_received_is_sent_back_as_it_is() {
    let name = "dpdk::what_is_received_is_sent_back_as_it_is";
    goes_round(name, SPLIT_MERGEABLE, "io", <[u8]>::to_vec);
}

#[test]
fn what_is_received_is_sent_back_with_its_addresses_swapped() {
    let name = "dpdk::what_is_received_is_sent_back_with_its_addresses_swapped";
    for mode in [SPLIT_IN_ORDER, PACKED] {
        goes_round(name, mode, "macswap", frames::swapped);
    }
}

#[test]
fn what_is_received_is_sent_on_from_the_port_to_its_peer() {
    let name = "dpdk::what_is_received_is_sent_on_from_the_port_to_its_peer";
    goes_round(name, PACKED_IN_ORDER_MERGEABLE, "mac", |frame| {
        frames::readdressed(frame, MAC, 0)
    });
}

#[test]
fn ports_are_stopped_and_started() {
    let name = "dpdk::ports_are_stopped_and_started";
    for mode in [SPLIT_MERGEABLE, PACKED_MERGEABLE] {
        alone(name, |home| {
            let mut served = Served::wired(home, 2, Makes::BackEnd);
            let mut course = Course::begin(mode, 2, home, Makes::BackEnd);
            served.has_on(2);
            for _ in 0..3 {
                course.go();
                course.arrives();
                course.again();
            }
            // And in the middle of it.
            course.go();
            course.comes(100);
            course.again();
            // What waited on the wire comes first, so this is not compared.
            course.go();
            course.comes(2000);
            course.testpmd.quit();
            served.stop();
        });
    }
}

/// Its driver stops its rings, and says nothing of the reset that is between them and the next ones.
#[test]
fn other_features_are_negotiated_and_frames_pass_as_before() {
    let name = "dpdk::other_features_are_negotiated_and_frames_pass_as_before";
    for mode in [SPLIT_MERGEABLE, PACKED_MERGEABLE] {
        alone(name, |home| {
            let mut served = Served::wired(home, 2, Makes::BackEnd);
            let mut course = Course::begin(mode, 2, home, Makes::BackEnd);
            served.has_on(2);
            let mut anew = |course: &mut Course, checksums| {
                course.anew(checksums);
                served.has_on(2);
            };
            for checksums in [true, false] {
                course.go();
                course.arrives();
                anew(&mut course, checksums);
            }
            // And in the middle of it.
            course.go();
            course.comes(100);
            anew(&mut course, true);
            // What was sent before may come first, so this is not compared.
            course.go();
            course.comes(2000);
            course.testpmd.quit();
            served.stop();
        });
    }
}

#[test]
fn the_driver_is_killed_and_another_takes_its_place() {
    alone(
        "dpdk::the_driver_is_killed_and_another_takes_its_place",
        |home| {
            let mut served = Served::wired(home, 2, Makes::BackEnd);
            // Each finds the devices as if nobody had been there.
            for mode in [SPLIT, PACKED_MERGEABLE, SPLIT_IN_ORDER] {
                let mut course = Course::begin(mode, 2, home, Makes::BackEnd);
                served.has_on(2);
                course.go();
                course.comes(100);
                course.testpmd.kill();
                let mut course = Course::begin(mode, 2, home, Makes::BackEnd);
                served.has_on(2);
                course.go();
                course.arrives();
                course.testpmd.quit();
            }
            served.stop();
        },
    );
}

/// Here the driver makes the sockets, and says what it sees of its devices. That frames pass again afterwards is not shown.
#[test]
fn the_link_goes_and_comes_with_the_devices() {
    alone("dpdk::the_link_goes_and_comes_with_the_devices", |home| {
        let mut served = Served::wired(home, 2, Makes::FrontEnd);
        let mut course = Course::begin(SPLIT_MERGEABLE, 2, home, Makes::FrontEnd);
        served.has_on(2);
        course.go();
        course.arrives();
        served.kill();
        for port in DRIVERS {
            course.testpmd.link_is(port, "down");
        }
        let served = Served::wired(home, 2, Makes::FrontEnd);
        for port in DRIVERS {
            course.testpmd.link_is(port, "up");
        }
        course.testpmd.kill();
        served.kill();
    });
}
