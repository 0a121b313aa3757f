//! Commands of the control queue, and what they do to what is received.

mod rig;

use rig::*;
use vdpa_core::bits::net;
use vdpa_core::config::Mac;

const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 9];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 5];
const ALL: [u8; 6] = [0xff; 6];

struct Filtered {
    card: Card,
    ctrl: Ctrl,
}

fn open(lab: &Lab, features: &str) -> Filtered {
    let rig = lab.open(&format!("sim:net,mac=52:54:00:00:00:01{features}"));
    start(rig)
}

fn start(rig: Rig) -> Filtered {
    let features = plain(&rig);
    rig.negotiate(features);
    let mut rx = Rx::new(&rig, rig.queue(0, 64), 2048);
    let tx = Tx::new(&rig, rig.queue(1, 64), 2048);
    let ctrl = Ctrl::new(&rig, rig.queue(2, 8));
    rx.post(64);
    rig.run();
    Filtered {
        card: Card { rig, tx, rx },
        ctrl,
    }
}

fn to(mac: [u8; 6]) -> Vec<u8> {
    let mut frame = frame(3, 64);
    frame[..6].copy_from_slice(&mac);
    frame
}

fn tagged(mac: [u8; 6], vlan: u16) -> Vec<u8> {
    let mut frame = to(mac);
    frame[12..14].copy_from_slice(&[0x81, 0]);
    frame[14..16].copy_from_slice(&vlan.to_be_bytes());
    frame
}

impl Filtered {
    /// Which of these frames arrive.
    fn arrive(&mut self, frames: &[Vec<u8>]) -> Vec<bool> {
        self.card.rx.got.clear();
        let filtered = self.card.rig.stat("queue0.dropped.rx_filtered");
        self.card.send_all(frames);
        until("all frames are received or filtered", || {
            self.card.rx.poll();
            let filtered = self.card.rig.stat("queue0.dropped.rx_filtered") - filtered;
            self.card.rx.got.len() + filtered as usize == frames.len()
        });
        frames
            .iter()
            .map(|frame| self.card.rx.got.contains(frame))
            .collect()
    }

    fn addresses(&mut self) -> Vec<bool> {
        self.arrive(&[to(OWN), to(OTHER), to(GROUP), to(ALL)])
    }
}

fn table(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut command = vec![1, 0];
    for list in [unicast, multicast] {
        command.extend((list.len() as u32).to_le_bytes());
        command.extend(list.iter().flatten());
    }
    command
}

// virtio 1.4 §5.1.9.5.1.1, §5.1.9.5.2.1.
#[test]
fn modes_and_tables_decide_what_is_received_and_a_reset_forgets_them() {
    let lab = Lab::new();
    let mut f = open(&lab, "");
    assert_eq!(f.addresses(), [true; 4], "at reset everything is received");
    assert_eq!(f.ctrl.command(&[0, 0, 0]), 0);
    assert_eq!(f.addresses(), [true, false, false, true]);
    assert_eq!(f.ctrl.command(&[0, 1, 1]), 0);
    assert_eq!(f.addresses(), [true, false, true, true]);
    assert_eq!(f.ctrl.command(&[0, 1, 0]), 0);
    assert_eq!(f.ctrl.command(&table(&[OTHER], &[GROUP])), 0);
    assert_eq!(f.addresses(), [true; 4]);
    assert_eq!(f.ctrl.command(&table(&[], &[GROUP])), 0);
    assert_eq!(f.addresses(), [true, false, true, true]);
    for (mode, expected) in [
        (2, [true, true, true, true]),
        (3, [true, false, false, true]),
        (4, [false, false, true, true]),
        (5, [true, false, true, false]),
    ] {
        assert_eq!(f.ctrl.command(&[0, mode, 1]), 0);
        assert_eq!(f.addresses(), expected, "mode {mode}");
        assert_eq!(f.ctrl.command(&[0, mode, 0]), 0);
    }
    assert_eq!(f.ctrl.command(&[0, 0, 1]), 0);
    assert_eq!(f.addresses(), [true; 4]);
    let rig = f.card.rig;
    rig.reset();
    let mut f = start(rig);
    assert_eq!(f.addresses(), [true; 4]);
    assert_eq!(f.ctrl.command(&[0, 0, 0]), 0);
    assert_eq!(
        f.addresses(),
        [true, false, false, true],
        "the table is empty after reset"
    );
}

// virtio 1.4 §5.1.9.5.2.1.
#[test]
fn a_new_address_is_received_and_read_before_its_command_comes_back() {
    let lab = Lab::new();
    let mut f = open(&lab, "");
    assert_eq!(f.ctrl.command(&[0, 0, 0]), 0);
    let generation = f.card.rig.device.config_generation().unwrap();
    assert_eq!(f.ctrl.command(&[&[1, 1], &OTHER[..]].concat()), 0);
    assert_eq!(f.card.rig.config().mac(), Mac::new(OTHER));
    assert_ne!(f.card.rig.device.config_generation().unwrap(), generation);
    assert_eq!(f.addresses(), [false, true, false, true]);
    f.card.rig.reset();
    assert_eq!(f.card.rig.config().mac(), Mac::new(OWN));
}

