//! Numbers and layouts of `linux/vhost.h` and `linux/vhost_types.h`.

use crate::table::table;

table! {
    OWNER: "linux/vhost.h" since "2.6.34";
    constants: u8 {
        VHOST_VIRTIO = 0xaf,
    }
    calls(VHOST_VIRTIO) {
        VHOST_GET_FEATURES = read(0x00, u64),
        VHOST_SET_FEATURES = write(0x00, u64),
        VHOST_SET_OWNER = none(0x01),
        VHOST_RESET_OWNER = none(0x02),
        /// Followed by as many [`vhost_memory_region`] as it says.
        VHOST_SET_MEM_TABLE = write(0x03, vhost_memory),
        VHOST_SET_LOG_BASE = write(0x04, u64),
        VHOST_SET_LOG_FD = write(0x07, i32),
        VHOST_SET_VRING_NUM = write(0x10, vhost_vring_state),
        VHOST_SET_VRING_ADDR = write(0x11, vhost_vring_addr),
        VHOST_SET_VRING_BASE = write(0x12, vhost_vring_state),
        VHOST_GET_VRING_BASE = both(0x12, vhost_vring_state),
        VHOST_SET_VRING_KICK = write(0x20, vhost_vring_file),
        VHOST_SET_VRING_CALL = write(0x21, vhost_vring_file),
        VHOST_SET_VRING_ERR = write(0x22, vhost_vring_file),
        VHOST_NET_SET_BACKEND = write(0x30, vhost_vring_file),
    }
}

table! {
    LAYOUT: "linux/vhost_types.h" since "2.6.34";
    constants: u64 {
        VHOST_PAGE_SIZE = 0x1000,
    }
    constants: u32 {
        /// A bit number.
        VHOST_VRING_F_LOG = 0,
        /// A bit number.
        VHOST_F_LOG_ALL = 26,
        /// A bit number.
        VHOST_NET_F_VIRTIO_NET_HDR = 27,
    }
    structures {
        vhost_vring_state {
            index: u32,
            num: u32,
        }
        vhost_vring_file {
            index: u32,
            /// -1: none.
            fd: i32,
        }
        vhost_vring_addr {
            index: u32,
            flags: u32,
            desc_user_addr: u64,
            used_user_addr: u64,
            avail_user_addr: u64,
            log_guest_addr: u64,
        }
        vhost_memory_region {
            guest_phys_addr: u64,
            memory_size: u64,
            userspace_addr: u64,
            flags_padding: u64,
        }
        vhost_memory {
            nregions: u32,
            padding: u32,
            ; regions: [vhost_memory_region; 0]
        }
    }
}

table! {
    SCSI: "linux/vhost_types.h" since "3.6";
    constants: i32 {
        VHOST_SCSI_ABI_VERSION = 1,
    }
    structures {
        vhost_scsi_target {
            abi_version: i32,
            vhost_wwpn: [u8; 224],
            vhost_tpgt: u16,
            reserved: u16,
        }
    }
}

table! {
    SCSI_CALLS: "linux/vhost.h" since "3.6";
    calls(VHOST_VIRTIO) {
        VHOST_SCSI_SET_ENDPOINT = write(0x40, vhost_scsi_target),
        VHOST_SCSI_CLEAR_ENDPOINT = write(0x41, vhost_scsi_target),
        VHOST_SCSI_GET_ABI_VERSION = write(0x42, i32),
        VHOST_SCSI_SET_EVENTS_MISSED = write(0x43, u32),
        VHOST_SCSI_GET_EVENTS_MISSED = write(0x44, u32),
    }
}

table! {
    ENDIAN: "linux/vhost.h" since "4.2";
    constants: u32 {
        VHOST_VRING_LITTLE_ENDIAN = 0,
        VHOST_VRING_BIG_ENDIAN = 1,
    }
    calls(VHOST_VIRTIO) {
        VHOST_SET_VRING_ENDIAN = write(0x13, vhost_vring_state),
        /// The kernel writes, whatever the number says.
        VHOST_GET_VRING_ENDIAN = write(0x14, vhost_vring_state),
    }
}

table! {
    BUSYLOOP: "linux/vhost.h" since "4.6";
    calls(VHOST_VIRTIO) {
        VHOST_SET_VRING_BUSYLOOP_TIMEOUT = write(0x23, vhost_vring_state),
        /// The kernel writes, whatever the number says.
        VHOST_GET_VRING_BUSYLOOP_TIMEOUT = write(0x24, vhost_vring_state),
    }
}

