//! The state of a network device besides its queues, as bytes.
//!
//! ```text
//!  "vnet" | version u16 = 1 | address 6 | flags u16 | pairs in use u16
//!         | unicast count u16, 6 bytes each | multicast count u16, 6 bytes each | VLANs: 512 bytes, with that flag
//! ```
//! All little-endian. The bytes come from anywhere: everything is checked, and nothing may be left over.

use vdpa_core::config::Mac;

use super::filter::{Addresses, Filter, Modes, TABLE};

const MAGIC: &[u8; 4] = b"vnet";
const VERSION: u16 = 1;

// The flags.
/// The carrier that the driver saw. It is compared, and not restored: the carrier is the device's.
const LINK: u16 = 1;
const MODES: u16 = 1 << 1;
const PROMISCUOUS: u16 = 1 << 2;
const ALL_MULTICAST: u16 = 1 << 3;
const ALL_UNICAST: u16 = 1 << 4;
const NO_MULTICAST: u16 = 1 << 5;
const NO_UNICAST: u16 = 1 << 6;
const NO_BROADCAST: u16 = 1 << 7;
const EVERY_UNICAST: u16 = 1 << 8;
const EVERY_MULTICAST: u16 = 1 << 9;
const VLANS: u16 = 1 << 10;
const KNOWN: u16 = (1 << 11) - 1;

/// What was saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Saved {
    pub(super) filter: Filter,
    pub(super) active: u16,
    pub(super) link: bool,
}

pub(super) fn save(filter: &Filter, active: u16, link: bool) -> Vec<u8> {
    let modes = filter.modes.unwrap_or_default();
    let flags = [
        (LINK, link),
        (MODES, filter.modes.is_some()),
        (PROMISCUOUS, modes.promiscuous),
        (ALL_MULTICAST, modes.all_multicast),
        (ALL_UNICAST, modes.all_unicast),
        (NO_MULTICAST, modes.no_multicast),
        (NO_UNICAST, modes.no_unicast),
        (NO_BROADCAST, modes.no_broadcast),
        (EVERY_UNICAST, filter.unicast.list().is_none()),
        (EVERY_MULTICAST, filter.multicast.list().is_none()),
        (VLANS, filter.vlans.is_some()),
    ];
    let flags = flags
        .iter()
        .filter(|(_, on)| *on)
        .fold(0, |all, (flag, _)| all | flag);
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(filter.mac.octets());
    bytes.extend(u16::to_le_bytes(flags));
    bytes.extend(active.to_le_bytes());
    for table in [&filter.unicast, &filter.multicast] {
        let list = table.list().unwrap_or_default();
        // At most `TABLE`.
        bytes.extend((list.len() as u16).to_le_bytes());
        bytes.extend(list.iter().flat_map(|mac| mac.octets()));
    }
    let vlans = filter.vlans.iter().flat_map(|vlans| vlans.iter());
    bytes.extend(vlans.flat_map(|word| word.to_le_bytes()));
    bytes
}

/// Takes bytes apart from the front.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let (head, tail) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| format!("it ends within the {what}"))?;
        self.0 = tail;
        Ok(*head)
    }

    fn u16(&mut self, what: &str) -> Result<u16, String> {
        self.take(what).map(u16::from_le_bytes)
    }

    fn table(&mut self, every: bool, what: &str) -> Result<Addresses, String> {
        let count = self.u16(what)?;
        if usize::from(count) > TABLE || (every && count != 0) {
            return Err(format!(
                "the {what} has {count} entries: {TABLE} are legal, none with its flag"
            ));
        }
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(Mac::new(self.take(what)?));
        }
        Ok(if every {
            Addresses::all()
        } else {
            Addresses::new(list.into_iter())
        })
    }
}

