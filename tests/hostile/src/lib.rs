//! What is hostile or broken on the other side, and what must come of it: the harness of `docs/hostile-inputs.md`.
//!
//! ```text
//!   table ─▶ suite ─▶ one case for each row, level, target and ring format
//!                       │ device level: oracle ─▶ Stage ─▶ the row's function ─▶ Expect
//!                       │                 background exchanges on a sibling queue and a sibling device meanwhile
//!                       │ over a socket: the row's function ─▶ a front end that is cut off ─▶ the next one is served
//!                       └ ring and driver level: the row's function, over memory that is watched
//! ```
//! * [`table`]: every row, in one list, with where it runs or why it comes later.
//! * [`suite`]: the cases, made from the table; a row that is forgotten somewhere fails there with its number.
//! * [`oracle`]: what every row at device level must show, looked at by the harness.
//! * [`stage`]: a device with a queue under attack, and [`raw`]: the driver that attacks, with rings by hand.
//! * [`socket`]: a device that is served to another process, and front ends that attack it.
//! * [`exchange`] and [`background`]: what is known to be good, and goes on beside the attack.
//! * [`guard`] and [`watch`]: memory between unmapped pages; panics, descriptors, mappings, threads.
//! * [`watched`]: cells of a ring that count their loads and change after any of them.
#![allow(
    clippy::missing_panics_doc,
    reason = "what is wrong ends a case by a panic of the thread that runs it"
)]

pub mod background;
pub mod exchange;
pub mod guard;
pub mod oracle;
pub mod raw;
pub mod socket;
pub mod stage;
pub mod suite;
pub mod table;
pub mod watch;
pub mod watched;

use std::time::{Duration, Instant};

use vdpa_mem::Deadline;

/// Anything ends within this: a machine that is busy is no fault.
pub const SOON: Duration = Duration::from_secs(10);

/// A deadline that is far enough.
pub fn soon() -> Deadline {
    Deadline::after(SOON)
}

/// Waits until `done`; the error says what did not happen.
///
/// # Errors
/// When it is not done soon.
pub fn wait(what: &str, done: impl FnMut() -> bool) -> Result<(), String> {
    wait_within(SOON, what, done)
}

/// The same, with less patience.
///
/// # Errors
/// When it is not done in time.
pub fn wait_within(
    patience: Duration,
    what: &str,
    mut done: impl FnMut() -> bool,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut looks = 0_u32;
    while !done() {
        if begun.elapsed() > patience {
            return Err(format!("{what} did not happen within {patience:?}"));
        }
        // A yield hands the core to whoever is waited for; a sleep too, where others want it as well.
        looks = looks.saturating_add(1);
        if looks < 200 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(())
}

/// The same, and the case fails.
pub fn until(what: &str, done: impl FnMut() -> bool) {
    if let Err(why) = wait(what, done) {
        panic!("{why}");
    }
}
