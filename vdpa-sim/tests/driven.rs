//! The simulated device as a PCI function, driven by `vdpa-pci` as a real one is: `as=pci`, in every layout.

use std::sync::Arc;
use std::time::Duration;

use vdpa_core::session::{Completions, Part, QueueSetup, Running};
use vdpa_core::{
    Attr, DeviceSpec, ErrorKind, Event, Features, LinkState, MgmtDevice, QueueIndex, Registry,
    Session, bits, graph,
};
use vdpa_mem::Deadline;
use vdpa_pci::{Layout as Found, PciParent};
use vdpa_sim::SimMgmt;
use vdpa_sim::pci::Layout;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn lab() -> (Arc<SimMgmt>, Registry) {
    let sim = Arc::new(SimMgmt::new());
    let mut registry = Registry::new();
    registry.add(sim.clone());
    (sim, registry)
}

/// Every layout that can be driven.
fn layouts() -> impl Iterator<Item = &'static str> {
    let all = Layout::ALL.iter().map(|(layout, _)| layout.name);
    all.filter(|name| *name != "legacy")
}

/// A device that runs with these features out of those that it offers, and queues of 16 entries.
fn run(
    registry: &Registry,
    spec: &str,
    less: Features,
    more: Features,
    queues: &[u16],
) -> Session<Running> {
    let device = registry.open(spec).unwrap();
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let wanted = (session.acceptable() - less).union(more);
    let wanted = graph::close_down(session.device_type(), wanted);
    let session = session.negotiate(wanted).map_err(|(_, e)| e);
    let mut session = session.unwrap_or_else(|e| panic!("{spec}: {e}"));
    for q in queues {
        let setup = QueueSetup {
            size: 16,
            buffers: 16,
            ..QueueSetup::default()
        };
        session.queue(QueueIndex::new(*q), setup).unwrap();
    }
    session
        .run()
        .map_err(|(_, e)| e)
        .unwrap_or_else(|e| panic!("{spec}: {e}"))
}

const KINDS: [(&str, bool, bool); 4] = [
    ("split", false, false),
    ("packed", true, false),
    ("split with data", false, true),
    ("packed with data", true, true),
];

/// Sends frames through a loopback, and waits for each by its interrupt.
#[test]
fn packets_pass_by_every_layout_in_both_formats() {
    let (_, registry) = lab();
    for layout in layouts() {
        for (kind, packed, data) in KINDS {
            let mut less = bits::net::MQ | bits::net::CTRL_VQ | bits::net::MRG_RXBUF;
            less = less.union(bits::net::HASH_REPORT | bits::net::RSS);
            if !packed {
                less.insert(bits::RING_PACKED);
            }
            if !data {
                less.insert(bits::NOTIFICATION_DATA);
                less.insert(bits::NOTIF_CONFIG_DATA);
            }
            let notify = if data { "on" } else { "off" };
            let spec = format!("sim:net,as=pci,layout={layout},notify_data={notify}");
            let session = run(&registry, &spec, less, Features::NONE, &[0, 1]);
            let what = format!("{layout}, {kind}");
            let (control, mut queues) = session.split();
            let [rx, tx] = &mut queues[..] else {
                panic!("{what}: two queues");
            };
            let mut done = Completions::new(16);
            for round in 0..40_u8 {
                let empty = rx.lease().unwrap();
                rx.receive(empty).unwrap();
                rx.publish();
                let lease = tx.lease().unwrap();
                let mut frame = [round; 12 + 60];
                frame[..12].fill(0);
                tx.write(&lease, 0, &frame);
                tx.send(lease, frame.len() as u32).unwrap();
                tx.publish();
                assert!(rx.wait(soon()).unwrap(), "{what}: frame {round}");
                assert_eq!(rx.poll(&mut done).unwrap(), 1);
                let got = done.pop().unwrap();
                assert_eq!(got.len, 72, "{what}");
                let mut bytes = [0; 60];
                rx.read(&got.lease, 12, &mut bytes);
                assert_eq!(bytes, [round; 60], "{what}");
                rx.put(got.lease);
                assert!(tx.wait(soon()).unwrap(), "{what}: sending {round}");
                assert_eq!(tx.poll(&mut done).unwrap(), 1);
                tx.put(done.pop().unwrap().lease);
            }
            let session = control.join(queues).map_err(|(_, _)| "join").unwrap();
            session.close(soon()).map_err(|(_, e)| e).unwrap();
        }
    }
}

#[test]
fn blocks_are_read_as_they_were_written_in_every_layout() {
    let (_, registry) = lab();
    for layout in layouts() {
        let spec = format!("sim:blk,size=1M,as=pci,layout={layout}");
        let session = run(&registry, &spec, Features::NONE, Features::NONE, &[0]);
        let (_control, mut queues) = session.split();
        let mut done = Completions::new(4);
        let queue = &mut queues[0];
        let mut request = |kind: u32, data: Part, bytes: Option<&[u8]>| {
            let lease = queue.lease().unwrap();
            let mut header = [0; 16];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8] = 3;
            queue.write(&lease, 0, &header);
            if let Some(bytes) = bytes {
                queue.write(&lease, 16, bytes);
            }
            let parts = [Part::Readable(16), data, Part::Writable(1)];
            queue.submit(lease, &parts).unwrap();
            queue.publish();
            assert!(queue.wait(soon()).unwrap(), "{layout}");
            queue.poll(&mut done).unwrap();
            let lease = done.pop().unwrap().lease;
            let mut all = vec![0xee; 16 + 512 + 1];
            queue.read(&lease, 0, &mut all);
            queue.put(lease);
            assert_eq!(all[528], 0, "{layout}: status");
            all[16..528].to_vec()
        };
        let written: Vec<u8> = (0..512).map(|i| (i % 251) as u8).collect();
        request(1, Part::Readable(512), Some(&written));
        assert_eq!(request(0, Part::Writable(512), None), written, "{layout}");
    }
}