/// Reads a state for a device that may use up to `most` pairs.
pub(super) fn load(from: &[u8], most: u16) -> Result<Saved, String> {
    let mut rest = Rest(from);
    let magic = rest.take::<4>("magic number")?;
    if magic != *MAGIC {
        return Err(format!(
            "it begins with {magic:02x?}, a network device's with {MAGIC:02x?}"
        ));
    }
    let version = rest.u16("version")?;
    if version != VERSION {
        return Err(format!("its version is {version}, known is {VERSION}"));
    }
    let mac = Mac::new(rest.take("address")?);
    if !mac.is_unicast() {
        return Err(format!("{mac} cannot be the address of a device"));
    }
    let flags = rest.u16("flags")?;
    if flags & !KNOWN != 0 {
        return Err(format!(
            "its flags {flags:#06x} have unknown ones: known are {KNOWN:#06x}"
        ));
    }
    let active = rest.u16("number of pairs")?;
    if !(1..=most).contains(&active) {
        return Err(format!(
            "it uses {active} queue pairs: 1 to {most} are legal with the features accepted"
        ));
    }
    let has = |flag| flags & flag != 0;
    let modes = Modes {
        promiscuous: has(PROMISCUOUS),
        all_multicast: has(ALL_MULTICAST),
        all_unicast: has(ALL_UNICAST),
        no_multicast: has(NO_MULTICAST),
        no_unicast: has(NO_UNICAST),
        no_broadcast: has(NO_BROADCAST),
    };
    if !has(MODES) && modes != Modes::default() {
        return Err("it has a receive mode without the flag that one was chosen".to_owned());
    }
    let unicast = rest.table(has(EVERY_UNICAST), "unicast table")?;
    let multicast = rest.table(has(EVERY_MULTICAST), "multicast table")?;
    let mut vlans = None;
    if has(VLANS) {
        let words = vlans.insert(Box::new([0; 64]));
        for word in words.iter_mut() {
            *word = u64::from_le_bytes(rest.take("VLANs")?);
        }
    }
    if !rest.0.is_empty() {
        return Err(format!("{} bytes are left over", rest.0.len()));
    }
    Ok(Saved {
        filter: Filter {
            mac,
            modes: has(MODES).then_some(modes),
            unicast,
            multicast,
            vlans,
        },
        active,
        link: has(LINK),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Saved {
        let mut filter = Filter::new(Mac::new([2, 0, 0, 0, 0, 1]));
        filter.modes = Some(Modes {
            all_multicast: true,
            no_broadcast: true,
            ..Modes::default()
        });
        filter.unicast = Addresses::new([Mac::new([2, 0, 0, 0, 0, 9])].into_iter());
        filter.multicast = Addresses::all();
        filter.set_vlan(4095, true);
        Saved {
            filter,
            active: 3,
            link: true,
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let fresh = Saved {
            filter: Filter::new(Mac::new([2, 0, 0, 0, 0, 1])),
            active: 1,
            link: false,
        };
        for state in [fresh, full()] {
            let bytes = save(&state.filter, state.active, state.link);
            assert_eq!(load(&bytes, 4).unwrap(), state);
        }
    }

    #[test]
    fn what_does_not_fit_the_device_is_refused_with_the_numbers() {
        let state = full();
        let bytes = save(&state.filter, state.active, state.link);
        let why = load(&bytes, 2).unwrap_err();
        assert_eq!(
            why,
            "it uses 3 queue pairs: 1 to 2 are legal with the features accepted"
        );
        for len in 0..bytes.len() {
            assert!(load(&bytes[..len], 4).is_err(), "cut at {len}");
        }
        let mut long = bytes;
        long.push(0);
        assert_eq!(load(&long, 4).unwrap_err(), "1 bytes are left over");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_come_out_as_they_went_in(
            bytes in proptest::collection::vec(any::<u8>(), 0..700),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let _refused = load(&bytes, 128);
            let state = full();
            let mut near = save(&state.filter, state.active, state.link);
            for (at, byte) in changes {
                let at = at.index(near.len());
                near[at] = byte;
            }
            if let Ok(loaded) = load(&near, 128) {
                prop_assert_eq!(save(&loaded.filter, loaded.active, loaded.link), near);
            }
        }
    }
}
