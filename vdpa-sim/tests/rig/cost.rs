//! What this process costs and holds. A file that measures has one test, or tests that take turns.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// The CPU time of this process so far.
pub fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time =
        |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

/// The CPU time of the next `span`, in which nobody asks anything of the devices.
pub fn spent_in(span: Duration) -> Duration {
    let before = cpu_time();
    std::thread::sleep(span);
    cpu_time() - before
}

/// The CPU time of the next `span` once all has come to rest. What does not come to rest is measured as it is.
pub fn spent_at_rest(span: Duration) -> Duration {
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(100));
    // On a busy machine a worker gets its turn late.
    while spent_in(Duration::from_millis(50)) > Duration::from_micros(100)
        && begun.elapsed() < Duration::from_secs(5)
    {}
    spent_in(span)
}

/// How many file descriptors and threads there are.
pub fn held() -> (usize, usize) {
    let entries = |dir| std::fs::read_dir(dir).unwrap().count();
    (entries("/proc/self/fd"), entries("/proc/self/task"))
}

/// Asserts that no more is held than was `before`. A thread that was joined may be listed a moment longer, in `before` too.
pub fn assert_let_go(before: (usize, usize), what: &str) {
    let begun = Instant::now();
    loop {
        let now = held();
        if now.0 == before.0 && now.1 <= before.1 {
            return;
        }
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(10),
            "file descriptors and threads: {what}: {before:?} before, {now:?} now"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
