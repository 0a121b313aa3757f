//! `wire:NAME`: two devices, each sending to the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::pipe::{End, Mouth, Peer, PipeLane};
use super::{Lane, Port, Presence};
use crate::frames::FrameBatch;
use crate::shared::lock;

/// The wires that devices of one [`SimMgmt`](crate::SimMgmt) can be on, by name. A value, not a global.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<HashMap<String, Weak<Wire>>>>);

/// A wire that has both ends taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("wire:{name} has both ends taken")]
pub struct WireTaken {
    /// The wire's name.
    pub name: String,
}

/// A wire: whoever is at its two ends.
struct Wire {
    ends: Mutex<[Option<Arc<End>>; 2]>,
    /// Counts changes of the ends, so that they are looked at only then.
    version: AtomicU64,
}

impl Wire {
    fn set(&self, side: usize, end: Option<Arc<End>>) {
        let mut ends = lock(&self.ends);
        if let Some(place) = ends.get_mut(side) {
            *place = end;
        }
        // Release pairs with the acquire in `Across::end`.
        self.version.fetch_add(1, Ordering::Release);
        drop(ends);
        self.ring();
    }

    /// Has whoever is there look again.
    fn ring(&self) {
        let ends = lock(&self.ends).clone();
        for end in ends.iter().flatten() {
            end.presence.ring_all();
        }
    }
}

impl Wires {
    /// No wires yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an end of the wire `name`. It is free again once the port is dropped.
    ///
    /// * `pairs`, `longest`: the device's queue pairs, and the bytes of its longest frame
    ///
    /// # Errors
    /// [`WireTaken`] when two devices are on it.
    pub fn take(
        &self,
        name: &str,
        presence: Arc<Presence>,
        pairs: u16,
        longest: usize,
    ) -> Result<WirePort, WireTaken> {
        let mut wires = lock(&self.0);
        wires.retain(|_, wire| wire.strong_count() != 0);
        let known = wires.get(name).and_then(Weak::upgrade);
        let wire = known.unwrap_or_else(|| {
            let wire = Arc::new(Wire {
                ends: Mutex::default(),
                version: AtomicU64::new(1),
            });
            wires.insert(name.to_owned(), Arc::downgrade(&wire));
            wire
        });
        let side = lock(&wire.ends).iter().position(Option::is_none);
        let side = side.ok_or_else(|| WireTaken {
            name: name.to_owned(),
        })?;
        let (own, mouths) = End::new(presence, pairs);
        // Nobody else takes an end meanwhile: the list is locked.
        wire.set(side, Some(Arc::clone(&own)));
        Ok(WirePort {
            wire,
            side,
            own,
            mouths: Mutex::new(mouths),
            longest,
        })
    }
}

/// A device's end of a wire. Pair `i` sends to the peer's pair `i` modulo the pairs that it uses.
pub struct WirePort {
    wire: Arc<Wire>,
    side: usize,
    own: Arc<End>,
    mouths: Mutex<Vec<Option<Mouth>>>,
    longest: usize,
}

impl Drop for WirePort {
    fn drop(&mut self) {
        self.wire.set(self.side, None);
    }
}

impl Port for WirePort {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        let mouth = lock(&self.mouths)
            .get_mut(usize::from(pair))
            .and_then(Option::take);
        let peer = Across {
            wire: Arc::clone(&self.wire),
            side: self.side,
            seen: 0,
            end: Weak::new(),
        };
        let own = Arc::clone(&self.own);
        Box::new(PipeLane::new(own, peer, pair, mouth, self.longest))
    }

    fn changed(&self) {
        // The peer too: it may wait for room that nobody will make.
        self.wire.ring();
    }

    fn waiting(&self, to: &mut dyn FnMut(u16, &FrameBatch)) {
        let other = 1_usize.saturating_sub(self.side);
        let peer = lock(&self.wire.ends).get(other).cloned().flatten();
        if let Some(peer) = peer {
            peer.waiting(&self.own.presence, to);
        }
    }
}

/// Whoever is at the other side of a wire.
struct Across {
    wire: Arc<Wire>,
    side: usize,
    seen: u64,
    /// Weak: this side may not be served for long, and a device that is gone keeps nothing open.
    end: Weak<End>,
}

impl Peer for Across {
    type Held<'a> = Arc<End>;

    #[inline]
    fn end(&mut self) -> Option<Arc<End>> {
        // Acquire pairs with the release in `Wire::set`.
        let version = self.wire.version.load(Ordering::Acquire);
        if version != self.seen {
            self.seen = version;
            let other = 1_usize.saturating_sub(self.side);
            let ends = lock(&self.wire.ends);
            let end = ends.get(other).and_then(Option::as_ref);
            self.end = end.map(Arc::downgrade).unwrap_or_default();
        }
        self.end.upgrade()
    }
}
