//! A network device of ours in a guest: each choice of rings and features beside each other choice once, and what happens
//! to guests, VMMs and back ends on the way.

mod card;
mod each;
mod flows;
mod migration;
mod traffic;

use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::content;
use crate::harness::{BackEnd, Guest, are_installed};
use crate::netns::{ip, within};
use crate::{host, ping};
use card::{Card, channels};
use flows::Flows;

/// Everything a card can have, with split rings and one pair; what a test wants otherwise it says.
const CARD: Card = Card {
    packed: false,
    pairs: 1,
    mergeable: true,
    events: true,
    offloads: true,
    iommu: false,
};

/// What is served: more pairs than some guests use.
const DEVICE: &str = "sim:net,port=tap:tap0,queue_pairs=4,mac=52:54:00:00:00:07";

/// Runs `test` in a network namespace with a persistent `tap0`, if there is what it needs; it is given a directory.
fn with_a_tap(name: &str, test: impl FnOnce(&Path) + Send + 'static) {
    with_taps(name, 1, test);
}

/// The same with so many taps, from `tap0` on, which has the host's addresses.
fn with_taps(name: &str, count: usize, test: impl FnOnce(&Path) + Send + 'static) {
    let full_name = name.to_owned();
    within(name, move || {
        let are = are_installed(&full_name, &[("ethtool", "ethtool")]);
        if !are || !ping::is_installed(&full_name) {
            return;
        }
        let home = TempDir::with_prefix("interop.").unwrap();
        for tap in 0..count {
            ip(&format!(
                "tuntap add dev tap{tap} mode tap multi_queue vnet_hdr"
            ));
            ip(&format!("link set tap{tap} up"));
        }
        host::address("tap0");
        test(home.path());
    });
}

/// A guest with this card, which answers the host.
#[track_caller]
fn guest_with(card: Card, socket: &Path) -> Guest {
    let machine = card.machine(socket).words(&["-action", "reboot=reset"]);
    let mut guest = Guest::start(machine);
    traffic::answers(&mut guest);
    host::has_carrier("tap0");
    card.is_as_asked(&mut guest);
    guest
}

/// Fewer pairs and more, on a card with four, and what passes with each.
#[track_caller]
fn changes_channels(guest: &mut Guest) {
    for pairs in [1, 4, 2] {
        guest.does(&format!("ethtool -L eth0 combined {pairs}"));
        assert_eq!(channels(guest), (4, pairs));
        traffic::passes(guest);
    }
}

#[test]
fn a_guest_behind_an_iommu_reaches_and_is_reached() {
    with_a_tap(
        "net::a_guest_behind_an_iommu_reaches_and_is_reached",
        |home| {
            let socket = home.join("net");
            let back_end = BackEnd::start(&format!("{DEVICE},page_requests=on"), &socket, &[]);
            let card = Card {
                packed: true,
                events: false,
                iommu: true,
                ..CARD
            };
            let mut guest = guest_with(card, &socket);
            traffic::passes(&mut guest);
            guest.ends();
            back_end.stop();
        },
    );
}

/// How often a back end is killed under a guest's traffic, in each ring format.
const KILLS: u64 = 10;

/// Each time at a moment that has nothing to do with what passes, and with the next back end traffic goes on. What is lost
/// is counted by its numbers.
fn is_killed_again_and_again(name: &str, card: Card, kills: u64, seed: u64) {
    with_a_tap(name, move |home| {
        let socket = home.join("net");
        let mut back_end = BackEnd::start(DEVICE, &socket, &[]);
        let mut guest = guest_with(card, &socket);
        let flows = Flows::begin(&mut guest);
        let mut dice = seed;
        for _ in 0..kills {
            // Not a wait for anything.
            thread::sleep(Duration::from_micros(content::mixed(&mut dice) % 100_000));
            back_end.kill();
            back_end = BackEnd::start(DEVICE, &socket, &[]);
            back_end.event("running");
            flows.go_on();
        }
        ping::answers(host::ADDRESS_V4, 56, 5);
        for (way, to) in flows
            .end_after_deaths(&mut guest)
            .iter()
            .zip(["guest", "host"])
        {
            println!(
                "to the {to}: {} sent, {} came, {} lost, {} came twice",
                way.sent,
                way.heard,
                way.lost(),
                way.doubled
            );
            // What was sent and not yet said to be sent is sent again: of each death one batch, which is one datagram here.
            assert!(way.doubled <= kills);
            assert!(way.last < way.sent);
            assert_eq!(way.heard - way.doubled + way.lost(), way.sent);
        }
        guest.ends();
        back_end.stop();
    });
}

/// What is killed: a card with as little as can be, and one with as much.
const SPLIT: Card = Card {
    mergeable: false,
    events: false,
    offloads: false,
    ..CARD
};

const PACKED: Card = Card {
    packed: true,
    pairs: 4,
    ..CARD
};

#[test]
fn a_back_end_dies_again_and_again_under_load_of_split_rings_and_traffic_goes_on() {
    let name = "net::a_back_end_dies_again_and_again_under_load_of_split_rings_and_traffic_goes_on";
    is_killed_again_and_again(name, SPLIT, KILLS, 21);
}

#[test]
fn a_back_end_dies_again_and_again_under_load_of_packed_rings_and_traffic_goes_on() {
    let name =
        "net::a_back_end_dies_again_and_again_under_load_of_packed_rings_and_traffic_goes_on";
    is_killed_again_and_again(name, PACKED, KILLS, 22);
}

/// For `tests/run --full`.
mod full {
    use super::{Card, KILLS, PACKED, SPLIT, is_killed_again_and_again};

    #[test]
    fn a_back_end_dies_many_times() {
        let name = "net::full::a_back_end_dies_many_times";
        let cards = [
            SPLIT,
            PACKED,
            Card { pairs: 4, ..SPLIT },
            Card { pairs: 1, ..PACKED },
        ];
        for (seed, card) in (31..).zip(cards) {
            is_killed_again_and_again(name, card, 2 * KILLS, seed);
        }
    }
}

#[test]
fn a_driver_is_bound_again_a_guest_reboots_and_a_vmm_dies() {
    with_a_tap(
        "net::a_driver_is_bound_again_a_guest_reboots_and_a_vmm_dies",
        |home| {
            let socket = home.join("net");
            let back_end = BackEnd::start(DEVICE, &socket, &[]);
            let mut guest = guest_with(CARD, &socket);
            traffic::passes(&mut guest);

            let drivers = "/sys/bus/virtio/drivers/virtio_net";
            guest.does(&format!(
                "card=$(basename {drivers}/virtio*); echo $card >{drivers}/unbind"
            ));
            guest.does(&format!(
                "! ip link show eth0 && echo $card >{drivers}/bind"
            ));
            traffic::is_addressed(&mut guest);
            traffic::passes(&mut guest);

            guest.is_told("reboot -f");
            guest.is_up();
            traffic::answers(&mut guest);
            traffic::passes(&mut guest);

            // QEMU dies in the middle of it, and another one comes, with another card.
            let _flows = Flows::begin(&mut guest);
            guest.kill();
            let card = Card {
                packed: true,
                pairs: 4,
                mergeable: false,
                ..CARD
            };
            let mut guest = guest_with(card, &socket);
            traffic::passes(&mut guest);
            changes_channels(&mut guest);
            guest.ends();
            back_end.stop();
        },
    );
}
