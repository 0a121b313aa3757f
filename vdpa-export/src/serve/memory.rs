//! What the device reaches, and the log of what it writes there.

use std::sync::Arc;

use vdpa_core::{DmaHandle, Format, Mapping, QueueConfig, Window, area_sizes, bits};
use vdpa_mem::{Access, DirtyLog, Gpa, Iova, VhostLog};

use super::position::Seen;
use super::{ServeError, Served};

/// The dirty log, and whether it is asked for.
#[derive(Default)]
pub(super) struct Log {
    given: Option<Arc<dyn DirtyLog>>,
    /// How long it is, in bytes.
    len: u64,
    /// All writes are to be logged, by the features.
    all: bool,
    /// Set while the device has it.
    on: bool,
}

impl Log {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }
}

impl Served {
    /// What the device reaches.
    pub(crate) fn dma(&self) -> &DmaHandle {
        &self.dma
    }

    /// Bytes that are mapped for the device, in one piece of this process's memory.
    pub(super) fn window(&self, at: Iova, len: u64) -> Option<Window> {
        let mappings = self.dma.mappings();
        let first = mappings.iter().position(|m| holds(m, at))?;
        let (mapping, others) = mappings.get(first..)?.split_first()?;
        let within = at.get().checked_sub(mapping.iova.first().get())?;
        let needed = within.checked_add(len)?;
        let (mut have, mut last) = (mapping.iova.len(), mapping);
        // What is translated page by page may be in one piece all the same.
        for next in others {
            if have >= needed || !continues(last, next) {
                break;
            }
            have = have.checked_add(next.iova.len())?;
            last = next;
        }
        if needed > have {
            return None;
        }
        let offset = mapping.offset.checked_add(within)?;
        Window::new(mapping.memory.clone(), offset, len).ok()
    }

    /// The first address of a ring that the front end has not translated yet, if it translates, and what it is wanted for.
    pub(super) fn gap(&self, config: &QueueConfig) -> Option<(Iova, Access)> {
        let chosen = self.chosen();
        if !self.can.miss || !chosen.contains(bits::ACCESS_PLATFORM) {
            return None;
        }
        let format = self.format();
        let sizes = area_sizes(format, config.size, chosen.contains(bits::EVENT_IDX));
        // Packed ones are marked used where they are.
        let descriptors = match format {
            Format::Packed => Access::Both,
            Format::Split => Access::DeviceReads,
        };
        let mappings = self.dma.mappings();
        let areas = [
            (config.descriptor, sizes.descriptor.bytes, descriptors),
            (config.driver, sizes.driver.bytes, Access::DeviceReads),
            (config.device, sizes.device.bytes, Access::DeviceWrites),
        ];
        areas.into_iter().find_map(|(at, len, want)| {
            let gap = first_gap(&mappings, at, len)?;
            Some((gap, want))
        })
    }

    /// Whether a device has given anything back in the packed ring at `descriptor`. Then a base of 0 is a place in its
    /// second lap; else it comes from a front end that does not say how packed rings begin (virtio-driver's).
    ///
    /// # Spec
    /// virtio 1.4 §2.8.1: USED is bit 15 of the flags. It is set in the first lap by the device, in the second one by both
    /// sides.
    pub(super) fn was_used(&self, descriptor: Iova, size: u16) -> bool {
        let ring = self.packed_ring(descriptor, size);
        ring.is_none_or(|ring| ring.iter().any(|seen| seen.flags & 0x8000 != 0))
    }

    /// The packed ring at `descriptor`, where all of it can be seen.
    ///
    /// # Spec
    /// virtio 1.4 §2.8.13: of 16 bytes the last four are a descriptor's id and its flags.
    pub(super) fn packed_ring(&self, descriptor: Iova, size: u16) -> Option<Vec<Seen>> {
        let ring = self.window(descriptor, u64::from(size).saturating_mul(16))?;
        let bytes = ring.bytes();
        let slots = (0..usize::from(size)).map(|slot| {
            let mut words = [0; 4];
            let at = slot.saturating_mul(16).saturating_add(12);
            let [a, b, c, d] = (bytes.read(at, &mut words) == 4).then_some(words)?;
            Some(Seen {
                id: u16::from_le_bytes([a, b]),
                flags: u16::from_le_bytes([c, d]),
            })
        });
        slots.collect()
    }

