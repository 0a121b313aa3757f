//! State that is taken, and gone on from.

use vdpa_core::{Call, Device, DeviceImage, Error, Kick, QueueState, Relay};

use crate::checked::{ensure, skip};
use crate::lane::{Cut, Lane, Received, Request, Traffic};
use crate::{Bench, Checked, Rig, Variant};

/// What a run of a queue came to: what each request wrote, and where the device says that it stands.
#[derive(PartialEq, Debug)]
struct Outcome {
    lens: Vec<u32>,
    written: Vec<Received>,
    state: QueueState,
}

/// How a run is interrupted, with some requests before it and some after.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cutting {
    Not,
    /// The queue is stopped, and started again with its state.
    Pause,
    /// The device is suspended and saved, and another one goes on.
    Move,
}

const BEFORE: u32 = 5;
const AFTER: u32 = 5;

pub(super) fn state_goes_on(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (pause, suspend) = (bench.has_cap("queue-pause")?, bench.has_cap("suspend")?);
    if !pause && !suspend {
        skip!("neither queue-pause nor suspend is declared: the device has no state to be taken");
    }
    for &traffic in bench.traffic()? {
        let whole = run(bench, variant, traffic, Cutting::Not)?;
        for (cutting, declared) in [(Cutting::Pause, pause), (Cutting::Move, suspend)] {
            if !declared {
                continue;
            }
            let about = format!("{traffic:?}, {cutting:?}");
            let cut = run(bench, variant, traffic, cutting);
            let cut = cut.map_err(|stop| stop.about(&about))?;
            ensure!(
                cut.lens == whole.lens,
                "{about}: used.len is {:?}, and uninterrupted {:?}",
                cut.lens,
                whole.lens
            );
            ensure!(
                cut.state == whole.state,
                "{about}: the queue ends at {:?}, and uninterrupted at {:?}",
                cut.state,
                whole.state
            );
            // What is random there is random here, and another disk has another name.
            ensure!(
                traffic != Traffic::Receive || cut.written == whole.written,
                "{about}: what was written differs from an uninterrupted run"
            );
        }
    }
    Ok(())
}

/// Requests one after the other around a ring of 4, so that it wraps before the cut and after it.
fn run(
    bench: &Bench<'_>,
    variant: Variant,
    traffic: Traffic,
    cutting: Cutting,
) -> Checked<Outcome> {
    let mut rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    let mut lane = Lane::start(&rig, traffic, 4)?;
    rig.run()?;
    let mut outcome = Outcome {
        lens: Vec::new(),
        written: Vec::new(),
        state: lane.ring.half().state(),
    };
    for _ in 0..BEFORE {
        one(&rig, &mut lane, &mut outcome, true)?;
    }
    match cutting {
        Cutting::Not => one(&rig, &mut lane, &mut outcome, true)?,
        Cutting::Pause => {
            let state = rig.device.stop_queue(lane.index(), bench.by())?;
            stands_where_the_driver_does(&lane, state)?;
            // One is shown while it is stopped: it waits for the start.
            let request = lane.request(&rig)?;
            lane.add(&request, Cut::Whole)?;
            lane.ring.publish_silently();
            lane.ring.kick();
            lane.ring.start(&rig, Some(state))?;
            finish(&rig, &mut lane, &request, &mut outcome)?;
        }
        Cutting::Move => {
            rig.device.suspend(bench.by())?;
            stands_where_the_driver_does(&lane, rig.device.queue_state(lane.index())?)?;
            let request = lane.request(&rig)?;
            lane.add(&request, Cut::Whole)?;
            lane.ring.publish_silently();
            let bytes = rig.device.save()?.to_bytes();
            let image = DeviceImage::parse(&bytes);
            let image = image.map_err(Error::Image)?;
            // It may be the only one that can be there.
            let next = rig.replace(|| Ok(Device::new(bench.make()?, Relay::new())?))?;
            let call = |lane: &Lane, q| match &lane.other {
                Some(other) if other.index() == q => other.call(),
                _ if lane.ring.index() == q => lane.ring.call(),
                _ => Call::None,
            };
            let doorbells = next
                .device
                .restore(&image, |q| (Kick::Taken, call(&lane, q)))?;
            for (q, doorbell) in doorbells {
                match &mut lane.other {
                    Some(other) if other.index() == q => other.hang(doorbell),
                    _ if lane.ring.index() == q => lane.ring.hang(doorbell),
                    _ => {}
                }
            }
            next.device.resume()?;
            rig = next;
            finish(&rig, &mut lane, &request, &mut outcome)?;
        }
    }
    for _ in 0..AFTER {
        one(&rig, &mut lane, &mut outcome, true)?;
    }
    outcome.state = match bench.has_cap("queue-pause")? {
        true => rig.device.stop_queue(lane.index(), bench.by())?,
        false => {
            rig.device.suspend(bench.by())?;
            rig.device.queue_state(lane.index())?
        }
    };
    stands_where_the_driver_does(&lane, outcome.state)?;
    Ok(outcome)
}

