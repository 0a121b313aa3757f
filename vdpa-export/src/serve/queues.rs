//! Queues: what is said of them, and their start once that is complete.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vdpa_core::{
    Area, Call, Format, QueueConfig, QueueIndex, QueueState, Status, bits, check_eventfd,
};
use vdpa_mem::{Access, Iova};

use super::slot::{Awaited, KickFrom};
use super::watch::{EventKind, set_nonblocking};
use super::{ServeError, Served, Starts, base, position};

/// How often a ring is looked at that a driver may write to meanwhile.
const LOOKS: usize = 4;

/// Where the front end's addresses are for the device: one that is nowhere is `None`.
pub(crate) type Places<'a> = &'a dyn Fn(u64) -> Option<u64>;

impl Served {
    /// Its size, in descriptors.
    ///
    /// # Errors
    /// [`ServeError::TooLarge`] and [`ServeError::NoPowerOfTwo`], with which nothing has changed; when it runs with another
    /// size, or none can be this.
    pub(crate) fn set_size(&mut self, q: QueueIndex, size: u32) -> Result<(), ServeError> {
        let legal = u16::try_from(size)
            .ok()
            .filter(|size| (1..=32768).contains(size));
        let legal = legal.ok_or(ServeError::Size { queue: q, size })?;
        let slot = self.slot(q)?;
        if slot.is_running() && slot.size != Some(legal) {
            let what = "its size";
            return Err(ServeError::Running { queue: q, what });
        }
        let most = self.device.queue_limits(q)?.max_size;
        // What does not exist with these features is for its start to tell.
        if most > 0 && legal > most {
            return Err(ServeError::TooLarge {
                queue: q,
                size: legal,
                most,
            });
        }
        let split = self.chosen.is_some() && self.format() == Format::Split;
        if split && !legal.is_power_of_two() {
            return Err(ServeError::NoPowerOfTwo {
                queue: q,
                size: legal,
            });
        }
        self.slot(q)?.size = Some(legal);
        Ok(())
    }

    /// Its descriptor, driver and device area, at the front end's addresses; and whether what the device writes to the
    /// latter is logged, which is all that can change while it runs.
    pub(crate) fn set_areas(
        &mut self,
        q: QueueIndex,
        areas: [u64; 3],
        logged: bool,
    ) -> Result<(), ServeError> {
        let slot = self.slot(q)?;
        if slot.is_running() && slot.areas != Some(areas) {
            let what = "where its areas are";
            return Err(ServeError::Running { queue: q, what });
        }
        slot.areas = Some(areas);
        slot.logged = logged;
        Ok(())
    }

    /// Where it begins, as [`base`] has it.
    pub(crate) fn set_base(&mut self, q: QueueIndex, base: u32) -> Result<(), ServeError> {
        let slot = self.slot(q)?;
        if slot.is_running() && slot.base != Some(base) {
            let what = "its base";
            return Err(ServeError::Running { queue: q, what });
        }
        slot.base = Some(base);
        Ok(())
    }

    /// How it is kicked, by an eventfd or by nothing. It may start by that. One that runs is stopped and goes on where it
    /// stood.
    pub(crate) fn set_kick(&mut self, q: QueueIndex, kick: KickFrom) -> Result<(), ServeError> {
        if let KickFrom::EventFd(event) = &kick {
            check(q, event)?;
        }
        if self.slot(q)?.is_running() {
            if !self.can.pause {
                let what = "how it is kicked";
                return Err(ServeError::Running { queue: q, what });
            }
            self.halt(q)?;
        }
        self.slot(q)?.kick = Some(kick);
        Ok(())
    }

    /// How it calls: by an eventfd, or not at all.
    pub(crate) fn set_call(
        &mut self,
        q: QueueIndex,
        event: Option<OwnedFd>,
    ) -> Result<(), ServeError> {
        let event = self.own_event(q, EventKind::Call, event)?;
        let call = event.map_or(Call::None, Call::EventFd);
        let slot = self.slot(q)?;
        slot.call = call.clone();
        if slot.is_running() {
            self.device.replace_call(q, call)?;
        }
        Ok(())
    }

    /// The eventfd that is written when it is lost.
    pub(crate) fn set_error(
        &mut self,
        q: QueueIndex,
        error: Option<OwnedFd>,
    ) -> Result<(), ServeError> {
        self.slot(q)?.error = self.own_event(q, EventKind::Error, error)?;
        Ok(())
    }

