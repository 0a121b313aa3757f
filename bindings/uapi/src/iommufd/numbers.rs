//! Numbers and layouts of `linux/iommufd.h`. What points somewhere holds an address as a `u64`.

use crate::table::table;

table! {
    SPACES: "linux/iommufd.h" since "6.2";
    constants: u8 {
        IOMMUFD_TYPE = b';',
        IOMMUFD_CMD_BASE = 0x80,
    }
    constants: u8 {
        IOMMUFD_CMD_DESTROY = 0x80,
        IOMMUFD_CMD_IOAS_ALLOC = 0x81,
        IOMMUFD_CMD_IOAS_ALLOW_IOVAS = 0x82,
        IOMMUFD_CMD_IOAS_COPY = 0x83,
        IOMMUFD_CMD_IOAS_IOVA_RANGES = 0x84,
        IOMMUFD_CMD_IOAS_MAP = 0x85,
        IOMMUFD_CMD_IOAS_UNMAP = 0x86,
        IOMMUFD_CMD_OPTION = 0x87,
        IOMMUFD_CMD_VFIO_IOAS = 0x88,
    }
    constants: u32 {
        IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0,
        IOMMU_IOAS_MAP_WRITEABLE = 1 << 1,
        IOMMU_IOAS_MAP_READABLE = 1 << 2,
        IOMMU_OPTION_RLIMIT_MODE = 0,
        IOMMU_OPTION_HUGE_PAGES = 1,
    }
    constants: u16 {
        IOMMU_OPTION_OP_SET = 0,
        IOMMU_OPTION_OP_GET = 1,
        IOMMU_VFIO_IOAS_GET = 0,
        IOMMU_VFIO_IOAS_SET = 1,
        IOMMU_VFIO_IOAS_CLEAR = 2,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_DESTROY = plain(IOMMUFD_CMD_DESTROY, iommu_destroy),
        IOMMU_IOAS_ALLOC = plain(IOMMUFD_CMD_IOAS_ALLOC, iommu_ioas_alloc),
        IOMMU_IOAS_ALLOW_IOVAS = plain(IOMMUFD_CMD_IOAS_ALLOW_IOVAS, iommu_ioas_allow_iovas),
        IOMMU_IOAS_COPY = plain(IOMMUFD_CMD_IOAS_COPY, iommu_ioas_copy),
        IOMMU_IOAS_IOVA_RANGES = plain(IOMMUFD_CMD_IOAS_IOVA_RANGES, iommu_ioas_iova_ranges),
        IOMMU_IOAS_MAP = plain(IOMMUFD_CMD_IOAS_MAP, iommu_ioas_map),
        IOMMU_IOAS_UNMAP = plain(IOMMUFD_CMD_IOAS_UNMAP, iommu_ioas_unmap),
        IOMMU_OPTION = plain(IOMMUFD_CMD_OPTION, iommu_option),
        IOMMU_VFIO_IOAS = plain(IOMMUFD_CMD_VFIO_IOAS, iommu_vfio_ioas),
    }
    structures {
        iommu_destroy {
            size: u32,
            id: u32,
        }
        iommu_ioas_alloc {
            size: u32,
            flags: u32,
            out_ioas_id: u32,
        }
        iommu_iova_range {
            start: u64,
            last: u64,
        }
        iommu_ioas_iova_ranges {
            size: u32,
            ioas_id: u32,
            num_iovas: u32,
            __reserved: u32,
            allowed_iovas: u64,
            out_iova_alignment: u64,
        }
        iommu_ioas_allow_iovas {
            size: u32,
            ioas_id: u32,
            num_iovas: u32,
            __reserved: u32,
            allowed_iovas: u64,
        }
        iommu_ioas_map {
            size: u32,
            flags: u32,
            ioas_id: u32,
            __reserved: u32,
            user_va: u64,
            length: u64,
            iova: u64,
        }
        iommu_ioas_copy {
            size: u32,
            flags: u32,
            dst_ioas_id: u32,
            src_ioas_id: u32,
            length: u64,
            dst_iova: u64,
            src_iova: u64,
        }
        iommu_ioas_unmap {
            size: u32,
            ioas_id: u32,
            iova: u64,
            length: u64,
        }
        iommu_option {
            size: u32,
            option_id: u32,
            op: u16,
            __reserved: u16,
            object_id: u32,
            val64: u64,
        }
        iommu_vfio_ioas {
            size: u32,
            ioas_id: u32,
            op: u16,
            __reserved: u16,
        }
    }
}

