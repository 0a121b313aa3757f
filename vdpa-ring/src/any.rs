//! Either format behind one type, for whoever learns the format at run time.

use vdpa_mem::Iova;

use crate::{
    chain::{Batch, Completion, Segment, Used},
    error::{AddError, RingError, SetupError},
    inflight::Again,
    layout::Format,
    mem::{DeviceMem, DriverMem, RingMem},
    packed::{PackedDevice, PackedDriver},
    split::{SplitDevice, SplitDriver},
    state::{QueueState, RingFeatures},
};

macro_rules! either {
    ($self:ident, $ring:ident => $call:expr) => {
        match $self {
            Self::Split($ring) => $call,
            Self::Packed($ring) => $call,
        }
    };
}

/// Device half of either format; methods as [`SplitDevice`] and [`PackedDevice`] have them.
#[derive(Debug)]
pub enum DeviceRing {
    /// Split.
    Split(SplitDevice),
    /// Packed.
    Packed(PackedDevice),
}

impl DeviceRing {
    /// A ring that goes on from `state`, or starts afresh.
    ///
    /// # Errors
    /// [`SetupError::Size`], [`SetupError::State`].
    pub fn new(
        format: Format,
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Result<Self, SetupError> {
        Ok(match format {
            Format::Split => Self::Split(SplitDevice::new(size, features, state)?),
            Format::Packed => Self::Packed(PackedDevice::new(size, features, state)?),
        })
    }

    /// Ring format.
    pub fn format(&self) -> Format {
        match self {
            Self::Split(_) => Format::Split,
            Self::Packed(_) => Format::Packed,
        }
    }

    /// Queue size.
    pub fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    /// Where the ring stands.
    pub fn state(&self) -> QueueState {
        either!(self, ring => ring.state())
    }

    /// Chains (split) or slots (packed) taken and not committed.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        either!(self, ring => ring.in_flight())
    }

    /// The address the last take waited for, if a chain's indirect table was not mapped.
    #[inline]
    pub fn parked(&self) -> Option<Iova> {
        either!(self, ring => ring.parked())
    }

    /// Takes these chains again, before what is new; the ring's state counts them as taken, as
    /// [`Record::open`](crate::Record::open) says it.
    pub fn resubmit(&mut self, again: Again) {
        either!(self, ring => ring.resubmit(again));
    }

    /// Chains to take again that were not taken yet.
    pub fn to_repeat(&self) -> usize {
        either!(self, ring => ring.to_repeat())
    }

    /// Remembers what a [`Record`](crate::Record) has to know besides the batch, from here on.
    /// `chains`: how many a batch has at most.
    pub fn note(&mut self, chains: usize) {
        match self {
            // A head finds its table again.
            Self::Split(_) => {}
            Self::Packed(ring) => ring.note(chains),
        }
    }

    /// Takes up to `limit` chains, after clearing `batch`. 0: the ring is empty, or its next
    /// chain is [parked](Self::parked).
    ///
    /// # Errors
    /// What the driver did wrong, once, after the chains before it were returned; then
    /// [`RingError::Latched`]. [`RingError::BatchTooSmall`] takes nothing and latches nothing.
    #[inline]
    pub fn take<D: DeviceMem>(
        &mut self,
        mem: &D,
        batch: &mut Batch,
        limit: usize,
    ) -> Result<usize, RingError> {
        either!(self, ring => ring.take(mem, batch, limit))
    }

    /// Gives the last `n` chains of `batch`, the last one taken from this ring, back untouched:
    /// the next take returns them again. Before what precedes them is committed, or after.
    ///
    /// # Errors
    /// [`RingError::NotRewindable`] if fewer are left of the last take. Which chains a commit
    /// gave back is not looked at: each counts as one of the last take.
    #[inline]
    pub fn rewind(&mut self, batch: &mut Batch, n: usize) -> Result<(), RingError> {
        either!(self, ring => ring.rewind(batch, n))
    }

    /// Gives chains back, in any order: one publication, one decision. True: call the driver.
    ///
    /// # Errors
    /// [`RingError::NotTaken`] if more are given back than are in flight; nothing is written.
    #[inline]
    pub fn commit<D: DeviceMem>(&mut self, mem: &D, used: &[Used]) -> Result<bool, RingError> {
        either!(self, ring => ring.commit(mem, used))
    }

    /// Gives chains back in the order taken, with one used entry for all of them; all but the
    /// last must have been used completely. True: call the driver.
    ///
    /// # Errors
    /// [`RingError::NotInOrder`] without IN_ORDER, [`RingError::NotTaken`].
    #[inline]
    pub fn commit_in_order<D: DeviceMem>(
        &mut self,
        mem: &D,
        used: &[Used],
    ) -> Result<bool, RingError> {
        either!(self, ring => ring.commit_in_order(mem, used))
    }

    /// Asks for kicks and looks again. True: there is work already, or something to be told by
    /// the next take. False while the next chain is [parked](Self::parked), whatever is behind
    /// it: the owner takes again once it has mapped the table.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub fn arm<D: DeviceMem>(&mut self, mem: &D) -> Result<bool, RingError> {
        either!(self, ring => ring.arm(mem))
    }

    /// Asks for silence: kicks may still come.
    pub fn disarm<D: DeviceMem>(&mut self, mem: &D) {
        either!(self, ring => ring.disarm(mem));
    }
}

