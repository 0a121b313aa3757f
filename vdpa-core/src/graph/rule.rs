//! The table: what each feature needs, type by type.

use crate::bits::{self, block, can, crypto, gpu, i2c, net};
use crate::device_type::DeviceType;
use crate::features::{FeatureBit, Features};

/// On which sets a rule is binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// On what a device offers and on what a driver accepts.
    Always,
    /// On what a device offers; a driver may accept the one without the other.
    Offer,
}

/// One dependency: who has `bit` has at least one of `any_of` too.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    bit: FeatureBit,
    any_of: &'static [FeatureBit],
    binding: Binding,
    clause: &'static str,
}

impl Rule {
    const fn new(bit: FeatureBit, any_of: &'static [FeatureBit], clause: &'static str) -> Self {
        Self {
            bit,
            any_of,
            binding: Binding::Always,
            clause,
        }
    }

    const fn on_offer(self) -> Self {
        Self {
            binding: Binding::Offer,
            ..self
        }
    }

    /// The bit that has a need.
    pub const fn bit(&self) -> FeatureBit {
        self.bit
    }

    /// The bits of which one is enough.
    pub const fn any_of(&self) -> &'static [FeatureBit] {
        self.any_of
    }

    /// Whether the rule holds for offers alone.
    pub const fn binding(&self) -> Binding {
        self.binding
    }

    /// Where the specification says so.
    pub const fn clause(&self) -> &'static str {
        self.clause
    }

    pub(super) fn is_kept_by(&self, set: Features) -> bool {
        !set.contains(self.bit) || set.intersects(Features::of(self.any_of))
    }
}

const fn net_rule(bit: FeatureBit, any_of: &'static [FeatureBit]) -> Rule {
    Rule::new(bit, any_of, "virtio 1.4 §5.1.3.1")
}

const NET: &[Rule] = &[
    net_rule(net::GUEST_TSO4, &[net::GUEST_CSUM]),
    net_rule(net::GUEST_TSO6, &[net::GUEST_CSUM]),
    net_rule(net::GUEST_ECN, &[net::GUEST_TSO4, net::GUEST_TSO6]),
    net_rule(net::GUEST_UFO, &[net::GUEST_CSUM]),
    net_rule(net::GUEST_USO4, &[net::GUEST_CSUM]),
    net_rule(net::GUEST_USO6, &[net::GUEST_CSUM]),
    // The tunnel bits need every plain segmentation of their direction, not one of them.
    net_rule(net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_TSO4]),
    net_rule(net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_TSO6]),
    net_rule(net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_USO4]),
    net_rule(net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_USO6]),
    net_rule(net::GUEST_UDP_TUNNEL_GSO_CSUM, &[net::GUEST_UDP_TUNNEL_GSO]),
    net_rule(net::HOST_TSO4, &[net::CSUM]),
    net_rule(net::HOST_TSO6, &[net::CSUM]),
    net_rule(net::HOST_ECN, &[net::HOST_TSO4, net::HOST_TSO6]),
    net_rule(net::HOST_UFO, &[net::CSUM]),
    net_rule(net::HOST_USO, &[net::CSUM]),
    net_rule(net::HOST_UDP_TUNNEL_GSO, &[net::HOST_TSO4]),
    net_rule(net::HOST_UDP_TUNNEL_GSO, &[net::HOST_TSO6]),
    net_rule(net::HOST_UDP_TUNNEL_GSO, &[net::HOST_USO]),
    net_rule(net::HOST_UDP_TUNNEL_GSO_CSUM, &[net::HOST_UDP_TUNNEL_GSO]),
    net_rule(net::CTRL_RX, &[net::CTRL_VQ]),
    net_rule(net::CTRL_VLAN, &[net::CTRL_VQ]),
    net_rule(net::GUEST_ANNOUNCE, &[net::CTRL_VQ]),
    net_rule(net::MQ, &[net::CTRL_VQ]),
    net_rule(net::CTRL_MAC_ADDR, &[net::CTRL_VQ]),
    net_rule(net::NOTF_COAL, &[net::CTRL_VQ]),
    net_rule(net::RSC_EXT, &[net::HOST_TSO4, net::HOST_TSO6]),
    net_rule(net::RSS, &[net::CTRL_VQ]),
    net_rule(net::VQ_NOTF_COAL, &[net::CTRL_VQ]),
    net_rule(net::HASH_TUNNEL, &[net::CTRL_VQ]),
    net_rule(net::HASH_TUNNEL, &[net::RSS, net::HASH_REPORT]),
    net_rule(net::RSS_CONTEXT, &[net::CTRL_VQ]),
    net_rule(net::RSS_CONTEXT, &[net::RSS]),
];

const BLOCK: &[Rule] = &[
    // A driver may accept CONFIG_WCE alone: the device then starts with writeback 0.
    Rule::new(block::CONFIG_WCE, &[block::FLUSH], "virtio 1.4 §5.2.5.2").on_offer(),
];

const GPU: &[Rule] = &[
    Rule::new(gpu::CONTEXT_INIT, &[gpu::VIRGL], "virtio 1.4 §5.7.3"),
    Rule::new(
        gpu::BLOB_ALIGNMENT,
        &[gpu::RESOURCE_BLOB],
        "virtio 1.4 §5.7.3",
    ),
];

const fn crypto_rule(bit: FeatureBit) -> Rule {
    Rule::new(bit, &[crypto::REVISION_1], "virtio 1.4 §5.9.3.1")
}

const CRYPTO: &[Rule] = &[
    crypto_rule(crypto::CIPHER_STATELESS_MODE),
    crypto_rule(crypto::HASH_STATELESS_MODE),
    crypto_rule(crypto::MAC_STATELESS_MODE),
    crypto_rule(crypto::AEAD_STATELESS_MODE),
    crypto_rule(crypto::AKCIPHER_STATELESS_MODE),
];

const CAN: &[Rule] = &[Rule::new(
    can::RTR_FRAMES,
    &[can::CAN_CLASSIC],
    "virtio 1.4 §5.20.3.1",
)];

/// The dependencies between the features of a device type. No feature of any device
/// (virtio 1.4 §6) depends on another.
pub const fn rules(device: DeviceType) -> &'static [Rule] {
    match device {
        DeviceType::Net => NET,
        DeviceType::Block => BLOCK,
        DeviceType::Gpu => GPU,
        DeviceType::Crypto => CRYPTO,
        DeviceType::Can => CAN,
        _ => &[],
    }
}

/// What every set must have: one bit of each row, with the clause that says so.
pub(super) fn mandatory(
    device: DeviceType,
) -> impl Iterator<Item = (&'static [FeatureBit], &'static str)> {
    const VERSION: (&[FeatureBit], &str) = (&[bits::VERSION_1], "virtio 1.4 §6.1, §6.2");
    let own: Option<(&[FeatureBit], _)> = match device {
        DeviceType::Can => Some((&[can::CAN_CLASSIC, can::CAN_FD], "virtio 1.4 §5.20.3.1")),
        DeviceType::I2c => Some((&[i2c::ZERO_LENGTH_REQUEST], "virtio 1.4 §5.16.3")),
        _ => None,
    };
    std::iter::once(VERSION).chain(own)
}
