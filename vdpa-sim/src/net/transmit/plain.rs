//! Nearly all packets: each in one buffer that is in one piece.

use vdpa_mem::{Access, Bytes, Section};

use super::{Sending, Sent, Transmitter};
use crate::frames::{FrameBatch, HEADER_BYTES};
use crate::net::count::Tx;
use crate::offload::Header;
use crate::queue::Queue;

impl Transmitter {
    /// Finds the packets from chain `from` on, as long as each is in one piece. Answers how many.
    #[inline(never)]
    pub(super) fn places<'s>(
        &mut self,
        section: &'s Section<'_>,
        queue: &Queue,
        from: usize,
        places: &mut [Option<Bytes<'s>>],
    ) -> usize {
        if self.gap != 0 {
            return 0;
        }
        let (shortest, most) = self.lengths();
        let mut cursor = section.cursor(Access::DeviceReads, &self.near);
        let mut count = 0_usize;
        for (chain, place) in queue.batch.iter().skip(from).zip(places) {
            let [one] = *chain.readable() else { break };
            let len = one.len as usize;
            if len < shortest || len > most {
                break;
            }
            *place = match cursor.span(one.addr, one.len) {
                Some(found) => Some(found),
                None => match cursor.translate(one.addr, one.len, &mut self.near) {
                    Ok(found) if found.len() == len => Some(found),
                    _ => break,
                },
            };
            count = count.wrapping_add(1);
        }
        count
    }
}

/// Copies packets into the batch, until that is full. Answers how many are done with.
///
/// A loop of its own, kept small: packets come from lines that the driver wrote last, and the fewer instructions there are
/// between two of them, the more lines are on their way at once.
#[inline(never)]
pub(super) fn copy(
    places: &[Option<Bytes<'_>>],
    batch: &mut FrameBatch,
    sending: &Sending<'_>,
    sent: &mut Sent,
) -> usize {
    let mut done = 0_usize;
    for place in places.iter().map_while(Option::as_ref) {
        let len = place.len();
        let Some(room) = batch.room(len) else { break };
        place.read(0, room);
        done = done.wrapping_add(1);
        match sending.finish(room) {
            Ok(()) => {
                batch.push(len);
                sent.count(len.saturating_sub(HEADER_BYTES));
            }
            Err(why) => sending.counters.add(why as usize, 1),
        }
    }
    done
}

impl Sending<'_> {
    /// Compares the header at the front of a packet with the packet, and leaves there what is true of it.
    ///
    /// # Errors
    /// The packet is to be dropped.
    #[inline(always)]
    pub(super) fn finish(&self, packet: &mut [u8]) -> Result<(), Tx> {
        // Nearly all packets of drivers without offloads.
        if !Header::is_none(packet) {
            return self.settle(packet);
        }
        // What stands behind flags and type means nothing, and whoever receives it is not to see it.
        Header::NONE.put(packet);
        let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
        if frame.len() > self.settings.plain() && !self.settings.fits(frame) {
            return Err(Tx::OverMtu);
        }
        Ok(())
    }
}
