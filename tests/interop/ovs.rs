//! Devices of ours on one bridge of Open vSwitch, in user space, with DPDK.
//!
//! ```text
//!   test ─ NetDriver ─ vhost-user ─ card ══ wire ══ card ─ vhost-user ─ virtio-user ─ port ┐
//!                      └────── vdpactl serve ─────┘                                        ├─ bridge
//!   test ─ NetDriver ─ vhost-user ───────────────── dpdkvhostuserclient ─────────── port ┘
//! ```
//! At the upper ports the switch is the front end, and a card is served to it; at the lower ones it is the back end.

mod switch;

use tempfile::TempDir;
use vdpa::net::Ring;

use crate::dpdk::served::{Makes, Served};
use crate::netns::within;
use crate::station::{Station, talk};
use switch::Switch;

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
