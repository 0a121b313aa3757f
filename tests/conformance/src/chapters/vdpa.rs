//! vDPA itself.

use std::sync::Arc;

use vdpa_core::{Call, Device, DeviceImage, Error, Event, Kick, QueueState, Relay, VdpaDevice};
use vdpa_mem::{Iova, IovaRange, Mapping, Region};

use super::any;
use super::status::first_difference;
use crate::checked::{ensure, fail, skip};
use crate::lane::{Cut, Lane, Request, Traffic};
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device};
use crate::{Bench, Checked, Rig, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        206,
        "contract",
        "State get -> set -> run equals an uninterrupted run, split and packed",
        Rings(any, state_goes_on),
    ),
    device(
        207,
        "contract",
        "Suspend is idempotent; resume serves the kicks that came meanwhile",
        Rings(any, suspend_twice),
    ),
    device(
        208,
        "contract",
        "Overlapping map: an error; a batch of maps is all or none",
        Once(maps_all_or_none),
    ),
    device(
        209,
        "contract",
        "Unmapping under a running device faults; memory is never touched afterwards",
        Rings(any, unmapped_is_untouched),
    ),
    device(
        210,
        "contract",
        "Reset keeps or clears maps exactly as the persistence capability declares",
        Once(reset_keeps_maps),
    ),
    device(
        211,
        "contract",
        "A second open is refused; reopening right after drop succeeds",
        Once(opened_once),
    ),
];

