//! The graph against a second writing of the specification's lists.

use proptest::prelude::*;

use super::*;
use crate::bits::{block, gpu, net};
use crate::features::FeatureBit;

/// Virtio 1.4 §5.1.3.1 written again: `bit: needs, and needs`, with `|` between alternatives.
const NET_NEEDS: &str = "
    GUEST_TSO4: GUEST_CSUM
    GUEST_TSO6: GUEST_CSUM
    GUEST_ECN: GUEST_TSO4|GUEST_TSO6
    GUEST_UFO: GUEST_CSUM
    GUEST_USO4: GUEST_CSUM
    GUEST_USO6: GUEST_CSUM
    GUEST_UDP_TUNNEL_GSO: GUEST_TSO4 GUEST_TSO6 GUEST_USO4 GUEST_USO6
    GUEST_UDP_TUNNEL_GSO_CSUM: GUEST_UDP_TUNNEL_GSO
    HOST_TSO4: CSUM
    HOST_TSO6: CSUM
    HOST_ECN: HOST_TSO4|HOST_TSO6
    HOST_UFO: CSUM
    HOST_USO: CSUM
    HOST_UDP_TUNNEL_GSO: HOST_TSO4 HOST_TSO6 HOST_USO
    HOST_UDP_TUNNEL_GSO_CSUM: HOST_UDP_TUNNEL_GSO
    CTRL_RX: CTRL_VQ
    CTRL_VLAN: CTRL_VQ
    GUEST_ANNOUNCE: CTRL_VQ
    MQ: CTRL_VQ
    CTRL_MAC_ADDR: CTRL_VQ
    NOTF_COAL: CTRL_VQ
    RSC_EXT: HOST_TSO4|HOST_TSO6
    RSS: CTRL_VQ
    VQ_NOTF_COAL: CTRL_VQ
    HASH_TUNNEL: CTRL_VQ RSS|HASH_REPORT
    RSS_CONTEXT: CTRL_VQ RSS
";

fn bit(name: &str) -> FeatureBit {
    bits::by_name(DeviceType::Net, name).expect(name).bit()
}

/// (bit, alternatives) for every need of the list.
fn needs() -> Vec<(FeatureBit, Features)> {
    NET_NEEDS
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .flat_map(|(name, needs)| {
            needs
                .split(' ')
                .map(move |any| (bit(name), any.split('|').map(bit).collect()))
        })
        .collect()
}

const BASE: Features = bits::VERSION_1.mask();

#[test]
fn the_net_table_is_the_list_of_the_specification() {
    let table: Vec<_> = rules(DeviceType::Net)
        .iter()
        .map(|rule| (rule.bit(), Features::of(rule.any_of())))
        .collect();
    let list = needs();
    assert_eq!(table.len(), list.len());
    for need in list {
        assert!(table.contains(&need), "{need:?}");
    }
}

#[test]
fn a_feature_alone_is_refused_and_its_needs_are_named() {
    for (feature, alternatives) in needs() {
        let refusal = check(DeviceType::Net, BASE | feature).unwrap_err();
        assert!(
            refusal.reasons().iter().any(|reason| matches!(
                reason,
                Reason::Needs { bit, any_of, .. }
                    if *bit == feature && Features::of(any_of) == alternatives
            )),
            "{refusal}"
        );
    }
}

#[test]
fn reasons_read_as_sentences() {
    let why = |device, set: Features| {
        explain(device, set)
            .iter()
            .map(|reason| reason.to_string())
            .collect::<Vec<_>>()
    };
    let unknown = FeatureBit::new(77).unwrap();
    let reserved = FeatureBit::new(44).unwrap();
    let net = DeviceType::Net;
    assert_eq!(
        why(net, BASE | net::GUEST_TSO4),
        ["GUEST_TSO4 needs GUEST_CSUM, which is not in the set"]
    );
    assert_eq!(
        why(net, BASE | net::HOST_ECN),
        ["HOST_ECN needs HOST_TSO4 or HOST_TSO6, and neither is in the set"]
    );
    assert_eq!(why(net, Features::NONE), ["VERSION_1 is missing"]);
    assert_eq!(
        why(net, BASE | unknown | reserved),
        [
            "bit-44 is reserved",
            "bit-77 is not defined for a net device"
        ]
    );
    assert_eq!(
        why(net, BASE | net::GSO),
        ["GSO belongs to the legacy interface alone"]
    );
    assert_eq!(
        why(DeviceType::Can, BASE),
        ["CAN_CLASSIC or CAN_FD is missing"]
    );
    assert_eq!(
        check_accepted(net, BASE, BASE | net::MAC)
            .unwrap_err()
            .to_string(),
        "net features refused: MAC was not offered"
    );
}

#[test]
fn hash_tunnel_needs_both_the_queue_and_one_of_two() {
    let net = DeviceType::Net;
    let tunnel = BASE | net::HASH_TUNNEL;
    assert_eq!(explain(net, tunnel).len(), 2);
    assert_eq!(explain(net, tunnel | net::HASH_REPORT).len(), 1);
    assert!(check(net, tunnel | net::HASH_REPORT | net::CTRL_VQ).is_ok());
    assert!(check(net, tunnel | net::RSS | net::CTRL_VQ).is_ok());
}