fn one(rig: &Rig<'_>, lane: &mut Lane, outcome: &mut Outcome, kick: bool) -> Checked {
    let request = lane.request(rig)?;
    lane.add(&request, Cut::Whole)?;
    if kick {
        lane.ring.publish();
    } else {
        lane.ring.publish_silently();
    }
    finish(rig, lane, &request, outcome)
}

fn finish(rig: &Rig<'_>, lane: &mut Lane, request: &Request, outcome: &mut Outcome) -> Checked {
    lane.provoke(rig, std::slice::from_ref(request))?;
    for done in lane.ring.wait(rig, 1)? {
        lane.judge(rig, request, done)?;
        outcome.lens.push(match lane.traffic {
            Traffic::Entropy => 0,
            _ => done.len,
        });
        // What is beyond is nobody's, virtio 1.4 §2.7.8.2.
        let mut written: Vec<u8> = request
            .writable
            .iter()
            .flat_map(|piece| rig.read(*piece))
            .collect();
        written.truncate(done.len as usize);
        outcome.written.push(request.received(&written));
    }
    Ok(())
}

/// With nothing under way both sides stand at the same place.
fn stands_where_the_driver_does(lane: &Lane, state: QueueState) -> Checked {
    let driver = lane.ring.half().state();
    let same = match (state, driver) {
        (QueueState::Split { avail, used }, QueueState::Split { avail: shown, .. }) => {
            avail == shown && used.is_none_or(|used| used == shown)
        }
        (state, driver) => state == driver,
    };
    ensure!(
        same,
        "the device says that it stands at {state:?}, and the driver is at {driver:?}"
    );
    Ok(())
}

pub(super) fn suspend_twice(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_cap("suspend")?;
    for &traffic in bench.traffic()? {
        let rig = bench.open()?;
        rig.negotiate(rig.plain(variant))?;
        let mut lane = Lane::start(&rig, traffic, 8)?;
        rig.run()?;
        lane.exchange(&rig, 1, Cut::Whole)?;
        rig.device.suspend(bench.by())?;
        rig.device.suspend(bench.by())?;
        let before = rig.device.queue_state(lane.index())?;
        // Kicked for while it rests.
        let request = lane.request(&rig)?;
        lane.add(&request, Cut::Whole)?;
        lane.ring.publish_silently();
        lane.ring.kick();
        bench.quiet();
        let back = lane.ring.poll()?.len();
        ensure!(
            back == 0,
            "{traffic:?}: {back} chains came back while suspended"
        );
        rig.device.suspend(bench.by())?;
        let state = rig.device.queue_state(lane.index())?;
        ensure!(
            state == before,
            "{traffic:?}: suspended, the queue stood at {before:?}, and then at {state:?}"
        );
        // Suspended three times, it goes on once; and nobody kicks again.
        rig.device.resume()?;
        let again = rig.device.resume();
        ensure!(
            again.is_err(),
            "{traffic:?}: a device that runs was resumed"
        );
        lane.provoke(&rig, std::slice::from_ref(&request))?;
        for done in lane.ring.wait(&rig, 1)? {
            lane.judge(&rig, &request, done)?;
        }
        lane.exchange(&rig, 1, Cut::Whole)?;
    }
    Ok(())
}
