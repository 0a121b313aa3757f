//! How a packet gets into receive buffers, whatever pieces these are in.

use vdpa_mem::{Access, Hint, Iova, Section};
use vdpa_ring::{Batch, Segment, Used};

use super::{Delivery, Round, Spent};
use crate::frames::HEADER_BYTES;
use crate::net::count::Rx;
use crate::offload::Header;

/// The buffers of one take, and how they are written.
pub(super) struct Buffers<'a, 'r> {
    pub(super) batch: &'a Batch,
    pub(super) used: &'a mut Vec<Used>,
    pub(super) section: &'a Section<'r>,
    pub(super) near: &'a mut Hint,
    pub(super) scratch: &'a mut Vec<u8>,
}

/// Where a frame went.
enum Placed {
    /// Into this many buffers.
    Into(usize),
    /// It needs more buffers than were taken.
    Short,
    /// It does not fit, and no buffer is used up.
    NoRoom,
    /// The first buffer is of no use, and is given back empty.
    BadBuffer,
    /// These many buffers are given back empty: one is in memory that may not be written.
    Fault(usize, Iova),
}

/// What a packet came to.
pub(super) enum Booked {
    /// It is done with.
    Done,
    /// It does not fit.
    NoRoom,
    /// It is to be tried with the next buffers.
    Again,
    /// Nothing more is done in this round.
    Stop,
}

impl Delivery<'_> {
    /// Writes one packet into the next buffers.
    #[inline(never)]
    pub(super) fn put(
        &self,
        packet: &mut [u8],
        to: &mut Buffers<'_, '_>,
        round: &mut Round,
        spent: Spent,
    ) -> Booked {
        let len = self.len(packet);
        let Some(first) = to.batch.chain(round.next) else {
            round.short = true;
            return Booked::Stop;
        };
        if let [one] = *first.writable()
            && one.len as usize >= len
        {
            put_buffers(packet, 1);
            let header = packet.first_chunk().copied().unwrap_or(header(1));
            if self.write_whole(header, packet, one.addr, to.section, to.near) {
                to.used.push(Used {
                    token: first.token(),
                    // Far below 4 GiB.
                    len: len as u32,
                });
                round.next = round.next.wrapping_add(1);
                round.count(packet.len());
                return Booked::Done;
            }
        }
        let placed = self.place(packet, to.batch, round.next, to.section, to.near);
        if matches!(placed, Placed::Into(_)) {
            round.count(packet.len());
        }
        self.book(placed, len, to.batch, to.used, round, spent)
    }

    /// Bytes of a packet in a queue: its header is longer there with HASH_REPORT.
    #[inline]
    pub(super) fn len(&self, packet: &[u8]) -> usize {
        let longer = self.header.saturating_sub(HEADER_BYTES);
        packet.len().saturating_add(longer)
    }

    /// Writes a packet to one place, with `header` for its own. `false`: it has to be tried in pieces.
    #[inline(always)]
    pub(super) fn write_whole(
        &self,
        header: [u8; HEADER_BYTES],
        packet: &[u8],
        at: Iova,
        section: &Section<'_>,
        near: &mut Hint,
    ) -> bool {
        let len = self.len(packet);
        match section.translate(at, len as u32, Access::DeviceWrites, near) {
            Ok(bytes) if bytes.len() == len => {
                let frame = packet.get(HEADER_BYTES..).unwrap_or_default();
                // Apart from the frame: a header just stored in front of it would be read back by the copy at once.
                bytes.write_array(0, &header);
                if let Some(hashing) = self.report {
                    bytes.write(HEADER_BYTES, &hashing.report(frame));
                }
                bytes.write(self.header, frame);
                true
            }
            _ => false,
        }
    }

    /// Writes a packet into buffers of the batch from `next` on, whatever pieces these are in.
    fn place(
        &self,
        packet: &mut [u8],
        batch: &Batch,
        next: usize,
        section: &Section<'_>,
        near: &mut Hint,
    ) -> Placed {
        let Some(first) = batch.chain(next) else {
            return Placed::Short;
        };
        let room = first.writable_len();
        if room < self.header as u64 {
            return Placed::BadBuffer;
        }
        let len = self.len(packet) as u64;
        let mut count = 1_usize;
        if room < len {
            if !self.merge {
                return Placed::NoRoom;
            }
            let mut room = room;
            while room < len {
                let Some(more) = batch.chain(next.saturating_add(count)) else {
                    return Placed::Short;
                };
                room = room.saturating_add(more.writable_len());
                count = count.saturating_add(1);
            }
        }
        // The longest packet has fewer buffers than 16 bits count.
        put_buffers(packet, count.min(usize::from(u16::MAX)) as u16);
        let (header, frame) = packet.split_at(HEADER_BYTES.min(packet.len()));
        let report = self.report.map(|hashing| hashing.report(frame));
        let report = report.as_ref().map_or(&[][..], |report| report);
        let mut rest = [header, report, frame];
        for chain in batch.iter().skip(next).take(count) {
            if let Err(at) = scatter(section, chain.writable(), &mut rest, near) {
                return Placed::Fault(count, at);
            }
        }
        Placed::Into(count)
    }

    /// Gives back the buffers that a packet of `len` bytes, header and all, used up.
    fn book(
        &self,
        placed: Placed,
        len: usize,
        batch: &Batch,
        used: &mut Vec<Used>,
        round: &mut Round,
        spent: Spent,
    ) -> Booked {
        match placed {
            Placed::Into(count) => {
                give_back(batch, used, round.next, count, len);
                round.next = round.next.wrapping_add(count);
                Booked::Done
            }
            Placed::Short => {
                round.short = true;
                Booked::Stop
            }
            Placed::NoRoom => Booked::NoRoom,
            Placed::BadBuffer => {
                self.counters.add(Rx::BadBuffer as usize, 1);
                give_back(batch, used, round.next, 1, 0);
                round.next = round.next.wrapping_add(1);
                round.spent.bad = round.spent.bad.wrapping_add(1);
                if spent.and(round).is_enough() {
                    Booked::Stop
                } else {
                    Booked::Again
                }
            }
            Placed::Fault(count, at) => {
                self.counters.add(Rx::Fault as usize, 1);
                round.fault.get_or_insert(at);
                give_back(batch, used, round.next, count, 0);
                round.next = round.next.wrapping_add(count);
                Booked::Done
            }
        }
    }
}

