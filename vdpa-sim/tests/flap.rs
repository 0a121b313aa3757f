//! A link that goes down and up again while the device is between its look at the port and its look at the queue.

mod rig;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rig::*;
use vdpa_core::{Attr, Device, LinkState, Relay};
use vdpa_sim::frames::FrameBatch;
use vdpa_sim::net::{Net, POSSIBLE, Settings};
use vdpa_sim::port::{Lane, Loopback, Port, Presence, Room};
use vdpa_sim::{Options, SimDevice};

/// A loopback that can be held up right after it has said that there is room.
struct Held {
    port: Loopback,
    gate: Arc<Gate>,
}

struct Gate {
    /// The next look at the port is held up.
    armed: AtomicBool,
    held: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

struct HeldLane {
    lane: Box<dyn Lane>,
    gate: Arc<Gate>,
}

impl Port for Held {
    fn lane(&self, pair: u16) -> Box<dyn Lane> {
        let (lane, gate) = (self.port.lane(pair), Arc::clone(&self.gate));
        Box::new(HeldLane { lane, gate })
    }

    fn changed(&self) {
        self.port.changed();
    }
}

impl Lane for HeldLane {
    fn room(&mut self) -> Room {
        let room = self.lane.room();
        if self.gate.armed.swap(false, Ordering::AcqRel) {
            self.gate.held.send(()).unwrap();
            let go_on = self.gate.go_on.lock().unwrap();
            go_on.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        room
    }

    fn send(&mut self, batch: Box<FrameBatch>) -> Box<FrameBatch> {
        self.lane.send(batch)
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        self.lane.receive(take)
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        self.lane.sources()
    }

    fn discard(&mut self) -> u64 {
        self.lane.discard()
    }
}

#[test]
fn what_is_sent_after_the_link_came_up_again_is_not_lost_with_what_was_sent_before() {
    let (held, is_held) = channel();
    let (let_go, go_on) = channel();
    let gate = Arc::new(Gate {
        armed: AtomicBool::new(false),
        held,
        go_on: Mutex::new(go_on),
    });
    let settings = Settings {
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: 1500,
        pairs: 1,
        queue_size: 64,
        features: POSSIBLE,
        speed: None,
        link: true,
    };
    let presence = Presence::new(true);
    let port = Arc::new(Held {
        port: Loopback::new(Arc::clone(&presence), 1, 1600),
        gate: Arc::clone(&gate),
    });
    let class = Box::new(Net::new(settings, presence, port));
    let card = Arc::new(SimDevice::new("card", class, Options::default()));
    let device = Device::new(Arc::clone(&card) as _, Relay::new()).unwrap();
    let rig = Rig::new(device);
    let features = plain(&rig);
    let mut driver = Card::new(rig, features, 64, 2048);
    driver.send_all(&frames(3, 100));
    driver.rx.wait(3);

    for round in 0..20 {
        gate.armed.store(true, Ordering::Release);
        // It looks at the port, and finds nothing to send.
        driver.tx.q.doorbell.ring(1);
        is_held
            .recv_timeout(Duration::from_secs(20))
            .expect("the device does not look at its port");
        card.set(Attr::Link(LinkState::Down)).unwrap();
        card.set(Attr::Link(LinkState::Up)).unwrap();
        driver.send_all(&[frame(round, 80)]);
        let_go.send(()).unwrap();
        let before = driver.rx.got.len();
        driver.rx.wait(before + 1);
    }
}
