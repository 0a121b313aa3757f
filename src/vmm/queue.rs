//! A queue as a VMM's transport has it, and the queues of a device that is active.

use vdpa_core::{Doorbell, Kick, Page, QueueConfig, QueueIndex, QueueState};
use vdpa_mem::{Deadline, Iova};

use super::{GuestDevice, InterruptKind, Signal, VmmError};

/// A queue as the guest has set it up in its transport's registers: plain numbers, of whichever type the VMM keeps them in.
///
/// Where a queue begins is not among what a transport gives: a queue that is activated is fresh and begins at 0, whatever
/// its rings in memory say, and whatever a VMM's own queue still counts from before a reset. Only
/// [`resume_at`](Self::resume_at) says otherwise.
///
/// ```
/// use vdpa::vmm::GuestQueue;
/// use virtio_queue::{Queue, QueueT};
/// # use vmm_sys_util::eventfd::EventFd;
///
/// fn of(index: u16, queue: &Queue, kick: EventFd) -> GuestQueue {
///     let areas = [queue.desc_table(), queue.avail_ring(), queue.used_ring()];
///     GuestQueue::new(index, queue.size(), areas).kicked_by(kick)
/// }
/// # let queue: Queue = Queue::new(256).unwrap();
/// # of(0, &queue, EventFd::new(0).unwrap());
/// ```
#[derive(Clone, Debug)]
pub struct GuestQueue {
    index: u16,
    config: QueueConfig,
    kick: Option<Signal>,
}

impl GuestQueue {
    /// * `size`: in descriptors
    /// * `areas`: the descriptor, driver and device area (descriptor table, available and used ring), as the device
    ///   addresses them: guest-physical without a vIOMMU
    pub fn new(index: u16, size: u16, areas: [u64; 3]) -> Self {
        let [descriptor, driver, device] = areas.map(Iova::new);
        Self {
            index,
            config: QueueConfig::new(size, descriptor, driver, device),
            kick: None,
        }
    }

    /// Kicked by writing this eventfd, the ioeventfd of the queue's notification register. Without one it is kicked by
    /// [`GuestDevice::kick`] or its [doorbell](GuestDevice::doorbell).
    #[must_use]
    pub fn kicked_by(mut self, kick: impl Into<Signal>) -> Self {
        self.kick = Some(kick.into());
        self
    }

    /// Goes on where another device left it, which has said so: never what is read from the guest's rings.
    ///
    /// For a split ring `next_avail` and `next_used` of a VMM's own queue are [`QueueState::Split`]. For a packed one it is
    /// [`QueueState::Packed`], each position with its wrap counter; where a VMM has both in one word, as vhost's ring base
    /// has (available in the lower half, used in the upper), each half is for [`Pos::from_bits`](vdpa_core::Pos::from_bits).
    #[must_use]
    pub fn resume_at(mut self, state: QueueState) -> Self {
        self.config.state = Some(state);
        self
    }

    /// Which queue of the device it is.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its set-up, as the contract has it.
    pub fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// The eventfd that it is kicked by, if one was given.
    pub fn kick(&self) -> Option<&Signal> {
        self.kick.as_ref()
    }

    pub(super) fn from_config(
        index: QueueIndex,
        config: QueueConfig,
        kick: Option<Signal>,
    ) -> Self {
        Self {
            index: index.get(),
            config,
            kick,
        }
    }

    pub(super) fn kick_of_contract(&self) -> Kick {
        self.kick
            .as_ref()
            .map_or(Kick::Taken, |kick| Kick::Given(kick.shared()))
    }
}

