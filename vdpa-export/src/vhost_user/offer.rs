//! What a front end is offered.

use vdpa_core::{DeviceType, bits};
use vdpa_vhost_user::{F_LOG_ALL, F_PROTOCOL_FEATURES, ProtocolFeatures};

use crate::serve::Served;

/// The features: virtio's, and the two bits that are vhost's.
pub(super) fn features(served: &Served) -> u64 {
    let log = if served.can().log { F_LOG_ALL } else { 0 };
    served.shown().low_u64() | F_PROTOCOL_FEATURES | log
}

/// What can be agreed on beyond them.
pub(super) fn protocol_features(served: &Served) -> ProtocolFeatures {
    type P = ProtocolFeatures;
    let (info, can) = (served.device().info(), served.can());
    let always = P::MQ
        | P::REPLY_ACK
        | P::BACKEND_REQ
        | P::RESET_DEVICE
        | P::CONFIGURE_MEM_SLOTS
        | P::STATUS;
    let perhaps = [
        (P::CONFIG, info.config_size > 0),
        (P::LOG_SHMFD, can.log),
        (P::INFLIGHT_SHMFD, can.record),
        (P::DEVICE_STATE, can.class_state),
        (P::RARP, can.announce),
        (P::MTU, info.device_type == DeviceType::Net),
    ];
    let there = perhaps.into_iter().filter(|(_, is)| *is);
    there.fold(always, |all, (feature, _)| all | feature)
}

/// How many queues, without the control queue of a network device: VMMs count those that carry packets.
///
/// Of a network device this is two for each pair, as cloud-hypervisor reads it, which refuses fewer. QEMU takes it for
/// pairs, as DPDK's back end has it: a pair too many shows there when its queues are set up.
pub(super) fn queues(served: &Served) -> u16 {
    let control = served.device().info().device_type == DeviceType::Net
        && served.device().offered().contains(bits::net::CTRL_VQ);
    let all = served.device().info().queues;
    all.saturating_sub(u16::from(control))
}
