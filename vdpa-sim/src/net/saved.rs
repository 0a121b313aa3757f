//! The state of a network device besides its queues, as bytes.
//!
//! ```text
//!  "vnet" | version u16 = 2 | address 6 | flags u16 | pairs in use u16
//!         | unicast count u16, 6 bytes each | multicast count u16, 6 bytes each | VLANs: 512 bytes, with that flag
//!         | receive offloads u64 | hashing: size u16, as its command has it
//!         | coalescing: count u16, packets u32 and microseconds u32 each: for all receive queues, for all transmit
//!           queues, then queue by queue
//! ```
//! Version 1 ends with the VLANs: receive offloads are then as negotiated, and the rest is as at reset. All
//! little-endian. The bytes come from anywhere: everything is checked, and nothing may be left over.

use vdpa_core::config::Mac;
use vdpa_core::{Features, bits::net};

use super::coalesce::Params;
use super::filter::{Addresses, Filter, Modes, TABLE};
use super::hashing::Hashing;
use crate::offload::RECEIVE;

const MAGIC: &[u8; 4] = b"vnet";
const VERSION: u16 = 2;

/// The first version, which is still read.
const FIRST: u16 = 1;

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
const FIRST_KNOWN: u16 = (1 << 11) - 1;
const ANNOUNCE: u16 = 1 << 11;
/// The hashing is a steering too.
const STEERED: u16 = 1 << 12;
const KNOWN: u16 = (1 << 13) - 1;

/// What was saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Saved {
    pub(super) filter: Filter,
    pub(super) active: u16,
    pub(super) link: bool,
    pub(super) announce: bool,
    /// `None`: as negotiated.
    pub(super) offloads: Option<Features>,
    pub(super) hashing: Hashing,
    /// See [`Coalescing::save`](super::coalesce::Coalescing::save).
    pub(super) coalescing: Vec<Params>,
}

impl Saved {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let filter = &self.filter;
        let modes = filter.modes.unwrap_or_default();
        let flags = [
            (LINK, self.link),
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
            (ANNOUNCE, self.announce),
            (STEERED, self.hashing.steering().is_some()),
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
        bytes.extend(self.active.to_le_bytes());
        for table in [&filter.unicast, &filter.multicast] {
            let list = table.list().unwrap_or_default();
            // At most `TABLE`.
            bytes.extend((list.len() as u16).to_le_bytes());
            bytes.extend(list.iter().flat_map(|mac| mac.octets()));
        }
        let vlans = filter.vlans.iter().flat_map(|vlans| vlans.iter());
        bytes.extend(vlans.flat_map(|word| word.to_le_bytes()));
        let offloads = self.offloads.unwrap_or(Features::NONE);
        bytes.extend(offloads.low_u64().to_le_bytes());
        let hashing = self.hashing.to_bytes();
        // A few hundred bytes, and 258 parameters at most.
        bytes.extend((hashing.len() as u16).to_le_bytes());
        bytes.extend(hashing);
        bytes.extend((self.coalescing.len() as u16).to_le_bytes());
        bytes.extend(self.coalescing.iter().flat_map(|params| params.to_bytes()));
        bytes
    }

    /// Reads a state for a device that may use up to `most` pairs with these features.
    pub(super) fn from_bytes(from: &[u8], most: u16, features: Features) -> Result<Self, String> {
        load(from, most, features)
    }
}

/// Two for each pair that a device can have, and two for all.
const MOST_PARAMS: u16 = super::config::MAX_PAIRS.saturating_add(1).saturating_mul(2);

