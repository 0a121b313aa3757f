//! What the chapters on rings have in common.

use std::time::{Duration, Instant};

use vdpa_core::{Area, Status};
use vdpa_ring::QueueState;

use crate::checked::{ensure, fail, skip};
use crate::hand::{Hand, Link};
use crate::lane::{Cut, Lane, NET_HEADER, Request, Traffic, packet};
use crate::{Bench, Checked, Effort, Rig, Ring, Variant};

/// A live device with queues of at most `size` for this traffic.
pub(super) fn live<'b>(
    bench: &'b Bench<'_>,
    variant: Variant,
    traffic: Traffic,
    size: u16,
) -> Checked<(Rig<'b>, Lane)> {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    let lane = Lane::start(&rig, traffic, size)?.draining();
    rig.run()?;
    Ok((rig, lane))
}

/// Runs a statement for each traffic that the device has, on a live device of its own.
pub(super) fn each(
    bench: &Bench<'_>,
    variant: Variant,
    size: u16,
    check: impl Fn(&Rig<'_>, &mut Lane) -> Checked,
) -> Checked {
    for &traffic in bench.traffic()? {
        let (rig, mut lane) = live(bench, variant, traffic, size)?;
        check(&rig, &mut lane).map_err(|stop| stop.about(format_args!("{traffic:?}")))?;
    }
    Ok(())
}

/// The same with split queues that begin at this index instead of 0: both sides stand there, and so does the memory.
pub(super) fn live_at<'b>(
    bench: &'b Bench<'_>,
    variant: Variant,
    traffic: Traffic,
    size: u16,
    index: u16,
) -> Checked<(Rig<'b>, Lane)> {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    if rig.dma.limits().is_some() {
        // Hardware: no register says where a queue stands.
        return walked(rig, variant, traffic, size, index);
    }
    let begin = |q| {
        let state = QueueState::Split {
            avail: index,
            used: Some(index),
        };
        let most = rig
            .device
            .queue_limits(vdpa_core::QueueIndex::new(q))?
            .max_size;
        let size = 1 << size.min(most).max(1).ilog2();
        let mut ring = Ring::going_on(&rig, q, size, Some(state))?;
        for area in [Area::Driver, Area::Device] {
            ring.store_u16(area, vdpa_ring::layout::IDX, index);
        }
        ring.start(&rig, Some(state))?;
        Ok::<_, crate::Stop>(ring)
    };
    let lane = match traffic {
        Traffic::Transmit => Lane::with(traffic, begin(1)?, Some(begin(0)?)),
        Traffic::Receive => Lane::with(traffic, begin(0)?, Some(begin(1)?)),
        Traffic::Disk | Traffic::Entropy => Lane::with(traffic, begin(0)?, None),
    };
    rig.run()?;
    Ok((rig, lane.draining()))
}

/// The same on a device whose queues begin afresh: as many requests go through it.
fn walked<'b>(
    rig: Rig<'b>,
    variant: Variant,
    traffic: Traffic,
    size: u16,
    index: u16,
) -> Checked<(Rig<'b>, Lane)> {
    /// More of them at a time may be more than a card's port holds.
    const BATCH: u32 = 8;
    // It takes its time, and differs in nothing that these change.
    let everywhere = rig.bench().effort() == Effort::Quick;
    if !everywhere && (variant.in_order || variant.indirect) {
        skip!(
            "queues begin afresh, and go there in rings without IN_ORDER and INDIRECT_DESC alone"
        );
    }
    let mut lane = Lane::start(&rig, traffic, size)?.draining();
    rig.run()?;
    let request = lane.request(&rig)?;
    let frame = rig.place(&packet(0))?;
    let mut left = u32::from(index);
    while left > 0 {
        let batch = left.min(lane.room()).clamp(1, BATCH);
        for _ in 0..batch {
            lane.add(&request, Cut::Whole)?;
        }
        lane.ring.publish();
        if let (Traffic::Receive, Some(transmit)) = (traffic, &mut lane.other) {
            for _ in 0..batch {
                transmit.add(&[frame], &[])?;
            }
            transmit.publish();
            transmit.wait(&rig, batch as usize)?;
        }
        lane.ring.wait(&rig, batch as usize)?;
        lane.arrivals(&rig)?;
        left -= batch;
    }
    Ok((rig, lane))
}

/// What the device's own requests look like that complete by themselves.
pub(super) fn first_traffic(bench: &Bench<'_>) -> Checked<Traffic> {
    let all = bench.traffic()?;
    match all.first() {
        Some(first) => Ok(*first),
        None => fail!("a device without requests"),
    }
}

/// Completes a transmit request that is cut like this, and sees that its frame comes back through the receive queue.
fn echo(rig: &Rig<'_>, lane: &mut Lane, request: &Request, cut: Cut) -> Checked {
    let packet = request.readable.iter().flat_map(|piece| rig.read(*piece));
    let sent: Vec<u8> = packet.skip(NET_HEADER as usize).collect();
    lane.complete(rig, std::slice::from_ref(request), cut)?;
    let mut others = 0;
    let arrived = rig.bench().until("the arrival of the frame", || {
        let frames = lane.arrivals(rig)?;
        let found = frames.contains(&sent);
        others += frames.len() - usize::from(found);
        Ok(found)
    });
    arrived.map_err(|stop| stop.about(format_args!("{others} other frames arrived")))
}

