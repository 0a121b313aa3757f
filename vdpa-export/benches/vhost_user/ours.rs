//! Our network device behind our vhost-user end, at a port that takes frames and looks at them, or makes them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdpa_core::config::Mac;
use vdpa_core::{Device, Relay};
use vdpa_export::vhost_user::{Notice, Options, Server, Stop};
use vdpa_sim::SimDevice;
use vdpa_sim::frames::{BATCH_FRAMES, FrameBatch};
use vdpa_sim::net::{Net, POSSIBLE, Settings};
use vdpa_sim::port::{Lane, Port, Presence, Room};

use super::stamp::{self, EchoJudge, Judge, Seen};
use super::work::{Orders, Work};

/// How many round trips of a ping are remembered.
const TRIPS: usize = 1 << 20;

/// Serves on `socket` until told to end.
///
/// * `poll`: how long its worker polls what is quiet before it sleeps
pub(crate) fn child(socket: &str, poll: Option<&str>) -> Result<(), String> {
    let orders = Arc::new(Orders::default());
    let presence = Presence::new(true);
    let mut options = vdpa_sim::Options::default();
    if let Some(us) = poll.and_then(|us| us.parse().ok()) {
        options.patience = Duration::from_micros(us);
    }
    let net = Net::new(settings(), Arc::clone(&presence), BenchPort::new(&orders));
    let device = SimDevice::new("bench", Box::new(net), options);
    let device = Device::new(Arc::new(device), Relay::new()).map_err(|e| e.to_string())?;
    let told = Options::default().observe(|notice| {
        if let Notice::CutOff { .. } = notice {
            eprintln!("ours: {notice}");
        }
    });
    let serving = Server::new(device, told)
        .bind(socket)
        .map_err(|e| e.to_string())?;
    let stop = Stop::new().map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serving.run(&stop).map(drop).map_err(|e| e.to_string()));
        super::child::serve(|words| orders.obey(words, || presence.ring(0)));
        stop.set();
        server
            .join()
            .unwrap_or_else(|_| Err("the server panicked".to_owned()))
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
            echo: EchoJudge::default(),
            batch: FrameBatch::new(1514),
            made: 0,
            pinged: None,
            trips: Vec::new(),
        })
    }

    fn changed(&self) {}
}

struct BenchLane {
    orders: Arc<Orders>,
    word: u64,
    work: Work,
    sink: Judge,
    echo: EchoJudge,
    /// What is made, to be given to the driver.
    batch: Box<FrameBatch>,
    /// How many frames were made.
    made: u64,
    /// When the frame left that is on its way.
    pinged: Option<Instant>,
    trips: Vec<u32>,
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
        let before = std::mem::replace(&mut self.work, Orders::work(word));
        if self.work == Work::Idle {
            // The counts stay as they are.
            if let (Work::Ping(_), Ok(mut trips)) = (before, self.orders.trips.lock()) {
                *trips = std::mem::take(&mut self.trips);
            }
            self.orders.acknowledge(word);
            return;
        }
        self.made = 0;
        self.pinged = None;
        self.sink = Judge::default();
        self.batch.clear();
        if let Work::Source(len) | Work::Echo(len) | Work::Ping(len) = self.work {
            let frame = stamp::frame(len);
            let frames = match self.work {
                Work::Ping(_) => 1,
                _ => BATCH_FRAMES,
            };
            while self.batch.len() < frames && self.batch.push_frame(&frame) {}
            self.echo = EchoJudge::new(len);
            self.number();
        }
        if matches!(self.work, Work::Ping(_)) {
            self.trips.clear();
            self.trips.reserve(TRIPS);
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
        let seen = match self.work {
            Work::Echo(_) | Work::Ping(_) => self.echo.seen(),
            _ => self.sink.seen(),
        };
        let sent = self.made.saturating_sub(self.batch.len() as u64);
        self.orders.report(sent, seen);
    }
}

impl Lane for BenchLane {
    fn room(&mut self) -> Room {
        Room::Yes
    }

    fn send(&mut self, mut batch: Box<FrameBatch>) -> Box<FrameBatch> {
        self.look_at_orders();
        match self.work {
            Work::Idle | Work::Source(_) => {}
            Work::Sink => {
                for (_, frame) in batch.packets() {
                    self.sink.look(frame);
                }
            }
            Work::Echo(_) => {
                for (_, frame) in batch.packets() {
                    self.echo.look(frame);
                }
            }
            Work::Ping(_) => {
                if let Some(pinged) = self.pinged.take()
                    && self.trips.len() < TRIPS
                {
                    let ns = pinged.elapsed().as_nanos();
                    self.trips.push(u32::try_from(ns).unwrap_or(u32::MAX));
                }
                for (_, frame) in batch.packets() {
                    self.echo.look(frame);
                }
                self.batch.put_back();
                self.number();
            }
        }
        self.report();
        batch.clear();
        batch
    }

    fn receive(&mut self, take: &mut dyn FnMut(&mut FrameBatch)) -> bool {
        self.look_at_orders();
        match self.work {
            Work::Idle | Work::Sink => return false,
            Work::Ping(_) => {
                if !self.batch.is_empty() {
                    self.pinged = Some(Instant::now());
                    take(&mut self.batch);
                }
            }
            Work::Source(_) | Work::Echo(_) => {
                if self.batch.is_empty() {
                    self.batch.put_back();
                    self.number();
                }
                take(&mut self.batch);
            }
        }
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
