//! Section J: rates.
#![allow(unsafe_code, reason = "an eventfd of the system's, taken over")]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use vdpa_core::{Call, Error};
use vdpa_hostile::background::Sibling;
use vdpa_hostile::stage::{Expect, Stage};
use vdpa_hostile::suite::{Code, code};
use vdpa_hostile::{SOON, soon, until};

use super::state::{all_back, fill};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(110).device(flood),
    code(111).device(refilled),
    code(112).device(call_rings),
    code(113).device(eventfd_full),
    code(114).device(slow_consumer),
];

/// Doorbells of a flood, by each of its threads.
const RINGS: usize = 20_000;

fn flood(s: &mut Stage) -> Expect {
    // With nothing to do, then with work: by the thread that works, and by another that does not.
    let (bell, index) = (s.q.doorbell.clone(), u32::from(s.q.index.get()));
    (0..RINGS).for_each(|_| bell.ring(index));
    s.still_works();
    let other = std::thread::spawn({
        let bell = bell.clone();
        // Rung with anything: a bell is one queue's.
        move || (0..RINGS).for_each(|i| bell.ring(i as u32))
    });
    for _ in 0..20 {
        s.still_works();
        (0..100).for_each(|_| bell.ring(index));
    }
    other.join().expect("no panic");
    s.still_works();
    assert_eq!(s.q.returned, s.q.shown, "each request was served once");
    Expect::Served
}

fn refilled(s: &mut Stage) -> Expect {
    fill(s);
    let both = [Sibling::Queue, Sibling::Device];
    let begun = both.map(|which| s.background.done(which));
    let from = Instant::now();
    let (mut refills, mut most) = (0_u32, 0);
    loop {
        // At once for each that comes back, and mostly without a kick: the device is at it all the time.
        let mut came = 0;
        while s.q.used().is_some() {
            came += 1;
            let place = refills as usize % 4;
            let request = s.request_at(2 * place, 32 + 2 * place);
            s.q.chain(&request.pieces());
            s.q.show();
            refills += 1;
        }
        most = most.max(s.q.shown - s.q.returned);
        if came == 0 {
            s.kick();
            let _old = s.arrivals();
            std::thread::yield_now();
        }
        // Who is served by the same thread gets its turns meanwhile.
        let mut goes_on = both.iter().zip(&begun);
        if refills >= 400 && goes_on.all(|(which, begun)| s.background.done(*which) >= begun + 10) {
            break;
        }
        if let Err(why) = s.background.check() {
            panic!("{why}");
        }
        assert!(
            from.elapsed() < SOON,
            "{refills} refills, {:?}",
            both.map(|w| s.background.done(w))
        );
    }
    assert!(most <= usize::from(s.q.size), "{most} in flight");
    s.kick();
    all_back(s);
    Expect::Served
}

fn call_rings(s: &mut Stage) -> Expect {
    let calls = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    let (bell, index, dma) = (s.q.doorbell.clone(), s.q.index, s.dma.clone());
    let range = s.spare.range();
    let call = Call::from_fn({
        let (calls, refused) = (Arc::clone(&calls), Arc::clone(&refused));
        move || {
            calls.fetch_add(1, Ordering::SeqCst);
            // Legal: a kick of the same queue. Not legal: to wait for the thread that runs this.
            bell.ring(index.get().into());
            let waits = dma.unmap(range, soon());
            let inside = matches!(waits, Err(Error::InsideCall { .. }));
            refused.fetch_add(usize::from(inside), Ordering::SeqCst);
        }
    });
    s.device.replace_call(index, call).expect("a call");
    for _ in 0..50 {
        s.still_works();
    }
    until("calls", || calls.load(Ordering::SeqCst) >= 2);
    s.device.replace_call(index, Call::None).expect("no call");
    let calls = calls.load(Ordering::SeqCst);
    assert_eq!(refused.load(Ordering::SeqCst), calls, "each was told");
    s.still_works();
    Expect::Served
}

/// An eventfd that blocks whoever writes to it, with a counter at its maximum.
fn full() -> OwnedFd {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let most = 0xffff_ffff_ffff_fffe_u64;
    file.write_all(&most.to_ne_bytes()).expect("a count");
    file.into()
}

fn eventfd_full(s: &mut Stage) -> Expect {
    let event = Arc::new(full());
    let call = Call::EventFd(Arc::clone(&event));
    s.device.replace_call(s.q.index, call).expect("a call");
    for _ in 0..50 {
        s.still_works();
    }
    // From the start of the queue on.
    s.device.stop_queue(s.q.index, soon()).expect("a stop");
    let again = Arc::new(full());
    let mut q = vdpa_hostile::raw::RawQueue::new(
        s.q.index.get(),
        s.format,
        s.setup.size,
        (&s.rings, 0),
        None,
    );
    let call = Call::EventFd(Arc::clone(&again));
    vdpa_hostile::stage::start_with(&s.device, &mut q, None, call);
    s.q = q;
    for _ in 0..50 {
        s.still_works();
    }
    assert_ne!(event.as_raw_fd(), again.as_raw_fd());
    Expect::Served
}

fn slow_consumer(s: &mut Stage) -> Expect {
    // All that fits is shown, and looked at one by one, late.
    for _ in 0..5 {
        fill(s);
        let most = usize::from(s.q.size);
        while s.q.returned < s.q.shown {
            assert!(s.q.shown - s.q.returned <= most);
            std::thread::sleep(std::time::Duration::from_micros(100));
            s.stir();
            let _one = s.q.used();
            let _old = s.arrivals();
            assert!(!s.is_lost(), "{:?}", s.drain());
        }
    }
    // Resubmitted without a look at what came back: what the device has is bounded by the ring, or the ring is lost.
    for _ in 0..200 {
        fill(s);
        if s.is_lost() {
            break;
        }
    }
    let _neither = s.back_or_lost_or_neither();
    Expect::Either
}
