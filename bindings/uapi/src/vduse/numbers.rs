//! Numbers and layouts of `linux/vduse.h`.

use crate::table::table;

table! {
    DEVICES: "linux/vduse.h" since "5.15";
    constants: u8 {
        VDUSE_BASE = 0x81,
        VDUSE_ACCESS_RO = 1,
        VDUSE_ACCESS_WO = 2,
        VDUSE_ACCESS_RW = 3,
    }
    constants: u64 {
        VDUSE_API_VERSION = 0,
    }
    constants: usize {
        /// In bytes, with the NUL.
        VDUSE_NAME_MAX = 256,
    }
    constants: i32 {
        VDUSE_EVENTFD_DEASSIGN = -1,
    }
    constants: u32 {
        VDUSE_GET_VQ_STATE = 0,
        VDUSE_SET_STATUS = 1,
        VDUSE_UPDATE_IOTLB = 2,
        VDUSE_REQ_RESULT_OK = 0,
        VDUSE_REQ_RESULT_FAILED = 1,
    }
    calls(VDUSE_BASE) {
        VDUSE_GET_API_VERSION = read(0x00, u64),
        VDUSE_SET_API_VERSION = write(0x01, u64),
        /// Followed by the configuration space.
        VDUSE_CREATE_DEV = write(0x02, vduse_dev_config),
        VDUSE_DESTROY_DEV = write(0x03, [u8; VDUSE_NAME_MAX]),
        /// Answers a descriptor.
        VDUSE_IOTLB_GET_FD = both(0x10, vduse_iotlb_entry),
        VDUSE_DEV_GET_FEATURES = read(0x11, u64),
        /// Followed by as many bytes as it says.
        VDUSE_DEV_SET_CONFIG = write(0x12, vduse_config_data),
        VDUSE_DEV_INJECT_CONFIG_IRQ = none(0x13),
        VDUSE_VQ_SETUP = write(0x14, vduse_vq_config),
        VDUSE_VQ_GET_INFO = both(0x15, vduse_vq_info),
        VDUSE_VQ_SETUP_KICKFD = write(0x16, vduse_vq_eventfd),
        VDUSE_VQ_INJECT_IRQ = write(0x17, u32),
    }
    structures {
        /// The configuration space follows.
        vduse_dev_config {
            name: [u8; VDUSE_NAME_MAX],
            vendor_id: u32,
            device_id: u32,
            features: u64,
            vq_num: u32,
            vq_align: u32,
            ngroups: u32 => "7.0",
            nas: u32 => "7.0",
            reserved: [u32; 11] => "7.0",
            config_size: u32,
        }
        vduse_iotlb_entry {
            offset: u64,
            start: u64,
            last: u64,
            perm: u8,
        }
        /// `buffer` follows.
        vduse_config_data {
            offset: u32,
            length: u32,
        }
        vduse_vq_config {
            index: u32,
            max_size: u16,
            reserved1: u16 => "7.0",
            group: u32 => "7.0",
            reserved2: [u16; 10] => "7.0",
        }
        vduse_vq_state_split {
            avail_index: u16,
        }
        vduse_vq_state_packed {
            last_avail_counter: u16,
            last_avail_idx: u16,
            last_used_counter: u16,
            last_used_idx: u16,
        }
        /// `split` lies where `packed` does.
        vduse_vq_info {
            index: u32,
            num: u32,
            desc_addr: u64,
            driver_addr: u64,
            device_addr: u64,
            packed: vduse_vq_state_packed,
            ready: u8,
        }
        vduse_vq_eventfd {
            index: u32,
            fd: i32,
        }
        /// `split` lies where `packed` does.
        vduse_vq_state {
            index: u32,
            packed: vduse_vq_state_packed,
        }
        vduse_dev_status {
            status: u8,
        }
        vduse_iova_range {
            start: u64,
            last: u64,
        }
        /// The rest is a union, by `type`.
        vduse_dev_request {
            r#type: u32,
            request_id: u32,
            reserved: [u32; 4],
            iova: vduse_iova_range,
            ; rest: [u32; 28]
        }
        vduse_dev_response {
            request_id: u32,
            result: u32,
            reserved: [u32; 4],
            vq_state: vduse_vq_state,
            ; rest: [u32; 29]
        }
    }
}

table! {
    UMEM: "linux/vduse.h" since "6.0";
    constants: u64 {
        VDUSE_IOVA_CAP_UMEM = 1 << 0,
    }
    calls(VDUSE_BASE) {
        VDUSE_IOTLB_REG_UMEM = write(0x18, vduse_iova_umem),
        VDUSE_IOTLB_DEREG_UMEM = write(0x19, vduse_iova_umem),
        VDUSE_IOTLB_GET_INFO = both(0x1a, vduse_iova_info),
    }
    structures {
        vduse_iova_umem {
            uaddr: u64,
            iova: u64,
            size: u64,
            asid: u32 => "7.0",
            reserved: [u32; 5] => "7.0",
        }
        vduse_iova_info {
            start: u64,
            last: u64,
            capability: u64,
            asid: u32 => "7.0",
            reserved: [u32; 5] => "7.0",
        }
    }
}

table! {
    GROUPS: "linux/vduse.h" since "7.0";
    constants: u64 {
        VDUSE_API_VERSION_1 = 1,
    }
    constants: u32 {
        VDUSE_SET_VQ_GROUP_ASID = 3,
    }
    calls(VDUSE_BASE) {
        /// Answers a descriptor.
        VDUSE_IOTLB_GET_FD2 = both(0x1b, vduse_iotlb_entry_v2),
    }
    structures {
        vduse_vq_group_asid {
            group: u32,
            asid: u32,
        }
        vduse_iotlb_entry_v2 {
            offset: u64,
            start: u64,
            last: u64,
            perm: u8,
            padding: [u8; 7],
            asid: u32,
            reserved: [u32; 11],
        }
        vduse_iova_range_v2 {
            start: u64,
            last: u64,
            asid: u32,
            padding: u32,
        }
    }
}

pub(crate) const ROWS: &[&[crate::table::Row]] = &[DEVICES, UMEM, GROUPS];
