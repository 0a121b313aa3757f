//! Nearly all frames: finished, and each into one buffer that is in one piece.

use vdpa_mem::{Access, Bytes};
use vdpa_ring::Used;

use super::place::{Buffers, header};
use super::{Delivery, Round};
use crate::frames::{FrameBatch, HEADER_BYTES};
use crate::offload::Header;

/// In front of each of them.
static PLAIN: [u8; HEADER_BYTES] = header(1);

impl Delivery<'_> {
    /// Moves frames into buffers, as long as nothing is to be done but to copy them.
    ///
    /// In two loops. The buffers are in lines that the driver looked at last, and a store to such a line waits for it in a
    /// queue in which all stores of a core stand in order, a few dozen of them: the fewer others stand in between, the more
    /// lines are on their way at once. So whatever is to be noted is noted in the first loop, and the second one stores
    /// headers and frames, and nothing else.
    #[inline(never)]
    pub(super) fn fill_plain<'r>(
        &self,
        frames: &mut FrameBatch,
        to: &mut Buffers<'r, '_>,
        round: &mut Round,
        places: &mut [Option<Bytes<'r>>],
    ) {
        if self.report.is_some() {
            return;
        }
        let mut cursor = to.section.cursor(Access::DeviceWrites, to.near);
        let (mut count, mut bytes) = (0_usize, 0_usize);
        let chains = to.batch.iter().skip(round.next);
        for ((packet, chain), place) in frames.waiting().zip(chains).zip(places.iter_mut()) {
            let Some(frame) = packet.get(HEADER_BYTES..) else {
                break;
            };
            if !Header::is_none(packet)
                || frame.len() > self.plain
                || self.refuses_address(frame).is_some()
            {
                break;
            }
            let [one] = *chain.writable() else { break };
            if (one.len as usize) < packet.len() {
                break;
            }
            // A packet is far shorter than 4 GiB.
            let len = packet.len() as u32;
            *place = match cursor.span(one.addr, len) {
                Some(found) => Some(found),
                None => match cursor.translate(one.addr, len, to.near) {
                    Ok(found) if found.len() == packet.len() => Some(found),
                    _ => break,
                },
            };
            to.used.push(Used {
                token: chain.token(),
                len,
            });
            count = count.wrapping_add(1);
            bytes = bytes.wrapping_add(frame.len());
        }
        write(places.get(..count).unwrap_or_default(), frames);
        frames.pop_many(count);
        round.next = round.next.wrapping_add(count);
        round.packets = round.packets.wrapping_add(count as u64);
        round.bytes = round.bytes.wrapping_add(bytes as u64);
    }
}

/// Writes a packet to each place.
#[inline(never)]
fn write(places: &[Option<Bytes<'_>>], frames: &FrameBatch) {
    let places = places.iter().map_while(Option::as_ref);
    for (place, packet) in places.zip(frames.waiting()) {
        let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
        // Apart from the frame: a header just stored in front of it would be read back by the copy at once.
        place.write_array(0, &PLAIN);
        place.write(HEADER_BYTES, frame);
    }
}
