//! A look from outside: whatever hangs, the command ends.

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long nothing may happen at all. Every wait of a soak is shorter, and says what it waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the soak tells of itself while it goes on.
#[derive(Clone)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    /// Changes whenever something is done.
    beat: AtomicU64,
    over: AtomicBool,
    doing: Mutex<String>,
}

impl Watch {
    /// Begins to watch. `hung` is called with what was being done, and the process ends after it, with exit code 1.
    pub(crate) fn new(hung: impl FnOnce(&str) + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            beat: AtomicU64::new(0),
            over: AtomicBool::new(false),
            doing: Mutex::new(String::new()),
        });
        let watched = Arc::clone(&shared);
        // If there is no thread to be had, nobody watches.
        let _thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                let mut seen = (0, Instant::now());
                while !watched.over.load(Ordering::Relaxed) {
                    thread::sleep(LOOK);
                    let beat = watched.beat.load(Ordering::Relaxed);
                    if beat != seen.0 {
                        seen = (beat, Instant::now());
                    } else if seen.1.elapsed() > PATIENCE {
                        let doing = watched.doing.lock().unwrap_or_else(PoisonError::into_inner);
                        hung(&doing);
                        process::exit(1);
                    }
                }
            });
        Self { shared }
    }

    /// Something was done.
    pub(crate) fn beat(&self) {
        self.shared.beat.fetch_add(1, Ordering::Relaxed);
    }

    /// This is done next.
    pub(crate) fn doing(&self, what: String) {
        self.beat();
        *self
            .shared
            .doing
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = what;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if Arc::strong_count(&self.shared) <= 2 {
            self.shared.over.store(true, Ordering::Relaxed);
        }
    }
}
