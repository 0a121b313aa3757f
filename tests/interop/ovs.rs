//! Devices of ours on one bridge of Open vSwitch, in user space, with DPDK.
//!
//! ```text
//!   test ─ NetDriver ─ vhost-user ─ card ══ wire ══ card ─ vhost-user ─ virtio-user ─ port ┐
//!                      └────── vdpactl serve ─────┘                                        ├─ bridge
//!   test ─ NetDriver ─ vhost-user ───────────────── dpdkvhostuserclient ─────────── port ┘
//! ```
//! At the upper ports the switch is the front end, and a card is served to it; at the lower ones it is the back end.

mod switch;

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use vdpa::Deadline;
use vdpa::net::{NetDriver, Ring, Setup};

use crate::dpdk::served::{Makes, Served};
use crate::harness::PATIENCE;
use crate::netns::within;
use switch::Switch;

/// Frames that are under way at a time: fewer than any queue between has room for, since a switch drops what it has no
/// room for.
const WINDOW: usize = 100;
/// Windows in each direction.
const WINDOWS: usize = 20;

/// A station at the bridge.
struct Station {
    address: u8,
    driver: NetDriver,
}

impl Station {
    /// Drives what is behind a socket.
    #[track_caller]
    fn new(address: u8, path: &Path, ring: Ring, server: bool) -> Self {
        let server = if server { "on,timeout=100" } else { "off" };
        let spec = format!("vhost-user:{},type=net,server={server}", path.display());
        let device = vdpa::open(&spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
        let setup = Setup {
            ring,
            ..Setup::default()
        };
        Self {
            address,
            driver: NetDriver::start(device, &setup).unwrap(),
        }
    }

    /// The frame of this number to another station, of a length that depends on it.
    fn frame(&self, to: &Self, number: u32) -> Vec<u8> {
        let address = |last| [0x52, 0x54, 0, 0, 0x0b, last];
        let mut bytes = [
            &address(to.address)[..],
            &address(self.address),
            &[0x88, 0xb5],
        ]
        .concat();
        bytes.extend(number.to_be_bytes());
        let len = 60 + (number as usize * 97) % 1455;
        bytes.extend(
            (bytes.len()..len).map(|at| (at as u32).wrapping_mul(number | 1).to_le_bytes()[1]),
        );
        bytes
    }

    #[track_caller]
    fn send(&mut self, frames: &[Vec<u8>]) {
        let by = Deadline::after(PATIENCE);
        let mut sent = 0;
        while sent < frames.len() {
            sent += self.driver.send(0, &frames[sent..]).unwrap();
            assert!(
                !by.expired(),
                "{sent} of {} frames could be sent",
                frames.len()
            );
        }
    }

    /// What has arrived from this station after at most this time.
    fn receive(&mut self, from: u8, within: Duration) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        if self.driver.wait(0, Deadline::after(within)).unwrap() {
            let mut each = Vec::new();
            let receive = self.driver.receive(0, |frame| {
                frame.copy_to(&mut each);
                got.push(each.clone());
            });
            receive.unwrap();
        }
        // Not what the bridge's own interface says to all.
        got.retain(|frame| frame.get(6..12) == Some(&[0x52, 0x54, 0, 0, 0x0b, from]));
        got
    }
}

/// Each learns of the other, and then all that one sends arrives at the other, in its order, and nothing else.
#[track_caller]
fn talk(one: &mut Station, other: &mut Station) {
    meet(one, other);
    meet(other, one);
    // What was asked for more than once may still be under way: it ends before the last window's first frame.
    for window in 0..WINDOWS {
        pass(one, other, window);
        pass(other, one, window);
    }
}

/// The number of frames that only ask whether the way is open.
const HELLO: u32 = 0;

/// One sends until it is heard: ports of a bridge come up one after the other.
#[track_caller]
fn meet(one: &mut Station, other: &mut Station) {
    let by = Deadline::after(PATIENCE);
    let hello = one.frame(other, HELLO);
    loop {
        one.send(std::slice::from_ref(&hello));
        if other
            .receive(one.address, Duration::from_millis(100))
            .contains(&hello)
        {
            return;
        }
        assert!(
            !by.expired(),
            "{} is not heard by {}",
            one.address,
            other.address
        );
    }
}

#[track_caller]
fn pass(one: &mut Station, other: &mut Station, window: usize) {
    let by = Deadline::after(PATIENCE);
    let first = 1 + (window * WINDOW) as u32;
    let sent: Vec<_> = (first..)
        .take(WINDOW)
        .map(|number| one.frame(other, number))
        .collect();
    one.send(&sent);
    let hello = one.frame(other, HELLO);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let came = other.receive(one.address, Duration::from_secs(1));
        got.extend(came.into_iter().filter(|frame| *frame != hello));
        assert!(
            !by.expired(),
            "{} of {} frames arrived",
            got.len(),
            sent.len()
        );
    }
    for (at, (got, sent)) in got.iter().zip(&sent).enumerate() {
        assert!(
            got == sent,
            "frame {at} from {} is another: {got:x?}, not {sent:x?}",
            one.address
        );
    }
    assert_eq!(got.len(), sent.len());
}

#[test]
fn devices_at_a_bridge_reach_each_other_whoever_is_the_front_end() {
    let name = "ovs::devices_at_a_bridge_reach_each_other_whoever_is_the_front_end";
    within(name, move || {
        if !switch::is_installed(name) {
            return;
        }
        let home = TempDir::with_prefix("ovs.").unwrap();
        let at = |name: &str| home.path().join(name);
        // Two wires, each with a card for the bridge and one for us.
        let card = |wire: &str| format!("sim:net,port=wire:{wire}");
        let served = Served::start(
            &[
                (card("a"), at("a.bridge")),
                (card("a"), at("a.ours")),
                (card("b"), at("b.bridge")),
                (card("b"), at("b.ours")),
            ],
            Makes::BackEnd,
        );
        let mut switch = Switch::start(home.path());
        let mut a = Station::new(1, &at("a.ours"), Ring::Split, false);
        let mut b = Station::new(2, &at("b.ours"), Ring::Packed, false);
        for (port, options) in [("a", "packed_vq=0"), ("b", "packed_vq=1")] {
            let path = at(&format!("{port}.bridge"));
            let device = format!(
                "net_virtio_user{port},path={},queue_size=1024,{options}",
                path.display()
            );
            switch.add(port, "dpdk", &format!("dpdk-devargs=\"{device}\""));
        }
        for port in ["c", "d"] {
            let path = at(port);
            let option = format!("vhost-server-path={}", path.display());
            switch.add(port, "dpdkvhostuserclient", &option);
        }
        for restarts in 0..3 {
            if restarts != 0 {
                switch.restart();
            }
            // The switch connects, again and again, until they are there.
            let mut c = Station::new(3, &at("c"), Ring::Split, true);
            let mut d = Station::new(4, &at("d"), Ring::Packed, true);
            talk(&mut a, &mut b);
            talk(&mut c, &mut d);
            talk(&mut a, &mut c);
            talk(&mut d, &mut b);
        }
        drop((a, b));
        drop(switch);
        served.stop();
    });
}
