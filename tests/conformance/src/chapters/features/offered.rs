//! What a device offers, and what it takes of that.

use vdpa_core::bits::{self, net};
use vdpa_core::{DeviceType, FeatureBit, Features, Status, graph};

use crate::checked::{ensure, skip};
use crate::driven;
use crate::lane::{Cut, Lane};
use crate::recorder::{Heard, Recorder};
use crate::registers::{Registers, extended};
use crate::{Bench, Checked, Rig, Variant};

/// Bits that virtio 1.4 §2.2 keeps for later, and those of the transport's range that §6 gives no meaning: 25, 26, 31, and
/// 30, which is kept unused.
const RESERVED: Features = Features::from_u128(0b11_1111 << 44 | 0b1100_0110 << 24);

/// What a network device's features need, as virtio 1.4 §5.1.3.1 lists it: one of each row's last column.
pub(super) const NET: &[(FeatureBit, &[FeatureBit])] = &[
    (net::GUEST_TSO4, &[net::GUEST_CSUM]),
    (net::GUEST_TSO6, &[net::GUEST_CSUM]),
    (net::GUEST_ECN, &[net::GUEST_TSO4, net::GUEST_TSO6]),
    (net::GUEST_UFO, &[net::GUEST_CSUM]),
    (net::GUEST_USO4, &[net::GUEST_CSUM]),
    (net::GUEST_USO6, &[net::GUEST_CSUM]),
    (net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_TSO4]),
    (net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_TSO6]),
    (net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_USO4]),
    (net::GUEST_UDP_TUNNEL_GSO, &[net::GUEST_USO6]),
    (net::GUEST_UDP_TUNNEL_GSO_CSUM, &[net::GUEST_UDP_TUNNEL_GSO]),
    (net::HOST_TSO4, &[net::CSUM]),
    (net::HOST_TSO6, &[net::CSUM]),
    (net::HOST_ECN, &[net::HOST_TSO4, net::HOST_TSO6]),
    (net::HOST_UFO, &[net::CSUM]),
    (net::HOST_USO, &[net::CSUM]),
    (net::HOST_UDP_TUNNEL_GSO, &[net::HOST_TSO4]),
    (net::HOST_UDP_TUNNEL_GSO, &[net::HOST_TSO6]),
    (net::HOST_UDP_TUNNEL_GSO, &[net::HOST_USO]),
    (net::HOST_UDP_TUNNEL_GSO_CSUM, &[net::HOST_UDP_TUNNEL_GSO]),
    (net::CTRL_RX, &[net::CTRL_VQ]),
    (net::CTRL_VLAN, &[net::CTRL_VQ]),
    (net::GUEST_ANNOUNCE, &[net::CTRL_VQ]),
    (net::MQ, &[net::CTRL_VQ]),
    (net::CTRL_MAC_ADDR, &[net::CTRL_VQ]),
    (net::NOTF_COAL, &[net::CTRL_VQ]),
    (net::VQ_NOTF_COAL, &[net::CTRL_VQ]),
    (net::RSS, &[net::CTRL_VQ]),
    (net::RSC_EXT, &[net::HOST_TSO4, net::HOST_TSO6]),
    (net::HASH_TUNNEL, &[net::CTRL_VQ]),
    (net::HASH_TUNNEL, &[net::RSS, net::HASH_REPORT]),
    (net::RSS_CONTEXT, &[net::CTRL_VQ]),
    (net::RSS_CONTEXT, &[net::RSS]),
];

pub(super) fn with_what_it_needs(bench: &Bench<'_>) -> Checked {
    let (device_type, offered) = (bench.info()?.device_type, bench.offered()?);
    for rule in graph::rules(device_type) {
        ensure!(
            !offered.contains(rule.bit()) || offered.intersects(Features::of(rule.any_of())),
            "{} is offered without {}",
            rule.bit().display(device_type),
            Features::of(rule.any_of()).display(device_type)
        );
    }
    Ok(())
}

pub(super) fn known_bits_only(bench: &Bench<'_>) -> Checked {
    let (device_type, offered) = (bench.info()?.device_type, bench.offered()?);
    let reserved = offered & RESERVED;
    ensure!(
        reserved.is_empty(),
        "reserved bits are offered: {}",
        reserved.display(device_type)
    );
    // Of a type that the specification does not describe the own bits are not known.
    if bits::own(device_type).is_some() {
        let undefined = offered - bits::defined(device_type) - bits::legacy(device_type);
        ensure!(
            undefined.is_empty(),
            "bits that {device_type} devices do not have are offered: {}",
            undefined.display(device_type)
        );
    }
    Ok(())
}

pub(super) fn version_1(bench: &Bench<'_>) -> Checked {
    let offered = bench.offered()?;
    ensure!(
        offered.contains(bits::VERSION_1),
        "offered is {}",
        offered.display(bench.device_type())
    );
    Ok(())
}

/// Tries to negotiate what no device may be run with, and says so if FEATURES_OK shows.
///
/// Who is judged is the device as its driver finds it, with the framework in front: that one refuses, and a parent is
/// promised that it hears of legal choices alone. What the parent adds is that it shows no FEATURES_OK by itself.
fn does_not_stick(rig: &Rig<'_>, recorder: &Recorder, features: Features) -> Checked {
    let device = &rig.device;
    let from = recorder.len();
    let names = features.display(device.info().device_type).to_string();
    let accepted = device.accept(features);
    let ready = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
    let written = device.write_status(ready.bits());
    let read = device.status()?;
    ensure!(
        !read.contains(Status::FEATURES_OK),
        "FEATURES_OK stuck with {names}: accepted {accepted:?}, written {written:?}"
    );
    let told = recorder.since(from);
    let heard = |h: &Heard| match h {
        Heard::Accept(_) => true,
        Heard::AddStatus(bits) => bits.contains(Status::FEATURES_OK),
        _ => false,
    };
    ensure!(
        !told.iter().any(heard),
        "the device was told of {names}: {told:?}"
    );
    Ok(())
}

