//! A network device of ours in a guest: each choice of rings and features beside each other choice once, and what happens
//! to guests, VMMs and back ends on the way.

mod card;
mod flows;
mod traffic;

use std::path::Path;

use tempfile::TempDir;

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
    let full_name = name.to_owned();
    within(name, move || {
        let are = are_installed(&full_name, &[("ethtool", "ethtool")]);
        if !are || !ping::is_installed(&full_name) {
            return;
        }
        let home = TempDir::with_prefix("interop.").unwrap();
        ip("tuntap add dev tap0 mode tap multi_queue vnet_hdr");
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

#[test]
fn a_back_end_dies_under_load_and_traffic_goes_on_with_the_next() {
    with_a_tap(
        "net::a_back_end_dies_under_load_and_traffic_goes_on_with_the_next",
        |home| {
            let socket = home.join("net");
            let back_end = BackEnd::start(DEVICE, &socket, &[]);
            let card = Card {
                mergeable: false,
                events: false,
                offloads: false,
                ..CARD
            };
            let mut guest = guest_with(card, &socket);
            let flows = Flows::begin(&mut guest);
            back_end.kill();
            let mut back_end = BackEnd::start(DEVICE, &socket, &[]);
            back_end.event("running");
            flows.go_on();
            ping::answers(host::ADDRESS_V4, 56, 5);
            for way in flows.end(&mut guest) {
                let lost: u64 = way.gaps.iter().map(|(_, count)| count).sum();
                assert!(way.heard + lost <= way.sent && way.last < way.sent);
            }
            guest.ends();
            back_end.stop();
        },
    );
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

            guest.begins("reboot -f");
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
