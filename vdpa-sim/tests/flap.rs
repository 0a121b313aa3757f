//! A link that goes down and up again, and a queue that is started, while the device is in the middle of a pass: between its
//! look at the port and its look at the queue.

mod rig;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rig::*;
use vdpa_core::{Attr, Device, LinkState, QueueIndex, Relay, bits};
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

/// A card with such a port, running, and how it is held up: a gate to arm, who tells that it is held, and who lets it go.
struct Bench {
    card: Arc<SimDevice>,
    driver: Card,
    gate: Arc<Gate>,
    is_held: Receiver<()>,
    let_go: Sender<()>,
}

impl Bench {
    fn new() -> Self {
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
        let features = plain(&rig).with(bits::RING_RESET);
        let mut driver = Card::new(rig, features, 64, 2048);
        driver.send_all(&frames(3, 100));
        driver.rx.wait(3);
        Self {
            card,
            driver,
            gate,
            is_held,
            let_go,
        }
    }

    /// Has the device look at its port, and stop there: it has looked for commands, and not at the queue.
    fn hold(&self) {
        self.gate.armed.store(true, Ordering::Release);
        self.driver.tx.q.doorbell.ring(1);
        self.is_held
            .recv_timeout(Duration::from_secs(20))
            .expect("the device does not look at its port");
    }

    fn go_on(&self) {
        self.let_go.send(()).unwrap();
    }
}

#[test]
fn what_is_sent_after_the_link_came_up_again_is_not_lost_with_what_was_sent_before() {
    let mut bench = Bench::new();
    for round in 0..20 {
        bench.hold();
        bench.card.set(Attr::Link(LinkState::Down)).unwrap();
        bench.card.set(Attr::Link(LinkState::Up)).unwrap();
        bench.driver.send_all(&[frame(round, 80)]);
        bench.go_on();
        let before = bench.driver.rx.got.len();
        bench.driver.rx.wait(before + 1);
    }
}

#[test]
fn what_is_sent_after_a_receive_queue_was_started_arrives_there() {
    let mut bench = Bench::new();
    for round in 0..20 {
        let receive = QueueIndex::new(0);
        let device = &bench.driver.rig.device;
        device.reset_queue(receive, soon()).unwrap();
        bench.hold();
        let rig = &bench.driver.rig;
        let mut rx = Rx::new(rig, rig.queue(0, 64), 256);
        rx.post(64);
        bench.driver.rx = rx;
        bench.driver.send_all(&[frame(round, 80)]);
        bench.go_on();
        bench.driver.rx.wait(1);
    }
}
