//! Two cards of ours on a wire, each in front of a driver of ours: both are at the other end of a socket.

use tempfile::TempDir;
use vdpa::net::Ring;

use crate::dpdk::served::{Makes, Served, sockets};
use crate::station::{Station, talk};

#[test]
fn what_one_card_is_sent_the_other_ones_driver_receives() {
    let home = TempDir::with_prefix("wire.").unwrap();
    let served = Served::wired(home.path(), 1, Makes::BackEnd);
    let [one, other] = sockets(home.path());
    for rings in [
        [Ring::Split, Ring::Split],
        [Ring::Packed, Ring::Packed],
        [Ring::Split, Ring::Packed],
    ] {
        let mut one = Station::new(1, &one, rings[0], false);
        let mut other = Station::new(2, &other, rings[1], false);
        talk(&mut one, &mut other);
    }
    served.stop();
}
