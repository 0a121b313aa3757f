use std::sync::atomic::AtomicU32;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::*;
use crate::{Bell, Sleeper};

fn event() -> Arc<OwnedFd> {
    Arc::new(fd::eventfd().unwrap())
}

fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it never happens"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_kick_fd_rings_until_it_is_dropped() {
    let relay = Relay::new();
    let sleeper = Sleeper::new().unwrap();
    let bell = Bell::new(&sleeper);
    let from = event();
    let relayed = relay.kick(from.clone(), bell.clone().into(), 3).unwrap();
    for _ in 0..10 {
        fd::signal(from.as_fd());
        until(|| bell.take());
    }
    drop(relayed);
    fd::signal(from.as_fd());
    std::thread::sleep(Duration::from_millis(20));
    assert!(!bell.take());
}

#[test]
fn one_vector_calls_many_and_a_panic_stops_none() {
    let relay = Relay::new();
    let count = Arc::new(AtomicU32::new(0));
    let counting = || {
        let count = count.clone();
        Call::from_fn(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    };
    let bad = Call::from_fn(|| panic!("on purpose"));
    let from = event();
    let _relayed = relay
        .call(from.clone(), vec![counting(), bad, counting()])
        .unwrap();
    fd::signal(from.as_fd());
    until(|| count.load(Ordering::Relaxed) == 2);
    fd::signal(from.as_fd());
    until(|| count.load(Ordering::Relaxed) == 4);
}

#[test]
fn dropping_a_route_waits_for_its_closure() {
    let relay = Relay::new();
    let (entered, is_entered) = channel();
    let done = Arc::new(AtomicBool::new(false));
    let call = Call::from_fn({
        let done = done.clone();
        move || {
            entered.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            done.store(true, Ordering::SeqCst);
        }
    });
    let (from, relayed) = relay.call_fd(call).unwrap();
    fd::signal(from.as_fd());
    is_entered.recv().unwrap();
    drop(relayed);
    assert!(done.load(Ordering::SeqCst));
}

#[test]
fn the_thread_ends_with_the_value_also_from_its_own_closure() {
    let relay = Relay::new();
    let slot: Arc<Mutex<Option<(Relay, Relayed)>>> = Arc::default();
    let (from, relayed) = relay
        .call_fd(Call::from_fn({
            let slot = slot.clone();
            move || drop(lock(&slot).take())
        }))
        .unwrap();
    // The thread holds this until it ends.
    let shared = Arc::downgrade(&relayed.running.shared);
    *lock(&slot) = Some((relay, relayed));
    fd::signal(from.as_fd());
    until(|| lock(&slot).is_none());
    until(|| shared.strong_count() == 0);
}

#[test]
fn one_fd_feeds_two_routes_until_each_is_dropped() {
    let relay = Relay::new();
    let sleeper = Sleeper::new().unwrap();
    let bells = [Bell::new(&sleeper), Bell::new(&sleeper)];
    let from = event();
    let [first, _second] = [&bells[0], &bells[1]]
        .map(|bell| relay.kick(from.clone(), bell.clone().into(), 0).unwrap());
    fd::signal(from.as_fd());
    until(|| bells[0].take());
    until(|| bells[1].take());
    drop(first);
    fd::signal(from.as_fd());
    until(|| bells[1].take());
    assert!(!bells[0].take());
}

#[test]
fn a_kick_fd_that_was_filled_up_relays_the_next_kick() {
    let relay = Relay::new();
    let sleeper = Sleeper::new().unwrap();
    let bells = [Bell::new(&sleeper), Bell::new(&sleeper)];
    let from = event();
    let _routes = [&bells[0], &bells[1]]
        .map(|bell| relay.kick(from.clone(), bell.clone().into(), 0).unwrap());
    let write = |by: u64| nix::unistd::write(&*from, &by.to_ne_bytes());
    for _ in 0..3 {
        // The first eventfd value that leaves no room for another 1.
        let mut left = 0xffff_ffff_ffff_fffe;
        while write(left).is_err() {
            left -= 1;
        }
        bells.iter().for_each(|bell| until(|| bell.take()));
        // Once more for each, perhaps, since the counter was set back.
        std::thread::sleep(Duration::from_millis(20));
        for bell in &bells {
            let _spare = bell.take();
        }
        write(1).unwrap();
        bells.iter().for_each(|bell| until(|| bell.take()));
    }
}

#[test]
fn a_closure_that_panicked_is_raised_no_more() {
    let relay = Relay::new();
    let count = Arc::new(AtomicU32::new(0));
    let bad = Call::from_fn({
        let count = count.clone();
        move || {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        }
    });
    let (from, _relayed) = relay.call_fd(bad).unwrap();
    fd::signal(from.as_fd());
    until(|| Arc::strong_count(&count) == 1);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn what_cannot_be_polled_is_refused() {
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let refused = Relay::new()
        .call(Arc::new(file.into()), vec![])
        .unwrap_err();
    assert_eq!(refused.kind(), crate::ErrorKind::Io);
}
