//! What goes on meanwhile: a thread that exchanges with a sibling queue and a sibling device, and looks at every byte.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::exchange::Exchange;
use crate::wait;

/// One of the two that go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sibling {
    /// Another queue of the device under attack.
    Queue,
    /// Another device, served by the same thread.
    Device,
}

#[derive(Default)]
struct Lane {
    exchange: Mutex<Option<Exchange>>,
    done: AtomicU64,
}

#[derive(Default)]
struct Shared {
    queue: Lane,
    device: Lane,
    stop: AtomicBool,
    failed: Mutex<Option<String>>,
}

impl Shared {
    fn lane(&self, which: Sibling) -> &Lane {
        match which {
            Sibling::Queue => &self.queue,
            Sibling::Device => &self.device,
        }
    }

    /// One exchange, if there is somebody to exchange with.
    fn turn(&self, which: Sibling) -> Result<(), String> {
        let lane = self.lane(which);
        let mut exchange = lane.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(exchange) = exchange.as_mut() else {
            return Ok(());
        };
        exchange
            .once()
            .map_err(|why| format!("the sibling {which:?}: {why}"))?;
        lane.done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let turns = self
                .turn(Sibling::Queue)
                .and_then(|()| self.turn(Sibling::Device));
            if let Err(why) = turns {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// The thread, while it lives.
pub struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Begins.
    ///
    /// * `queue`: none where the peer has the whole device
    pub fn start(queue: impl Into<Option<Exchange>>, device: Exchange) -> Self {
        let shared = Arc::new(Shared::default());
        *shared
            .queue
            .exchange
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = queue.into();
        *shared
            .device
            .exchange
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(device);
        let background = std::thread::Builder::new().name("background".into());
        let thread = {
            let shared = Arc::clone(&shared);
            background.spawn(move || shared.run()).expect("a thread")
        };
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Ends the exchange with one of the two, at the end of a round: for who resets or stops what it runs on.
    pub fn leave(&self, which: Sibling) -> Option<Exchange> {
        let lane = self.shared.lane(which);
        lane.exchange
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// How many exchanges there were.
    pub fn done(&self, which: Sibling) -> u64 {
        self.shared.lane(which).done.load(Ordering::SeqCst)
    }

    /// What went wrong, if something did.
    ///
    /// # Errors
    /// With what it is.
    pub fn check(&self) -> Result<(), String> {
        let failed = self
            .shared
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failed.clone().map_or(Ok(()), Err)
    }

    /// Waits for so many more exchanges with each that still goes on.
    ///
    /// # Errors
    /// When one went wrong, or they don't come.
    pub fn progress(&self, rounds: u64) -> Result<(), String> {
        for which in [Sibling::Queue, Sibling::Device] {
            let goes_on = {
                let lane = self.shared.lane(which);
                // Held through every exchange; that it is `None` is for good.
                lane.exchange
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_some()
            };
            let goal = self.done(which) + rounds;
            let more = || self.check().is_err() || self.done(which) >= goal;
            if goes_on {
                wait(&format!("exchanges with the sibling {which:?}"), more)?;
            }
            self.check()?;
        }
        Ok(())
    }

    /// Ends it, at the end of a round.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic of it was counted.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}