/// Queues of an active device, one at a time.
impl GuestDevice {
    /// Starts one more queue of a device that is active, or one that was stopped.
    ///
    /// # Errors
    /// When the device is not active, or for the queue, as for [`activate`](Self::activate).
    pub fn start_queue(&mut self, queue: GuestQueue) -> Result<(), VmmError> {
        let active = self.active_in("start_queue")?;
        if active.has(queue.index) {
            return Err(VmmError::QueueTwice { queue: queue.index });
        }
        let interrupts = active.interrupts.clone();
        interrupts.check_queue(queue.index)?;
        let doorbell = self.start(&queue, &interrupts)?;
        self.active_in("start_queue")?
            .queues
            .push((queue, doorbell));
        Ok(())
    }

    /// Stops a queue, takes its state, and gives up its eventfd and its interrupt.
    ///
    /// # Errors
    /// When the device is not active, does not have the queue started, cannot pause a queue alone, or is not done by the
    /// deadline; the stop then goes on, and can be waited for again.
    pub fn stop_queue(&mut self, index: u16, by: Deadline) -> Result<QueueState, VmmError> {
        self.active_in("stop_queue")?;
        let state = self.device().stop_queue(QueueIndex::new(index), by)?;
        let active = self.active_in("stop_queue")?;
        active.queues.retain(|(queue, _)| queue.index != index);
        Ok(state)
    }

    /// Resets a queue alone, as RING_RESET has it, where a VMM has [offered](super::Options::offer) that.
    ///
    /// # Errors
    /// When the device is not active, the feature was not negotiated, or it takes too long.
    ///
    /// # Spec
    /// virtio 1.4 §2.6.1.
    pub fn reset_queue(&mut self, index: u16, by: Deadline) -> Result<(), VmmError> {
        self.active_in("reset_queue")?;
        self.device().reset_queue(QueueIndex::new(index), by)?;
        let active = self.active_in("reset_queue")?;
        active.queues.retain(|(queue, _)| queue.index != index);
        Ok(())
    }

    /// Kicks a queue, for transports whose notification register ends in the VMM. Nothing happens for a queue that does
    /// not run: guests write anything.
    pub fn kick(&self, index: u16) {
        if let Some(doorbell) = self.doorbell(index) {
            doorbell.ring(index.into());
        }
    }

    /// The doorbell of a queue that runs: a handle to kick it with, without this device or its lock.
    pub fn doorbell(&self, index: u16) -> Option<&Doorbell> {
        let queues = self.active()?.queues.iter();
        let mut of_index = queues.filter(|(queue, _)| queue.index == index);
        of_index.next().map(|(_, doorbell)| doorbell)
    }

    /// The page of the queue's doorbell, to be mapped into the guest in place of its notification register: then a kick
    /// is a store of the guest's, and no exit. `None` where the device has no such page.
    pub fn doorbell_page(&self, index: u16) -> Option<Page<'_>> {
        self.doorbell(index)?.page()
    }

    /// Where each queue stands, of a device that is [paused](Self::pause).
    ///
    /// # Errors
    /// When it is not.
    pub fn queue_states(&self) -> Result<Vec<(u16, QueueState)>, VmmError> {
        let queues = self.active().map_or(&[][..], |active| &active.queues);
        let state = |queue: &GuestQueue| {
            let state = self.device().queue_state(QueueIndex::new(queue.index))?;
            Ok((queue.index, state))
        };
        queues.iter().map(|(queue, _)| state(queue)).collect()
    }

    /// Replaces the interrupts of a device that is active: each was raised once on return, since the old one may have
    /// been raised to nobody's notice.
    ///
    /// # Errors
    /// When the device is not active, or the eventfds do not fit the queues; nothing is replaced then. When the device
    /// refuses one.
    pub fn replace_interrupts(&mut self, interrupts: super::Interrupts) -> Result<(), VmmError> {
        let queues = self.active_in("replace_interrupts")?.indices();
        interrupts.check(&queues)?;
        for queue in queues {
            let call = interrupts.call(InterruptKind::Queue(queue));
            self.device().replace_call(QueueIndex::new(queue), call)?;
        }
        self.aim(Some(&interrupts));
        self.active_in("replace_interrupts")?.interrupts = interrupts;
        Ok(())
    }
}
