//! Nothing is left behind: descriptors and threads return to where they were. The only test of its process.
#![cfg(not(loom))]

mod echo;

use std::sync::Arc;
use std::time::{Duration, Instant};

use echo::Echo;
use vdpa_core::session::{Completions, QueueSetup};
use vdpa_core::*;
use vdpa_mem::Deadline;

fn entries(of: &str) -> usize {
    std::fs::read_dir(of).unwrap().count()
}

/// Open descriptors and threads.
fn held() -> (usize, usize) {
    (entries("/proc/self/fd"), entries("/proc/self/task"))
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// A session from open to close, or dropped at any step on the way.
fn live(steps: u32) -> Option<()> {
    let device = Device::new(Echo::new(), Relay::new()).ok()?;
    let events = device.events().ok()?;
    let session = Session::open(device, soon()).ok()?;
    (steps > 0).then_some(())?;
    let Err((session, _)) = session.negotiate(Features::NONE) else {
        return None;
    };
    let mut session = session.negotiate(bits::VERSION_1.mask()).ok()?;
    (steps > 1).then_some(())?;
    session
        .queue(QueueIndex::new(0), QueueSetup::default())
        .ok()?;
    session
        .queue(QueueIndex::new(9), QueueSetup::default())
        .err()?;
    (steps > 2).then_some(())?;
    let (control, mut queues) = session.run().ok()?.split();
    (steps > 3).then_some(())?;
    let queue = queues.first_mut()?;
    let lease = queue.lease()?;
    queue.send(lease, 10).ok()?;
    queue.publish();
    let mut done = Completions::new(1);
    while queue.poll(&mut done).ok()? == 0 {
        queue.wait(soon()).ok()?;
    }
    (steps > 4).then_some(())?;
    let device = control.close(soon()).ok()?;
    let relay = Relay::new();
    let (from, relayed) = relay.call_fd(Call::None).ok()?;
    drop((relay, from));
    drop((relayed, queues, events));
    device.close(soon()).ok()
}

#[test]
fn sessions_that_end_anywhere_leave_nothing_behind() {
    live(5).expect("it goes all the way");
    let before = held();
    for round in 0..300 {
        let went = live(round % 6);
        assert_eq!(went.is_some(), round % 6 == 5, "round {round}");
    }
    // A thread is gone from /proc a moment after it was joined, one of before too.
    let start = Instant::now();
    let fits = |now: (usize, usize)| now.0 == before.0 && now.1 <= before.1;
    while !fits(held()) {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{before:?} {:?}",
            held()
        );
        std::thread::yield_now();
    }
    let echo = Echo::new();
    let device = Device::new(echo.clone(), Relay::new()).unwrap();
    drop(device);
    assert_eq!(
        Arc::strong_count(&echo),
        1,
        "the device let go of its parent's"
    );
}
