//! Virtual functions that come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use vdpa_core::bits;
use vdpa_core::*;
use vdpa_pci::{PciAccess, VirtioPci, Width};
use vdpa_sim::pci::Function;
use vdpa_sim::pf::command::{Opcode, Qualifier, Status as Ended};
use vdpa_sim::pf::{PfFunction, sriov};

use crate::bench::*;
use crate::rig::*;

#[test]
fn virtual_functions_come_and_go() {
    let pf = pf();
    let function = pf.function();
    let found = capability(&**function);
    assert_eq!((found.total, found.count, found.enabled), (TOTAL, 0, false));
    assert_eq!((found.first, found.stride), (1, 1));
    assert_eq!(found.device, 0x1041);
    assert!(pf.vf(1).is_none());
    set(&**function, sriov::NUM_VFS, TOTAL + 1);
    assert_eq!(capability(&**function).count, 0, "more than there can be");
    enable(&pf, 2);
    set(&**function, sriov::NUM_VFS, 3);
    assert_eq!(capability(&**function).count, 2, "while they are enabled");
    assert!(pf.vf(0).is_none() && pf.vf(3).is_none());
    let first = pf.vf(1).unwrap();
    let cards = [first.clone(), pf.vf(2).unwrap()].map(|vf| drive(&vf));
    let features = plain(&cards[0]);
    assert!(!features.contains(bits::SR_IOV) && !features.contains(bits::ADMIN_VQ));
    let mut cards = cards.map(|rig| Card::new(rig, features, 64, 2048));
    let frames = frames(200, 1514);
    for card in &mut cards {
        card.send_all(&frames);
        card.rx.wait(frames.len());
    }
    disable(&pf);
    assert!(pf.vf(1).is_none());
    assert_eq!(first.read_config(0, Width::U32).unwrap(), u32::MAX);
    for card in &cards {
        let gone = card.rig.device.status().unwrap_err();
        assert!(matches!(gone, Error::Gone), "{gone}");
    }
    enable(&pf, 2);
    let again = pf.vf(1).unwrap();
    assert_eq!(first.read_config(0, Width::U32).unwrap(), u32::MAX);
    let card = drive(&again);
    assert_eq!(card.status(), Status::empty());
    // A reset of the owner takes them away too.
    function.reset().unwrap();
    assert!(pf.vf(1).is_none());
    let found = capability(&**function);
    assert_eq!((found.count, found.enabled), (0, false));
    assert!(matches!(card.device.status(), Err(Error::Gone)));
}

#[test]
fn the_administration_queue_is_behind_all_others() {
    let pf = pf();
    let access: Arc<dyn PciAccess> = pf.function().clone();
    power(&*access);
    let driver = VirtioPci::open(access).unwrap();
    assert_eq!(driver.admin_queues(), ADMIN..ADMIN + 1);
    assert!(driver.offered().contains(bits::ADMIN_VQ));
    assert!(driver.offered().contains(bits::SR_IOV));
}

#[test]
fn members_are_those_that_there_are() {
    let pf = pf();
    enable(&pf, 2);
    let mut owner = Owner::new(&pf);
    let invalid = |qualifier: Qualifier| (Ended::Invalid as u16, qualifier as u16, vec![]);
    for member in [0, 3, TOTAL, u16::MAX] {
        let said = owner.ask(Opcode::DevModeSet, 1, member, &[1]);
        assert_eq!(said, invalid(Qualifier::InvalidMember));
    }
    for member in [1, 2] {
        owner.stop(member);
        owner.stop(member);
        owner.objects(member);
        assert!(owner.parts(member).len() > 10);
        owner.resume(member);
        owner.resume(member);
    }
    disable(&pf);
    let said = owner.ask(Opcode::DevModeSet, 1, 1, &[1]);
    assert_eq!(said, invalid(Qualifier::InvalidGroup));
    enable(&pf, 2);
    // The list stays the driver's; the objects were of other members.
    let object = [0; 8];
    let (status, ..) = owner.ask(Opcode::ResourceObjQuery, 1, 1, &object);
    assert_eq!(status, Ended::NoEntry as u16);
}

#[test]
fn functions_that_come_and_go_under_commands_harm_nobody() {
    let pf = pf();
    enable(&pf, 2);
    let mut owner = Owner::new(&pf);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..30 {
                disable(&pf);
                enable(&pf, 2);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            for member in [1, 2] {
                let (status, ..) = owner.ask(Opcode::DevModeSet, 1, member, &[1]);
                assert!([0, Ended::Invalid as u16, Ended::Busy as u16].contains(&status));
            }
        }
    });
    owner.stop(1);
    owner.resume(1);
}

/// Looks at the owner's configuration space when it is told that its own function is gone.
struct Looks {
    owner: Weak<Function>,
    seen: Arc<Mutex<Vec<bool>>>,
}

impl EventSink for Looks {
    fn raise(&self, event: Event) {
        if event == Event::Gone {
            let owner = self.owner.upgrade().unwrap();
            let enabled = capability(&*owner).enabled;
            self.seen.lock().unwrap().push(enabled);
        }
    }
}

#[test]
fn who_is_told_that_a_virtual_function_goes_can_look_at_its_owner() {
    let pf = Arc::new(pf());
    let seen = Arc::new(Mutex::default());
    let ways: [fn(&PfFunction); 2] = [disable, |pf| pf.function().reset().unwrap()];
    for take in ways {
        enable(&pf, 1);
        let looks = Looks {
            owner: Arc::downgrade(pf.function()),
            seen: Arc::clone(&seen),
        };
        pf.vf(1).unwrap().watch(Arc::new(looks)).unwrap();
        let own = Arc::clone(&pf);
        let taking = std::thread::spawn(move || take(&own));
        until("the end", || taking.is_finished());
        taking.join().unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), [false, false]);
}

#[test]
fn virtual_functions_do_not_outlive_an_owner_that_is_taken_away() {
    for by_device in [false, true] {
        let pf = pf();
        enable(&pf, 1);
        let vf = pf.vf(1).unwrap();
        let card = drive(&vf);
        match by_device {
            true => pf.device().remove(),
            false => pf.function().remove(),
        }
        until("the loss", || {
            matches!(card.device.status(), Err(Error::Gone))
        });
        assert_eq!(vf.read_config(0, Width::U32).unwrap(), u32::MAX);
        assert!(pf.vf(1).is_none());
    }
}
