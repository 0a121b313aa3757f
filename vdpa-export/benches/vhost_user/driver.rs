//! Our network driver, over our vhost-user parent: it sends, takes and looks, or sends one frame and waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vdpa::net::{NetDriver, NetError, Ring, Setup};

use super::stamp::{self, EchoJudge, Judge, Seen};
use super::work::{Orders, Work};

/// The queue pair used.
const PAIR: u16 = 0;

/// Frames that are shown to the device at once, as testpmd does.
const BATCH: usize = 32;

/// How many round trips are remembered.
const TRIPS: usize = 1 << 20;

/// How long a frame may be under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// Drives the device behind `socket` until told to end.
pub(crate) fn child(socket: &str, ring: &str) -> Result<(), String> {
    let ring: Ring = ring.parse().map_err(|e| format!("{e}"))?;
    let device = vdpa::open(&format!("vhost-user:{socket},type=net,queue_size=1024"))
        .map_err(|e| e.to_string())?;
    let setup = Setup {
        ring,
        queue_size: 1024,
        ..Setup::default()
    };
    let driver = NetDriver::start(device, &setup).map_err(|e| e.to_string())?;
    let orders = Arc::new(Orders::default());
    let worker = Worker {
        driver,
        orders: Arc::clone(&orders),
        word: 0,
        work: Work::Idle,
        frame: Vec::new(),
        sent: 0,
        sink: Judge::default(),
        echo: EchoJudge::default(),
        trips: Vec::with_capacity(TRIPS),
    };
    let worker = std::thread::spawn(move || {
        if let Err(e) = worker.run() {
            eprintln!("our driver: {e}");
            // Whoever waits for its answers is told by that.
            std::process::exit(1);
        }
    });
    super::child::serve(|words| orders.obey(words, || worker.thread().unpark()));
    Ok(())
}

struct Worker {
    driver: NetDriver,
    orders: Arc<Orders>,
    word: u64,
    work: Work,
    frame: Vec<u8>,
    sent: u64,
    sink: Judge,
    echo: EchoJudge,
    trips: Vec<u32>,
}

impl Worker {
    fn run(mut self) -> Result<(), NetError> {
        loop {
            let word = self.orders.word();
            if word != self.word {
                self.change(word);
            }
            match self.work {
                Work::Idle | Work::Reflect => std::thread::park(),
                Work::Source(_) => self.send()?,
                Work::Sink => self.receive()?,
                Work::Ping(_) => self.ping()?,
            }
        }
    }

    #[cold]
    fn change(&mut self, word: u64) {
        self.word = word;
        self.work = Orders::work(word);
        match self.work {
            // The counts stay as they are.
            Work::Idle => {
                if let Ok(mut trips) = self.orders.trips.lock() {
                    trips.clone_from(&self.trips);
                }
            }
            _ => {
                self.sent = 0;
                self.trips.clear();
                self.sink = Judge::default();
                if let Work::Source(len) | Work::Ping(len) = self.work {
                    self.frame = stamp::frame(len);
                    self.echo = EchoJudge::new(len);
                }
                self.orders.report(0, Seen::default());
            }
        }
        self.orders.acknowledge(word);
    }

    fn send(&mut self) -> Result<(), NetError> {
        for _ in 0..BATCH {
            stamp::stamp(&mut self.frame, self.sent);
            if !self.driver.push(PAIR, &self.frame)? {
                break;
            }
            self.sent += 1;
        }
        self.driver.publish(PAIR)?;
        self.orders.report(self.sent, Seen::default());
        Ok(())
    }

    fn receive(&mut self) -> Result<(), NetError> {
        let sink = &mut self.sink;
        match self.driver.receive(PAIR, |frame| sink.look(frame))? {
            0 => std::hint::spin_loop(),
            _ => self.orders.report(0, self.sink.seen()),
        }
        Ok(())
    }

    /// One frame there and back.
    fn ping(&mut self) -> Result<(), NetError> {
        stamp::stamp(&mut self.frame, self.sent);
        let begun = Instant::now();
        self.driver.push(PAIR, &self.frame)?;
        self.driver.publish(PAIR)?;
        self.sent += 1;
        let echo = &mut self.echo;
        // Where a frame is lost the next one says that it is missing.
        while self.driver.receive(PAIR, |frame| echo.look(frame))? == 0
            && begun.elapsed() < PATIENCE
        {
            std::hint::spin_loop();
        }
        let ns = u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX);
        if self.trips.len() < TRIPS {
            self.trips.push(ns);
        }
        self.orders.report(self.sent, self.echo.seen());
        Ok(())
    }
}