table! {
    VSOCK: "linux/vhost.h" since "4.8";
    calls(VHOST_VIRTIO) {
        VHOST_VSOCK_SET_GUEST_CID = write(0x60, u64),
        VHOST_VSOCK_SET_RUNNING = write(0x61, i32),
    }
}

table! {
    IOTLB: "linux/vhost_types.h" since "4.9";
    constants: u8 {
        VHOST_ACCESS_RO = 1,
        VHOST_ACCESS_WO = 2,
        VHOST_ACCESS_RW = 3,
        VHOST_IOTLB_MISS = 1,
        VHOST_IOTLB_UPDATE = 2,
        VHOST_IOTLB_INVALIDATE = 3,
        VHOST_IOTLB_ACCESS_FAIL = 4,
    }
    constants: i32 {
        VHOST_IOTLB_MSG = 1,
    }
    structures {
        vhost_iotlb_msg {
            iova: u64,
            size: u64,
            uaddr: u64,
            perm: u8,
            r#type: u8,
        }
        vhost_msg {
            r#type: i32,
            iotlb: vhost_iotlb_msg,
            ; rest: [u64; 4]
        }
    }
}

table! {
    IOTLB_V2: "linux/vhost_types.h" since "4.19";
    constants: u32 {
        VHOST_IOTLB_MSG_V2 = 2,
        /// A bit number.
        VHOST_BACKEND_F_IOTLB_MSG_V2 = 1,
    }
    structures {
        vhost_msg_v2 {
            r#type: u32,
            asid: u32 => "5.19",
            iotlb: vhost_iotlb_msg,
            ; rest: [u64; 4]
        }
    }
}

table! {
    BACKEND: "linux/vhost.h" since "4.19";
    calls(VHOST_VIRTIO) {
        VHOST_SET_BACKEND_FEATURES = write(0x25, u64),
        VHOST_GET_BACKEND_FEATURES = read(0x26, u64),
    }
}

table! {
    VDPA: "linux/vhost.h" since "5.7";
    constants: i32 {
        /// In place of a descriptor: none.
        VHOST_FILE_UNBIND = -1,
    }
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_GET_DEVICE_ID = read(0x70, u32),
        VHOST_VDPA_GET_STATUS = read(0x71, u8),
        VHOST_VDPA_SET_STATUS = write(0x72, u8),
        /// Followed by as many bytes as it says.
        VHOST_VDPA_GET_CONFIG = read(0x73, vhost_vdpa_config),
        /// Followed by as many bytes as it says.
        VHOST_VDPA_SET_CONFIG = write(0x74, vhost_vdpa_config),
        VHOST_VDPA_SET_VRING_ENABLE = write(0x75, vhost_vring_state),
        VHOST_VDPA_GET_VRING_NUM = read(0x76, u16),
    }
}

table! {
    VDPA_LAYOUT: "linux/vhost_types.h" since "5.7";
    structures {
        /// `buf` follows.
        vhost_vdpa_config {
            off: u32,
            len: u32,
        }
    }
}

table! {
    CONFIG_CALL: "linux/vhost.h" since "5.8";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_SET_CONFIG_CALL = write(0x77, i32),
    }
}

table! {
    BATCH: "linux/vhost_types.h" since "5.9";
    constants: u8 {
        VHOST_IOTLB_BATCH_BEGIN = 5,
        VHOST_IOTLB_BATCH_END = 6,
    }
    constants: u32 {
        /// A bit number.
        VHOST_BACKEND_F_IOTLB_BATCH = 2,
    }
}

table! {
    RANGE_LAYOUT: "linux/vhost_types.h" since "5.10";
    structures {
        vhost_vdpa_iova_range {
            first: u64,
            last: u64,
        }
    }
}

table! {
    RANGE: "linux/vhost.h" since "5.10";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_GET_IOVA_RANGE = read(0x78, vhost_vdpa_iova_range),
    }
}

table! {
    CONFIG_SIZE: "linux/vhost.h" since "5.18";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_GET_CONFIG_SIZE = read(0x79, u32),
        VHOST_VDPA_GET_VQS_COUNT = read(0x80, u32),
    }
}

table! {
    ASID: "linux/vhost.h" since "5.19";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_GET_AS_NUM = read(0x7a, u32),
        VHOST_VDPA_GET_VRING_GROUP = both(0x7b, vhost_vring_state),
        VHOST_VDPA_SET_GROUP_ASID = write(0x7c, vhost_vring_state),
        VHOST_VDPA_GET_GROUP_NUM = read(0x81, u32),
    }
}

