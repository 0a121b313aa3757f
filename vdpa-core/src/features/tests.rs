//! The set against the word it stands for.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::bits::{self, block, net};

#[test]
fn a_bit_number_is_not_a_mask() {
    assert_eq!(net::MAC.number(), 5);
    assert_eq!(net::MAC.mask().to_u128(), 32);
    assert_eq!(FeatureBit::new(127).unwrap().mask().to_u128(), 1 << 127);
    assert_eq!(FeatureBit::new(128), None);
}

#[test]
fn names_depend_on_the_device_type() {
    let set = Features::from_iter([net::MAC]);
    assert_eq!(set.display(DeviceType::Net).to_string(), "MAC");
    assert_eq!(set.display(DeviceType::Block).to_string(), "RO");
    assert_eq!(block::RO, net::MAC);
}

#[test]
fn a_bit_without_a_name_shows_its_number() {
    let set = bits::VERSION_1 | FeatureBit::new(77).unwrap();
    let names: Vec<_> = set
        .names(DeviceType::Net)
        .map(|name| name.to_string())
        .collect();
    assert_eq!(names, ["VERSION_1", "bit-77"]);
    assert_eq!(set.display(DeviceType::Net).to_string(), "VERSION_1 bit-77");
    assert_eq!(Features::NONE.display(DeviceType::Net).to_string(), "none");
    assert_eq!(
        format!("{:>8}|", net::MAC.display(DeviceType::Net)),
        "     MAC|"
    );
}

#[test]
fn a_window_beyond_the_last_reads_zero_and_takes_nothing() {
    let all = Features::from_u128(u128::MAX);
    assert_eq!(all.word(4), 0);
    assert_eq!(all.word(u32::MAX), 0);
    assert_eq!(Features::NONE.with_word(4, u32::MAX), Features::NONE);
}

#[test]
fn truncation_to_64_bits_is_told() {
    let set = net::MAC | net::RSS_CONTEXT;
    assert!(!set.fits_u64());
    assert_eq!(set.low_u64(), 1 << 5);
    assert_eq!(set.truncated_to_64(), net::MAC.mask());
    assert!(set.truncated_to_64().fits_u64());
    assert!(Features::LOW_64.contains(net::SPEED_DUPLEX));
}

fn model(word: u128) -> BTreeSet<u8> {
    (0..128).filter(|at| word >> at & 1 == 1).collect()
}

proptest! {
    #[test]
    fn a_set_is_the_numbers_of_its_bits(word: u128, other: u128, at in 0u8..128) {
        let (a, b) = (Features::from_u128(word), Features::from_u128(other));
        let (x, y) = (model(word), model(other));
        let numbers = |set: Features| set.iter().map(FeatureBit::number).collect::<BTreeSet<_>>();
        let bit = FeatureBit::new(at).unwrap();

        prop_assert_eq!(numbers(a), x.clone());
        prop_assert_eq!(numbers(a | b), &x | &y);
        prop_assert_eq!(numbers(a & b), &x & &y);
        prop_assert_eq!(numbers(a - b), &x - &y);
        prop_assert_eq!(numbers(a ^ b), &x ^ &y);
        prop_assert_eq!(a.contains(bit), x.contains(&at));
        prop_assert_eq!(a.contains_all(b), y.is_subset(&x));
        prop_assert_eq!(a.intersects(b), !x.is_disjoint(&y));
        prop_assert_eq!(a.len(), x.len());
        prop_assert_eq!(a.iter().len(), x.len());
        prop_assert!(a.with(bit).contains(bit) && !a.without(bit).contains(bit));
        prop_assert_eq!(a.iter().collect::<Features>(), a);
        prop_assert_eq!(Features::of(&a.iter().collect::<Vec<_>>()), a);
        let mut back: Vec<_> = a.iter().rev().collect();
        back.reverse();
        prop_assert_eq!(back, a.iter().collect::<Vec<_>>());
    }

    #[test]
    fn windows_put_the_word_together_again(word: u128, select in 0u32..4, value: u32) {
        let set = Features::from_u128(word);
        prop_assert_eq!(Features::from_words(set.to_words()), set);
        let replaced = set.with_word(select, value);
        for window in 0..4 {
            let expected = if window == select { value } else { set.word(window) };
            prop_assert_eq!(replaced.word(window), expected);
        }
        prop_assert_eq!(
            Features::from_u64(set.low_u64()).to_u128(),
            word & u128::from(u64::MAX)
        );
    }
}

#[test]
fn operators_on_a_set_in_place_are_those_that_make_a_new_one() {
    let (mac, mtu) = (net::MAC, net::MTU);
    let mut set = Features::from(mac);
    set |= mtu;
    assert_eq!(set, mac | mtu);
    set ^= mac;
    assert_eq!(set, Features::from(mtu));
    set ^= mac | mtu;
    assert_eq!(set, Features::from(mac));
    set |= mtu;
    set &= mtu;
    assert_eq!(set, Features::from(mtu));
    set -= mtu;
    assert_eq!(set, Features::NONE);
    set.extend([mtu, mac]);
    let bits: Vec<_> = set.into_iter().collect();
    assert_eq!(bits, [mtu, mac], "by ascending number: 3, 5");
}

#[test]
fn inserting_says_whether_the_bit_is_new() {
    let mut set = Features::NONE;
    assert!(set.insert(net::MAC));
    assert!(!set.insert(net::MAC));
    assert_eq!(set, Features::from(net::MAC));
}

#[test]
fn a_set_and_a_bit_print_what_they_are() {
    let set = Features::from(net::MAC);
    assert_eq!(
        format!("{set:?} {:?}", net::MAC),
        "Features(0x20) FeatureBit(5)"
    );
    assert_eq!(format!("{set:x} {set:#x}"), "20 0x20");
    let name = net::MAC.display(DeviceType::Net);
    assert_eq!((name.bit(), name.known()), (net::MAC, Some("MAC")));
    let nameless = FeatureBit::new(77).unwrap().display(DeviceType::Net);
    assert_eq!(nameless.known(), None);
}
