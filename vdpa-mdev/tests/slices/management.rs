//! How slices are made and removed, what is refused, and what becomes of them with their device.

use std::sync::{Arc, Weak};

use vdpa_core::config::net::NetStatus;
use vdpa_core::{
    Attr, DeviceSpec, Error, ErrorKind, Event, LinkState, MgmtDevice, Registry, VdpaDevice,
};
use vdpa_mdev::slice::{SliceConfig, Slicer, Uplink, UplinkConfig};

use crate::rig::*;

const WIRE: &str = "sim:net;port=wire:out";

fn mdev(registry: &Registry) -> &dyn MgmtDevice {
    registry.parent("mdev").unwrap()
}

fn refused(registry: &Registry, spec: &str) -> Error {
    match registry.open(spec) {
        Err(e) => e,
        Ok(_) => panic!("{spec} was opened"),
    }
}

#[test]
fn strings_that_are_wrong_are_pointed_at_and_open_nothing() {
    let registry = registry();
    for (spec, said) in [
        ("mdev:slice", "of="),
        ("mdev:slice,of=", "there is no `:`"),
        ("mdev:slice,of=sim", "there is no `:`"),
        ("mdev:slice,of=sim:nett", "did you mean `net`"),
        ("mdev:slice,of=sim:net;mtuu=9000", "did you mean `mtu`"),
        ("mdev:slice,of=sim:net,vlan=4095", "1..=4094"),
        ("mdev:slice,of=sim:net,vlan=0", "1..=4094"),
        ("mdev:slice,of=sim:net,mac=03:00:00:00:00:01", "one card"),
        ("mdev:slice,of=sim:net,mtu=9000", "68 to 1500"),
        ("mdev:slice,of=sim:net,queue_pairs=0", "1..=128"),
        ("mdev:slice,of=sim:net,limit=129", "1..=128"),
        (
            "mdev:slice,of=sim:net,features=+CTRL_MAC_ADDR",
            "CTRL_MAC_ADDR",
        ),
        ("mdev:slice,of=sim:net,features=+CTRL_VLAN", "CTRL_VLAN"),
        ("mdev:slice,of=sim:net,port=null", "`port`"),
        ("mdev:slice,of=mdev:slice;of=sim:net", "no slice"),
        ("mdev:slice,of=sim:blk", "block"),
        ("mdev:slice,of=sim:rng", "slices are of network devices"),
    ] {
        let text = refused(&registry, spec).to_string();
        assert!(text.contains(said), "{spec}: {text}");
    }
    assert!(mdev(&registry).devices().is_empty());
    // What was opened on the way is closed again.
    let both = [(); 2].map(|()| registry.open("sim:net,port=wire:out").unwrap());
    drop(both);
}

#[test]
fn more_than_is_left_is_refused_by_name_and_number_and_what_is_removed_can_be_had_again() {
    let registry = registry();
    let open = |more: &str| registry.open(&format!("mdev:slice,of={WIRE}{more}"));
    let two = open(",limit=4,queue_pairs=2").unwrap();
    let one = open("").unwrap();
    let full = open(",queue_pairs=2").unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Busy);
    let text = full.to_string();
    assert!(
        text.contains("slice-2") && text.contains("of the 4") && text.contains("1 are left"),
        "{text}"
    );
    let other = open(",limit=5").unwrap_err().to_string();
    assert!(other.contains("limit of 4"), "{other}");
    let name = two.info().name.clone();
    mdev(&registry).dev_del(&name).unwrap();
    let again = open(",queue_pairs=3").unwrap();
    assert_eq!(mdev(&registry).devices().len(), 2);
    assert!(
        mdev(&registry)
            .dev_del(&name)
            .unwrap_err()
            .to_string()
            .contains(&again.info().name)
    );
    // The last one closes the device: the end of its wire is free.
    drop((one, two, again));
    drop([(); 2].map(|()| registry.open("sim:net,port=wire:out").unwrap()));
}

#[test]
fn types_say_how_many_can_be_made() {
    let registry = registry();
    let device = registry.open("sim:net").unwrap();
    let uplink = Uplink::open(
        device,
        UplinkConfig {
            limit: 7,
            workers: 1,
        },
    )
    .unwrap();
    let available = || {
        let types = uplink.types().into_iter();
        types
            .map(|kind| (kind.name, kind.available_instances))
            .collect::<Vec<_>>()
    };
    let kinds = |of: [u16; 3]| -> Vec<_> {
        (0..)
            .zip(of)
            .map(|(i, n)| (format!("slice-{}", 1 << i), n))
            .collect()
    };
    assert_eq!(available(), kinds([7, 3, 1]));
    let config = SliceConfig {
        queue_pairs: 2,
        ..SliceConfig::default()
    };
    let slices = [(); 2].map(|()| uplink.slice(config).unwrap());
    assert_eq!(available(), kinds([3, 1, 0]));
    assert_ne!(slices[0].info().name, slices[1].info().name);
    drop(slices);
    assert_eq!(available(), kinds([7, 3, 1]));
}

