//! Our network device behind our vhost-user end, at a port that takes frames and looks at them, or makes them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vdpa_core::config::Mac;
use vdpa_core::{Device, Relay};
use vdpa_sim::SimDevice;
use vdpa_sim::frames::{BATCH_FRAMES, FrameBatch};
use vdpa_sim::net::{Net, POSSIBLE, Settings};
use vdpa_sim::port::{Lane, Port, Presence, Room};

use super::stamp::{self, Judge, Seen};
use super::work::{Orders, Work};

/// Serves on `socket` until told to end.
pub(crate) fn child(socket: &str) -> Result<(), String> {
    let orders = Arc::new(Orders::default());
    let presence = Presence::new(true);
    let options = vdpa_sim::Options::default();
    let net = Net::new(settings(), Arc::clone(&presence), BenchPort::new(&orders));
    let device = SimDevice::new("bench", Box::new(net), options);
    let device = Device::new(Arc::new(device), Relay::new()).map_err(|e| e.to_string())?;
    super::served::serve(device, socket, |words| {
        orders.obey(words, || presence.ring(0))
    })
}

fn settings() -> Settings {
    Settings {
        mac: Mac::new([0x52, 0x54, 0, 0, 0, 1]),
        mtu: 1500,
        pairs: 1,
        queue_size: 1024,
        features: POSSIBLE,
        speed: None,
        link: true,
    }
}

/// Where the frames go to and come from.
struct BenchPort(Arc<Orders>);

impl BenchPort {
    fn new(orders: &Arc<Orders>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(orders)))
    }
}

impl Port for BenchPort {
    fn lane(&self, _pair: u16) -> Box<dyn Lane> {
        Box::new(BenchLane {
            orders: Arc::clone(&self.0),
            word: 0,
            work: Work::Idle,
            sink: Judge::default(),
            batch: FrameBatch::new(1514),
            made: 0,
        })
    }

    fn changed(&self) {}
}

struct BenchLane {
    orders: Arc<Orders>,
    word: u64,
    work: Work,
    sink: Judge,
    /// What is made, to be given to the driver.
    batch: Box<FrameBatch>,
    /// How many frames were made.
    made: u64,
}

impl BenchLane {
    #[inline]
    fn look_at_orders(&mut self) {
        let word = self.orders.word();
        if word != self.word {
            self.change(word);
        }
    }

    #[cold]
    fn change(&mut self, word: u64) {
        self.word = word;
        self.work = Orders::work(word);
        if self.work == Work::Idle {
            // The counts stay as they are.
            self.orders.acknowledge(word);
            return;
        }
        self.made = 0;
        self.sink = Judge::default();
        self.batch.clear();
        if let Work::Source(len) = self.work {
            let frame = stamp::frame(len);
            while self.batch.len() < BATCH_FRAMES && self.batch.push_frame(&frame) {}
            self.number();
        }
        self.orders.report(0, Seen::default());
        self.orders.acknowledge(word);
    }

    /// Numbers the frames of the batch, all of which are to be given.
    fn number(&mut self) {
        for frame in self.batch.frames_mut() {
            stamp::stamp(frame, self.made);
            self.made += 1;
        }
    }

    fn report(&self) {
        let sent = self.made.saturating_sub(self.batch.len() as u64);
        self.orders.report(sent, self.sink.seen());
    }
}

impl Lane for BenchLane {
    fn room(&mut self) -> Room {
        Room::Yes
    }

    fn send(&mut self, mut batch: Box<FrameBatch>) -> Box<FrameBatch> {
        self.look_at_orders();
        if self.work == Work::Sink {
            for (_, frame) in batch.packets() {
                self.sink.look(frame);
            }
        }
        self.report();
        batch.clear();
        batch
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        self.look_at_orders();
        if !matches!(self.work, Work::Source(_)) {
            return false;
        }
        if self.batch.is_empty() {
            self.batch.put_back();
            self.number();
        }
        take(&mut self.batch);
        self.report();
        false
    }

    fn sources(&self) -> Vec<Arc<OwnedFd>> {
        Vec::new()
    }

    fn discard(&mut self) -> u64 {
        self.look_at_orders();
        0
    }
}