#[test]
fn an_offer_of_config_wce_needs_flush_but_accepting_it_does_not() {
    let device = DeviceType::Block;
    let set = BASE | block::CONFIG_WCE;
    assert!(check_offered(device, set).is_err());
    assert!(check_offered(device, set | block::FLUSH).is_ok());
    assert!(check_accepted(device, set | block::FLUSH, set).is_ok());
}

#[test]
fn a_transitional_offer_passes_and_its_legacy_bits_are_not_accepted() {
    let device = DeviceType::Net;
    let offer = BASE | net::GSO | bits::ANY_LAYOUT | bits::NOTIFY_ON_EMPTY;
    assert!(check_offered(device, offer).is_ok());
    assert!(check_accepted(device, offer, offer).is_err());
    assert_eq!(acceptable(device, offer), BASE);
}

#[test]
fn bits_of_an_undescribed_type_are_not_judged() {
    let own = FeatureBit::new(3).unwrap();
    let reserved = FeatureBit::new(49).unwrap();
    for device in [DeviceType::Rpmsg, DeviceType::from_id(1234)] {
        assert!(check(device, BASE | own).is_ok());
        assert!(check(device, BASE | reserved).is_err());
    }
    assert!(check(DeviceType::Entropy, BASE | own).is_err());
}

#[test]
fn truncation_takes_the_dependents_along() {
    let device = DeviceType::Gpu;
    let set = BASE | gpu::VIRGL | gpu::CONTEXT_INIT;
    assert_eq!(close_down(device, set - gpu::VIRGL), BASE);
    // A chain of three: no partial checksum, no TSO, no tunnel, no tunnel checksum.
    let all = bits::defined(DeviceType::Net);
    let closed = close_down(DeviceType::Net, all - net::GUEST_CSUM);
    for gone in [
        net::GUEST_TSO4,
        net::GUEST_ECN,
        net::GUEST_UDP_TUNNEL_GSO,
        net::GUEST_UDP_TUNNEL_GSO_CSUM,
    ] {
        assert!(!closed.contains(gone), "{gone}");
    }
    assert!(closed.contains(net::HOST_UDP_TUNNEL_GSO_CSUM));
    let low = close_down(DeviceType::Net, all.truncated_to_64());
    assert_eq!(low, all.truncated_to_64());
}

#[test]
fn everything_that_is_defined_may_be_offered_together() {
    for &device in DeviceType::ALL {
        let all = bits::defined(device);
        assert_eq!(check_offered(device, all), Ok(()), "{device}");
        assert_eq!(check(device, all), Ok(()), "{device}");
        assert_eq!(acceptable(device, all), all, "{device}");
    }
}

fn any_type() -> impl Strategy<Value = DeviceType> {
    prop_oneof![
        3 => Just(DeviceType::Net),
        1 => proptest::sample::select(DeviceType::ALL),
        1 => any::<u32>().prop_map(DeviceType::from_id),
    ]
}

proptest! {
    #[test]
    fn what_is_acceptable_is_accepted(device in any_type(), word: u128) {
        // What a type makes mandatory can't be conjured up: it is put into the offer.
        let must: Features = mandatory(device).map(|(any_of, _)| any_of[0]).collect();
        let offered = Features::from_u128(word) | must;
        let set = acceptable(device, offered);
        prop_assert_eq!(check_accepted(device, offered, set), Ok(()));
        prop_assert_eq!(check_offered(device, set), Ok(()));
        prop_assert_eq!(acceptable(device, set), set);
    }

    #[test]
    fn closing_down_finds_the_largest_closed_subset(
        word: u128,
        lost in 0u8..128,
        extra: u128,
        back: u128,
    ) {
        let device = DeviceType::Net;
        // Three bits of four, so that there is something to keep and something to drop.
        let set = Features::from_u128(word | extra).without(FeatureBit::new(lost).unwrap());
        let closed = close_down(device, set);
        let keeps = |candidate: Features| {
            needs().iter().all(|&(bit, any)| !candidate.contains(bit) || candidate.intersects(any))
        };
        prop_assert!(set.contains_all(closed));
        prop_assert!(keeps(closed));
        // Unions of closed sets are closed, so a larger closed subset would have to be this one
        // and some of what was dropped.
        let dropped = set - closed;
        let some = dropped & Features::from_u128(back);
        for more in dropped.iter().map(Features::from).chain([dropped, some]) {
            prop_assert!(more.is_empty() || !keeps(closed | more));
        }
    }

    #[test]
    fn check_and_explain_agree_and_never_panic(device in any_type(), word: u128) {
        let set = Features::from_u128(word);
        let reasons = explain(device, set);
        match check(device, set) {
            Ok(()) => prop_assert!(reasons.is_empty()),
            Err(refusal) => {
                prop_assert_eq!(refusal.reasons(), &reasons[..]);
                prop_assert!(!refusal.to_string().contains('\n'));
            }
        }
        prop_assert!(reasons.iter().all(|reason| reason.clause().starts_with("virtio 1.4 §")));
    }
}

#[test]
fn a_refusal_says_of_which_device_and_set_it_is() {
    let set = Features::from(net::RSC_EXT);
    let refusal = check(DeviceType::Net, set).unwrap_err();
    assert_eq!((refusal.device(), refusal.set()), (DeviceType::Net, set));
}

#[test]
fn what_was_not_offered_names_its_clause() {
    let reason = Reason::NotOffered {
        device: DeviceType::Net,
        bit: net::MAC,
    };
    assert_eq!(reason.clause(), "virtio 1.4 §2.2.1");
    assert_eq!(reason.to_string(), "MAC was not offered");
}
