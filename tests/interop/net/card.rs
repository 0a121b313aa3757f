//! A network card of a guest: what it is asked to have, and what the guest's kernel says that it has.

use std::path::Path;

use crate::harness::{Guest, machine, packed, talker};
use crate::machine::Machine;

/// Feature bits, as `linux/virtio_net.h`, `virtio_config.h` and `virtio_ring.h` have them.
const CSUM: usize = 0;
const GUEST_CSUM: usize = 1;
const GUEST_TSO4: usize = 7;
const HOST_TSO4: usize = 11;
const MRG_RXBUF: usize = 15;
const MQ: usize = 22;
const EVENT_IDX: usize = 29;
const ACCESS_PLATFORM: usize = 33;
const RING_PACKED: usize = 34;

/// Behind which the first card of a guest is.
pub(crate) const FIRST_SLOT: usize = 10;

/// How a card is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card {
    pub(crate) packed: bool,
    /// Queue pairs that QEMU has.
    pub(crate) pairs: u16,
    pub(crate) mergeable: bool,
    /// EVENT_IDX.
    pub(crate) events: bool,
    /// Checksums and segmentation, both ways.
    pub(crate) offloads: bool,
    /// Behind an IOMMU, by whose addresses the device reads.
    pub(crate) iommu: bool,
}

impl Card {
    /// The guest that it is in: `ethtool` and `talker` go along.
    ///
    /// * `socket`: where the back end is
    #[track_caller]
    pub(crate) fn machine(self, socket: &Path) -> Machine {
        with_cards(&[(self, socket)])
    }

    /// * `slot`: behind which it is, of two digits
    fn part(self, slot: usize, socket: &Path) -> String {
        let switch = |on| if on { "on" } else { "off" };
        format!(
            "vhost-user-net,name={slot},slot={slot},socket={},pairs={},mq={},packed={},mergeable={},events={},offloads={},iommu={}",
            socket.display(),
            self.pairs,
            switch(self.pairs > 1),
            switch(self.packed),
            switch(self.mergeable),
            switch(self.events),
            switch(self.offloads),
            switch(self.iommu),
        )
    }

    /// The guest's driver uses what was asked for, and nothing else of that.
    #[track_caller]
    pub(crate) fn is_as_asked(self, guest: &mut Guest) {
        let bits = guest.does("cat /sys/bus/virtio/drivers/virtio_net/virtio*/features");
        let wanted = [
            (CSUM, self.offloads),
            (GUEST_CSUM, self.offloads),
            (GUEST_TSO4, self.offloads),
            (HOST_TSO4, self.offloads),
            (MRG_RXBUF, self.mergeable),
            (MQ, self.pairs > 1),
            (EVENT_IDX, self.events),
            (ACCESS_PLATFORM, self.iommu),
            (RING_PACKED, self.packed),
        ];
        for (bit, on) in wanted {
            let is = bits.as_bytes().get(bit) == Some(&b'1');
            assert_eq!(is, on, "feature {bit} of {bits}: {self:?}");
        }
        let link = guest.does("ethtool eth0");
        assert!(link.contains("Link detected: yes"), "{link}");
        assert_eq!(channels(guest).0, self.pairs);
    }
}

/// A guest with several cards, each with its back end at a socket: the first one is behind slot 10.
#[track_caller]
pub(crate) fn with_cards(cards: &[(Card, &Path)]) -> Machine {
    let parts = (FIRST_SLOT..).zip(cards);
    let mut parts: Vec<_> = parts
        .map(|(slot, (card, socket))| card.part(slot, socket))
        .collect();
    if cards.iter().any(|(card, _)| card.iommu) {
        // It comes before what is behind it.
        parts.insert(0, "intel-iommu".to_owned());
    }
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    let machine = talker(packed(machine(&parts), "ethtool"));
    // A queue for each processor that sends.
    match cards.iter().any(|(card, _)| card.pairs > 1) {
        true => machine.words(&["-smp", "2"]),
        false => machine,
    }
}

/// How many channels the card can have, and how many it has, as `ethtool` says.
#[track_caller]
pub(crate) fn channels(guest: &mut Guest) -> (u16, u16) {
    let said = guest.does("ethtool -l eth0");
    let combined = said
        .lines()
        .filter_map(|line| line.strip_prefix("Combined:"));
    let numbers: Vec<u16> = combined
        .map(|number| number.trim().parse().unwrap())
        .collect();
    let [most, now] = numbers[..] else {
        panic!("no channels: {said}");
    };
    (most, now)
}