#[test]
fn addresses_of_ones_own_differ_and_one_can_be_changed_with_what_is_let_through() {
    let registry = registry();
    let mut far = Card::up(registry.open("sim:net,port=wire:out").unwrap());
    let spec = format!("mdev:slice,of={WIRE}");
    let mut a = Card::up(registry.open(&spec).unwrap());
    let b = Card::up(registry.open(&spec).unwrap());
    let (own, other) = (a.config().mac(), b.config().mac());
    assert!(own != other && own.is_local() && own.is_unicast());
    a.send(&frame(mac(9), own.octets(), 1, 60));
    far.receive(1);
    let taken = registry
        .dev_set("mdev", &a.name(), Attr::Mac(other))
        .unwrap_err();
    assert!(taken.to_string().contains(&b.name()), "{taken}");
    registry
        .dev_set("mdev", &a.name(), Attr::Mac(mac(7).into()))
        .unwrap();
    assert_eq!(a.config().mac().octets(), mac(7));
    a.send(&frame(mac(9), own.octets(), 2, 60));
    let new = frame(mac(9), mac(7), 3, 60);
    a.send(&new);
    assert_eq!(far.before(&new), Vec::<Vec<u8>>::new());
    let back = frame(mac(7), mac(9), 4, 60);
    far.send(&back);
    assert_eq!(a.receive(1), [back]);
}

#[test]
fn siblings_lose_nothing_and_see_nothing_twice_while_others_come_and_go() {
    const FRAMES: u32 = 3000;
    let registry = registry();
    let mut a = slice(&registry, WIRE, 1, "");
    let mut b = slice(&registry, WIRE, 2, "");
    let mut next = 0;
    for seq in 0..FRAMES {
        a.send(&frame(mac(2), mac(1), seq, 60 + (seq % 1400) as usize));
        if seq % 50 == 0 {
            // In the same VLAN, in another one, with a driver and without.
            let other = slice(
                &registry,
                WIRE,
                3,
                if seq % 100 == 0 { "" } else { ",vlan=5" },
            );
            drop(registry.open(&format!("mdev:slice,of={WIRE}")).unwrap());
            drop(other);
        }
        // No more under way than there is room for at least.
        while next + 60 <= seq {
            for came in b.receive(1) {
                assert_eq!(
                    came,
                    frame(mac(2), mac(1), next, 60 + (next % 1400) as usize)
                );
                next += 1;
            }
        }
    }
    while next < FRAMES {
        for came in b.receive(1) {
            assert_eq!(seq(&came), next);
            next += 1;
        }
    }
    assert!(b.poll().is_empty());
}

#[test]
fn links_follow_the_carrier_of_the_device_and_the_management_side() {
    let registry = registry();
    let parent = registry.open("sim:net,port=null").unwrap();
    let name = parent.info().name.clone();
    let uplink = Uplink::open(parent, UplinkConfig::default()).unwrap();
    let open = || {
        let slice = uplink.slice(SliceConfig::default()).unwrap();
        Card::up(vdpa_core::Device::new(slice, vdpa_core::Relay::default()).unwrap())
    };
    let (a, b) = (open(), open());
    let events = a.control.events().unwrap();
    let is_up = |card: &Card| card.config().status().contains(NetStatus::LINK_UP);
    let parent_link = |state| registry.dev_set("sim", &name, Attr::Link(state)).unwrap();
    assert!(is_up(&a) && is_up(&b));
    parent_link(LinkState::Down);
    assert_eq!(events.wait(soon()).unwrap(), Some(Event::Config));
    a.until("the link goes down", |a| !is_up(a));
    b.until("the link goes down", |b| !is_up(b));
    // One that is made meanwhile has none; one that is to have none gets none.
    let c = open();
    assert!(!is_up(&c));
    uplink.set(&b.name(), Attr::Link(LinkState::Down)).unwrap();
    uplink.set(&a.name(), Attr::Link(LinkState::Up)).unwrap();
    assert!(!is_up(&a));
    parent_link(LinkState::Up);
    a.until("the link goes up", is_up);
    c.until("the link goes up", is_up);
    assert!(!is_up(&b));
    uplink.set(&b.name(), Attr::Link(LinkState::Up)).unwrap();
    assert!(is_up(&b));
}