table! {
    TABLES: "linux/iommufd.h" since "6.6";
    constants: u8 {
        IOMMUFD_CMD_HWPT_ALLOC = 0x89,
        IOMMUFD_CMD_GET_HW_INFO = 0x8a,
    }
    constants: u32 {
        IOMMU_HW_INFO_TYPE_NONE = 0,
        IOMMU_HW_INFO_TYPE_INTEL_VTD = 1,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_HWPT_ALLOC = plain(IOMMUFD_CMD_HWPT_ALLOC, iommu_hwpt_alloc),
        IOMMU_GET_HW_INFO = plain(IOMMUFD_CMD_GET_HW_INFO, iommu_hw_info),
    }
    structures {
        iommu_hwpt_alloc {
            size: u32,
            flags: u32,
            dev_id: u32,
            pt_id: u32,
            out_hwpt_id: u32,
            __reserved: u32,
            data_type: u32,
            data_len: u32,
            data_uptr: u64,
            fault_id: u32 => "6.11",
            __reserved2: u32 => "6.11",
        }
        iommu_hw_info_vtd {
            flags: u32,
            __reserved: u32,
            cap_reg: u64,
            ecap_reg: u64,
        }
        /// `in_data_type` (Linux 6.17) lies where `out_data_type` does.
        iommu_hw_info {
            size: u32,
            flags: u32,
            dev_id: u32,
            data_len: u32,
            data_uptr: u64,
            out_data_type: u32,
            out_max_pasid_log2: u8 => "6.15",
            __reserved: [u8; 3] => "6.15",
            out_capabilities: u64 => "6.7",
        }
    }
}

table! {
    DIRTY: "linux/iommufd.h" since "6.7";
    constants: u8 {
        IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING = 0x8b,
        IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP = 0x8c,
    }
    constants: u32 {
        IOMMU_HWPT_ALLOC_NEST_PARENT = 1 << 0,
        IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 1 << 1,
        IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1,
        IOMMU_HWPT_DATA_NONE = 0,
        IOMMU_HWPT_DATA_VTD_S1 = 1,
        IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1 << 0,
    }
    constants: u64 {
        IOMMU_VTD_S1_SRE = 1 << 0,
        IOMMU_VTD_S1_EAFE = 1 << 1,
        IOMMU_VTD_S1_WPE = 1 << 2,
        IOMMU_HW_CAP_DIRTY_TRACKING = 1 << 0,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_HWPT_SET_DIRTY_TRACKING = plain(IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING, iommu_hwpt_set_dirty_tracking),
        IOMMU_HWPT_GET_DIRTY_BITMAP = plain(IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP, iommu_hwpt_get_dirty_bitmap),
    }
    structures {
        iommu_hwpt_vtd_s1 {
            flags: u64,
            pgtbl_addr: u64,
            addr_width: u32,
            __reserved: u32,
        }
        iommu_hwpt_set_dirty_tracking {
            size: u32,
            flags: u32,
            hwpt_id: u32,
            __reserved: u32,
        }
        iommu_hwpt_get_dirty_bitmap {
            size: u32,
            hwpt_id: u32,
            flags: u32,
            __reserved: u32,
            iova: u64,
            length: u64,
            page_size: u64,
            data: u64,
        }
    }
}