    /// An eventfd that is going to be written, which nobody has to wait for for ever.
    fn own_event(
        &self,
        q: QueueIndex,
        kind: EventKind,
        event: Option<OwnedFd>,
    ) -> Result<Option<Arc<OwnedFd>>, ServeError> {
        let Some(event) = event else { return Ok(None) };
        check(q, &event)?;
        set_nonblocking(&event);
        let event = Arc::new(event);
        self.watch.add((q, kind), &event);
        Ok(Some(event))
    }

    /// Whether it has effects. One that is off runs on without any: a network device discards what is sent and takes no
    /// receive buffer.
    pub(crate) fn enable(&mut self, q: QueueIndex, on: bool) -> Result<(), ServeError> {
        let can = self.can;
        let slot = self.slot(q)?;
        let before = slot.enabled.replace(on);
        if !slot.is_running() || before == Some(on) {
            return Ok(());
        }
        match (can.enable, on) {
            (true, _) => self.device.enable_queue(q, on)?,
            // Kept as it stands, until it is enabled.
            (false, false) if can.pause => {
                let kick = self.slot(q)?.kick.clone();
                self.halt(q)?;
                self.slot(q)?.kick = kick;
            }
            // Nothing can stop it alone. Whoever disables a queue of such a device is about to stop all of them.
            (false, _) => {}
        }
        Ok(())
    }

    /// Whether rings are enabled of which nothing is said.
    pub(crate) fn set_enabled_unless_told(&mut self, enabled: bool) {
        self.enabled_unless_told = enabled;
    }

    /// Kicks the queues that nobody kicks. `false` if there are none.
    pub(crate) fn kick_polled(&self) -> bool {
        let mut any = false;
        for (slot, number) in self.slots.iter().zip(0u32..) {
            if let (Some(KickFrom::Polled), Some(doorbell)) = (&slot.kick, &slot.doorbell) {
                doorbell.ring(number);
                any = true;
            }
        }
        any
    }

    /// Tells the front end that a queue is lost, or all of them.
    pub(crate) fn raise_error(&self, q: Option<QueueIndex>) {
        for (slot, queue) in self.slots.iter().zip(self.indices()) {
            if slot.is_running() && q.is_none_or(|q| q == queue) {
                slot.raise_error();
            }
        }
    }

    /// Starts what is complete, if its time has come. `true` when the device went live by that, or a queue started.
    ///
    /// # Errors
    /// When the features do not go together, a queue's areas are nowhere, or the device refuses.
    pub(crate) fn advance(&mut self, places: Places<'_>) -> Result<bool, ServeError> {
        // A driver that has given the device up does not start it, also with one byte that says both.
        let live =
            self.written.contains(Status::DRIVER_OK) && !self.written.contains(Status::FAILED);
        if self.starts == Starts::OnDriverOk && !live {
            return Ok(false);
        }
        let mut started = false;
        for q in self.indices() {
            let (can, unless_told) = (self.can, self.enabled_unless_told);
            let slot = self.slot(q)?;
            let enabled = slot.enabled.unwrap_or(unless_told);
            if !slot.is_running() && slot.is_complete() && (enabled || can.enable) {
                started |= self.start(q, enabled, places)?;
            }
        }
        // One that was stopped as a whole stands still until a queue starts again.
        if !started && (self.starts == Starts::AsReady || self.stale) {
            return Ok(false);
        }
        self.agree()?;
        let status = self.device.status()?;
        if !status.contains(Status::DRIVER_OK) {
            self.device
                .write_status((status | Status::DRIVER_OK).bits())?;
            started = true;
        }
        Ok(started)
    }