#[test]
fn a_device_that_is_gone_takes_the_links_down_and_the_next_slice_opens_another_one() {
    let registry = registry();
    let spec = "mdev:slice,of=sim:net;port=null";
    let a = Card::up(registry.open(spec).unwrap());
    let parent = a.name().split("-slice").next().unwrap().to_owned();
    let sim = registry.parent("sim").unwrap();
    sim.dev_del(&parent).unwrap();
    let down = |card: &Card| !card.config().status().contains(NetStatus::LINK_UP);
    a.until("the link goes down", down);
    let b = Card::up(registry.open(spec).unwrap());
    assert!(down(&a) && !down(&b));
    // The first one has a handle still, and one of its own.
    let names = || -> Vec<_> {
        let all = mdev(&registry).devices().into_iter();
        all.map(|slice| slice.name).collect()
    };
    assert_eq!(names().len(), 2);
    assert_ne!(a.name(), b.name());
    registry
        .dev_set("mdev", &a.name(), Attr::Link(LinkState::Up))
        .unwrap();
    assert!(down(&a));
    mdev(&registry).dev_del(&a.name()).unwrap();
    assert_eq!(names(), [b.name()]);
}

#[test]
fn slices_of_devices_with_one_name_have_names_of_their_own() {
    // Each time another parent's first device.
    let slicer = Slicer::new(Box::new(|spec| {
        let mut registry = Registry::new();
        registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
        registry.open_spec(spec)
    }));
    let make = |spec: &str| slicer.dev_add(&DeviceSpec::parse(spec).unwrap()).unwrap();
    let [a, b, c] = [
        "mdev:slice,of=sim:net",
        "mdev:slice,of=sim:net;mtu=9000",
        "mdev:slice,of=sim:net",
    ]
    .map(make);
    let name = |slice: &Arc<dyn VdpaDevice>| slice.info().name.clone();
    let device = name(&a).split("-slice").next().unwrap().to_owned();
    assert!(name(&b).starts_with(&device), "they are to have one name");
    assert!(name(&a) != name(&b) && name(&b) != name(&c) && name(&a) != name(&c));
    slicer.dev_del(&name(&b)).unwrap();
    let mut left: Vec<_> = slicer
        .devices()
        .into_iter()
        .map(|slice| slice.name)
        .collect();
    left.sort_unstable();
    assert_eq!(left, [name(&a), name(&c)]);
}

#[test]
fn while_a_device_is_opened_the_slices_of_others_are_listed_and_removed() {
    let mut registry = Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    let (tell, told) = std::sync::mpsc::channel();
    let slicer = Arc::new_cyclic(|own: &Weak<Slicer>| {
        let own = own.clone();
        Slicer::new(Box::new(move |spec| {
            let own = own.upgrade().unwrap();
            let all = own.devices();
            for slice in &all {
                own.dev_del(&slice.name)?;
            }
            // Nobody listens any more where the test has failed.
            let _told = tell.send(all.len());
            registry.open_spec(spec)
        }))
    });
    let opens = Arc::clone(&slicer);
    let thread = std::thread::spawn(move || {
        ["mdev:slice,of=sim:net", "mdev:slice,of=sim:net;mtu=9000"]
            .map(|spec| opens.dev_add(&DeviceSpec::parse(spec).unwrap()).unwrap())
    });
    for there in [0, 1] {
        let came = told.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(came, Ok(there), "it waits for itself");
    }
    let _both = thread.join().unwrap();
    assert_eq!(slicer.devices().len(), 1);
}

#[test]
fn keys_and_counters_are_those_of_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/slices.md");
    let text = std::fs::read_to_string(path).unwrap();
    for key in vdpa_mdev::slice::Slicer::CLASS.keys {
        assert!(text.contains(&format!("`{}`", key.name)), "{}", key.name);
    }
    let card = Card::up(registry().open("mdev:slice,of=sim:net").unwrap());
    let mut counted = 0;
    let device = card.control.device();
    let told = device.stats(&mut |name, _| {
        let known = match name.split_once('.') {
            Some(("port", name)) => text.contains(&format!("`{name}`")),
            Some(("uplink", name)) => {
                text.contains(&format!("`uplink.{name}`")) || text.contains(&format!("`.{name}`"))
            }
            _ => return,
        };
        assert!(known, "{name}");
        counted += 1;
    });
    told.unwrap();
    assert_eq!(counted, 16);
}
