//! What the two sides can agree on beyond virtio's features.

/// Bit 26 of the features, as a mask: writes of the device are to be logged. It is of vhost, never of virtio: no driver sees
/// it (`VHOST_F_LOG_ALL`).
pub const F_LOG_ALL: u64 = 1 << 26;

/// Bit 30 of the features, as a mask: there are protocol features. It is of vhost-user, never of virtio
/// (`VHOST_USER_F_PROTOCOL_FEATURES`).
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;

bitflags::bitflags! {
    /// Extensions of the protocol, of `GET_PROTOCOL_FEATURES` and `SET_PROTOCOL_FEATURES`. Bits without a name are kept
    /// as they came.
    ///
    /// # Spec
    /// vhost-user, "Protocol features".
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct ProtocolFeatures: u64 {
        /// `VHOST_USER_PROTOCOL_F_MQ`: the back end says how many queues it has.
        const MQ = 1 << 0;
        /// `VHOST_USER_PROTOCOL_F_LOG_SHMFD`: the log of writes comes as a file to map.
        const LOG_SHMFD = 1 << 1;
        /// `VHOST_USER_PROTOCOL_F_RARP`: the back end announces where a guest went.
        const RARP = 1 << 2;
        /// `VHOST_USER_PROTOCOL_F_REPLY_ACK`: any request can ask for an acknowledgement.
        const REPLY_ACK = 1 << 3;
        /// `VHOST_USER_PROTOCOL_F_MTU`: the front end says the MTU.
        const MTU = 1 << 4;
        /// `VHOST_USER_PROTOCOL_F_BACKEND_REQ`: there is a channel for requests of the back end.
        const BACKEND_REQ = 1 << 5;
        /// `VHOST_USER_PROTOCOL_F_CROSS_ENDIAN`: legacy rings of either byte order.
        const CROSS_ENDIAN = 1 << 6;
        /// `VHOST_USER_PROTOCOL_F_CRYPTO_SESSION`: sessions of crypto devices.
        const CRYPTO_SESSION = 1 << 7;
        /// `VHOST_USER_PROTOCOL_F_PAGEFAULT`: migration that goes on after the switch.
        const PAGEFAULT = 1 << 8;
        /// `VHOST_USER_PROTOCOL_F_CONFIG`: the back end has the configuration space.
        const CONFIG = 1 << 9;
        /// `VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD`: requests of the back end may bring descriptors.
        const BACKEND_SEND_FD = 1 << 10;
        /// `VHOST_USER_PROTOCOL_F_HOST_NOTIFIER`: the back end can hand over a doorbell.
        const HOST_NOTIFIER = 1 << 11;
        /// `VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD`: a record of requests in flight outlives the back end.
        const INFLIGHT_SHMFD = 1 << 12;
        /// `VHOST_USER_PROTOCOL_F_RESET_DEVICE`: the front end can reset the device.
        const RESET_DEVICE = 1 << 13;
        /// `VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS`: kicks and calls as messages. Not without `BACKEND_REQ` and
        /// `REPLY_ACK`.
        const INBAND_NOTIFICATIONS = 1 << 14;
        /// `VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS`: regions of memory come and go one by one.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// `VHOST_USER_PROTOCOL_F_STATUS`: the device's status is passed on.
        const STATUS = 1 << 16;
        /// `VHOST_USER_PROTOCOL_F_XEN_MMAP`: regions have two more fields, for Xen. This crate does not read them.
        const XEN_MMAP = 1 << 17;
        /// `VHOST_USER_PROTOCOL_F_SHARED_OBJECT`: objects that devices share, by UUID.
        const SHARED_OBJECT = 1 << 18;
        /// `VHOST_USER_PROTOCOL_F_DEVICE_STATE`: what the device alone knows can be moved.
        const DEVICE_STATE = 1 << 19;
        /// `VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT`: a queue can be stopped with requests in flight, which the
        /// record has.
        const GET_VRING_BASE_INFLIGHT = 1 << 20;
        /// `VHOST_USER_PROTOCOL_F_GPA_ADDRESSES`: addresses of rings are guest-physical ones.
        const GPA_ADDRESSES = 1 << 21;
        /// `VHOST_USER_PROTOCOL_F_SHMEM`: the device has shared memory regions.
        const SHMEM = 1 << 22;

        const _ = !0;
    }
}

impl ProtocolFeatures {
    /// What these need that is not among them. Who accepts such a set has broken the protocol.
    pub fn lacks(self) -> Self {
        let needs = if self.contains(Self::INBAND_NOTIFICATIONS) {
            Self::BACKEND_REQ | Self::REPLY_ACK
        } else {
            Self::empty()
        };
        needs.difference(self)
    }
}