table! {
    INVALIDATE: "linux/iommufd.h" since "6.8";
    constants: u8 {
        IOMMUFD_CMD_HWPT_INVALIDATE = 0x8d,
    }
    constants: u32 {
        IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1,
        IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0,
        IOMMU_VTD_INV_FLAGS_LEAF = 1 << 0,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_HWPT_INVALIDATE = plain(IOMMUFD_CMD_HWPT_INVALIDATE, iommu_hwpt_invalidate),
    }
    structures {
        iommu_hwpt_vtd_s1_invalidate {
            addr: u64,
            npages: u64,
            flags: u32,
            __reserved: u32,
        }
        iommu_hwpt_invalidate {
            size: u32,
            hwpt_id: u32,
            data_uptr: u64,
            data_type: u32,
            entry_len: u32,
            entry_num: u32,
            __reserved: u32,
        }
    }
}

table! {
    FAULTS: "linux/iommufd.h" since "6.11";
    constants: u8 {
        IOMMUFD_CMD_FAULT_QUEUE_ALLOC = 0x8e,
    }
    constants: u32 {
        IOMMU_HWPT_FAULT_ID_VALID = 1 << 2,
        IOMMU_PGFAULT_FLAGS_PASID_VALID = 1 << 0,
        IOMMU_PGFAULT_FLAGS_LAST_PAGE = 1 << 1,
        IOMMU_PGFAULT_PERM_READ = 1 << 0,
        IOMMU_PGFAULT_PERM_WRITE = 1 << 1,
        IOMMU_PGFAULT_PERM_EXEC = 1 << 2,
        IOMMU_PGFAULT_PERM_PRIV = 1 << 3,
        IOMMUFD_PAGE_RESP_SUCCESS = 0,
        IOMMUFD_PAGE_RESP_INVALID = 1,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_FAULT_QUEUE_ALLOC = plain(IOMMUFD_CMD_FAULT_QUEUE_ALLOC, iommu_fault_alloc),
    }
    structures {
        iommu_hwpt_pgfault {
            flags: u32,
            dev_id: u32,
            pasid: u32,
            grpid: u32,
            perm: u32,
            __reserved: u32,
            addr: u64,
            length: u32,
            cookie: u32,
        }
        iommu_hwpt_page_response {
            cookie: u32,
            code: u32,
        }
        iommu_fault_alloc {
            size: u32,
            flags: u32,
            out_fault_id: u32,
            out_fault_fd: u32,
        }
    }
}

table! {
    NESTING: "linux/iommufd.h" since "6.13";
    constants: u8 {
        IOMMUFD_CMD_IOAS_MAP_FILE = 0x8f,
        IOMMUFD_CMD_VIOMMU_ALLOC = 0x90,
        IOMMUFD_CMD_VDEVICE_ALLOC = 0x91,
    }
    constants: u32 {
        IOMMU_HWPT_DATA_ARM_SMMUV3 = 2,
        IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2,
        IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = 1,
        IOMMU_VIOMMU_TYPE_DEFAULT = 0,
        IOMMU_VIOMMU_TYPE_ARM_SMMUV3 = 1,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_IOAS_MAP_FILE = plain(IOMMUFD_CMD_IOAS_MAP_FILE, iommu_ioas_map_file),
        IOMMU_VIOMMU_ALLOC = plain(IOMMUFD_CMD_VIOMMU_ALLOC, iommu_viommu_alloc),
        IOMMU_VDEVICE_ALLOC = plain(IOMMUFD_CMD_VDEVICE_ALLOC, iommu_vdevice_alloc),
    }
    structures {
        iommu_ioas_map_file {
            size: u32,
            flags: u32,
            ioas_id: u32,
            fd: i32,
            start: u64,
            length: u64,
            iova: u64,
        }
        iommu_hwpt_arm_smmuv3 {
            ste: [u64; 2],
        }
        iommu_hw_info_arm_smmuv3 {
            flags: u32,
            __reserved: u32,
            idr: [u32; 6],
            iidr: u32,
            aidr: u32,
        }
        iommu_viommu_arm_smmuv3_invalidate {
            cmd: [u64; 2],
        }
        iommu_viommu_alloc {
            size: u32,
            flags: u32,
            r#type: u32,
            dev_id: u32,
            hwpt_id: u32,
            out_viommu_id: u32,
            data_len: u32,
            __reserved: u32,
            data_uptr: u64,
        }
        iommu_vdevice_alloc {
            size: u32,
            viommu_id: u32,
            dev_id: u32,
            out_vdevice_id: u32,
            virt_id: u64,
        }
    }
}

