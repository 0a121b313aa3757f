//! A receive queue with its buffers, and the packets that come in it.

use std::collections::VecDeque;

use vdpa_core::bits::net;

use super::card::OURS;
use super::packet::Header;
use crate::checked::{ensure, fail};
use crate::lane::Cut;
use crate::rig::CANARY;
use crate::{Checked, Piece, Rig, Ring};

/// A packet that came, with the buffers that it came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Came {
    pub(super) header: Header,
    /// With HASH_REPORT: the value and what it is of.
    pub(super) hash: (u32, u16),
    pub(super) frame: Vec<u8>,
    /// Of each buffer: bytes used, bytes there.
    pub(super) buffers: Vec<(u32, u32)>,
}

/// A receive queue with its buffers.
pub(super) struct Inlet {
    pub(super) ring: Ring,
    header: u32,
    /// Whether MRG_RXBUF was negotiated.
    merges: bool,
    posted: Vec<(u16, Vec<Piece>, Cut)>,
    /// Buffers that came and belong to no packet yet: what is in them, and how much there is room for.
    pub(super) came: VecDeque<(Vec<u8>, u32)>,
    /// The queue was reset: buffers that come are not given again.
    pub(super) stopped: bool,
}

impl Inlet {
    /// The queue of a card that has negotiated its features.
    ///
    /// * `header`: bytes of a packet's header
    pub(super) fn new(rig: &Rig<'_>, ring: Ring, header: u32) -> Self {
        Self {
            ring,
            header,
            merges: rig.device.negotiated().contains(net::MRG_RXBUF),
            posted: Vec::new(),
            came: VecDeque::new(),
            stopped: false,
        }
    }

    /// Gives the device `count` buffers of `len` bytes, as far as there is room for them.
    pub(super) fn post(&mut self, rig: &Rig<'_>, count: usize, len: u32) -> Checked {
        for _ in 0..count {
            if self.has_room(1) {
                self.give(vec![rig.alloc(len)?], Cut::Whole)?;
            }
        }
        self.ring.publish();
        Ok(())
    }

    /// Whether a chain of so many descriptors can be added.
    pub(super) fn has_room(&self, descriptors: u16) -> bool {
        self.ring.half().free() >= descriptors
    }

    /// Adds a buffer; shown by the next `publish`.
    pub(super) fn give(&mut self, pieces: Vec<Piece>, cut: Cut) -> Checked {
        let id = self.ring.add(&[], &cut.apply(&pieces))?;
        self.posted.push((id, pieces, cut));
        Ok(())
    }

    /// Looks at the ring once, and answers with how many buffers came. They are given again.
    pub(super) fn look(&mut self, rig: &Rig<'_>) -> Checked<usize> {
        let done = self.ring.poll()?;
        let mut again = Vec::new();
        for done in &done {
            let at = self.posted.iter().position(|(id, ..)| *id == done.id);
            let Some(at) = at else {
                fail!("a buffer came back that was not given: {}", done.id);
            };
            let (_, pieces, cut) = self.posted.swap_remove(at);
            let room: u32 = pieces.iter().map(|piece| piece.len).sum();
            ensure!(
                done.len <= room,
                "used.len is {} where {room} bytes are writable",
                done.len
            );
            let mut bytes: Vec<u8> = pieces.iter().flat_map(|piece| rig.read(*piece)).collect();
            bytes.truncate(done.len as usize);
            self.came.push_back((bytes, room));
            for piece in &pieces {
                rig.fill(*piece, CANARY);
            }
            if !self.stopped {
                again.push((pieces, cut));
            }
        }
        // Once all are known: a chain that is given takes the name of one that came.
        for (pieces, cut) in again {
            self.give(pieces, cut)?;
        }
        if !done.is_empty() && !self.stopped {
            self.ring.publish();
        }
        Ok(done.len())
    }

    /// The first packet of what came, if all of it is there.
    pub(super) fn packet(&mut self) -> Checked<Option<Came>> {
        let Some((first, _)) = self.came.front() else {
            return Ok(None);
        };
        let Some(header) = Header::from_bytes(first) else {
            fail!(
                "a packet begins with {} bytes, fewer than its header",
                first.len()
            );
        };
        // Without MRG_RXBUF a packet is in one buffer, whatever its header says: whether that says so has a statement of
        // its own.
        let count = match self.merges {
            true => usize::from(header.num_buffers),
            false => 1,
        };
        ensure!(count > 0, "num_buffers of a packet that came is 0");
        if self.came.len() < count {
            return Ok(None);
        }
        let (mut bytes, mut buffers) = (Vec::new(), Vec::new());
        for (part, room) in self.came.drain(..count) {
            buffers.push((part.len() as u32, room));
            bytes.extend(part);
        }
        let Some((head, frame)) = bytes.split_at_checked(self.header as usize) else {
            fail!(
                "a packet of {} bytes came, fewer than its header",
                bytes.len()
            );
        };
        let hash = match head.get(12..18) {
            Some(&[a, b, c, d, e, f]) => {
                (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]))
            }
            _ => (0, 0),
        };
        Ok(Some(Came {
            header,
            hash,
            frame: frame.to_vec(),
            buffers,
        }))
    }

    /// The first of our packets that is there by now.
    pub(super) fn try_receive(&mut self, rig: &Rig<'_>) -> Checked<Option<Came>> {
        self.look(rig)?;
        while let Some(came) = self.packet()? {
            if came.frame.get(6..12) == Some(&OURS[..]) {
                return Ok(Some(came));
            }
        }
        Ok(None)
    }

    /// Waits for our next packet.
    pub(super) fn receive(&mut self, rig: &Rig<'_>) -> Checked<Came> {
        let mut came = None;
        let what = format!("a packet in queue {}", self.ring.index());
        rig.bench().until(&what, || {
            came = self.try_receive(rig)?;
            Ok(came.is_some())
        })?;
        came.map_or_else(|| fail!("no packet came"), Ok)
    }
}
