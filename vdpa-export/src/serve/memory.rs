//! What the device reaches, and the log of what it writes there.

use std::sync::Arc;

use vdpa_core::{DmaHandle, Window};
use vdpa_mem::{DirtyLog, Gpa, VhostLog};

use super::{ServeError, Served};

/// The dirty log, and whether it is asked for.
#[derive(Default)]
pub(super) struct Log {
    given: Option<Arc<dyn DirtyLog>>,
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
        self.switch_log()
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
        Ok(())
    }

    /// Records of what queues have in flight, by queue: used from each one's next start on.
    pub(crate) fn set_records(&mut self, records: Vec<Window>) {
        self.records = records;
    }
}
