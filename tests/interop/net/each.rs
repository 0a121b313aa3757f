//! Every configuration of a card, several in one guest, one after the other: each is driven alone, and everything passes.

use std::path::{Path, PathBuf};

use super::card::{Card, FIRST_SLOT, with_cards};
use super::{traffic, with_taps};
use crate::dpdk::served::{Makes, Served};
use crate::harness::Guest;
use crate::netns::ip;
use crate::{choices, host};

/// What [`card`] chooses.
const CHOICES: u32 = 5;

/// The card of this configuration.
fn card(configuration: u32) -> Card {
    let chosen = |choice: u32| configuration & 1 << choice != 0;
    Card {
        packed: chosen(0),
        pairs: if chosen(1) { 4 } else { 1 },
        mergeable: chosen(2),
        events: chosen(3),
        offloads: chosen(4),
        iommu: false,
    }
}

/// All cards are there from the beginning, each at a tap of its own. One after the other is bound, and has the addresses.
fn pass_everything(name: &str, configurations: &[u32]) {
    let cards: Vec<Card> = configurations.iter().copied().map(card).collect();
    with_taps(name, cards.len(), move |home| {
        let served: Vec<(String, PathBuf)> = (0..cards.len()).map(|at| device(home, at)).collect();
        let cards: Vec<(Card, &Path)> = cards
            .iter()
            .copied()
            .zip(served.iter().map(|(_, path)| path.as_path()))
            .collect();
        let served = Served::start(&served, Makes::BackEnd);
        let mut guest = Guest::start(with_cards(&cards));
        let drivers = "/sys/bus/pci/drivers/virtio-pci";
        for slot in FIRST_SLOT..FIRST_SLOT + cards.len() {
            guest.does(&format!("echo $(behind {slot}) >{drivers}/unbind"));
        }
        for (at, (card, _)) in cards.iter().enumerate() {
            println!("{card:?}");
            guest.does(&format!(
                "card=$(behind {}); echo $card >{drivers}/bind",
                FIRST_SLOT + at
            ));
            match at.checked_sub(1) {
                None => traffic::answers(&mut guest),
                Some(before) => {
                    ip(&format!("addr flush dev tap{before}"));
                    host::address(&format!("tap{at}"));
                    traffic::is_addressed(&mut guest);
                }
            }
            host::has_carrier(&format!("tap{at}"));
            card.is_as_asked(&mut guest);
            if card.pairs > 1 {
                guest.does(&format!("ethtool -L eth0 combined {}", card.pairs));
            }
            traffic::passes(&mut guest);
            guest.does(&format!("echo $card >{drivers}/unbind"));
        }
        guest.ends();
        served.stop();
    });
}

/// A card of ours with as many pairs as any guest may want, at its own tap and socket.
fn device(home: &Path, at: usize) -> (String, PathBuf) {
    let spec = format!("sim:net,port=tap:tap{at},queue_pairs=4,mac=52:54:00:00:00:07");
    (spec, home.join(format!("net{at}")))
}

#[test]
fn everything_passes_whichever_two_things_are_chosen() {
    pass_everything(
        "net::each::everything_passes_whichever_two_things_are_chosen",
        &choices::few(CHOICES),
    );
}

/// All of them, for `tests/run --full`.
mod full {
    use super::{CHOICES, choices, pass_everything};

    /// Cards of one guest.
    const TOGETHER: usize = 8;

    macro_rules! cards {
        ($($name:ident: $part:literal;)*) => {$(
            #[test]
            fn $name() {
                let all: Vec<u32> = choices::all(CHOICES).collect();
                let part = all.chunks(TOGETHER).nth($part).unwrap();
                pass_everything(concat!("net::each::full::", stringify!($name)), part);
            }
        )*};
    }

    cards! {
        cards_0_to_7: 0;
        cards_8_to_15: 1;
        cards_16_to_23: 2;
        cards_24_to_31: 3;
    }
}
