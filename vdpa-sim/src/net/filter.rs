//! Which frames a driver receives.
//!
//! At reset everything passes, as with known devices, until the driver makes its first choice: a receive mode or a MAC
//! table for the addresses, a VLAN for the VLANs. Without a control queue there is no filtering.

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};

use super::config::vlan;

/// How many addresses of each kind are kept. Of a longer list every address of the kind passes: a filter may let
/// through too much, never too little (virtio 1.4 §5.1.9.5.2).
pub(super) const TABLE: usize = 64;

/// How many VLANs there are.
pub(super) const VLANS: u16 = 4096;

/// The receive modes of virtio 1.4 §5.1.9.5.1.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Modes {
    /// Everything passes.
    pub promiscuous: bool,
    /// All multicast passes.
    pub all_multicast: bool,
    /// All unicast passes.
    pub all_unicast: bool,
    /// No multicast passes.
    pub no_multicast: bool,
    /// No unicast passes.
    pub no_unicast: bool,
    /// No broadcast passes.
    pub no_broadcast: bool,
}

/// A list of addresses of one kind.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Addresses {
    list: Vec<Mac>,
    /// There were too many to keep.
    overflow: bool,
}

impl Addresses {
    /// These addresses, or all of the kind if they are too many.
    pub fn new(list: impl ExactSizeIterator<Item = Mac>) -> Self {
        let overflow = list.len() > TABLE;
        Self {
            list: if overflow { Vec::new() } else { list.collect() },
            overflow,
        }
    }

    /// All addresses of the kind.
    pub fn all() -> Self {
        Self {
            list: Vec::new(),
            overflow: true,
        }
    }

    /// The addresses; `None` for all of the kind.
    pub fn list(&self) -> Option<&[Mac]> {
        (!self.overflow).then_some(&self.list)
    }

    fn contains(&self, mac: Mac) -> bool {
        self.overflow || self.list.contains(&mac)
    }
}

/// What passes. Workers have a copy that is replaced as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The address of the device.
    pub mac: Mac,
    /// The modes; `None` until the driver has chosen, and everything passes.
    pub modes: Option<Modes>,
    /// Unicast addresses besides the device's own.
    pub unicast: Addresses,
    /// Multicast addresses.
    pub multicast: Addresses,
    /// A bit for each VLAN that passes; `None` until the driver has chosen, and all do.
    pub vlans: Option<Box<[u64; 64]>>,
}

