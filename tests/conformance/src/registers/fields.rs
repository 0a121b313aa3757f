//! The fields of the common configuration, virtio 1.4 §4.1.4.3.

use vdpa_pci::Width;

/// A field of the common configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Register {
    /// As the specification calls it.
    pub(crate) name: &'static str,
    /// Offset in bytes.
    pub(crate) at: u16,
    /// 1, 2, 4, or 8 for two of 4.
    pub(crate) bytes: u16,
    /// Whether the driver may write it.
    pub(crate) written: bool,
}

impl Register {
    /// The width of an access to it; `None` for two of 32 bits.
    pub(crate) fn width(&self) -> Option<Width> {
        match self.bytes {
            1 => Some(Width::U8),
            2 => Some(Width::U16),
            4 => Some(Width::U32),
            _ => None,
        }
    }

    /// Whether an access is of its natural width, and at its beginning, or that of one of its halves.
    pub(crate) fn takes(&self, at: u64, width: Width) -> bool {
        let offset = at.wrapping_sub(self.at.into());
        match self.width() {
            Some(natural) => offset == 0 && width == natural,
            None => (offset == 0 || offset == 4) && width == Width::U32,
        }
    }

    /// Whether this byte is one of its.
    pub(crate) fn covers(&self, at: u64) -> bool {
        let first = u64::from(self.at);
        (first..first + u64::from(self.bytes)).contains(&at)
    }
}

macro_rules! registers {
    ($($name:ident $text:literal $at:literal $bytes:literal $written:literal)+) => {
        /// The fields, by name.
        pub(crate) mod reg {
            use super::Register;
            $(pub(crate) const $name: Register =
                Register { name: $text, at: $at, bytes: $bytes, written: $written };)+
        }

        /// All of them, by offset.
        pub(crate) const COMMON: &[Register] = &[$(reg::$name),+];
    };
}

registers! {
    DEVICE_FEATURE_SELECT "device_feature_select" 0 4 true
    DEVICE_FEATURE "device_feature" 4 4 false
    DRIVER_FEATURE_SELECT "driver_feature_select" 8 4 true
    DRIVER_FEATURE "driver_feature" 12 4 true
    CONFIG_MSIX_VECTOR "config_msix_vector" 16 2 true
    NUM_QUEUES "num_queues" 18 2 false
    DEVICE_STATUS "device_status" 20 1 true
    CONFIG_GENERATION "config_generation" 21 1 false
    QUEUE_SELECT "queue_select" 22 2 true
    QUEUE_SIZE "queue_size" 24 2 true
    QUEUE_MSIX_VECTOR "queue_msix_vector" 26 2 true
    QUEUE_ENABLE "queue_enable" 28 2 true
    QUEUE_NOTIFY_OFF "queue_notify_off" 30 2 false
    QUEUE_DESC "queue_desc" 32 8 true
    QUEUE_DRIVER "queue_driver" 40 8 true
    QUEUE_DEVICE "queue_device" 48 8 true
    QUEUE_NOTIF_CONFIG_DATA "queue_notif_config_data" 56 2 false
    QUEUE_RESET "queue_reset" 58 2 true
    ADMIN_QUEUE_INDEX "admin_queue_index" 60 2 false
    ADMIN_QUEUE_NUM "admin_queue_num" 62 2 false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_follow_each_other_without_a_hole() {
        let mut next = 0;
        for register in COMMON {
            assert_eq!(register.at, next, "{}", register.name);
            next += register.bytes;
        }
        assert_eq!(next, 64);
    }

    #[test]
    fn a_wide_field_is_taken_in_halves_alone() {
        let desc = reg::QUEUE_DESC;
        assert!(desc.takes(32, Width::U32) && desc.takes(36, Width::U32));
        assert!(!desc.takes(34, Width::U32) && !desc.takes(32, Width::U16));
        assert!(reg::QUEUE_SIZE.takes(24, Width::U16) && !reg::QUEUE_SIZE.takes(24, Width::U32));
    }
}
