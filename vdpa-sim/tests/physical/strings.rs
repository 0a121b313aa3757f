//! Functions by device strings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vdpa_core::bits;
use vdpa_core::*;
use vdpa_pci::PciParent;
use vdpa_sim::pf::sriov;

use crate::bench::{Owner, set};
use crate::rig::*;

#[test]
fn functions_are_reached_by_device_strings() {
    let lab = Lab::new();
    let owner = lab.open("sim:net,as=pf,vfs=2,queue_size=64,layout=split");
    assert!(owner.device.offered().contains(bits::ADMIN_VQ));
    let name = owner.device.info().name.clone();
    let listed: Vec<_> = lab.sim.devices().into_iter().map(|e| e.name).collect();
    assert_eq!(
        listed,
        ["", ".vf1", ".vf2"].map(|what| format!("{name}{what}"))
    );
    let open = |number: u16| lab.open(&format!("sim:net,as=vf,of={name},number={number}"));
    let mut cards = [1, 2].map(|number| {
        let rig = open(number);
        assert_eq!(rig.device.info().name, format!("{name}.vf{number}"));
        let features = plain(&rig);
        Card::new(rig, features, 64, 2048)
    });
    assert_ne!(
        cards[0].rig.config().mac(),
        cards[1].rig.config().mac(),
        "each has its own"
    );
    let frames = frames(100, 1514);
    for card in &mut cards {
        card.send_all(&frames);
        card.rx.wait(frames.len());
        assert_eq!(card.rx.got, frames);
    }
    lab.sim.dev_del(&format!("{name}.vf1")).unwrap();
    until("the loss", || {
        matches!(cards[0].rig.device.status(), Err(Error::Gone))
    });
    assert!(cards[1].rig.device.status().is_ok());
    owner.close();
    until("the loss of the other one", || {
        matches!(cards[1].rig.device.status(), Err(Error::Gone))
    });
}

#[test]
fn virtual_functions_go_with_an_owner_that_is_deleted() {
    let lab = Lab::new();
    let owner = lab.open("sim:net,as=pf,vfs=2");
    let name = owner.device.info().name.clone();
    let member = format!("sim:net,as=vf,of={name},number=2");
    let card = lab.open(&member);
    lab.sim.dev_del(&name).unwrap();
    until("the loss", || {
        matches!(card.device.status(), Err(Error::Gone))
    });
    assert!(lab.registry.open(&member).is_err());
    drop(owner);
}

#[test]
fn strings_that_name_no_function_say_which_there_are() {
    let lab = Lab::new();
    let owner = lab.open("sim:net,as=pf,vfs=2");
    let name = owner.device.info().name.clone();
    let refused = |spec: &str| lab.registry.open(spec).unwrap_err().to_string();
    let known = format!("of={name},number=2");
    for spec in [
        "sim:net,as=vf".to_owned(),
        "sim:net,as=vf,of=nobody".to_owned(),
        format!("sim:net,as=vf,of={name},number=3"),
    ] {
        let why = refused(&spec);
        assert!(why.contains(&known), "{why}");
    }
    let why = refused(&format!("sim:rng,as=vf,of={name}"));
    assert!(!why.contains(&known), "of another class: {why}");
    for (spec, says) in [
        ("sim:net,as=pf,vfs=65", "64"),
        ("sim:net,as=pf,vfs=0", "64"),
        ("sim:net,as=pci,vfs=2", "vfs"),
        ("sim:net,vfs=2", "vfs"),
        ("sim:net,as=vf,of=sim0,mtu=1500", "mtu"),
        // Its virtual functions would be a third and a fourth end.
        ("sim:net,as=pf,vfs=3,port=wire:w", "wire:w"),
    ] {
        let why = refused(spec);
        assert!(why.contains(says), "{spec}: {why}");
    }
    let listed = lab.sim.devices();
    assert_eq!(listed.len(), 3, "nothing is left of those: {listed:?}");
}

#[test]
fn functions_that_one_thread_serves_do_not_wait_for_each_other() {
    let lab = Lab::new();
    let rig = lab.open("sim:net,as=pf,vfs=2,crew=one,workers=1");
    let name = rig.device.info().name.clone();
    let mut owner = Owner::of(rig);
    let card = lab.open(&format!("sim:net,as=vf,of={name},number=2"));
    let features = plain(&card);
    let mut card = Card::new(card, features, 64, 2048);
    let frames = frames(1000, 1514);
    let mut sent = 0;
    for _ in 0..50 {
        sent += card.tx.send(&frames[sent..]);
        owner.stop(2);
        card.rx.poll();
        owner.resume(2);
    }
    card.send_all(&frames[sent..]);
    card.rx.wait(frames.len());
    assert_eq!(card.rx.got, frames);
}

#[test]
fn a_physical_function_of_any_class_has_its_like() {
    let lab = Lab::new();
    for (spec, what) in [
        ("sim:blk,size=1M,as=pf,vfs=1", "blk"),
        ("sim:rng,as=pf,vfs=1,layout=multiplier-0", "rng"),
    ] {
        let owner = lab.open(spec);
        let name = owner.device.info().name.clone();
        let member = lab.open(&format!("sim:{what},as=vf,of={name}"));
        assert_eq!(
            member.device.info().device_type,
            owner.device.info().device_type
        );
        let more = Features::of(&[bits::ADMIN_VQ, bits::SR_IOV]);
        assert_eq!(owner.device.offered() - more, member.device.offered());
    }
}

#[test]
fn a_virtual_function_can_be_named_while_its_owner_makes_it_anew() {
    let lab = Lab::new();
    let spec = |text: &str| DeviceSpec::parse(text).unwrap();
    let function = lab.sim.function(&spec("sim:net,as=pf,vfs=2")).unwrap();
    let name = lab.sim.devices()[0].name.clone();
    let member = spec(&format!("sim:net,as=vf,of={name},number=2"));
    let making = std::thread::spawn(move || {
        for _ in 0..100 {
            set(&*function, sriov::CONTROL, 0);
            set(&*function, sriov::CONTROL, sriov::VF_ENABLE);
        }
        function
    });
    let (sim, done) = (lab.sim.clone(), Arc::new(AtomicBool::new(false)));
    let over = done.clone();
    let naming = std::thread::spawn(move || {
        let mut found = 0;
        while !over.load(Ordering::Acquire) {
            found += u32::from(sim.function(&member).is_ok());
        }
        found + u32::from(sim.function(&member).is_ok())
    });
    until("the making", || making.is_finished());
    done.store(true, Ordering::Release);
    until("the naming", || naming.is_finished());
    assert_ne!(naming.join().unwrap(), 0);
}
