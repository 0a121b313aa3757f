//! What every row at device level must show, looked at here and not in the row.
//!
//! 1. No thread panics. 2. Nothing is touched outside of mapped memory (guard pages end the process), and nothing is
//!    written where nobody allowed it (canaries).
//! 3. No more chains come back than were shown, and every worker comes to rest. 4. Descriptors, threads, mappings and
//!    memory are back at the baseline. 5. The chains come back, or the device is in NEEDS_RESET and said why, once.
//! 6. After a reset a known-good request completes. 7. A sibling queue and a sibling device go on meanwhile.

use vdpa_core::{Event, Status};
use vdpa_ring::Format;

use crate::stage::{Expect, Setup, Stage, lost};
use crate::table::Target;
use crate::watch::{self, Watch};
use crate::{until, wait};

/// Exchanges with each sibling that have to follow the attack.
const ROUNDS: u64 = 3;

/// Runs a row against a device.
///
/// # Panics
/// With what is wrong.
pub fn judge(target: Target, format: Format, setup: Setup, row: fn(&mut Stage) -> Expect) {
    let watch = Watch::begin();
    let mut stage = Stage::new(target, format, setup);
    let expect = row(&mut stage);
    settle(&mut stage, &expect);
    // 7: they go on, also now that it is over.
    or_fail(stage.background.progress(ROUNDS));
    stage.background.stop();
    or_fail(stage.background.check());
    // 1, and nothing that a peer wrote keeps anybody busy.
    or_fail(watch.check_panics());
    or_fail(watch::rest());
    // 5: once.
    stage.drain();
    check_events(&stage, &expect);
    // 3.
    if !matches!(expect, Expect::Over | Expect::Either) {
        let (shown, returned) = (stage.q.shown, returned(&mut stage));
        assert!(returned <= shown, "{returned} chains came back of {shown}");
    }
    // 2.
    or_fail(stage.check_memory());
    // 6.
    let mut fresh = stage.renew();
    or_fail(fresh.once().map_err(|why| format!("after a reset: {why}")));
    drop(fresh);
    or_fail(stage.check_memory());
    stage.close();
    // 4.
    or_fail(watch.check());
}

fn or_fail(found: Result<(), String>) {
    if let Err(why) = found {
        panic!("{why}");
    }
}

/// Waits for what is expected.
fn settle(stage: &mut Stage, expect: &Expect) {
    match expect {
        Expect::Over | Expect::Served | Expect::Either => {}
        Expect::Lost(_) => {
            until("the news of NEEDS_RESET", || {
                let said = stage.drain();
                said.iter()
                    .any(|event| matches!(event, Event::NeedsReset { .. }))
            });
            // Kicks for a queue that is lost are nothing new.
            (0..3).for_each(|_| stage.kick());
        }
        Expect::Back => {
            while stage.q.returned < stage.q.shown {
                let (returned, shown) = (stage.q.returned, stage.q.shown);
                let mut back = None;
                let what = format!("chain {returned} of {shown}");
                let came = wait(&what, || {
                    back = stage.q.used();
                    back.is_some()
                });
                if let Err(why) = came {
                    panic!(
                        "{why}; status {:?}, events {:?}",
                        stage.status(),
                        stage.drain()
                    );
                }
                or_fail(back.map_or(Ok(()), |back| stage.check_back(back)));
            }
        }
    }
}

/// Whether the device said what it had to, and nothing else of that kind.
fn check_events(stage: &Stage, expect: &Expect) {
    let said = &stage.said;
    let resets: Vec<_> = said
        .iter()
        .filter(|event| !matches!(event, Event::Fault { .. } | Event::Config))
        .collect();
    match expect {
        Expect::Over => {}
        Expect::Either => {
            assert_eq!(stage.is_lost(), !resets.is_empty(), "it is told: {said:?}");
            for (at, event) in resets.iter().enumerate() {
                let Event::NeedsReset { queue, .. } = event else {
                    panic!("{said:?}")
                };
                let again = resets
                    .iter()
                    .skip(at + 1)
                    .any(|other| matches!(other, Event::NeedsReset { queue: q, .. } if q == queue));
                assert!(!again, "it is told once: {said:?}");
            }
        }
        Expect::Lost(reason) => {
            assert!(
                stage.status().contains(Status::DEVICE_NEEDS_RESET),
                "{:?}",
                stage.status()
            );
            assert_eq!(resets.len(), 1, "it is told once: {said:?}");
            let why = resets.first().and_then(|event| lost(event, stage.q.index));
            assert!(
                why.is_some_and(|why| why.contains(reason)),
                "{said:?} instead of the loss of queue {} since {reason:?}",
                stage.q.index
            );
        }
        Expect::Back | Expect::Served => {
            assert!(resets.is_empty(), "nothing was lost: {said:?}");
            let status = stage.status();
            assert!(!status.contains(Status::DEVICE_NEEDS_RESET), "{status:?}");
        }
    }
}

/// How many chains came back in all.
fn returned(stage: &mut Stage) -> usize {
    // A ring whose used entries were scribbled over says nothing: the index alone does.
    let limit = stage.q.shown + 1;
    while stage.q.returned <= limit && stage.q.used().is_some() {}
    stage.q.returned
}