impl Filter {
    /// The filter at reset: the tables are empty, virtio 1.4 §5.1.9.5.2.1.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            modes: None,
            unicast: Addresses::default(),
            multicast: Addresses::default(),
            vlans: None,
        }
    }

    /// Lets a VLAN pass, or not any more.
    pub fn set_vlan(&mut self, id: u16, pass: bool) {
        let vlans = self.vlans.get_or_insert_with(|| Box::new([0; 64]));
        if let Some(word) = vlans.get_mut(usize::from(id >> 6)) {
            let bit = 1 << (id & 63);
            *word = if pass { *word | bit } else { *word & !bit };
        }
    }

    fn passes_vlan(&self, id: u16) -> bool {
        let Some(vlans) = &self.vlans else {
            return true;
        };
        let word = vlans.get(usize::from(id >> 6)).copied().unwrap_or(0);
        // 0 is a priority without a VLAN.
        id == 0 || word & (1 << (id & 63)) != 0
    }

    /// Whether the driver has chosen anything: if not, everything passes.
    #[inline]
    pub fn is_chosen(&self) -> bool {
        self.modes.is_some() || self.vlans.is_some()
    }

    /// Whether a frame passes, with these features.
    pub fn passes(&self, frame: &[u8], features: Features) -> bool {
        let modes = self.modes.unwrap_or(Modes {
            promiscuous: true,
            ..Modes::default()
        });
        // A promiscuous mode that the driver chose beats VLANs too: everything is to be received.
        let chosen = self.modes.is_some() && features.contains(net::CTRL_RX);
        if chosen && modes.promiscuous {
            return true;
        }
        if features.contains(net::CTRL_VLAN) && vlan(frame).is_some_and(|id| !self.passes_vlan(id))
        {
            return false;
        }
        if !chosen {
            return true;
        }
        let Some(to) = frame.first_chunk().copied().map(Mac::new) else {
            return false;
        };
        if to == Mac::BROADCAST {
            !modes.no_broadcast
        } else if to.is_multicast() {
            !modes.no_multicast && (modes.all_multicast || self.multicast.contains(to))
        } else {
            !modes.no_unicast && (modes.all_unicast || to == self.mac || self.unicast.contains(to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
    const GROUP: Mac = Mac::new([1, 0, 0x5e, 0, 0, 1]);
    const ALL: Features = super::super::config::POSSIBLE;

    fn to(mac: Mac) -> Vec<u8> {
        let mut frame = mac.octets().to_vec();
        frame.extend([2, 0, 0, 0, 0, 9, 8, 0, 1, 2]);
        frame
    }

    fn tagged(mac: Mac, id: u16) -> Vec<u8> {
        let mut frame = to(mac);
        frame.splice(12..12, [0x81, 0, 0xe0 | (id >> 8) as u8, id as u8]);
        frame
    }

    fn which(filter: &Filter) -> [bool; 4] {
        [OWN, OTHER, GROUP, Mac::BROADCAST].map(|mac| filter.passes(&to(mac), ALL))
    }

    fn with(modes: Modes) -> Filter {
        Filter {
            modes: Some(modes),
            ..Filter::new(OWN)
        }
    }

    #[test]
    fn at_reset_everything_passes_and_then_each_mode_says_what() {
        assert_eq!(which(&Filter::new(OWN)), [true; 4]);
        let none = Modes::default();
        let cases = [
            (none, [true, false, false, true]),
            (
                Modes {
                    promiscuous: true,
                    no_unicast: true,
                    ..none
                },
                [true; 4],
            ),
            (
                Modes {
                    all_multicast: true,
                    ..none
                },
                [true, false, true, true],
            ),
            (
                Modes {
                    all_unicast: true,
                    ..none
                },
                [true, true, false, true],
            ),
            (
                Modes {
                    no_multicast: true,
                    all_multicast: true,
                    ..none
                },
                [true, false, false, true],
            ),
            (
                Modes {
                    no_unicast: true,
                    ..none
                },
                [false, false, false, true],
            ),
            (
                Modes {
                    no_broadcast: true,
                    ..none
                },
                [true, false, false, false],
            ),
        ];
        for (modes, expected) in cases {
            assert_eq!(which(&with(modes)), expected, "{modes:?}");
        }
    }

    #[test]
    fn tables_let_their_addresses_pass_and_one_that_overflows_all_of_its_kind() {
        let mut filter = with(Modes::default());
        filter.unicast = Addresses::new([OTHER].into_iter());
        filter.multicast = Addresses::new([GROUP].into_iter());
        assert_eq!(which(&filter), [true; 4]);
        filter.unicast = Addresses::new([OWN; TABLE + 1].into_iter());
        filter.multicast = Addresses::default();
        assert_eq!(which(&filter), [true, true, false, true]);
    }

    #[test]
    fn vlans_pass_once_they_are_added_and_untagged_frames_always() {
        let mut filter = Filter::new(OWN);
        assert!(filter.passes(&tagged(OTHER, 7), ALL));
        filter.set_vlan(5, true);
        assert!(filter.passes(&tagged(OTHER, 5), ALL));
        assert!(!filter.passes(&tagged(OTHER, 7), ALL));
        assert!(
            filter.passes(&tagged(OTHER, 0), ALL),
            "a priority is no VLAN"
        );
        assert!(filter.passes(&to(OTHER), ALL));
        assert!(filter.passes(&tagged(OTHER, 7), ALL.without(net::CTRL_VLAN)));
        filter.set_vlan(5, false);
        assert!(!filter.passes(&tagged(OTHER, 5), ALL));
        filter.modes = Some(Modes {
            promiscuous: true,
            ..Modes::default()
        });
        assert!(filter.passes(&tagged(OTHER, 5), ALL));
    }
}
