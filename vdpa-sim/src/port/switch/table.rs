//! The forwarding table: behind which device of the switch a station is.
//!
//! ```text
//!   station (VLAN and address) ── hash ──▶ set ▶ | entry | entry | ... 8 ways |      512 sets, 4096 entries
//!                                                 { key, device and time learnt }
//! ```
//! Lanes look things up without a lock. Whoever has something to learn, which is once in ten seconds for a station that
//! stays where it is, takes a lock, once for all of a batch. A set that is full gives up its oldest entry, so that
//! whoever invents addresses displaces some, and what is displaced is flooded until it is learnt again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shared::lock;

/// After how many seconds without a frame a station is forgotten.
pub(super) const AGE: u32 = 300;

/// An entry younger than this many seconds is not written again.
const REFRESH: u32 = 10;

const SETS: usize = 512;
const WAYS: usize = 8;

/// How many stations a switch remembers at most.
#[cfg(test)]
pub(super) const ENTRIES: usize = SETS * WAYS;

/// A station: a VLAN and an address, in one word that is never 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Station(u64);

impl Station {
    /// The station with this address in `vlan`, of 12 bits.
    #[inline]
    pub fn new(vlan: u16, address: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = address;
        let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Self(1 << 60 | u64::from(vlan & 0xfff) << 48 | address)
    }
}

/// Which device of a switch: a number that no two have at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id {
    /// Its place in the list of devices.
    pub(super) slot: u16,
    /// How often devices came before it, modulo 65536: what was learnt of another one at its place is not its own.
    pub(super) turn: u16,
}

#[derive(Default)]
struct Entry {
    key: AtomicU64,
    /// Slot, turn, and seconds of the switch's clock.
    value: AtomicU64,
}

fn pack(id: Id, now: u32) -> u64 {
    u64::from(id.slot) << 48 | u64::from(id.turn) << 32 | u64::from(now)
}

fn unpack(value: u64) -> (Id, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    let id = Id {
        slot: u16::from_be_bytes([a, b]),
        turn: u16::from_be_bytes([c, d]),
    };
    (id, u32::from_be_bytes([e, f, g, h]))
}

/// What is known of who is where.
pub(super) struct Table {
    sets: Box<[[Entry; WAYS]]>,
    /// Which set a station is in is nobody's to choose.
    hash: RandomState,
    writer: Mutex<()>,
}

impl Table {
    /// A table that knows nothing.
    pub(super) fn new() -> Self {
        Self {
            sets: (0..SETS).map(|_| <[Entry; WAYS]>::default()).collect(),
            hash: RandomState::new(),
            writer: Mutex::new(()),
        }
    }

    fn set(&self, station: Station) -> &[Entry] {
        let place = self.hash.hash_one(station.0) as usize % SETS;
        self.sets.get(place).map_or(&[], |set| set)
    }

    fn find(&self, station: Station) -> Option<(&Entry, u64)> {
        self.set(station).iter().find_map(|entry| {
            // Acquire pairs with the release in `write`: the value is this station's or that of the next one in its
            // place, and then the second look finds another key.
            (entry.key.load(Ordering::Acquire) == station.0)
                .then(|| entry.value.load(Ordering::Acquire))
                .filter(|_| entry.key.load(Ordering::Relaxed) == station.0)
                .map(|value| (entry, value))
        })
    }

    /// Where a station is, at second `now` of the switch's clock.
    #[inline]
    pub(super) fn look_up(&self, station: Station, now: u32) -> Option<Id> {
        let (_, value) = self.find(station)?;
        let (id, learnt) = unpack(value);
        (now.saturating_sub(learnt) < AGE).then_some(id)
    }

    /// Whether it is news that a station was seen at `id`.
    #[inline]
    pub(super) fn is_news(&self, station: Station, id: Id, now: u32) -> bool {
        self.find(station).is_none_or(|(_, value)| {
            let (known, learnt) = unpack(value);
            known != id || now.saturating_sub(learnt) >= REFRESH
        })
    }