/// What a run of a queue came to: what each request wrote, and where the driver stands.
#[derive(PartialEq, Debug)]
struct Outcome {
    lens: Vec<u32>,
    written: Vec<Vec<u8>>,
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

fn state_goes_on(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (pause, suspend) = (bench.has_cap("queue-pause")?, bench.has_cap("suspend")?);
    if !pause && !suspend {
        skip!("neither queue-pause nor suspend is declared: the device has no state to be taken");
    }
    for &traffic in Traffic::of(bench.device_type())? {
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
                "{about}: the driver ends at {:?}, and uninterrupted at {:?}",
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
            let next = rig.beside(Device::new(bench.make()?, Relay::new())?)?;
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
            // The first one lets go before the second one begins.
            rig.reset()?;
            next.device.resume()?;
            rig = next;
            finish(&rig, &mut lane, &request, &mut outcome)?;
        }
    }
    for _ in 0..AFTER {
        one(&rig, &mut lane, &mut outcome, true)?;
    }
    outcome.state = lane.ring.half().state();
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
    }
    for piece in &request.writable {
        outcome.written.push(rig.read(*piece));
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

fn suspend_twice(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_cap("suspend")?;
    for &traffic in Traffic::of(bench.device_type())? {
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

fn maps_all_or_none(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let (memory, _) = Region::anonymous(1 << 16)?.into_shared();
    let mapping = |at: u64, len: u64| -> Checked<Mapping> {
        Ok(Mapping {
            iova: IovaRange::new(Iova::new(at), len)?,
            memory: memory.clone(),
            offset: 0,
            access: vdpa_mem::Access::Both,
            dirty: None,
        })
    };
    let ranges = || {
        let all = rig.dma.mappings();
        all.iter().map(|m| m.iova).collect::<Vec<_>>()
    };
    let before = ranges();
    let (first, last) = (rig.range().first().get(), rig.range().last().get());
    let free = 0x1000_0000;
    let overlapping = [
        ("the same addresses", vec![mapping(first, 4096)?]),
        ("the last byte", vec![mapping(last, 1)?]),
        ("across the beginning", vec![mapping(first - 1, 2)?]),
        (
            "behind a good one",
            vec![mapping(free, 4096)?, mapping(last, 2)?],
        ),
        (
            "before a good one",
            vec![mapping(last, 2)?, mapping(free, 4096)?],
        ),
        (
            "two of one batch",
            vec![mapping(free, 4096)?, mapping(free + 4095, 4096)?],
        ),
    ];
    for (what, batch) in overlapping {
        let mapped = rig.dma.map(batch);
        ensure!(mapped.is_err(), "an overlapping map was taken: {what}");
        let now = ranges();
        ensure!(
            now == before,
            "{what}: a map was refused, and what is mapped went from {before:?} to {now:?}"
        );
    }
    // Side by side they do not overlap.
    rig.dma
        .map(vec![mapping(free, 4096)?, mapping(free + 4096, 4096)?])?;
    let now = ranges().len();
    ensure!(
        now == before.len() + 2,
        "two more were mapped, and there are {now} where {} were",
        before.len()
    );
    // The device finds its memory as before.
    let traffic = Traffic::of(bench.device_type())?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let mut lane = Lane::start(&rig, traffic[0], 8)?;
    rig.run()?;
    lane.exchange(&rig, 2, Cut::Whole)
}

/// What is taken away: with the queue's own memory, or the buffers alone.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Taken {
    Everything,
    Buffers,
}

fn unmapped_is_untouched(bench: &Bench<'_>, variant: Variant) -> Checked {
    for &traffic in Traffic::of(bench.device_type())? {
        for taken in [Taken::Everything, Taken::Buffers] {
            unmapped(bench, variant, traffic, taken)
                .map_err(|stop| stop.about(format!("{traffic:?}, {taken:?}")))?;
        }
    }
    Ok(())
}

fn unmapped(bench: &Bench<'_>, variant: Variant, traffic: Traffic, taken: Taken) -> Checked {
    let rig = bench.open()?;
    rig.dma.replace(rig.halves().into(), bench.by())?;
    rig.negotiate(rig.plain(variant))?;
    let mut lane = Lane::start(&rig, traffic, 16)?;
    rig.run()?;
    lane.exchange(&rig, 1, Cut::Whole)?;
    // The frame for a receive queue is read out of what is left, or it would be the other queue that faults.
    let frame = rig.place(&[0; 72])?;
    if taken == Taken::Buffers {
        rig.go_to_upper();
    }
    let mut requests = Vec::new();
    for _ in 0..4 {
        let request = lane.request(&rig)?;
        lane.add(&request, Cut::Whole)?;
        requests.push(request);
    }
    // In the middle of it.
    lane.ring.publish();
    let [lower, upper] = rig.halves().map(|half| half.iova);
    rig.dma.unmap(upper, bench.by())?;
    if taken == Taken::Everything {
        rig.dma.unmap(lower, bench.by())?;
    }
    // From here on what is gone does not change. It is kept alive here.
    lane.ring.poll()?;
    let request = lane.request(&rig)?;
    lane.add(&request, Cut::Whole)?;
    lane.ring.publish_silently();
    if let (Traffic::Receive, Some(transmit)) = (traffic, &mut lane.other) {
        transmit.add(&[frame], &[])?;
        transmit.publish_silently();
    }
    // With buffers alone this is the upper half, which the rings are not in.
    let before = rig.image();
    lane.ring.kick();
    if let (Traffic::Receive, Some(transmit)) = (traffic, &lane.other) {
        transmit.kick();
    }
    faulted(&rig)?;
    let after = rig.image();
    let touched = first_difference(&before, &after);
    ensure!(
        touched.is_none(),
        "memory that was unmapped was written afterwards, at byte {touched:?} of {}",
        before.len()
    );
    Ok(())
}

/// The device says that it missed memory: by a fault, by its need for a reset, or, where it can wait, by asking for it.
fn faulted(rig: &Rig<'_>) -> Checked {
    let told = |e: &Event| {
        matches!(
            e,
            Event::Fault { .. } | Event::NeedsReset { .. } | Event::Miss { .. }
        )
    };
    let event = rig.event("that memory was missed", told)?;
    if matches!(event, Event::Miss { .. }) {
        let waits = rig.device.cap_names().contains(&"page-requests");
        ensure!(waits, "{event:?} of a device that does not wait for pages");
    }
    Ok(())
}

/// Nothing is declared of it so far but that address spaces stay, which is the contract of a reset.
fn reset_keeps_maps(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let traffic = Traffic::of(bench.device_type())?;
    let before: Vec<_> = rig.dma.mappings().iter().map(|m| m.iova).collect();
    for round in 0..2 {
        rig.negotiate(rig.plain(Variant::SPLIT))?;
        let mut lane = Lane::start(&rig, traffic[0], 8)?;
        rig.run()?;
        lane.exchange(&rig, 2, Cut::Whole).map_err(|stop| {
            stop.about(format!("after {round} resets, with nothing mapped anew"))
        })?;
        rig.reset()?;
        let now: Vec<_> = rig.dma.mappings().iter().map(|m| m.iova).collect();
        ensure!(
            now == before,
            "a reset made {now:?} of what was mapped: {before:?}"
        );
    }
    Ok(())
}

fn opened_once(bench: &Bench<'_>) -> Checked {
    let parent = bench.make()?;
    let rig = bench.rig(Arc::clone(&parent))?;
    let traffic = Traffic::of(bench.device_type())?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let mut lane = Lane::start(&rig, traffic[0], 8)?;
    rig.run()?;
    lane.exchange(&rig, 1, Cut::Whole)?;
    if Device::new(Arc::clone(&parent), Relay::new()).is_ok() {
        fail!("a device that is open was opened again");
    }
    // Who was first has noticed nothing.
    lane.exchange(&rig, 1, Cut::Whole)
        .map_err(|stop| stop.about("after a second open was refused"))?;
    for _ in 0..bench.times(8, 2) {
        let parent: Arc<dyn VdpaDevice> = bench.make()?;
        let rig = bench.rig(parent)?;
        rig.negotiate(rig.plain(Variant::SPLIT))?;
        let mut lane = Lane::start(&rig, traffic[0], 8)?;
        rig.run()?;
        lane.exchange(&rig, 1, Cut::Whole)?;
        // Dropped in the middle of work, with no wait, and made again at once.
        let request = lane.request(&rig)?;
        lane.add(&request, Cut::Whole)?;
        lane.ring.publish();
    }
    Ok(())
}
