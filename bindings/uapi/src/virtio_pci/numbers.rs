//! Numbers and layouts of `linux/virtio_pci.h`.

use crate::table::table;

table! {
    LEGACY: "linux/virtio_pci.h" since "2.6.31";
    constants: usize {
        /// An offset in bytes.
        VIRTIO_PCI_HOST_FEATURES = 0,
        /// An offset in bytes.
        VIRTIO_PCI_GUEST_FEATURES = 4,
        /// An offset in bytes.
        VIRTIO_PCI_QUEUE_PFN = 8,
        /// An offset in bytes.
        VIRTIO_PCI_QUEUE_NUM = 12,
        /// An offset in bytes.
        VIRTIO_PCI_QUEUE_SEL = 14,
        /// An offset in bytes.
        VIRTIO_PCI_QUEUE_NOTIFY = 16,
        /// An offset in bytes.
        VIRTIO_PCI_STATUS = 18,
        /// An offset in bytes.
        VIRTIO_PCI_ISR = 19,
        /// An offset in bytes.
        VIRTIO_MSI_CONFIG_VECTOR = 20,
        /// An offset in bytes.
        VIRTIO_MSI_QUEUE_VECTOR = 22,
    }
    constants: u8 {
        VIRTIO_PCI_ISR_CONFIG = 0x2,
    }
    constants: u16 {
        VIRTIO_MSI_NO_VECTOR = 0xffff,
    }
    constants: u32 {
        VIRTIO_PCI_ABI_VERSION = 0,
        VIRTIO_PCI_QUEUE_ADDR_SHIFT = 12,
    }
    constants: usize {
        VIRTIO_PCI_VRING_ALIGN = 4096,
    }
}

table! {
    MODERN: "linux/virtio_pci.h" since "4.0";
    constants: u8 {
        VIRTIO_PCI_CAP_COMMON_CFG = 1,
        VIRTIO_PCI_CAP_NOTIFY_CFG = 2,
        VIRTIO_PCI_CAP_ISR_CFG = 3,
        VIRTIO_PCI_CAP_DEVICE_CFG = 4,
        VIRTIO_PCI_CAP_PCI_CFG = 5,
    }
    constants: usize {
        /// An offset in bytes.
        VIRTIO_PCI_CAP_VNDR = 0,
        /// An offset in bytes.
        VIRTIO_PCI_CAP_NEXT = 1,
        /// An offset in bytes.
        VIRTIO_PCI_CAP_LEN = 2,
        /// An offset in bytes.
        VIRTIO_PCI_CAP_CFG_TYPE = 3,
        /// An offset in bytes.
        VIRTIO_PCI_CAP_BAR = 4,
        /// An offset in bytes.
        VIRTIO_PCI_CAP_OFFSET = 8,
        /// An offset in bytes.
        VIRTIO_PCI_CAP_LENGTH = 12,
        /// An offset in bytes.
        VIRTIO_PCI_NOTIFY_CAP_MULT = 16,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_DFSELECT = 0,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_DF = 4,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_GFSELECT = 8,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_GF = 12,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_MSIX = 16,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_NUMQ = 18,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_STATUS = 20,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_CFGGENERATION = 21,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_SELECT = 22,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_SIZE = 24,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_MSIX = 26,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_ENABLE = 28,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_NOFF = 30,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_DESCLO = 32,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_DESCHI = 36,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_AVAILLO = 40,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_AVAILHI = 44,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_USEDLO = 48,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_USEDHI = 52,
    }
    structures {
        /// Numbers of more than one byte are little-endian, here and below.
        virtio_pci_cap {
            cap_vndr: u8,
            cap_next: u8,
            cap_len: u8,
            cfg_type: u8,
            bar: u8,
            id: u8 => "5.10",
            padding: [u8; 2],
            offset: u32,
            length: u32,
        }
        virtio_pci_notify_cap {
            cap: virtio_pci_cap,
            notify_off_multiplier: u32,
        }
        virtio_pci_common_cfg {
            device_feature_select: u32,
            device_feature: u32,
            guest_feature_select: u32,
            guest_feature: u32,
            msix_config: u16,
            num_queues: u16,
            device_status: u8,
            config_generation: u8,
            queue_select: u16,
            queue_size: u16,
            queue_msix_vector: u16,
            queue_enable: u16,
            queue_notify_off: u16,
            queue_desc_lo: u32,
            queue_desc_hi: u32,
            queue_avail_lo: u32,
            queue_avail_hi: u32,
            queue_used_lo: u32,
            queue_used_hi: u32,
        }
        virtio_pci_cfg_cap {
            cap: virtio_pci_cap,
            pci_cfg_data: [u8; 4],
        }
    }
}