/// Writes the number of buffers into the header of a packet; what else is there describes it.
fn put_buffers(packet: &mut [u8], buffers: u16) {
    let mut full = header(buffers);
    if !Header::is_none(packet)
        && let (Some(to), Some(from)) = (full.first_chunk_mut(), packet.first_chunk())
    {
        let _: &mut [u8; Header::BYTES] = to;
        *to = *from;
    }
    if let Some(room) = packet.first_chunk_mut() {
        *room = full;
    }
}

/// The header of a finished frame, virtio 1.4 §5.1.9.4.1: all of it is 0 but the number of buffers, which is 1 without
/// MRG_RXBUF.
pub(super) const fn header(buffers: u16) -> [u8; HEADER_BYTES] {
    let [low, high] = buffers.to_le_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, high]
}

/// Gives `count` chains from `next` on back, with `len` bytes in them together.
#[inline]
fn give_back(batch: &Batch, used: &mut Vec<Used>, next: usize, count: usize, len: usize) {
    let mut left = len as u64;
    for chain in (next..next.wrapping_add(count)).filter_map(|i| batch.chain(i)) {
        // All but the last are full.
        let len = if count == 1 {
            left
        } else {
            left.min(chain.writable_len())
        };
        left = left.saturating_sub(len);
        used.push(Used {
            token: chain.token(),
            len: u32::try_from(len).unwrap_or(u32::MAX),
        });
    }
}

/// Writes the parts of `rest` into the segments, and leaves of them what did not fit.
fn scatter(
    section: &Section<'_>,
    segments: &[Segment],
    rest: &mut [&[u8]],
    near: &mut Hint,
) -> Result<(), Iova> {
    for segment in segments {
        let (mut at, mut left) = (segment.addr, segment.len);
        while left != 0
            && let Some(part) = rest.iter_mut().find(|part| !part.is_empty())
        {
            let bytes = section
                .translate(at, left, Access::DeviceWrites, near)
                .map_err(|_| at)?;
            let written = bytes.write(0, part);
            *part = part.get(written..).unwrap_or_default();
            left = left.saturating_sub(written as u32);
            if written == 0 || left == 0 {
                break;
            }
            at = at.checked_add(written as u64).ok_or(at)?;
        }
    }
    Ok(())
}