#[test]
fn random_numbers_come_by_every_layout() {
    let (_, registry) = lab();
    for layout in layouts() {
        let spec = format!("sim:rng,as=pci,layout={layout}");
        let session = run(&registry, &spec, Features::NONE, Features::NONE, &[0]);
        let (_control, mut queues) = session.split();
        let queue = &mut queues[0];
        let lease = queue.lease().unwrap();
        queue.receive(lease).unwrap();
        queue.publish();
        assert!(queue.wait(soon()).unwrap(), "{layout}");
    }
}

#[test]
fn a_change_is_told_and_a_removal_is_the_end() {
    for layout in ["qemu", "vectors-1", "intx", "window"] {
        let (sim, registry) = lab();
        let spec = format!("sim:net,as=pci,layout={layout}");
        let session = run(&registry, &spec, Features::NONE, Features::NONE, &[0, 1]);
        let name = session.device().info().name.clone();
        assert_eq!(sim.devices()[0].name, name);
        let events = session.device().events().unwrap();
        let mut link = [0; 2];
        sim.dev_set(&name, Attr::Link(LinkState::Down)).unwrap();
        assert_eq!(
            events.wait(soon()).unwrap(),
            Some(Event::Config),
            "{layout}"
        );
        session.read_config(6, &mut link).unwrap();
        assert_eq!(link, [0, 0]);
        sim.dev_del(&name).unwrap();
        assert_eq!(events.wait(soon()).unwrap(), Some(Event::Gone), "{layout}");
        let refused = session.device().status().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Gone);
        assert!(sim.devices().is_empty());
        session.close(soon()).map_err(|(_, e)| e).unwrap();
    }
}

#[test]
fn a_legacy_function_is_refused_by_name_and_leaves_nothing() {
    let (sim, registry) = lab();
    let refused = registry.open("sim:net,as=pci,layout=legacy").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(refused.to_string().contains("sim0"), "{refused}");
    assert!(sim.devices().is_empty());
}

#[test]
fn keys_of_a_function_are_checked_with_what_is_legal() {
    let (_, registry) = lab();
    for (spec, said) in [
        ("sim:net,as=usb", "pci"),
        ("sim:net,as=pci,layout=best", "one-bar"),
        ("sim:net,as=pci,layout=splid", "split"),
        ("sim:net,layout=qemu", "layout"),
        ("sim:net,as=vdpa,vectors=2", "vectors"),
        ("sim:net,as=pci,vectors=2049", "2048"),
        ("sim:net,as=pci,multiplier=3", "power of two"),
        ("sim:net,as=pci,multiplier=1", "power of two"),
        ("sim:net,as=pci,multiplier=8192", "4096"),
        ("sim:net,as=pci,notify_data=maybe", "on"),
        ("sim:blk,as=pci,dma_entries=0", "65535"),
        ("sim:rng,as=pci,page_requests=on", "as=pci"),
        ("sim:rng,as=pci,vector=2", "vectors"),
    ] {
        let refused = registry.open(spec).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Misuse, "{spec}");
        assert!(refused.to_string().contains(said), "{spec}: {refused}");
    }
    // What a class's listing says of the layouts is what there is.
    let sim = SimMgmt::new();
    for class in sim.classes() {
        let key = class.keys.iter().find(|key| key.name == "layout").unwrap();
        let all: Vec<_> = Layout::ALL.iter().map(|(layout, _)| layout.name).collect();
        assert_eq!(key.values, all.join(", "));
    }
}

#[test]
fn a_function_that_could_not_interrupt_at_all_is_refused() {
    let (_, registry) = lab();
    let refused = registry.open("sim:rng,as=pci,vectors=0,layout=one-bar");
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misuse, "{refused}");
    let says = refused.to_string();
    assert!(
        says.contains("1 to 2048") && says.contains("one-bar"),
        "{says}"
    );
    registry.open("sim:rng,as=pci,vectors=0").unwrap();
}

#[test]
fn a_parent_of_functions_hands_out_one_that_nobody_drives() {
    let sim = SimMgmt::new();
    let spec = |text: &str| DeviceSpec::parse(text).unwrap();
    let refused = sim.function(&spec("sim:net")).map(drop).unwrap_err();
    assert!(refused.to_string().contains("as=pci"), "{refused}");
    let f = sim.function(&spec("sim:net,as=pci,vectors=3,multiplier=2"));
    let f = f.unwrap();
    assert_eq!((f.name(), f.interrupts().msix), ("sim0", 3));
    let found = Found::read(&*f).unwrap();
    assert_eq!(found.notify_multiplier, 2);
    sim.dev_del("sim0").unwrap();
}

#[test]
fn mappings_beyond_the_iommus_entries_are_refused_with_the_number() {
    let (_, registry) = lab();
    let device = registry.open("sim:net,as=pci,dma_entries=1").unwrap();
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let session = session.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
    let mut session = session.map_err(|(_, e)| e).unwrap();
    session
        .queue(QueueIndex::new(0), QueueSetup::default())
        .unwrap();
    let refused = session.queue(QueueIndex::new(1), QueueSetup::default());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains('1'), "{refused}");
}