table! {
    SHARED: "linux/virtio_pci.h" since "5.10";
    constants: u8 {
        VIRTIO_PCI_CAP_SHARED_MEMORY_CFG = 8,
    }
    structures {
        virtio_pci_cap64 {
            cap: virtio_pci_cap,
            offset_hi: u32,
            length_hi: u32,
        }
    }
}

table! {
    RESET: "linux/virtio_pci.h" since "6.0";
    constants: usize {
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_NDATA = 56,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_Q_RESET = 58,
    }
}

table! {
    WHOLE: "linux/virtio_pci.h" since "6.7";
    structures {
        virtio_pci_modern_common_cfg {
            cfg: virtio_pci_common_cfg,
            queue_notify_data: u16,
            queue_reset: u16,
            admin_queue_index: u16 => "6.8",
            admin_queue_num: u16 => "6.8",
        }
    }
}

table! {
    ADMIN: "linux/virtio_pci.h" since "6.8";
    constants: usize {
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_ADM_Q_IDX = 60,
        /// An offset in bytes.
        VIRTIO_PCI_COMMON_ADM_Q_NUM = 62,
        VIRTIO_ADMIN_CMD_MAX_NOTIFY_INFO = 4,
    }
    constants: u16 {
        VIRTIO_ADMIN_STATUS_OK = 0,
        VIRTIO_ADMIN_CMD_LIST_QUERY = 0x0,
        VIRTIO_ADMIN_CMD_LIST_USE = 0x1,
        VIRTIO_ADMIN_GROUP_TYPE_SRIOV = 0x1,
        VIRTIO_ADMIN_CMD_LEGACY_COMMON_CFG_WRITE = 0x2,
        VIRTIO_ADMIN_CMD_LEGACY_COMMON_CFG_READ = 0x3,
        VIRTIO_ADMIN_CMD_LEGACY_DEV_CFG_WRITE = 0x4,
        VIRTIO_ADMIN_CMD_LEGACY_DEV_CFG_READ = 0x5,
        VIRTIO_ADMIN_CMD_LEGACY_NOTIFY_INFO = 0x6,
    }
    constants: u8 {
        VIRTIO_ADMIN_CMD_NOTIFY_INFO_FLAGS_END = 0,
        VIRTIO_ADMIN_CMD_NOTIFY_INFO_FLAGS_OWNER_DEV = 0x1,
        VIRTIO_ADMIN_CMD_NOTIFY_INFO_FLAGS_OWNER_MEM = 0x2,
    }
    structures {
        virtio_admin_cmd_hdr {
            opcode: u16,
            group_type: u16,
            reserved1: [u8; 12],
            group_member_id: u64,
        }
        virtio_admin_cmd_status {
            status: u16,
            status_qualifier: u16,
            reserved2: [u8; 4],
        }
        /// `registers` follow.
        virtio_admin_cmd_legacy_wr_data {
            offset: u8,
            reserved: [u8; 7],
        }
        virtio_admin_cmd_legacy_rd_data {
            offset: u8,
        }
        virtio_admin_cmd_notify_info_data {
            flags: u8,
            bar: u8,
            padding: [u8; 6],
            offset: u64,
        }
        virtio_admin_cmd_notify_info_result {
            entries: [virtio_admin_cmd_notify_info_data; VIRTIO_ADMIN_CMD_MAX_NOTIFY_INFO],
        }
    }
}

