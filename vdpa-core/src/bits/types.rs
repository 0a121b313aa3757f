//! Bits of the device types that have few of them.

/// Bits of the console device (virtio 1.4 §5.3.3).
pub mod console {
    table! {
        "VIRTIO_CONSOLE_F_" {
            SIZE = 0, "the config space has columns and rows";
            MULTIPORT = 1, "several ports and the control queues";
            EMERG_WRITE = 2, "emergency output through the config space";
        }
    }
}

/// Bits of the traditional memory balloon (virtio 1.4 §5.5.3).
pub mod balloon {
    table! {
        "VIRTIO_BALLOON_F_" {
            MUST_TELL_HOST = 0, "pages are used again only after the device was told";
            STATS_VQ = 1, "a queue for memory statistics";
            DEFLATE_ON_OOM = 2, "the balloon deflates when memory runs out";
            FREE_PAGE_HINT = 3, "hints at free pages";
            PAGE_POISON = 4, "the driver writes a known value to deflated pages";
            PAGE_REPORTING = 5, "free pages are reported";
        }
    }
}

/// Bits of the SCSI host (virtio 1.4 §5.6.3).
pub mod scsi {
    table! {
        "VIRTIO_SCSI_F_" {
            INOUT = 0, "one request may both read and write";
            HOTPLUG = 1, "targets and units may come and go";
            CHANGE = 2, "changes of a unit's parameters are reported";
            T10_PI = 3, "requests carry T10 protection information";
        }
    }
}

/// Bits of the GPU device (virtio 1.4 §5.7.3).
pub mod gpu {
    table! {
        "VIRTIO_GPU_F_" {
            VIRGL = 0, "virgl 3D mode";
            EDID = 1, "display identification";
            RESOURCE_UUID = 2, "resources can be exported by UUID";
            RESOURCE_BLOB = 3, "resources by size";
            CONTEXT_INIT = 4, "several context types and timelines";
            BLOB_ALIGNMENT = 5, "the config space has the alignment of blobs";
        }
    }
}

/// Bits of the crypto device (virtio 1.4 §5.9.3).
pub mod crypto {
    table! {
        "VIRTIO_CRYPTO_F_" {
            REVISION_1 = 0, "the request format of revision 1";
            CIPHER_STATELESS_MODE = 1, "cipher requests without a session";
            HASH_STATELESS_MODE = 2, "hash requests without a session";
            MAC_STATELESS_MODE = 3, "MAC requests without a session";
            AEAD_STATELESS_MODE = 4, "AEAD requests without a session";
            AKCIPHER_STATELESS_MODE = 5, "asymmetric cipher requests without a session";
        }
    }
}

/// Bits of the socket device (virtio 1.4 §5.10.3).
pub mod socket {
    table! {
        "VIRTIO_VSOCK_F_" {
            STREAM = 0, "stream sockets";
            SEQPACKET = 1, "sequential packet sockets";
            NO_IMPLIED_STREAM = 2, "stream sockets only with their own bit";
        }
    }
}

/// Bits of the file system device (virtio 1.4 §5.11.3).
pub mod fs {
    table! {
        "VIRTIO_FS_F_" {
            NOTIFICATION = 0, "FUSE notifications";
        }
    }
}

/// Bits of the IOMMU device (virtio 1.4 §5.13.3).
pub mod iommu {
    table! {
        "VIRTIO_IOMMU_F_" {
            INPUT_RANGE = 0, "the config space has the range of virtual addresses";
            DOMAIN_RANGE = 1, "the config space has the range of domains";
            MAP_UNMAP = 2, "map and unmap requests";
            BYPASS = 3, "unattached endpoints bypass the IOMMU";
            PROBE = 4, "the probe request";
            MMIO = 5, "mappings may be of device memory";
            BYPASS_CONFIG = 6, "the config space says whether endpoints bypass";
        }
    }
}

/// Bits of the sound device (virtio 1.4 §5.14.3).
pub mod sound {
    table! {
        "VIRTIO_SND_F_" {
            CTLS = 0, "control elements";
        }
    }
}

/// Bits of the memory device (virtio 1.4 §5.15.3).
pub mod mem {
    table! {
        "VIRTIO_MEM_F_" {
            ACPI_PXM = 0, "the config space has the ACPI proximity domain";
            UNPLUGGED_INACCESSIBLE = 1, "unplugged memory is not accessed";
            PERSISTENT_SUSPEND = 2, "memory outlives a suspended guest";
        }
    }
}

/// Bits of the I2C adapter (virtio 1.4 §5.16.3).
pub mod i2c {
    table! {
        "VIRTIO_I2C_F_" {
            ZERO_LENGTH_REQUEST = 0, "requests without data";
        }
    }
}

/// Bits of the SCMI device (virtio 1.4 §5.17.3).
pub mod scmi {
    table! {
        "VIRTIO_SCMI_F_" {
            P2A_CHANNELS = 0, "notifications and delayed responses";
            SHARED_MEMORY = 1, "statistics in shared memory";
        }
    }
}

/// Bits of the GPIO device (virtio 1.4 §5.18.3).
pub mod gpio {
    table! {
        "VIRTIO_GPIO_F_" {
            IRQ = 0, "interrupts on lines";
        }
    }
}

/// Bits of the persistent memory device (virtio 1.4 §5.19.3).
pub mod pmem {
    table! {
        "VIRTIO_PMEM_F_" {
            SHMEM_REGION = 0, "the memory is a shared memory region";
        }
    }
}

/// Bits of the CAN controller (virtio 1.4 §5.20.3).
pub mod can {
    table! {
        "VIRTIO_CAN_F_" {
            CAN_CLASSIC = 0, "classic frames";
            CAN_FD = 1, "CAN FD frames";
            RTR_FRAMES = 2, "remote transmission requests";
            LATE_TX_ACK = 3, "a frame is used once it was on the bus";
        }
    }
}

/// Bits of the real time clock (virtio 1.4 §5.23.3).
pub mod rtc {
    table! {
        "VIRTIO_RTC_F_" {
            ALARM = 0, "alarms";
        }
    }
}
