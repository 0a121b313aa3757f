//! Numbers of `linux/vdpa.h`.

use crate::table::table;

table! {
    FAMILY: "linux/vdpa.h" since "5.12";
    constants: u8 {
        VDPA_GENL_VERSION = 1,
        VDPA_CMD_UNSPEC = 0,
        VDPA_CMD_MGMTDEV_NEW = 1,
        VDPA_CMD_MGMTDEV_GET = 2,
        VDPA_CMD_DEV_NEW = 3,
        VDPA_CMD_DEV_DEL = 4,
        VDPA_CMD_DEV_GET = 5,
    }
    constants: u16 {
        VDPA_ATTR_UNSPEC = 0,
        VDPA_ATTR_PAD = 0,
        /// Text.
        VDPA_ATTR_MGMTDEV_BUS_NAME = 1,
        /// Text.
        VDPA_ATTR_MGMTDEV_DEV_NAME = 2,
        /// `u64`: a bit for each device type.
        VDPA_ATTR_MGMTDEV_SUPPORTED_CLASSES = 3,
        /// Text.
        VDPA_ATTR_DEV_NAME = 4,
        /// `u32`.
        VDPA_ATTR_DEV_ID = 5,
        /// `u32`.
        VDPA_ATTR_DEV_VENDOR_ID = 6,
        /// `u32`.
        VDPA_ATTR_DEV_MAX_VQS = 7,
        /// `u16`.
        VDPA_ATTR_DEV_MAX_VQ_SIZE = 8,
    }
    texts {
        VDPA_GENL_NAME = "vdpa",
    }
}

table! {
    CONFIG: "linux/vdpa.h" since "5.16";
    constants: u8 {
        VDPA_CMD_DEV_CONFIG_GET = 6,
    }
    constants: u16 {
        /// `u16`.
        VDPA_ATTR_DEV_MIN_VQ_SIZE = 9,
        /// Six bytes.
        VDPA_ATTR_DEV_NET_CFG_MACADDR = 10,
        /// `u16`, whatever the header says.
        VDPA_ATTR_DEV_NET_STATUS = 11,
        /// `u16`.
        VDPA_ATTR_DEV_NET_CFG_MAX_VQP = 12,
        /// `u16`.
        VDPA_ATTR_DEV_NET_CFG_MTU = 13,
    }
}

table! {
    FEATURES: "linux/vdpa.h" since "5.17";
    constants: u16 {
        /// `u64`.
        VDPA_ATTR_DEV_NEGOTIATED_FEATURES = 14,
        /// `u32`.
        VDPA_ATTR_DEV_MGMTDEV_MAX_VQS = 15,
        /// `u64`.
        VDPA_ATTR_DEV_SUPPORTED_FEATURES = 16,
    }
}

table! {
    STATISTICS: "linux/vdpa.h" since "5.19";
    constants: u8 {
        VDPA_CMD_DEV_VSTATS_GET = 7,
    }
    constants: u16 {
        /// `u32`.
        VDPA_ATTR_DEV_QUEUE_INDEX = 17,
        /// Text.
        VDPA_ATTR_DEV_VENDOR_ATTR_NAME = 18,
        /// `u64`.
        VDPA_ATTR_DEV_VENDOR_ATTR_VALUE = 19,
    }
}

table! {
    PROVISIONED: "linux/vdpa.h" since "6.1";
    constants: u16 {
        /// `u64`.
        VDPA_ATTR_DEV_FEATURES = 20,
    }
}

table! {
    BLOCK: "linux/vdpa.h" since "6.9";
    constants: u16 {
        /// `u64`.
        VDPA_ATTR_DEV_BLK_CFG_CAPACITY = 21,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_SIZE_MAX = 22,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_BLK_SIZE = 23,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_SEG_MAX = 24,
        /// `u16`.
        VDPA_ATTR_DEV_BLK_CFG_NUM_QUEUES = 25,
        /// `u8`.
        VDPA_ATTR_DEV_BLK_CFG_PHY_BLK_EXP = 26,
        /// `u8`.
        VDPA_ATTR_DEV_BLK_CFG_ALIGN_OFFSET = 27,
        /// `u16`.
        VDPA_ATTR_DEV_BLK_CFG_MIN_IO_SIZE = 28,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_OPT_IO_SIZE = 29,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_MAX_DISCARD_SEC = 30,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_MAX_DISCARD_SEG = 31,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_DISCARD_SEC_ALIGN = 32,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_MAX_WRITE_ZEROES_SEC = 33,
        /// `u32`.
        VDPA_ATTR_DEV_BLK_CFG_MAX_WRITE_ZEROES_SEG = 34,
        /// `u8`.
        VDPA_ATTR_DEV_BLK_READ_ONLY = 35,
        /// `u8`.
        VDPA_ATTR_DEV_BLK_FLUSH = 36,
    }
}

table! {
    CHANGE: "linux/vdpa.h" since "6.12";
    constants: u8 {
        VDPA_CMD_DEV_ATTR_SET = 8,
    }
}

pub(crate) const ROWS: &[&[crate::table::Row]] = &[
    FAMILY,
    CONFIG,
    FEATURES,
    STATISTICS,
    PROVISIONED,
    BLOCK,
    CHANGE,
];
