//! Any class of device, with an administration queue.
//!
//! The queue is behind all that the class has, whatever the features: virtio 1.4 §4.1.4.3.1 wants it beyond `num_queues`.

use std::sync::Arc;

use vdpa_core::config::Mac;
use vdpa_core::{Attr, Bell, DeviceType, Features, GroupIndex, QueueIndex, bits};

use super::clerk::Clerk;
use super::office::Office;
use crate::class::{Class, QueueChange, Role, SetError, Unit};

/// How many administration queues an owner has.
pub const QUEUES: u16 = 1;

/// What a class becomes by an administration queue.
///
/// Its saved state is the class's: lists, capabilities and resource objects are made again by whoever goes on.
pub struct Owner {
    class: Box<dyn Class>,
    office: Arc<Office>,
    /// What is offered beside the class's features.
    more: Features,
}

impl Owner {
    /// Adds an administration queue to `class`.
    ///
    /// * `office`: what its commands are carried out on
    /// * `sriov`: whether its function has an SR-IOV capability
    pub fn new(class: Box<dyn Class>, office: Arc<Office>, sriov: bool) -> Self {
        let mut more = Features::of(&[bits::ADMIN_VQ]);
        if sriov {
            more = more.with(bits::SR_IOV);
        }
        Self {
            class,
            office,
            more,
        }
    }

    /// The number of the administration queue.
    pub fn queue(&self) -> QueueIndex {
        QueueIndex::new(self.class.queues())
    }
}

impl Class for Owner {
    fn device_type(&self) -> DeviceType {
        self.class.device_type()
    }

    fn queues(&self) -> u16 {
        self.class.queues().saturating_add(QUEUES)
    }

    fn max_size(&self) -> u16 {
        self.class.max_size()
    }

    fn config_size(&self) -> u32 {
        self.class.config_size()
    }

    fn offered(&self) -> Features {
        self.class.offered() | self.more
    }

    fn units(&self) -> usize {
        self.class.units().saturating_add(1)
    }

    fn unit(&self, unit: usize, bells: &Arc<[Arc<Bell>]>) -> Box<dyn Unit> {
        if unit == self.class.units() {
            return Box::new(Clerk::new(Arc::clone(&self.office)));
        }
        self.class.unit(unit, bells)
    }

    fn groups(&self) -> u32 {
        self.class.groups()
    }

    fn group(&self, unit: usize) -> GroupIndex {
        if unit == self.class.units() {
            // Where the control queue is, if it has one of its own: both are for whoever owns the device.
            return GroupIndex::new(self.class.groups().saturating_sub(1));
        }
        self.class.group(unit)
    }

    fn role(&self, q: QueueIndex, accepted: Option<Features>) -> Option<Role> {
        if q != self.queue() {
            return self.class.role(q, accepted);
        }
        accepted
            .is_none_or(|features| features.contains(bits::ADMIN_VQ))
            .then(|| Role {
                unit: self.class.units(),
                place: 0,
                chains: 1,
                reads_all: false,
            })
    }

    fn accept(&self, features: Features) {
        self.class.accept(features);
    }

    fn set_live(&self, live: bool) {
        self.class.set_live(live);
    }

    fn reset(&self) {
        self.office.reset();
        self.class.reset();
    }

    fn queue_changed(&self, q: QueueIndex, change: QueueChange) {
        if q != self.queue() {
            self.class.queue_changed(q, change);
            return;
        }
        self.office.queue_changed();
        if change == QueueChange::Reset {
            self.office.queue_reset();
        }
    }

    fn queue_enabled(&self, q: QueueIndex, on: bool) {
        if q != self.queue() {
            self.class.queue_enabled(q, on);
        }
    }

    fn generation(&self) -> u32 {
        self.class.generation()
    }

    fn read_config(&self, at: u32, to: &mut [u8]) {
        self.class.read_config(at, to);
    }

    fn write_config(&self, at: u32, from: &[u8]) {
        self.class.write_config(at, from);
    }

    fn check(&self, attr: Attr) -> Result<(), SetError> {
        self.class.check(attr)
    }

    fn set(&self, attr: Attr) -> Result<bool, SetError> {
        self.class.set(attr)
    }

    fn save(&self) -> Vec<u8> {
        self.class.save()
    }

    fn restore(&self, from: &[u8]) -> Result<bool, String> {
        self.class.restore(from)
    }

    fn announces(&self) -> bool {
        self.class.announces()
    }

    fn announce(&self, mac: Mac) {
        self.class.announce(mac);
    }

    fn stats(&self, to: &mut dyn FnMut(&str, u64)) {
        self.class.stats(to);
        self.office.counters.read("admin", to);
    }
}
