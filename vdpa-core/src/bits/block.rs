//! Bits of the block device (virtio 1.4 §5.2.3).

table! {
    "VIRTIO_BLK_F_" {
        SIZE_MAX = 1, "the config space has the maximum segment size";
        SEG_MAX = 2, "the config space has the maximum number of segments";
        GEOMETRY = 4, "the config space has a disk geometry";
        RO = 5, "the device is read-only";
        BLK_SIZE = 6, "the config space has the block size";
        FLUSH = 9, "the flush command";
        TOPOLOGY = 10, "the config space has the best I/O sizes and alignment";
        CONFIG_WCE = 11, "the cache mode can be switched";
        MQ = 12, "several request queues";
        DISCARD = 13, "the discard command";
        WRITE_ZEROES = 14, "the write-zeroes command";
        LIFETIME = 15, "the lifetime command";
        SECURE_ERASE = 16, "the secure-erase command";
        ZONED = 17, "the device is zoned";
    } legacy {
        BARRIER = 0, "request barriers";
        SCSI = 7, "SCSI packet commands";
    }
}