// virtio 1.4 §5.1.9.5.3.1.
#[test]
fn vlans_are_received_once_added() {
    let lab = Lab::new();
    let mut f = open(&lab, "");
    let frames = [tagged(OWN, 5), tagged(OWN, 6), to(OWN)];
    assert_eq!(f.arrive(&frames), [true; 3]);
    assert_eq!(f.ctrl.command(&[2, 0, 5, 0]), 0);
    assert_eq!(f.arrive(&frames), [true, false, true]);
    assert_eq!(f.ctrl.command(&[2, 1, 5, 0]), 0);
    assert_eq!(f.arrive(&frames), [false, false, true]);
    assert_eq!(f.ctrl.command(&[2, 0, 0, 0x10]), 1);
}

#[test]
fn without_a_control_queue_there_is_no_filter() {
    let lab = Lab::new();
    let mut f = open(&lab, "");
    f.ctrl.command(&[0, 0, 0]);
    f.card.rig.reset();
    let rig = f.card.rig;
    // With all that needs it.
    let without = plain(&rig) - net::CTRL_VQ - net::CTRL_RX_EXTRA;
    let features = vdpa_core::graph::acceptable(vdpa_core::DeviceType::Net, without);
    let mut card = Card::new(rig, features, 64, 2048);
    card.send_all(&[to(OTHER), tagged(OTHER, 7)]);
    card.rx.wait(2);
}

#[test]
fn commands_that_are_short_unknown_or_absurd_come_back_with_an_error_of_their_own() {
    let lab = Lab::new();
    let mut f = open(&lab, "");
    let absurd = [&[1, 0][..], &u32::MAX.to_le_bytes(), &[0; 12]].concat();
    for command in [
        &[0][..],
        &[0, 0],
        &[0, 0, 1, 1],
        &[0, 9, 1],
        &[9, 0, 0],
        &[3, 1],
        &absurd,
    ] {
        assert_eq!(f.ctrl.command(command), 1, "{command:?}");
        // The status of one command is not that of the next.
        assert_eq!(f.ctrl.command(&[0, 0, 1]), 0);
    }
    let rig = &f.card.rig;
    let at = rig.alloc(32 << 10);
    rig.bytes().write(at as usize, &[0, 0, 1]);
    let q = &mut f.ctrl.q;
    // Nowhere to say anything; nothing said; too long; the ack is the last of several bytes, cut in two.
    q.add(&[(at, 3)], &[]).unwrap();
    q.add(&[], &[(at + 64, 1)]).unwrap();
    q.add(&[(at, 20 << 10)], &[(at + 65, 1)]).unwrap();
    q.add(
        &[(at, 1), (at + 1, 1), (at + 2, 1)],
        &[(at + 72, 5), (at + 80, 3)],
    )
    .unwrap();
    rig.bytes().write(at as usize + 64, &[0xaa; 32]);
    q.publish();
    let lens: Vec<_> = q.wait_used(4).iter().map(|done| done.len).collect();
    assert_eq!(lens, [0, 1, 1, 8]);
    let mut said = [0; 32];
    rig.bytes().read(at as usize + 64, &mut said);
    assert_eq!(said[..2], [1, 1]);
    assert_eq!(said[8..13], [0; 5]);
    assert_eq!(said[16..20], [0, 0, 0, 0xaa]);
    assert_eq!(f.ctrl.command(&[0, 0, 1]), 0, "the queue goes on");
    assert!(
        !f.card
            .rig
            .status()
            .contains(vdpa_core::Status::DEVICE_NEEDS_RESET)
    );
}

#[test]
fn a_filter_moves_to_another_device_with_the_class_state() {
    let lab = Lab::new();
    let mut f = open(&lab, "");
    assert_eq!(f.ctrl.command(&[0, 0, 0]), 0);
    assert_eq!(f.ctrl.command(&table(&[OTHER], &[])), 0);
    assert_eq!(f.ctrl.command(&[2, 0, 5, 0]), 0);
    assert!(f.card.rig.device.save_class_state().is_err(), "it runs");
    f.card.rig.device.suspend(soon()).unwrap();
    let state = f.card.rig.device.save_class_state().unwrap();

    let rig = lab.open("sim:net");
    rig.negotiate(plain(&rig));
    assert!(rig.device.restore_class_state(b"something else").is_err());
    rig.device.restore_class_state(&state).unwrap();
    assert_eq!(rig.config().mac(), Mac::new(OWN));
    let mut rx = Rx::new(&rig, rig.queue(0, 64), 2048);
    let tx = Tx::new(&rig, rig.queue(1, 64), 2048);
    let ctrl = Ctrl::new(&rig, rig.queue(2, 8));
    rx.post(64);
    rig.run();
    let card = Card { rig, tx, rx };
    let mut f = Filtered { card, ctrl };
    assert_eq!(f.addresses(), [true, true, false, true]);
    assert_eq!(f.arrive(&[tagged(OWN, 5), tagged(OWN, 6)]), [true, false]);
}
