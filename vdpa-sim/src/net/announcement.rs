//! What the device says in its network in the place of its driver: that a card is reached here.

use std::sync::atomic::{AtomicU64, Ordering};

use vdpa_core::config::Mac;

use super::transmit::Transmitter;
use crate::port::{Lane, Presence};

/// Bytes of the frame, which is as short as there are on a cable.
const FRAME_BYTES: usize = 60;

/// Beside the 48 bits of an address: it is to be said.
const ASKED: u64 = 1 << 48;

/// The address that is to be said, if one is. One that is asked for before the one before was said takes its place.
#[derive(Default)]
pub(super) struct Announcement(AtomicU64);

impl Announcement {
    pub(super) fn ask(&self, mac: Mac) {
        let [a, b, c, d, e, f] = mac.octets();
        let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        self.0.store(address | ASKED, Ordering::Relaxed);
    }

    /// Nothing is to be said.
    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Says it, as soon as the port has room. Answers whether it was said.
    #[cold]
    pub(super) fn say(
        &self,
        transmitter: &mut Transmitter,
        lane: &mut dyn Lane,
        presence: &Presence,
    ) -> bool {
        let asked = self.0.load(Ordering::Relaxed);
        if asked == 0 {
            return false;
        }
        let [_, _, address @ ..] = asked.to_be_bytes();
        let done = transmitter.send_own(&frame(Mac::new(address)), lane, presence);
        // Another one may have been asked for meanwhile: that one is said next.
        done && self
            .0
            .compare_exchange(asked, 0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// A request reverse: whoever has this address asks everyone for its IP address. Nobody answers; bridges learn where it is.
///
/// # Spec
/// RFC 903, in the format of RFC 826.
fn frame(mac: Mac) -> [u8; FRAME_BYTES] {
    const ETHERTYPE: [u8; 2] = [0x80, 0x35];
    /// Ethernet, IPv4, the lengths of their addresses, request reverse.
    const REQUEST: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 3];
    const NO_IP: [u8; 4] = [0; 4];
    let own = mac.octets();
    let parts: [&[u8]; 8] = [
        &Mac::BROADCAST.octets(),
        &own,
        &ETHERTYPE,
        &REQUEST,
        &own,
        &NO_IP,
        &own,
        &NO_IP,
    ];
    let mut frame = [0; FRAME_BYTES];
    for (to, from) in frame.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    frame
}