table! {
    ASID_BIT: "linux/vhost_types.h" since "5.19";
    constants: u32 {
        /// A bit number.
        VHOST_BACKEND_F_IOTLB_ASID = 3,
    }
}

table! {
    SUSPEND: "linux/vhost.h" since "6.0";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_SUSPEND = none(0x7d),
    }
}

table! {
    SUSPEND_BIT: "linux/vhost_types.h" since "6.0";
    constants: u32 {
        /// A bit number.
        VHOST_BACKEND_F_SUSPEND = 4,
    }
}

table! {
    RESUME: "linux/vhost.h" since "6.3";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_RESUME = none(0x7e),
    }
}

table! {
    RESUME_BIT: "linux/vhost_types.h" since "6.3";
    constants: u32 {
        /// A bit number.
        VHOST_BACKEND_F_RESUME = 5,
    }
}

table! {
    WORKER: "linux/vhost.h" since "6.5";
    calls(VHOST_VIRTIO) {
        VHOST_NEW_WORKER = read(0x08, vhost_worker_state),
        VHOST_FREE_WORKER = write(0x09, vhost_worker_state),
        VHOST_ATTACH_VRING_WORKER = write(0x15, vhost_vring_worker),
        VHOST_GET_VRING_WORKER = both(0x16, vhost_vring_worker),
    }
}

table! {
    WORKER_LAYOUT: "linux/vhost_types.h" since "6.5";
    structures {
        vhost_worker_state {
            worker_id: u32,
        }
        vhost_vring_worker {
            index: u32,
            worker_id: u32,
        }
    }
}

table! {
    ENABLE_BIT: "linux/vhost_types.h" since "6.6";
    constants: u32 {
        /// A bit number.
        VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK = 6,
    }
}

table! {
    DESC_GROUP: "linux/vhost.h" since "6.7";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_GET_VRING_DESC_GROUP = both(0x7f, vhost_vring_state),
    }
}

table! {
    DESC_BITS: "linux/vhost_types.h" since "6.7";
    constants: u32 {
        /// A bit number.
        VHOST_BACKEND_F_DESC_ASID = 7,
        /// A bit number.
        VHOST_BACKEND_F_IOTLB_PERSIST = 8,
    }
}

table! {
    VRING_SIZE: "linux/vhost.h" since "6.9";
    calls(VHOST_VIRTIO) {
        VHOST_VDPA_GET_VRING_SIZE = both(0x82, vhost_vring_state),
    }
}

table! {
    ARRAY_LAYOUT: "linux/vhost_types.h" since "6.17";
    structures {
        /// As many `u64` follow.
        vhost_features_array {
            count: u64,
        }
    }
}

table! {
    ARRAY: "linux/vhost.h" since "6.17";
    constants: u8 {
        VHOST_FORK_OWNER_KTHREAD = 0,
        VHOST_FORK_OWNER_TASK = 1,
    }
    calls(VHOST_VIRTIO) {
        /// Followed by as many `u64` as it says.
        VHOST_GET_FEATURES_ARRAY = read(0x83, vhost_features_array),
        /// Followed by as many `u64` as it says.
        VHOST_SET_FEATURES_ARRAY = write(0x83, vhost_features_array),
        VHOST_SET_FORK_FROM_OWNER = write(0x84, u8),
        VHOST_GET_FORK_FROM_OWNER = read(0x85, u8),
    }
}

pub(crate) const ROWS: &[&[crate::table::Row]] = &[
    OWNER,
    LAYOUT,
    SCSI,
    SCSI_CALLS,
    ENDIAN,
    BUSYLOOP,
    VSOCK,
    IOTLB,
    IOTLB_V2,
    BACKEND,
    VDPA,
    VDPA_LAYOUT,
    CONFIG_CALL,
    BATCH,
    RANGE_LAYOUT,
    RANGE,
    CONFIG_SIZE,
    ASID,
    ASID_BIT,
    SUSPEND,
    SUSPEND_BIT,
    RESUME,
    RESUME_BIT,
    WORKER,
    WORKER_LAYOUT,
    ENABLE_BIT,
    DESC_GROUP,
    DESC_BITS,
    VRING_SIZE,
    ARRAY_LAYOUT,
    ARRAY,
];