    /// The addresses that the start of a queue waits for and that were not asked for yet.
    pub(crate) fn take_misses(&mut self) -> Vec<(Iova, Access)> {
        let awaited = self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.awaits.as_mut());
        let untold = awaited.filter_map(|awaited| {
            let told = std::mem::replace(&mut awaited.told, true);
            (!told).then_some(awaited.gap)
        });
        untold.collect()
    }

    /// `false`: a part of the ring is still to be mapped, and the next [`advance`](Self::advance) sees to it again.
    fn start(
        &mut self,
        q: QueueIndex,
        enabled: bool,
        places: Places<'_>,
    ) -> Result<bool, ServeError> {
        self.renew()?;
        self.agree()?;
        let format = self.format();
        let slot = self.slot(q)?;
        let (Some(size), Some(areas), Some(kick)) = (slot.size, slot.areas, slot.kick.clone())
        else {
            return Ok(false);
        };
        let call = slot.call.clone();
        let begin = slot.base.unwrap_or(base::fresh(format));
        let [descriptor, driver, device] = areas;
        let place = |area, at| match places(at) {
            Some(iova) => Ok(Iova::new(iova)),
            None => Err(ServeError::Nowhere { queue: q, area, at }),
        };
        let mut config = QueueConfig::new(
            size,
            place(Area::Descriptor, descriptor)?,
            place(Area::Driver, driver)?,
            place(Area::Device, device)?,
        );
        config.enabled = enabled;
        // Not before all of it is there, though the device could wait by itself: where a ring stands is read from it, and
        // from the record of what is in flight beside it.
        let gap = self.gap(&config);
        let slot = self.slot(q)?;
        let Some(gap) = gap else {
            slot.awaits = None;
            return self.start_at(q, config, begin, kick, call);
        };
        if slot.awaits.is_none_or(|awaited| awaited.gap != gap) {
            slot.awaits = Some(Awaited { gap, told: false });
        }
        Ok(false)
    }

    /// Starts a queue whose ring can be looked at.
    fn start_at(
        &mut self,
        q: QueueIndex,
        mut config: QueueConfig,
        begin: u32,
        kick: KickFrom,
        call: Call,
    ) -> Result<bool, ServeError> {
        let format = self.format();
        let size = config.size;
        let begin = match (format, begin) {
            (Format::Packed, 0) if !self.was_used(config.descriptor, size) => base::fresh(format),
            (Format::Split, 0) => self.split_base(&config),
            _ => begin,
        };
        let told = base::decode(q, format, begin)?;
        config.state = Some(match self.records.is_empty() {
            true => self.corrected(&config, told),
            // Which tell what was under way as well.
            false => told,
        });
        if !self.records.is_empty() {
            let record = self.records.get(q.place()).cloned();
            let queues = self.records.len();
            let record = record.ok_or(ServeError::NoRecord { queue: q, queues })?;
            self.device.track_in_flight(q, record)?;
        }
        let doorbell = self
            .device
            .start_queue(q, config, kick.of_contract(), call.clone())?;
        // What was made available, or used, before it started: by a back end of before, say.
        doorbell.ring(u32::from(q.get()));
        call.raise();
        let slot = self.slot(q)?;
        slot.doorbell = Some(doorbell);
        slot.started_at = Some(config.device);
        Ok(true)
    }

    /// Where a ring stands, if a packed one says that it is not where the front end has it.
    fn corrected(&self, config: &QueueConfig, told: QueueState) -> QueueState {
        let chosen = self.chosen();
        // In order, one that is used stands for all before it.
        let QueueState::Packed { used, .. } = told else {
            return told;
        };
        if chosen.contains(bits::IN_ORDER) {
            return told;
        }
        let single = chosen.contains(bits::INDIRECT_DESC);
        // Looked at again where the driver adds to it meanwhile.
        let found = (0..LOOKS).find_map(|_| {
            let ring = self.packed_ring(config.descriptor, config.size)?;
            position::corrected(&ring, used, single)
        });
        match found {
            Some(found) => {
                tracing::info!(
                    ?found,
                    ?used,
                    "a packed ring is not where the front end has it"
                );
                QueueState::Packed {
                    avail: found,
                    used: found,
                }
            }
            None => told,
        }
    }

    /// A device that is lost to the driver of before is reset for the next one.
    fn renew(&mut self) -> Result<(), ServeError> {
        if self.agreed && self.running() == 0 && self.is_lost()? {
            self.stale = true;
        }
        Ok(())
    }

    /// Whether nothing but a reset helps.
    pub(super) fn is_lost(&self) -> Result<bool, ServeError> {
        let lost = Status::DEVICE_NEEDS_RESET | Status::FAILED;
        Ok(self.device.status()?.intersects(lost))
    }
}

/// Whether the front end gave an eventfd.
fn check(q: QueueIndex, event: &OwnedFd) -> Result<(), ServeError> {
    check_eventfd(event.as_fd()).map_err(|source| ServeError::NotEventFd { queue: q, source })
}
