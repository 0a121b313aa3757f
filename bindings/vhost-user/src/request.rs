//! All requests of both sides, each in one line.

use crate::form::requests;

requests! {
    /// A request of a front end.
    ///
    /// # Spec
    /// vhost-user, "Front-end message types".
    FrontRequest of a "front end" {
        /// which features the device has.
        GetFeatures = 1 "VHOST_USER_GET_FEATURES": Nothing, fds 0 to 0, reply U64;
        /// which of them the driver takes.
        SetFeatures = 2 "VHOST_USER_SET_FEATURES": U64, fds 0 to 0;
        /// the sender owns the session.
        SetOwner = 3 "VHOST_USER_SET_OWNER": Nothing, fds 0 to 0;
        /// deprecated: ignore it, or disable all queues.
        ResetOwner = 4 "VHOST_USER_RESET_OWNER": Nothing, fds 0 to 0;
        /// all memory there is.
        SetMemTable = 5 "VHOST_USER_SET_MEM_TABLE": Memory, fds 0 to 8;
        /// where writes are logged. It has a reply if a file comes with it.
        SetLogBase = 6 "VHOST_USER_SET_LOG_BASE": Log, fds 0 to 1;
        /// an eventfd that says that the log has changed.
        SetLogFd = 7 "VHOST_USER_SET_LOG_FD": Nothing, fds 1 to 1;
        /// how large a queue is.
        SetVringNum = 8 "VHOST_USER_SET_VRING_NUM": VringState, fds 0 to 0;
        /// where its areas are.
        SetVringAddr = 9 "VHOST_USER_SET_VRING_ADDR": VringAddr, fds 0 to 0;
        /// where it stands.
        SetVringBase = 10 "VHOST_USER_SET_VRING_BASE": VringState, fds 0 to 0;
        /// stop it, and say where it stands.
        GetVringBase = 11 "VHOST_USER_GET_VRING_BASE": VringState, fds 0 to 0, reply VringState;
        /// its kick.
        SetVringKick = 12 "VHOST_USER_SET_VRING_KICK": U64, fds 0 to 1;
        /// its call.
        SetVringCall = 13 "VHOST_USER_SET_VRING_CALL": U64, fds 0 to 1;
        /// what says that it is broken.
        SetVringErr = 14 "VHOST_USER_SET_VRING_ERR": U64, fds 0 to 1;
        /// which protocol features there are.
        GetProtocolFeatures = 15 "VHOST_USER_GET_PROTOCOL_FEATURES": Nothing, fds 0 to 0, reply U64;
        /// which of them are taken.
        SetProtocolFeatures = 16 "VHOST_USER_SET_PROTOCOL_FEATURES": U64, fds 0 to 0;
        /// how many queues there are.
        GetQueueNum = 17 "VHOST_USER_GET_QUEUE_NUM": Nothing, fds 0 to 0, reply U64;
        /// enable a queue, or disable it.
        SetVringEnable = 18 "VHOST_USER_SET_VRING_ENABLE": VringState, fds 0 to 0;
        /// announce the guest's address on the network.
        SendRarp = 19 "VHOST_USER_SEND_RARP": U64, fds 0 to 0;
        /// the MTU.
        NetSetMtu = 20 "VHOST_USER_NET_SET_MTU": U64, fds 0 to 0;
        /// the socket for requests of the back end (`VHOST_USER_SET_SLAVE_REQ_FD` once).
        SetBackendReqFd = 21 "VHOST_USER_SET_BACKEND_REQ_FD": Nothing, fds 1 to 1;
        /// a translation comes or goes. It is acknowledged as all are: only if that is negotiated and asked for, which is
        /// how QEMU and DPDK read the sentence that the back end has to acknowledge it.
        IotlbMsg = 22 "VHOST_USER_IOTLB_MSG": Iotlb, fds 0 to 0;
        /// the byte order of a legacy ring.
        SetVringEndian = 23 "VHOST_USER_SET_VRING_ENDIAN": VringState, fds 0 to 0;
        /// read the configuration space.
        GetConfig = 24 "VHOST_USER_GET_CONFIG": Config, fds 0 to 0, reply Config;
        /// write it.
        SetConfig = 25 "VHOST_USER_SET_CONFIG": Config, fds 0 to 0;
        /// make a session of a crypto device.
        CreateCryptoSession = 26 "VHOST_USER_CREATE_CRYPTO_SESSION": Opaque, fds 0 to 0, reply Opaque;
        /// close one.
        CloseCryptoSession = 27 "VHOST_USER_CLOSE_CRYPTO_SESSION": U64, fds 0 to 0;
        /// postcopy is going to be.
        PostcopyAdvise = 28 "VHOST_USER_POSTCOPY_ADVISE": Nothing, fds 0 to 0, reply Nothing with 1;
        /// postcopy begins.
        PostcopyListen = 29 "VHOST_USER_POSTCOPY_LISTEN": Nothing, fds 0 to 0;
        /// postcopy is over.
        PostcopyEnd = 30 "VHOST_USER_POSTCOPY_END": Nothing, fds 0 to 0, reply U64;
        /// make the record of requests in flight.
        GetInflightFd = 31 "VHOST_USER_GET_INFLIGHT_FD": Inflight, fds 0 to 0, reply Inflight with 1;
        /// here it is again.
        SetInflightFd = 32 "VHOST_USER_SET_INFLIGHT_FD": Inflight, fds 1 to 1;
        /// a socket for what is drawn.
        GpuSetSocket = 33 "VHOST_USER_GPU_SET_SOCKET": Nothing, fds 1 to 1;
        /// reset the device.
        ResetDevice = 34 "VHOST_USER_RESET_DEVICE": Nothing, fds 0 to 0;
        /// a kick in band.
        VringKick = 35 "VHOST_USER_VRING_KICK": VringState, fds 0 to 0;
        /// how many regions of memory there may be.
        GetMaxMemSlots = 36 "VHOST_USER_GET_MAX_MEM_SLOTS": Nothing, fds 0 to 0, reply U64;
        /// one more region of memory.
        AddMemReg = 37 "VHOST_USER_ADD_MEM_REG": Region, fds 1 to 1;
        /// one less. A descriptor that comes with it is closed, since some front ends send one.
        RemMemReg = 38 "VHOST_USER_REM_MEM_REG": Region, fds 0 to 1;
        /// the device's status, as the driver set it.
        SetStatus = 39 "VHOST_USER_SET_STATUS": U64, fds 0 to 0;
        /// the device's status.
        GetStatus = 40 "VHOST_USER_GET_STATUS": Nothing, fds 0 to 0, reply U64;
        /// an object that this device has exported.
        GetSharedObject = 41 "VHOST_USER_GET_SHARED_OBJECT": Uuid, fds 0 to 0, reply Opaque with 1;
        /// a channel for what the device alone knows.
        SetDeviceStateFd = 42 "VHOST_USER_SET_DEVICE_STATE_FD": DeviceState, fds 1 to 1, reply U64 with 1;
        /// whether it went through.
        CheckDeviceState = 43 "VHOST_USER_CHECK_DEVICE_STATE": Nothing, fds 0 to 0, reply U64;
        /// which shared memory regions the device has.
        GetShmemConfig = 44 "VHOST_USER_GET_SHMEM_CONFIG": Nothing, fds 0 to 0, reply Opaque;
    }
}