table! {
    PROCESS: "linux/iommufd.h" since "6.14";
    constants: u8 {
        IOMMUFD_CMD_IOAS_CHANGE_PROCESS = 0x92,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_IOAS_CHANGE_PROCESS = plain(IOMMUFD_CMD_IOAS_CHANGE_PROCESS, iommu_ioas_change_process),
    }
    structures {
        iommu_ioas_change_process {
            size: u32,
            __reserved: u32,
        }
    }
}

table! {
    EVENTS: "linux/iommufd.h" since "6.15";
    constants: u8 {
        IOMMUFD_CMD_VEVENTQ_ALLOC = 0x93,
    }
    constants: u32 {
        IOMMU_HWPT_ALLOC_PASID = 1 << 3,
        IOMMU_VEVENTQ_FLAG_LOST_EVENTS = 1 << 0,
        IOMMU_VEVENTQ_TYPE_DEFAULT = 0,
        IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 = 1,
    }
    constants: u64 {
        IOMMU_HW_CAP_PCI_PASID_EXEC = 1 << 1,
        IOMMU_HW_CAP_PCI_PASID_PRIV = 1 << 2,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_VEVENTQ_ALLOC = plain(IOMMUFD_CMD_VEVENTQ_ALLOC, iommu_veventq_alloc),
    }
    structures {
        iommufd_vevent_header {
            flags: u32,
            sequence: u32,
        }
        iommu_vevent_arm_smmuv3 {
            evt: [u64; 4],
        }
        iommu_veventq_alloc {
            size: u32,
            flags: u32,
            viommu_id: u32,
            r#type: u32,
            veventq_depth: u32,
            out_veventq_id: u32,
            out_veventq_fd: u32,
            __reserved: u32,
        }
    }
}

table! {
    QUEUES: "linux/iommufd.h" since "6.17";
    constants: u8 {
        IOMMUFD_CMD_HW_QUEUE_ALLOC = 0x94,
    }
    constants: u32 {
        IOMMU_HW_INFO_TYPE_DEFAULT = 0,
        IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3,
        IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1 << 0,
        IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2,
        IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2,
        IOMMU_HW_QUEUE_TYPE_DEFAULT = 0,
        IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV = 1,
    }
    calls(IOMMUFD_TYPE) {
        IOMMU_HW_QUEUE_ALLOC = plain(IOMMUFD_CMD_HW_QUEUE_ALLOC, iommu_hw_queue_alloc),
    }
    structures {
        iommu_hw_info_tegra241_cmdqv {
            flags: u32,
            version: u8,
            log2vcmdqs: u8,
            log2vsids: u8,
            __reserved: u8,
        }
        iommu_viommu_tegra241_cmdqv {
            out_vintf_mmap_offset: u64,
            out_vintf_mmap_length: u64,
        }
        iommu_vevent_tegra241_cmdqv {
            lvcmdq_err_map: [u64; 2],
        }
        iommu_hw_queue_alloc {
            size: u32,
            flags: u32,
            viommu_id: u32,
            r#type: u32,
            index: u32,
            out_hw_queue_id: u32,
            nesting_parent_iova: u64,
            length: u64,
        }
    }
}

table! {
    AMD: "linux/iommufd.h" since "7.0";
    constants: u32 {
        IOMMU_HW_INFO_TYPE_AMD = 4,
        IOMMU_HWPT_DATA_AMD_GUEST = 3,
    }
    structures {
        iommu_hw_info_amd {
            efr: u64,
            efr2: u64,
        }
        iommu_hwpt_amd_guest {
            dte: [u64; 4],
        }
    }
}

table! {
    ATS: "linux/iommufd.h" since "7.1";
    constants: u64 {
        IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 1 << 3,
    }
}

pub(crate) const ROWS: &[&[crate::table::Row]] = &[
    SPACES, TABLES, DIRTY, INVALIDATE, FAULTS, NESTING, PROCESS, EVENTS, QUEUES, AMD, ATS,
];
