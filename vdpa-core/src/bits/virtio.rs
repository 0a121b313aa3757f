//! Bits that do not depend on the device type (virtio 1.4 §6).

table! {
    "VIRTIO_F_" {
        INDIRECT_DESC = 28, "a descriptor may point to a table of descriptors";
        EVENT_IDX = 29, "notifications are asked for by ring position";
        VERSION_1 = 32, "the device follows virtio 1.0 or later";
        ACCESS_PLATFORM = 33, "memory is reached as the platform says, by an IOMMU for example";
        RING_PACKED = 34, "the packed virtqueue format";
        IN_ORDER = 35, "buffers are used in the order they were made available";
        ORDER_PLATFORM = 36, "memory is ordered as the platform orders it for devices";
        SR_IOV = 37, "single root I/O virtualization";
        NOTIFICATION_DATA = 38, "a kick carries where the driver stands in the queue";
        NOTIF_CONFIG_DATA = 39, "a kick carries a value the device chose for the queue";
        RING_RESET = 40, "one queue can be reset alone";
        ADMIN_VQ = 41, "the device has administration virtqueues";
        SUSPEND = 43, "the device can be suspended through its status";
    } legacy {
        NOTIFY_ON_EMPTY = 24, "a call when the available buffers run out";
        ANY_LAYOUT = 27, "no assumption on how a message is cut into descriptors";
    }
}