table! {
    PARTS: "linux/virtio_pci.h" since "6.13";
    constants: u16 {
        VIRTIO_ADMIN_CMD_CAP_ID_LIST_QUERY = 0x7,
        VIRTIO_ADMIN_CMD_DEVICE_CAP_GET = 0x8,
        VIRTIO_ADMIN_CMD_DRIVER_CAP_SET = 0x9,
        VIRTIO_ADMIN_CMD_RESOURCE_OBJ_CREATE = 0xa,
        VIRTIO_ADMIN_CMD_RESOURCE_OBJ_DESTROY = 0xd,
        VIRTIO_ADMIN_CMD_DEV_PARTS_METADATA_GET = 0xe,
        VIRTIO_ADMIN_CMD_DEV_PARTS_GET = 0xf,
        VIRTIO_ADMIN_CMD_DEV_PARTS_SET = 0x10,
        VIRTIO_ADMIN_CMD_DEV_MODE_SET = 0x11,
        VIRTIO_DEV_PARTS_CAP = 0x0000,
        VIRTIO_RESOURCE_OBJ_DEV_PARTS = 0,
    }
    constants: u8 {
        VIRTIO_RESOURCE_OBJ_DEV_PARTS_TYPE_GET = 0,
        VIRTIO_RESOURCE_OBJ_DEV_PARTS_TYPE_SET = 1,
        VIRTIO_ADMIN_CMD_DEV_PARTS_METADATA_TYPE_SIZE = 0,
        VIRTIO_ADMIN_CMD_DEV_PARTS_METADATA_TYPE_COUNT = 1,
        VIRTIO_ADMIN_CMD_DEV_PARTS_METADATA_TYPE_LIST = 2,
        VIRTIO_ADMIN_CMD_DEV_PARTS_GET_TYPE_SELECTED = 0,
        VIRTIO_ADMIN_CMD_DEV_PARTS_GET_TYPE_ALL = 1,
    }
    constants: u32 {
        /// A bit number.
        VIRTIO_DEV_PART_F_OPTIONAL = 0,
        /// A bit number.
        VIRTIO_ADMIN_CMD_DEV_MODE_F_STOPPED = 0,
    }
    constants: usize {
        MAX_CAP_ID = 1,
    }
    structures {
        virtio_dev_parts_cap {
            get_parts_resource_objects_limit: u8,
            set_parts_resource_objects_limit: u8,
        }
        virtio_admin_cmd_query_cap_id_result {
            supported_caps: [u64; MAX_CAP_ID],
        }
        virtio_admin_cmd_cap_get_data {
            id: u16,
            reserved: [u8; 6],
        }
        /// `cap_specific_data` follows.
        virtio_admin_cmd_cap_set_data {
            id: u16,
            reserved: [u8; 6],
        }
        virtio_admin_cmd_resource_obj_cmd_hdr {
            r#type: u16,
            reserved: [u8; 2],
            id: u32,
        }
        /// `resource_obj_specific_data` follows.
        virtio_admin_cmd_resource_obj_create_data {
            hdr: virtio_admin_cmd_resource_obj_cmd_hdr,
            flags: u64,
        }
        virtio_resource_obj_dev_parts {
            r#type: u8,
            reserved: [u8; 7],
        }
        virtio_admin_cmd_dev_parts_metadata_data {
            hdr: virtio_admin_cmd_resource_obj_cmd_hdr,
            r#type: u8,
            reserved: [u8; 7],
        }
        /// `selector` is a union, by `part_type`.
        virtio_dev_part_hdr {
            part_type: u16,
            flags: u8,
            reserved: u8,
            selector: [u8; 8],
            length: u32,
        }
        /// `value` follows.
        virtio_dev_part {
            hdr: virtio_dev_part_hdr,
        }
        /// `hdr_list` follows.
        virtio_admin_cmd_dev_parts_get_data {
            hdr: virtio_admin_cmd_resource_obj_cmd_hdr,
            r#type: u8,
            reserved: [u8; 7],
        }
        /// `parts` follow.
        virtio_admin_cmd_dev_parts_set_data {
            hdr: virtio_admin_cmd_resource_obj_cmd_hdr,
        }
        virtio_admin_cmd_dev_mode_set_data {
            flags: u8,
        }
    }
}

table! {
    VENDOR: "linux/virtio_pci.h" since "6.15";
    constants: u8 {
        VIRTIO_PCI_CAP_VENDOR_CFG = 9,
    }
    structures {
        /// The vendor's own follows.
        virtio_pci_vndr_data {
            cap_vndr: u8,
            cap_next: u8,
            cap_len: u8,
            cfg_type: u8,
            vendor_id: u16,
        }
    }
}

table! {
    SELF: "linux/virtio_pci.h" since "7.0";
    constants: u16 {
        VIRTIO_ADMIN_GROUP_TYPE_SELF = 0x0,
    }
}

pub(crate) const ROWS: &[&[crate::table::Row]] = &[
    LEGACY, MODERN, SHARED, RESET, WHOLE, ADMIN, PARTS, VENDOR, SELF,
];