/// Takes bytes apart from the front.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn bytes(&mut self, len: u32, what: &str) -> Result<&'a [u8], String> {
        let (head, tail) = self
            .0
            .split_at_checked(len as usize)
            .ok_or_else(|| format!("it ends within the {what}"))?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let (head, tail) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| format!("it ends within the {what}"))?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.take(what).map(u32::from_le_bytes)
    }

    fn u16(&mut self, what: &str) -> Result<u16, String> {
        self.take(what).map(u16::from_le_bytes)
    }

    fn offloads(&mut self, features: Features) -> Result<Features, String> {
        let legal = features & RECEIVE;
        let on = Features::from_u64(u64::from_le_bytes(self.take("receive offloads")?));
        if !legal.contains_all(on) {
            return Err(format!(
                "its receive offloads {:#x} were not negotiated: {:#x} are legal",
                on.low_u64(),
                legal.low_u64(),
            ));
        }
        Ok(on)
    }

    fn hashing(&mut self, steered: bool, most: u16, features: Features) -> Result<Hashing, String> {
        let len = self.u16("hashing")?;
        let (bytes, tail) = self
            .0
            .split_at_checked(len.into())
            .ok_or("it ends within the hashing")?;
        self.0 = tail;
        let hashing = if steered {
            Hashing::from_rss(bytes, most)
        } else {
            Hashing::from_hash_config(bytes)
        };
        let hashing = hashing.ok_or_else(|| {
            let what = if steered {
                "virtio_net_rss_config"
            } else {
                "virtio_net_hash_config"
            };
            format!("its hashing of {len} bytes is no {what} for {most} queue pairs")
        })?;
        let hashes = features.intersects(Features::of(&[net::RSS, net::HASH_REPORT]));
        if (steered && !features.contains(net::RSS)) || (!hashes && hashing != Hashing::default()) {
            return Err("it hashes or steers frames, which was not negotiated".to_owned());
        }
        Ok(hashing)
    }

    fn coalescing(&mut self, most: u16) -> Result<Vec<Params>, String> {
        let count = self.u16("coalescing")?;
        let least = 2;
        // Two for all, and two a pair; a device with fewer pairs takes what it has queues for.
        if count % 2 != 0 || !(least..=MOST_PARAMS).contains(&count) {
            return Err(format!(
                "its coalescing has {count} parameters: an even number from {least} to {MOST_PARAMS} is legal"
            ));
        }
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Params::from_bytes(self.take("coalescing")?));
        }
        let own = usize::from(most).saturating_add(1).saturating_mul(2);
        if all
            .iter()
            .skip(own)
            .any(|params| *params != Params::default())
        {
            return Err(format!(
                "it coalesces calls of queues that there are not with {most} queue pairs"
            ));
        }
        Ok(all)
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

fn load(from: &[u8], most: u16, features: Features) -> Result<Saved, String> {
    let mut rest = Rest(from);
    let magic = rest.take::<4>("magic number")?;
    if magic != *MAGIC {
        return Err(format!(
            "it begins with {magic:02x?}, a network device's with {MAGIC:02x?}"
        ));
    }
    let version = rest.u16("version")?;
    if !(FIRST..=VERSION).contains(&version) {
        return Err(format!(
            "its version is {version}, known are {FIRST} to {VERSION}"
        ));
    }
    let mac = Mac::new(rest.take("address")?);
    if !mac.is_unicast() {
        return Err(format!("{mac} cannot be the address of a device"));
    }
    let flags = rest.u16("flags")?;
    let known = if version == FIRST { FIRST_KNOWN } else { KNOWN };
    if flags & !known != 0 {
        return Err(format!(
            "its flags {flags:#06x} have unknown ones: known are {known:#06x}"
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
    if has(ANNOUNCE) && !features.contains(net::GUEST_ANNOUNCE) {
        return Err("it asks for an announcement, which was not negotiated".to_owned());
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
    let mut offloads = None;
    let mut hashing = Hashing::default();
    let mut coalescing = Vec::new();
    if version != FIRST {
        offloads = Some(rest.offloads(features)?);
        hashing = rest.hashing(has(STEERED), most, features)?;
        coalescing = rest.coalescing(most)?;
    }
    if !rest.0.is_empty() {
        return Err(format!("{} bytes are left over", rest.0.len()));
    }
    Ok(Saved {
        announce: has(ANNOUNCE),
        offloads,
        hashing,
        coalescing,
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
mod tests;