pub(super) fn unacceptable_does_not_stick(bench: &Bench<'_>) -> Checked {
    let recorder = driven::recorded(bench)?;
    let rig = bench.rig(recorder.clone())?;
    let (device_type, offered) = (rig.device.info().device_type, bench.offered()?);
    let plain = rig.plain(Variant::SPLIT);
    let mut sets = Vec::new();
    // Not offered: a bit that the type has, and one that nobody has.
    let lacking = (bits::defined(device_type) - offered).iter().next();
    sets.extend(lacking.map(|bit| plain.with(bit)));
    sets.extend(RESERVED.iter().next().map(|bit| plain.with(bit)));
    // Without what it needs.
    for rule in graph::rules(device_type) {
        if offered.contains(rule.bit()) && rule.binding() == graph::Binding::Always {
            let without = plain.with(rule.bit()) - Features::of(rule.any_of());
            sets.push(without);
        }
    }
    for set in sets {
        rig.reset()?;
        let first = Status::ACKNOWLEDGE | Status::DRIVER;
        rig.device.write_status(first.bits())?;
        does_not_stick(&rig, &recorder, set)?;
        // Another choice may be tried.
        rig.device.accept(plain)?;
        let ready = first | Status::FEATURES_OK;
        rig.device.write_status(ready.bits())?;
        let read = rig.status()?;
        ensure!(
            read.contains(Status::FEATURES_OK),
            "after a refusal a good choice was made, and the status reads {read}"
        );
    }
    Ok(())
}

pub(super) fn accepted_again(bench: &Bench<'_>, variant: Variant) -> Checked {
    let rig = bench.open()?;
    let traffic = bench.traffic()?;
    let features = rig.plain(variant);
    for round in 0..3 {
        let negotiated = rig.negotiate(features);
        negotiated.map_err(|stop| stop.about(format!("after {round} resets")))?;
        if round == 1 {
            // In the middle of work it makes no difference either.
            let mut lane = Lane::start(&rig, traffic[0], 16)?;
            rig.run()?;
            lane.exchange(&rig, 2, Cut::Whole)?;
        }
        rig.reset()?;
    }
    Ok(())
}

pub(super) fn net_graph(bench: &Bench<'_>) -> Checked {
    bench.require_type(DeviceType::Net)?;
    let offered = bench.offered()?;
    let name = |bits: &[FeatureBit]| Features::of(bits).display(DeviceType::Net).to_string();
    for (bit, any_of) in NET {
        let (bit_name, needs) = (name(&[*bit]), name(any_of));
        ensure!(
            !offered.contains(*bit) || offered.intersects(Features::of(any_of)),
            "{bit_name} is offered without {needs}"
        );
    }
    let recorder = driven::recorded(bench)?;
    let rig = bench.rig(recorder.clone())?;
    let known = offered & bits::defined(DeviceType::Net);
    for (bit, any_of) in NET {
        if !offered.contains(*bit) {
            continue;
        }
        rig.reset()?;
        let first = Status::ACKNOWLEDGE | Status::DRIVER;
        rig.device.write_status(first.bits())?;
        // Everything else that does not stand on what is left out, so that this one rule is broken and no other.
        let rest = close_down(known - Features::of(any_of));
        does_not_stick(&rig, &recorder, rest.with(*bit))?;
    }
    Ok(())
}

/// The largest part of a set that keeps the list above.
fn close_down(mut set: Features) -> Features {
    loop {
        let broken = NET
            .iter()
            .filter(|(bit, any_of)| set.contains(*bit) && !set.intersects(Features::of(any_of)));
        let without: Features = broken.map(|(bit, _)| *bit).collect();
        if without.is_empty() {
            return set;
        }
        set -= without;
    }
}

pub(super) fn sr_iov(bench: &Bench<'_>) -> Checked {
    const SR_IOV: u16 = 0x10;
    let registers = Registers::of(bench.function()?)?;
    if !registers.offered()?.contains(bits::SR_IOV) {
        skip!("VIRTIO_F_SR_IOV is not offered");
    }
    match extended(&*registers.function, SR_IOV)? {
        None => {
            skip!("the extended configuration space, where the capability would be, cannot be seen")
        }
        Some(there) => ensure!(
            there.is_some(),
            "VIRTIO_F_SR_IOV is offered, and there is no SR-IOV capability"
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tables that were written apart.
    #[test]
    fn the_list_is_the_one_that_the_framework_checks_by() {
        let rules = graph::rules(DeviceType::Net);
        assert_eq!(rules.len(), NET.len());
        for rule in rules {
            let of = |(bit, any_of): &(FeatureBit, &[FeatureBit])| {
                *bit == rule.bit() && Features::of(any_of) == Features::of(rule.any_of())
            };
            assert!(NET.iter().any(of), "{rule:?}");
        }
    }

    #[test]
    fn reserved_bits_are_none_that_have_a_name() {
        for device in DeviceType::ALL {
            assert!(!RESERVED.intersects(bits::defined(*device)), "{device}");
        }
        assert_eq!(RESERVED.len(), 10);
    }
}