    /// Stations were seen at `id`.
    pub(super) fn learn(&self, stations: &[Station], id: Id, now: u32) {
        let _writer = lock(&self.writer);
        for station in stations {
            self.write(*station, pack(id, now), now);
        }
    }

    /// Writes an entry; one writer at a time.
    fn write(&self, station: Station, value: u64, now: u32) {
        if let Some((entry, _)) = self.find(station) {
            entry.value.store(value, Ordering::Release);
            return;
        }
        // The first that is free, or the oldest.
        let age = |entry: &&Entry| {
            if entry.key.load(Ordering::Relaxed) == 0 {
                return u32::MAX;
            }
            let (_, learnt) = unpack(entry.value.load(Ordering::Relaxed));
            now.saturating_sub(learnt)
        };
        let mut place = None;
        for entry in self.set(station) {
            if place.is_none_or(|(_, oldest)| age(&entry) > oldest) {
                place = Some((entry, age(&entry)));
            }
        }
        if let Some((entry, _)) = place {
            // In this order: whoever reads the new value finds the old key gone.
            entry.key.store(0, Ordering::Relaxed);
            entry.value.store(value, Ordering::Release);
            entry.key.store(station.0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(i: u32) -> Station {
        let [a, b, c, d] = i.to_be_bytes();
        Station::new(1, [2, 0, a, b, c, d])
    }

    fn id(slot: u16) -> Id {
        Id { slot, turn: 9 }
    }

    #[test]
    fn a_station_is_where_it_was_seen_last_and_forgotten_after_a_while() {
        let table = Table::new();
        assert_eq!(table.look_up(station(1), 0), None);
        assert!(table.is_news(station(1), id(3), 0));
        table.learn(&[station(1), station(2)], id(3), 0);
        assert_eq!(table.look_up(station(1), 0), Some(id(3)));
        assert!(!table.is_news(station(1), id(3), REFRESH - 1));
        assert!(table.is_news(station(1), id(3), REFRESH));
        assert!(table.is_news(station(1), id(4), 1), "it moved");
        table.learn(&[station(1)], id(4), 200);
        assert_eq!(table.look_up(station(1), 200), Some(id(4)));
        assert_eq!(table.look_up(station(2), AGE - 1), Some(id(3)));
        assert_eq!(table.look_up(station(2), AGE), None);
        assert_eq!(table.look_up(station(1), 200 + AGE - 1), Some(id(4)));
    }

    #[test]
    fn an_address_in_another_vlan_is_another_station() {
        let table = Table::new();
        let at = |vlan| Station::new(vlan, [2, 0, 0, 0, 0, 1]);
        table.learn(&[at(0)], id(0), 0);
        table.learn(&[at(4094)], id(1), 0);
        assert_eq!(table.look_up(at(0), 0), Some(id(0)));
        assert_eq!(table.look_up(at(4094), 0), Some(id(1)));
        assert_eq!(table.look_up(at(1), 0), None);
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_than_the_table_and_the_newest_are_known() {
        let table = Table::new();
        for i in 0..100_000 {
            table.learn(&[station(i)], id(0), i / 1000);
        }
        let known = |range: std::ops::Range<u32>| {
            range
                .filter(|i| table.look_up(station(*i), 100).is_some())
                .count()
        };
        assert!(known(0..100_000) <= ENTRIES);
        assert!(known(99_000..100_000) >= 950, "{}", known(99_000..100_000));
    }

    #[test]
    fn what_is_read_while_it_is_written_is_one_or_the_other() {
        let table = Table::new();
        let stations: Vec<_> = (0..20_000).map(station).collect();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                for _ in 0..3 {
                    for (i, station) in stations.iter().enumerate() {
                        table.learn(&[*station], id((i % 7) as u16), 0);
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                for (i, station) in stations.iter().enumerate().step_by(97) {
                    if let Some(found) = table.look_up(*station, 0) {
                        assert_eq!(found, id((i % 7) as u16));
                    }
                }
            }
        });
    }
}
