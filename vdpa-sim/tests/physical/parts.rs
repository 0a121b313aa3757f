//! Device parts, of a card that stays where it is.

use vdpa_core::QueueIndex;
use vdpa_sim::pf::command::{Opcode, Status as Ended};
use vdpa_sim::pf::part::PartType;

use crate::bench::*;
use crate::rig::*;

#[test]
fn features_of_the_device_are_compared_and_lengths_have_to_match() {
    let pf = pf();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    owner.objects(1);
    let parts = owner.parts(1);
    assert_eq!(owner.set(1, &parts[1..2]).0, Ended::Busy as u16, "it runs");
    owner.stop(1);
    let parts = owner.parts(1);
    assert_eq!(owner.set(1, &parts), (0, 0));
    let wrong = |index: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut part = parts[index].clone();
        change(&mut part.value);
        part
    };
    for (index, part) in parts.iter().enumerate() {
        if part.name.kind != PartType::Simulated {
            let long = wrong(index, &|value| value.push(0));
            assert_eq!(owner.set(1, &[long]).0, Ended::Invalid as u16);
        }
    }
    let other = wrong(0, &|value| value[0] ^= 1);
    assert_eq!(parts[0].name.kind, PartType::DeviceFeatures);
    assert_eq!(owner.set(1, &[other]).0, Ended::Invalid as u16);
    let mut turned = parts.clone();
    turned.swap(1, 2);
    assert_eq!(owner.set(1, &turned).0, Ended::Invalid as u16);
    assert_eq!(owner.parts(1), parts, "nothing of it was taken over");
    owner.resume(1);
}

#[test]
fn a_queue_is_not_enabled_with_no_size() {
    let pf = pf();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    owner.objects(1);
    owner.stop(1);
    let parts = owner.parts(1);
    let queue = parts
        .iter()
        .find(|part| part.name.kind == PartType::QueueConfig);
    let mut queue = queue.unwrap().clone();
    let size = u16::from_le_bytes([queue.value[0], queue.value[1]]);
    queue.value[..2].fill(0);
    queue.value[4] = 1;
    let refused = owner.set(1, std::slice::from_ref(&queue));
    assert_eq!(refused.0, Ended::Invalid as u16);
    assert_eq!(owner.parts(1), parts);
    // One that is not enabled has what it had at first: there may be none with the features.
    queue.value[4] = 0;
    assert_eq!(owner.set(1, &[queue]), (0, 0));
    owner.resume(1);
    let parts = owner.parts(1);
    let first = part(&parts, PartType::QueueConfig, 0);
    assert_eq!(first[..2], size.to_le_bytes());
}

#[test]
fn parts_are_at_their_defaults_after_a_reset() {
    let pf = pf();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    owner.objects(1);
    owner.stop(1);
    let fresh = owner.parts(1);
    owner.resume(1);
    for by_function in [false, true] {
        let access = pf.vf(1).unwrap();
        let rig = drive(&access);
        let features = plain(&rig);
        let card = Card::new(rig, features, 32, 2048);
        owner.stop(1);
        let used = owner.parts(1);
        assert_eq!(part(&used, PartType::DeviceStatus, 0), [0x0f]);
        assert_eq!(part(&used, PartType::QueueConfig, 0)[..2], [32, 0]);
        assert_eq!(part(&used, PartType::QueueConfig, 0)[4], 1, "enabled");
        assert_ne!(used, fresh);
        // What was set is forgotten too.
        assert_eq!(owner.set(1, &used), (0, 0));
        match by_function {
            true => access.reset().unwrap(),
            false => card.rig.reset(),
        }
        assert_eq!(owner.parts(1), fresh);
        owner.resume(1);
        assert_eq!(owner.parts(1), fresh[..fresh.len() - 1], "positions apart");
    }
}

#[test]
fn any_parts_leave_a_card_that_can_be_reset_and_used() {
    let pf = pf();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    owner.objects(1);
    let rig = drive(&pf.vf(1).unwrap());
    let features = plain(&rig);
    let card = Card::new(rig, features, 64, 2048);
    owner.stop(1);
    let parts = owner.parts(1);
    let mut ends = [0; 3];
    for (index, bit) in (0..parts.len()).flat_map(|index| (0..64).map(move |bit| (index, bit))) {
        let mut wrong = parts.clone();
        let value = &mut wrong[index].value;
        let Some(byte) = value.get_mut(bit / 8) else {
            continue;
        };
        *byte ^= 1 << (bit % 8);
        owner.stop(1);
        if owner.set(1, &wrong).0 != 0 {
            ends[0] += 1;
            continue;
        }
        let (status, ..) = owner.ask(Opcode::DevModeSet, 1, 1, &[0]);
        if status == 0 {
            ends[1] += 1;
            continue;
        }
        assert_eq!(status, Ended::Io as u16);
        ends[2] += 1;
    }
    assert!(ends.iter().all(|end| *end > 0), "{ends:?}");
    owner.resume(1);
    drop(card);
    let rig = drive(&pf.vf(1).unwrap());
    let mut card = Card::new(rig, features, 64, 2048);
    let frames = frames(100, 1514);
    card.send_all(&frames);
    card.rx.wait(frames.len());
}

#[test]
fn a_queue_that_is_reset_and_not_asked_after_does_not_hold_up_the_parts() {
    let pf = pf();
    enable(&pf, 1);
    let mut owner = Owner::new(&pf);
    owner.objects(1);
    let rig = drive(&pf.vf(1).unwrap());
    let features = plain(&rig);
    let card = Card::new(rig, features, 32, 2048);
    // Its driver is stopped from here on, as a guest's processor is.
    let device = &card.rig.device;
    device.begin_reset_queue(QueueIndex::new(1)).unwrap();
    owner.stop(1);
    let parts = owner.parts(1);
    let enabled = [0, 1].map(|q| part(&parts, PartType::QueueConfig, q)[4]);
    assert_eq!(enabled, [1, 0]);
    assert_eq!(owner.set(1, &parts), (0, 0));
    owner.resume(1);
    let reset = device.poll_reset_queue(QueueIndex::new(1)).unwrap();
    assert!(reset.is_ready());
}