/// Completes one request, as strictly as its traffic allows.
pub(super) fn complete(rig: &Rig<'_>, lane: &mut Lane, request: &Request, cut: Cut) -> Checked {
    match lane.traffic {
        Traffic::Transmit if super::net::loops(rig.bench())? => echo(rig, lane, request, cut),
        _ => lane.complete(rig, std::slice::from_ref(request), cut),
    }
}

/// Gives a chain that the driver half would not make, and judges the request that it stands for.
pub(super) fn by_hand(
    rig: &Rig<'_>,
    lane: &mut Lane,
    hand: &mut Hand,
    request: &Request,
    chain: &[Link],
) -> Checked {
    let id = hand.give(chain)?;
    lane.ring.kick();
    lane.provoke(rig, std::slice::from_ref(request))?;
    for done in hand.wait(rig, 1, request.room())? {
        ensure!(done.id == id, "chain {} came back for {id}", done.id);
        lane.judge(rig, request, done)?;
    }
    Ok(())
}

/// A device gets along with a driver that kicks only where it asks for it, whether it finds it asleep or at work.
pub(super) fn works_with_the_kicks_asked_for(bench: &Bench<'_>, variant: Variant) -> Checked {
    each(bench, variant, 16, |rig, lane| {
        for round in 0..6 {
            lane.exchange(rig, 1 + round % 3, Cut::Whole)?;
            if round == 1 {
                rig.bench().quiet();
            }
        }
        Ok(())
    })
}

/// Gives a live device what no driver may, and holds it to surviving that: something comes back as used, or the device
/// needs a reset and says why, or it stops; nothing is written beside the request's buffers; and after a reset it works.
///
/// * `give`: writes to the ring, of which the driver half knows nothing
pub(super) fn survives(
    bench: &Bench<'_>,
    variant: Variant,
    what: &str,
    give: impl FnOnce(&Rig<'_>, &Ring, &Request, &mut Hand) -> Checked,
) -> Checked {
    let about = |stop: crate::Stop| stop.about(what);
    let traffic = first_traffic(bench)?;
    let (rig, mut lane) = live(bench, variant, traffic, 16)?;
    let request = lane.request(&rig)?;
    let mut hand = Hand::of(&rig, &lane.ring);
    let before = rig.image();
    give(&rig, &lane.ring, &request, &mut hand).map_err(about)?;
    lane.ring.kick();
    ended(&rig, &hand).map_err(about)?;
    let mut allowed = request.writable;
    allowed.extend(Area::ALL.map(|area| lane.ring.area(area)));
    allowed.extend(lane.beside());
    rig.only_changed(&before, &allowed).map_err(about)?;
    revive(&rig, variant, traffic).map_err(about)
}

/// Waits until something was used, or the device needs a reset and has said why. One that merely stops has not said so,
/// which it only SHOULD (virtio 1.4 §2.1.2): that it works after a reset is for the caller to see.
pub(super) fn ended(rig: &Rig<'_>, hand: &Hand) -> Checked {
    /// How long a device may take to say so.
    const MOST: Duration = Duration::from_millis(500);
    let (begun, most) = (Instant::now(), rig.bench().patience().min(MOST));
    let mut halted = false;
    while !halted && hand.entry().is_none() && begun.elapsed() < most {
        std::thread::sleep(Duration::from_micros(50));
        halted = rig.status()?.contains(Status::DEVICE_NEEDS_RESET);
    }
    if halted {
        let why = rig.needs_reset()?;
        ensure!(!why.is_empty(), "the event of NEEDS_RESET does not say why");
    }
    Ok(())
}

/// Resets the device, and sees that it works.
pub(super) fn revive(rig: &Rig<'_>, variant: Variant, traffic: Traffic) -> Checked {
    rig.reset()?;
    rig.negotiate(rig.plain(variant))?;
    let mut lane = Lane::start(rig, traffic, 16)?;
    rig.run()?;
    let after = |stop: crate::Stop| stop.about("after a reset");
    lane.exchange(rig, 1, Cut::Whole).map_err(after)?;
    // Once it sleeps, so that it has to hear the kick.
    rig.bench().quiet();
    lane.exchange(rig, 1, Cut::Whole).map_err(after)
}

/// A request's buffers as descriptors.
pub(super) fn links(request: &Request, cut: Cut) -> Vec<Link> {
    Link::chain(&cut.apply(&request.readable), &cut.apply(&request.writable))
}

/// Looks without a pause until `seen`, then as [`until`](Bench::until) does: to see what stands in memory as soon as it
/// can be seen.
pub(super) fn spot(rig: &Rig<'_>, what: &str, mut seen: impl FnMut() -> Checked<bool>) -> Checked {
    for _ in 0..2000 {
        if seen()? {
            return Ok(());
        }
        std::hint::spin_loop();
    }
    rig.bench().until(what, seen)
}
