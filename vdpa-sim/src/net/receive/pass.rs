//! One pass over what has come to a pair.

use vdpa_core::bits::net;
use vdpa_mem::{Access, Iova, Reader};

use super::{Delivered, Delivery, Hand, Seat};
use crate::class::{Desk, Station};
use crate::frames::FrameBatch;
use crate::net::config::header_bytes;
use crate::net::count::Rx;
use crate::net::settled::Watch;
use crate::queue::{Halt, Queue};
use crate::stats::Counters;

/// What came of the frames offered in one pass.
pub(super) struct Pass<'a> {
    delivery: Delivery<'a>,
    hand: &'a mut Hand,
    /// Frames wait for buffers.
    waiting: bool,
    worked: bool,
    halt: Option<Halt>,
    fault: Option<Iova>,
}

impl<'a> Pass<'a> {
    /// Begins a pass by the rules of the moment.
    #[inline]
    pub(super) fn new(watch: &'a Watch, hand: &'a mut Hand, seat: Seat<'a>) -> Self {
        let features = seat.shared.settled.features();
        let hashing = watch.hashing();
        Self {
            delivery: Delivery {
                settings: &seat.shared.settings,
                counters: seat.counters,
                filter: watch.filter().filter(|filter| filter.is_chosen()),
                features,
                offloads: seat.shared.settled.guest_offloads(),
                merge: features.contains(net::MRG_RXBUF),
                plain: seat.shared.settings.plain(),
                report: features.contains(net::HASH_REPORT).then_some(hashing),
                header: header_bytes(features),
            },
            hand,
            waiting: false,
            worked: false,
            halt: None,
            fault: None,
        }
    }

    /// Gives the driver frames, as far as its buffers go.
    #[inline]
    pub(super) fn give(&mut self, queue: &mut Queue, frames: &mut FrameBatch, reader: &mut Reader) {
        if self.halt.is_some() {
            return;
        }
        let before = (frames.len(), frames.cut());
        let section = reader.enter();
        let given = self
            .delivery
            .deliver(queue, &section, frames, self.hand, &mut self.fault);
        match given {
            Ok(Delivered { enough, given }) => {
                self.waiting |= !enough;
                self.worked |= given;
            }
            Err(why) => self.halt = Some(why),
        }
        self.worked |= (frames.len(), frames.cut()) != before;
    }

    /// What is to be told of it: outside of sections. Answers whether frames wait for buffers, and whether something
    /// was done.
    pub(super) fn end(self, queue: Option<&mut Queue>, desk: &mut Desk) -> (bool, bool) {
        if let Some(at) = self.fault {
            desk.fault(at, Access::DeviceWrites);
        }
        if let (Some(queue), Some(why)) = (queue, self.halt) {
            desk.halt(queue, why);
        }
        (self.waiting, self.worked)
    }
}

/// The receive queue of the pair that is served.
pub(super) struct Own<'a> {
    pub(super) station: &'a mut Station,
    pub(super) counters: &'a Counters,
}

impl Own<'_> {
    /// Gives the driver frames that are for this pair, as far as its buffers go.
    #[inline]
    pub(super) fn give(
        &mut self,
        pass: &mut Pass<'_>,
        frames: &mut FrameBatch,
        reader: &mut Reader,
    ) {
        let why = match self.station {
            Station::Running(queue) if queue.enabled => return pass.give(queue, frames, reader),
            Station::Running(_) => Rx::Off,
            Station::Stopped => Rx::Stopped,
            // They wait until it goes on.
            Station::Draining(_) | Station::Paused => return,
        };
        self.counters.add(why as usize, frames.len() as u64);
        frames.clear();
    }
}
