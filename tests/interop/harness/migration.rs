//! A guest's way from one QEMU to another, held in the midst of it for as long as a test likes.
//!
//! ```text
//!   begin ─ all memory goes over ─ what was written meanwhile goes over, again and again ─ end: here it stands still,
//!           pass 1                 pass 2, 3, ... until the test says                       there it goes on
//! ```
//! It is held in pass 3. What a device writes then comes along by nothing but its log, where the guest itself does not write
//! and has not since pass 1: buffers that a card was given during pass 1 go over again in pass 2.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::Guest;
use crate::monitor::Monitor;

/// One at a time: there are two QEMUs to each.
static ONE: Mutex<()> = Mutex::new(());

/// What a guest runs that migrates, until `$writes` is killed: it writes, all the time, what takes a while at either rate. No
/// zeroes: a page of those is a few bytes.
pub(crate) const WRITES: &str = "dd if=/dev/urandom of=/dev/shm/noise bs=1M count=24 2>/dev/null; while dd if=/dev/shm/noise of=/dev/shm/dirt bs=1M conv=notrunc 2>/dev/null; do usleep 200000; done & writes=$!";

/// Bytes a second that go over in passes 1 and 2, and then, while the guest is held. So a pass is never over before the guest
/// has written something for the next one: QEMU would look for that again and again, have the guest come to nothing by it,
/// and once find nothing, and end.
const FAST: u64 = 64 << 20;
const SLOW: u64 = 1 << 20;

/// A guest that is under way.
pub(crate) struct Way {
    here: Monitor,
    there: Monitor,
}

/// Keeps other migrations from beginning.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    /// Has `here` go to where `there` waits for it ([`WAITS`]), and waits until it is held on its way. It [`WRITES`].
    ///
    /// * `socket`: by which it goes
    #[track_caller]
    pub(crate) fn begin(here: &Guest, there: &Guest, socket: &Path) -> Self {
        let (mut here, mut there) = (monitor_of(here), monitor_of(there));
        let uri = json!({ "uri": format!("unix:{}", socket.display()) });
        there.command("migrate-incoming", &uri);
        comes_to(&mut there, "setup");
        leaves(&mut here, &uri);
        Self { here, there }
    }

    /// Lets it arrive; when it goes on there, it goes on nowhere else.
    #[track_caller]
    pub(crate) fn end(mut self) {
        is_under_way(&mut self.here);
        let soon = json!({ "downtime-limit": 10_000, "avail-switchover-bandwidth": 0 });
        self.here.command("migrate-set-parameters", &soon);
        goes_at(&mut self.here, 0);
        self.here.event(|event| event["event"] == "STOP");
        self.there.event(|event| event["event"] == "RESUME");
        comes_to(&mut self.here, "completed");
    }
}

/// What QEMU is started with that a guest is to come to.
pub(crate) const WAITS: [&str; 2] = ["-incoming", "defer"];

/// Has a guest leave for nowhere, and stay. `meanwhile` is in pass 3 or later.
#[track_caller]
pub(crate) fn is_given_up(guest: &Guest, meanwhile: impl FnOnce()) {
    let mut here = monitor_of(guest);
    leaves(&mut here, &json!({ "uri": "exec:cat >/dev/null" }));
    meanwhile();
    is_under_way(&mut here);
    here.command("migrate_cancel", &json!({}));
    comes_to(&mut here, "cancelled");
}

/// A monitor that tells of what becomes of a migration.
#[track_caller]
fn monitor_of(guest: &Guest) -> Monitor {
    let mut monitor = guest.monitor();
    let events = json!([{ "capability": "events", "state": true }]);
    let capabilities = json!({ "capabilities": events });
    monitor.command("migrate-set-capabilities", &capabilities);
    monitor
}

/// Begins, and goes on until the guest is held.
#[track_caller]
fn leaves(here: &mut Monitor, uri: &Value) {
    // Nothing can go over in so little time, at such a rate: so it does not end while there is a page.
    let never = json!({ "downtime-limit": 1, "avail-switchover-bandwidth": 1000 });
    here.command("migrate-set-parameters", &never);
    goes_at(here, FAST);
    here.command("migrate", uri);
    let third = |event: &Value| event["data"]["pass"].as_u64() >= Some(3);
    let event = here.event(|event| third(event) || has_ended(event));
    assert!(third(&event), "it did not wait: {event}");
    goes_at(here, SLOW);
    is_under_way(here);
}

/// * `rate`: bytes a second; 0 for as many as there can be
#[track_caller]
fn goes_at(here: &mut Monitor, rate: u64) {
    here.command("migrate-set-parameters", &json!({ "max-bandwidth": rate }));
}

#[track_caller]
fn is_under_way(here: &mut Monitor) {
    let now = here.command("query-migrate", &json!({}));
    assert_eq!(now["status"], "active", "{now}");
}

#[track_caller]
fn comes_to(monitor: &mut Monitor, status: &str) {
    let is = |event: &Value| event["event"] == "MIGRATION" && event["data"]["status"] == status;
    let event = monitor.event(|event| is(event) || has_ended(event));
    assert!(is(&event), "not {status}: {event}");
}

fn has_ended(event: &Value) -> bool {
    let ends = ["completed", "failed", "cancelled"];
    event["event"] == "MIGRATION" && ends.iter().any(|end| event["data"]["status"] == *end)
}