    /// Where writes are to be logged, if they are: vhost's bitmap. One that is in use is replaced without a gap.
    ///
    /// * `end`: where the memory ends, guest-physical
    pub(crate) fn set_log(&mut self, bytes: Window, end: Gpa) -> Result<(), ServeError> {
        let len = u64::try_from(bytes.bytes().len()).unwrap_or(u64::MAX);
        let needed = VhostLog::bytes_for(end);
        if len < needed {
            return Err(ServeError::ShortLog { len, needed });
        }
        self.log.given = Some(Arc::new(VhostLog::new(bytes)?));
        self.log.len = len;
        self.switch_log()
    }

    /// Whether the log that is in use has room for all memory: what is added while a guest moves would be lost on the way
    /// without a word. QEMU gives the larger log before the memory, and takes memory away before it gives a smaller one.
    ///
    /// * `end`: where the memory ends, guest-physical
    pub(crate) fn check_log(&self, end: Gpa) -> Result<(), ServeError> {
        let (len, needed) = (self.log.len, VhostLog::bytes_for(end));
        match self.log.on && len < needed {
            true => Err(ServeError::ShortLog { len, needed }),
            false => Ok(()),
        }
    }

    /// Whether all that the device writes is to be logged. It is once there is a log: QEMU asks for it before it gives one
    /// where a device starts in the midst of a migration.
    pub(crate) fn set_log_all(&mut self, all: bool) -> Result<(), ServeError> {
        self.log.all = all;
        self.match_log()
    }

    /// Logs if anything asks for it. A ring that alone is to be logged is logged with all else: more than what was asked
    /// for is no fault.
    pub(crate) fn match_log(&mut self) -> Result<(), ServeError> {
        match self.wants_log() == self.log.on {
            true => Ok(()),
            false => self.switch_log(),
        }
    }

    fn wants_log(&self) -> bool {
        let asked = self.log.all || self.slots.iter().any(|slot| slot.logged);
        asked && self.log.given.is_some()
    }

    fn switch_log(&mut self) -> Result<(), ServeError> {
        let wanted = self.wants_log();
        if !wanted && !self.log.on {
            return Ok(());
        }
        let log = self.log.given.clone().filter(|_| wanted);
        self.dma.set_dirty_log(log, self.by())?;
        self.log.on = wanted;
        if !wanted {
            // The next one that moves the guest gives its own, after it asked for it.
            self.log.given = None;
        }
        Ok(())
    }

    /// Records of what queues have in flight, by queue: used from each one's next start on.
    pub(crate) fn set_records(&mut self, records: Vec<Window>) {
        self.records = records;
    }
}

fn holds(mapping: &Mapping, at: Iova) -> bool {
    mapping.iova.first() <= at && at <= mapping.iova.last()
}

/// Whether `next` goes on where `last` ends, for the device and in memory.
fn continues(last: &Mapping, next: &Mapping) -> bool {
    Arc::ptr_eq(&last.memory, &next.memory)
        && last.iova.last().checked_add(1) == Some(next.iova.first())
        && last.offset.checked_add(last.iova.len()) == Some(next.offset)
}

/// The first of `len` addresses from `at` on that no mapping holds.
///
/// * `mappings`: by ascending address
fn first_gap(mappings: &[Mapping], at: Iova, len: u32) -> Option<Iova> {
    let last = at.checked_add(u64::from(len).saturating_sub(1))?;
    let mut next = at;
    for mapping in mappings {
        if mapping.iova.last() < next {
            continue;
        }
        if !holds(mapping, next) {
            return Some(next);
        }
        if mapping.iova.last() >= last {
            return None;
        }
        next = mapping.iova.last().checked_add(1)?;
    }
    Some(next)
}
