//! `loopback`: what the driver sends it receives.

use std::sync::{Arc, Mutex};

use super::pipe::{End, Mouth, Peer, PipeLane};
use super::{Lane, Port, Presence};
use crate::frames::FrameBatch;
use crate::shared::lock;

/// A device whose peer is itself: pair `i` sends to pair `i` modulo the pairs in use.
pub struct Loopback {
    own: Arc<End>,
    mouths: Mutex<Vec<Option<Mouth>>>,
    longest: usize,
}

struct Itself(Arc<End>);

impl Peer for Itself {
    type Held<'a> = &'a End;

    #[inline]
    fn end(&mut self) -> Option<&End> {
        Some(&self.0)
    }
}

impl Loopback {
    /// For a device with `pairs` pairs and frames of up to `longest` bytes.
    pub fn new(presence: Arc<Presence>, pairs: u16, longest: usize) -> Self {
        let (own, mouths) = End::new(presence, pairs);
        Self {
            own,
            mouths: Mutex::new(mouths),
            longest,
        }
    }
}

impl Port for Loopback {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        let mouth = lock(&self.mouths)
            .get_mut(usize::from(pair))
            .and_then(Option::take);
        let own = Arc::clone(&self.own);
        let peer = Itself(Arc::clone(&own));
        Box::new(PipeLane::new(own, peer, pair, mouth, self.longest))
    }

    fn changed(&self) {
        self.own.presence.ring_all();
    }

    fn waiting(&self, to: &mut dyn FnMut(u16, &FrameBatch)) {
        self.own.waiting(&self.own.presence, to);
    }
}