requests! {
    /// A request of a back end, over the back-end channel.
    ///
    /// # Spec
    /// vhost-user, "Back-end message types".
    BackRequest of a "back end" {
        /// a translation is missing, or does not allow what the device does.
        IotlbMsg = 1 "VHOST_USER_BACKEND_IOTLB_MSG": Iotlb, fds 0 to 0;
        /// the configuration space has changed.
        ConfigChangeMsg = 2 "VHOST_USER_BACKEND_CONFIG_CHANGE_MSG": Nothing, fds 0 to 0;
        /// a doorbell that the guest may write itself; without a descriptor, there is none any more.
        VringHostNotifierMsg = 3 "VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG": Area, fds 0 to 1;
        /// a call in band.
        VringCall = 4 "VHOST_USER_BACKEND_VRING_CALL": VringState, fds 0 to 0;
        /// a queue is broken, in band.
        VringErr = 5 "VHOST_USER_BACKEND_VRING_ERR": VringState, fds 0 to 0;
        /// this device exports an object.
        SharedObjectAdd = 6 "VHOST_USER_BACKEND_SHARED_OBJECT_ADD": Uuid, fds 0 to 0;
        /// no more.
        SharedObjectRemove = 7 "VHOST_USER_BACKEND_SHARED_OBJECT_REMOVE": Uuid, fds 0 to 0;
        /// an object of another device.
        SharedObjectLookup = 8 "VHOST_USER_BACKEND_SHARED_OBJECT_LOOKUP": Uuid, fds 0 to 0, reply U64 with 1;
        /// map a file into a shared memory region.
        ShmemMap = 9 "VHOST_USER_BACKEND_SHMEM_MAP": Opaque, fds 1 to 1;
        /// unmap it.
        ShmemUnmap = 10 "VHOST_USER_BACKEND_SHMEM_UNMAP": Opaque, fds 0 to 0;
    }
}
