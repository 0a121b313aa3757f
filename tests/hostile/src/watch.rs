//! What a case leaves behind: panics of any thread, descriptors, mappings, threads, memory.

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use crate::{SOON, wait_within};

thread_local! {
    /// Whether a panic of this thread is a case that failed, and not one of the device's.
    static JUDGE: Cell<bool> = const { Cell::new(false) };
}

static PANICS: AtomicUsize = AtomicUsize::new(0);
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on panics of other threads than this one are counted, and print nothing.
pub fn count_panics() {
    static ONCE: Once = Once::new();
    JUDGE.set(true);
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if JUDGE.get() {
                return before(info);
            }
            PANICS.fetch_add(1, Ordering::SeqCst);
            let name = std::thread::current()
                .name()
                .unwrap_or("a thread")
                .to_owned();
            let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
            said.push(format!("{name}: {info}"));
        }));
    });
}

/// What the process has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: usize,
    /// Mappings.
    pub mappings: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory in KiB.
    pub resident: usize,
}

impl Holdings {
    /// As it is now.
    pub fn now() -> Self {
        let count = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
        let lines = |path: &str| fs::read_to_string(path).map_or(0, |all| all.lines().count());
        Self {
            descriptors: count("/proc/self/fd"),
            mappings: lines("/proc/self/maps"),
            threads: count("/proc/self/task"),
            resident: resident(),
        }
    }
}

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Mappings that may come and go by themselves: the allocator's arenas, and the stacks that the C library keeps.
const SLACK_MAPPINGS: usize = 24;
/// KiB that may stay, for the same reasons.
const SLACK_RESIDENT: usize = 64 << 10;

/// What was there before a case.
#[derive(Debug)]
pub struct Watch {
    before: Holdings,
    panics: usize,
}

impl Watch {
    /// Begins to look.
    pub fn begin() -> Self {
        Self {
            before: Holdings::now(),
            panics: PANICS.load(Ordering::SeqCst),
        }
    }

    /// Whether no thread panicked.
    ///
    /// # Errors
    /// With what they said.
    pub fn check_panics(&self) -> Result<(), String> {
        let panics = PANICS.load(Ordering::SeqCst);
        if panics == self.panics {
            return Ok(());
        }
        let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        Err(format!("a thread panicked: {:?}", said.get(self.panics..)))
    }

    /// Whether everything is back as it was. Threads that end are waited for.
    ///
    /// # Errors
    /// With what is not.
    pub fn check(&self) -> Result<(), String> {
        self.check_within(SOON)
    }

    /// The same, with less patience.
    ///
    /// # Errors
    /// With what is not as it was.
    pub fn check_within(&self, patience: Duration) -> Result<(), String> {
        self.check_panics()?;
        let before = self.before;
        let fits = |now: &Holdings| {
            now.descriptors == before.descriptors
                && now.threads <= before.threads
                && now.mappings <= before.mappings + SLACK_MAPPINGS
                && now.resident <= before.resident + SLACK_RESIDENT
        };
        wait_within(patience, "the return to the baseline", || {
            fits(&Holdings::now())
        })
        .map_err(|why| format!("{why}: {before:?} before, {:?} now", Holdings::now()))
    }
}

/// The threads of the process but for the one that asks, by their numbers.
pub fn others() -> Vec<String> {
    // The number of the calling thread is its directory below `task`.
    let own = fs::read_link("/proc/thread-self").ok();
    let own = own.as_ref().and_then(|path| path.file_name());
    let all = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    all.filter(|entry| Some(entry.file_name().as_os_str()) != own)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// State and ticks of CPU time of a thread.
fn effort(thread: &str) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let switches = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let spent = switches.split_whitespace().next()?.parse().ok()?;
    Some((state, spent))
}

/// Waits until all other threads sleep and stay so for three looks: nothing spins on what a peer wrote.
///
/// # Errors
/// When one does not come to rest.
pub fn rest() -> Result<(), String> {
    rest_within(SOON)
}

/// The same, with less patience.
///
/// # Errors
/// When one does not come to rest.
pub fn rest_within(patience: Duration) -> Result<(), String> {
    let mut last = Vec::new();
    let mut quiet = 0;
    wait_within(patience, "rest of all workers", || {
        let now: Vec<_> = others().iter().map(|thread| effort(thread)).collect();
        let asleep = now.iter().flatten().all(|(state, _)| *state == 'S');
        quiet = if asleep && now == last { quiet + 1 } else { 0 };
        last = now;
        std::thread::sleep(Duration::from_micros(300));
        quiet == 3
    })
    .map_err(|why| {
        format!(
            "{why}: {:?}",
            others().iter().map(|t| describe(t)).collect::<Vec<_>>()
        )
    })
}

/// Name, state and nanoseconds of CPU time of a thread.
fn describe(thread: &str) -> String {
    let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap_or_default();
    format!("{} {:?}", name.trim(), effort(thread))
}
