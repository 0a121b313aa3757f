//! Packets that are not finished, for a driver that takes them so or does not.
//!
//! ```text
//!   partial checksum   GUEST_CSUM?          as it is      else: completed, and a frame like any other
//!   to be segmented    its GUEST_* bit?     as it is      else, or where the buffers are too small: segment by segment
//! ```
//! A segment for a driver with GUEST_CSUM has a partial checksum: it costs nothing, and the driver knows what to do.

use super::place::{Booked, Buffers};
use super::{Delivery, Round, Spent};
use crate::frames::{FrameBatch, HEADER_BYTES};
use crate::net::count::Rx;
use crate::offload::{Finish, Header, Segments, complete, takes};
use vdpa_core::bits::net;

impl Delivery<'_> {
    /// Moves the first packet, which is not finished, or some of its segments. `false`: nothing more is done in this
    /// round.
    #[inline(never)]
    pub(super) fn put_unfinished(
        &self,
        frames: &mut FrameBatch,
        to: &mut Buffers<'_, '_>,
        round: &mut Round,
        spent: Spent,
    ) -> bool {
        let cut = frames.cut();
        let Some(packet) = frames.first() else {
            return true;
        };
        if let Some(why) = self.refuses_unfinished(packet) {
            self.counters.add(why as usize, 1);
            frames.pop();
            return true;
        }
        let told = Header::of(packet);
        let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
        if cut.is_some() || (told.is_gso() && !takes(told, frame, self.offloads)) {
            return self.put_segments(frames, to, round, spent);
        }
        self.shape(packet, told);
        if Header::is_none(packet) {
            // A frame like any other by now.
            return true;
        }
        match self.put(packet, to, round, spent) {
            Booked::Done => {
                self.count(told, packet.len());
                frames.pop();
            }
            Booked::NoRoom => self.give_up(frames),
            Booked::Again => {}
            Booked::Stop => return false,
        }
        true
    }

    /// Why a packet is not for this driver. Of one to be segmented the segments are what the MTU holds for.
    fn refuses_unfinished(&self, packet: &[u8]) -> Option<Rx> {
        let told = Header::of(packet);
        if !told.is_gso() {
            return self.refuses(packet);
        }
        let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
        let segment = usize::from(told.hdr_len).saturating_add(told.gso_size.into());
        if segment > self.plain && !self.settings.fits_cut(frame, segment) {
            return Some(Rx::OverMtu);
        }
        self.refuses_address(frame)
    }

    /// Makes a packet one that this driver takes: with what it may be told, virtio 1.4 §5.1.9.4.1.
    fn shape(&self, packet: &mut [u8], told: Header) {
        let tell = if self.offloads.contains(net::GUEST_CSUM) {
            Header {
                flags: told.flags & (Header::NEEDS_CSUM | Header::DATA_VALID),
                ..told
            }
        } else {
            if told.needs_csum() {
                let frame = packet.get_mut(HEADER_BYTES..).unwrap_or_default();
                complete(frame, told.csum_start, told.csum_offset);
            }
            Header::NONE
        };
        tell.put(packet);
    }

    /// Moves segments, as far as the buffers go.
    fn put_segments(
        &self,
        frames: &mut FrameBatch,
        to: &mut Buffers<'_, '_>,
        round: &mut Round,
        spent: Spent,
    ) -> bool {
        let cut = frames.cut();
        // Out of `to` while it is written and then read.
        let mut scratch = std::mem::take(to.scratch);
        let done = frames
            .first()
            .and_then(|packet| segments(packet))
            .map(|segments| {
                if cut.is_none() {
                    self.counters.add(Rx::Segmented as usize, 1);
                }
                let room = segments.longest().saturating_add(HEADER_BYTES);
                if scratch.len() < room {
                    scratch.resize(room, 0);
                }
                let first = cut.map_or(0, |(next, _)| next);
                self.put_some(&segments, first, &mut scratch, to, round, spent)
            });
        *to.scratch = scratch;
        match done {
            Some((next, count, goes_on)) => {
                frames.set_cut(next, count);
                goes_on
            }
            None => {
                self.counters.add(Rx::Unfit as usize, 1);
                frames.pop();
                true
            }
        }
    }

    /// Moves segments from `next` on. Answers with the next one, how many there are, and whether the round goes on.
    fn put_some(
        &self,
        segments: &Segments<'_>,
        mut next: u32,
        scratch: &mut [u8],
        to: &mut Buffers<'_, '_>,
        round: &mut Round,
        spent: Spent,
    ) -> (u32, u32, bool) {
        let count = segments.count();
        let (finish, tell) = if self.offloads.contains(net::GUEST_CSUM) {
            (Finish::Partial, segments.partial())
        } else {
            (Finish::Complete, Header::NONE)
        };
        while next < count {
            if spent.and(round).is_enough() {
                return (next, count, false);
            }
            let place = scratch.get_mut(HEADER_BYTES..).unwrap_or_default();
            let len = segments.write(next, finish, place).unwrap_or(0);
            let len = len.saturating_add(HEADER_BYTES);
            let packet = scratch.get_mut(..len).unwrap_or_default();
            tell.put(packet);
            round.spent.segments = round.spent.segments.wrapping_add(1);
            match self.put(packet, to, round, spent) {
                Booked::Done => self.count(tell, packet.len()),
                Booked::NoRoom => self.counters.add(Rx::NoRoom as usize, 1),
                Booked::Again => continue,
                Booked::Stop => return (next, count, false),
            }
            next = next.saturating_add(1);
        }
        (next, count, true)
    }

    /// The first packet, or the first segment of it, has no room, and never will: it is segmented if it can be, and
    /// dropped otherwise.
    pub(super) fn give_up(&self, frames: &mut FrameBatch) {
        if let Some((next, count)) = frames.cut() {
            self.counters.add(Rx::NoRoom as usize, 1);
            frames.set_cut(next.saturating_add(1), count);
            return;
        }
        let count = frames
            .first()
            .and_then(|packet| segments(packet))
            .map_or(0, |segments| segments.count());
        if count == 0 {
            self.counters.add(Rx::NoRoom as usize, 1);
            frames.pop();
        } else {
            self.counters.add(Rx::Segmented as usize, 1);
            frames.set_cut(0, count);
        }
    }

    /// Counts what a packet, of `len` bytes with 12 for its header, was told to be.
    fn count(&self, told: Header, len: usize) {
        if told.needs_csum() {
            self.counters.add(Rx::Partial as usize, 1);
        } else if told.flags & Header::DATA_VALID != 0 {
            self.counters.add(Rx::Valid as usize, 1);
        }
        if told.is_gso() {
            let bytes = len.saturating_sub(HEADER_BYTES) as u64;
            self.counters.add(Rx::Gso as usize, 1);
            self.counters.add(Rx::GsoBytes as usize, bytes);
        }
    }
}

/// Whether the first packet is to be segmented, and is to be taken out whole.
#[cold]
pub(super) fn is_whole(frames: &mut FrameBatch) -> bool {
    frames.cut().is_none()
        && frames
            .first()
            .is_some_and(|packet| Header::of(packet).is_gso())
}

fn segments(packet: &[u8]) -> Option<Segments<'_>> {
    Segments::new(Header::of(packet), packet.get(HEADER_BYTES..)?)
}