/// Driver half of either format; methods as [`SplitDriver`] and [`PackedDriver`] have them.
#[derive(Debug)]
pub enum DriverRing {
    /// Split.
    Split(SplitDriver),
    /// Packed.
    Packed(PackedDriver),
}

impl DriverRing {
    /// A ring with nothing in flight that goes on from `state`, or starts afresh.
    ///
    /// # Errors
    /// [`SetupError::Size`], [`SetupError::State`].
    pub fn new(
        format: Format,
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Result<Self, SetupError> {
        Ok(match format {
            Format::Split => Self::Split(SplitDriver::new(size, features, state)?),
            Format::Packed => Self::Packed(PackedDriver::new(size, features, state)?),
        })
    }

    /// Ring format.
    pub fn format(&self) -> Format {
        match self {
            Self::Split(_) => Format::Split,
            Self::Packed(_) => Format::Packed,
        }
    }

    /// Queue size.
    pub fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    /// Where the ring stands: what is published, and what has been taken back.
    pub fn state(&self) -> QueueState {
        either!(self, ring => ring.state())
    }

    /// Descriptors free.
    #[inline]
    pub fn free(&self) -> u16 {
        either!(self, ring => ring.free())
    }

    /// Chains added and not taken back.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        either!(self, ring => ring.in_flight())
    }

    /// What a kick carries with NOTIFICATION_DATA (`virtio 1.4 §2.9`).
    #[inline]
    pub fn notification_data(&self, queue: u16) -> u32 {
        either!(self, ring => ring.notification_data(queue))
    }

    /// Adds a chain: what the device reads, then what it writes. It is not shown before
    /// [`publish`](Self::publish). Returns its id, unique among those in flight and below the
    /// queue size.
    ///
    /// # Errors
    /// [`AddError`]; nothing changes then.
    #[inline]
    pub fn add<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        readable: &[Segment],
        writable: &[Segment],
    ) -> Result<u16, AddError> {
        either!(self, ring => ring.add(mem, readable, writable))
    }

    /// Shows the device what was added since the last time. True: kick it.
    #[inline]
    pub fn publish<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool {
        either!(self, ring => ring.publish(mem))
    }

    /// Takes back as many used chains as fit `out`; returns how many.
    ///
    /// # Errors
    /// What the device did wrong, once, after the chains before it were returned; then
    /// [`RingError::Latched`].
    #[inline]
    pub fn take_used<M: RingMem>(
        &mut self,
        mem: &DriverMem<M>,
        out: &mut [Completion],
    ) -> Result<usize, RingError> {
        either!(self, ring => ring.take_used(mem, out))
    }

    /// Asks for calls and looks again. True: something is there to take already.
    pub fn arm<M: RingMem>(&mut self, mem: &DriverMem<M>) -> bool {
        either!(self, ring => ring.arm(mem))
    }

    /// Asks for silence: calls may still come.
    pub fn disarm<M: RingMem>(&mut self, mem: &DriverMem<M>) {
        either!(self, ring => ring.disarm(mem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Pos;

    const NONE: RingFeatures = RingFeatures::empty();

    #[test]
    fn either_half_says_what_it_is() {
        for (format, size) in [(Format::Split, 8), (Format::Packed, 7)] {
            let driver = DriverRing::new(format, size, NONE, None).unwrap();
            assert_eq!((driver.format(), driver.size()), (format, size));
            assert_eq!((driver.free(), driver.in_flight()), (size, 0));
            let device = DeviceRing::new(format, size, NONE, None).unwrap();
            assert_eq!((device.format(), device.size()), (format, size));
            assert_eq!(device.in_flight(), 0);
        }
    }

    #[test]
    fn size_or_state_that_can_not_be_makes_no_driver() {
        let split = |avail, used| Some(QueueState::Split { avail, used });
        let packed = |avail: u16, used: u16| {
            let at = |index| Pos { index, wrap: true };
            Some(QueueState::Packed {
                avail: at(avail),
                used: at(used),
            })
        };
        for (format, size) in [(Format::Split, 3), (Format::Split, 0), (Format::Packed, 0)] {
            let made = DriverRing::new(format, size, NONE, None).map(drop);
            assert_eq!(made, Err(SetupError::Size { format, size }));
        }
        // Of the other format; with chains in flight; outside of the ring.
        for (format, state) in [
            (Format::Split, packed(0, 0)),
            (Format::Split, split(3, Some(2))),
            (Format::Packed, split(0, None)),
            (Format::Packed, packed(2, 1)),
            (Format::Packed, packed(8, 8)),
        ] {
            let made = DriverRing::new(format, 8, NONE, state).map(drop);
            let refused = SetupError::State {
                format,
                size: 8,
                state: state.unwrap(),
            };
            assert_eq!(made, Err(refused));
        }
        for (format, state) in [
            (Format::Split, split(3, Some(3))),
            (Format::Split, split(3, None)),
            (Format::Packed, packed(7, 7)),
        ] {
            let made = DriverRing::new(format, 8, NONE, state).unwrap();
            assert_eq!(made.in_flight(), 0);
        }
    }
}
