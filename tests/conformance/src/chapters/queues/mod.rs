//! Queue set-up (PCI).

pub(crate) mod registers;

use vdpa_core::bits::{self, block, net};
use vdpa_core::{Area, DeviceType, Error, Features, Kick, QueueConfig, QueueIndex};
use vdpa_mem::Iova;
use vdpa_ring::{Format, area_sizes};

use super::{packed, split};
use crate::checked::{ensure, fail, skip};
use crate::driven;
use crate::lane::{Cut, Lane, Traffic};
use crate::recorder::{Heard, Recorder};
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver, format};
use crate::{Bench, Checked, Piece, Rig, Ring, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        38,
        "4.1.4.3.1",
        "queue_size is 0 for an unavailable queue",
        Once(absent_queues),
    ),
    device(
        39,
        "4.1.4.3.1",
        "Split: queue_size is 0 or a power of two",
        Rings(plain_split, sizes_of_split_rings),
    ),
    driver(
        40,
        "4.1.4.3.2",
        "Split: a size that is no power of two is refused",
        Rings(plain_split, split_size_refused),
    ),
    driver(
        41,
        "4.1.4.3.2",
        "Packed: size 0 is refused; a size that is no power of two is allowed (2.8.10.1)",
        Rings(packed, packed_sizes),
    ),
    driver(
        42,
        "4.1.4.3.2",
        "The fields are written before queue_enable",
        Once(registers::written_before_enable),
    ),
    driver(
        43,
        "4.1.4.3.2",
        "0 is never written to queue_enable",
        Once(registers::enable_is_never_cleared),
    ),
    driver(
        44,
        "4.1.4.3.2",
        "Read-only fields are never written",
        Once(registers::readable_is_not_written),
    ),
    device(
        45,
        "4.1.4.3.1",
        "device_feature shows the selected 32-bit window",
        Once(registers::windows_of_offered),
    ),
    device(
        46,
        "4.1.4.3.1",
        "driver_feature reads back valid written bits",
        Once(registers::accepted_reads_back),
    ),
    driver(
        47,
        "2.7.1",
        "Split area alignments 16/2/4",
        Rings(split, split_alignments),
    ),
    driver(
        48,
        "2.8.11",
        "Packed area alignments 16/4/4",
        Rings(packed, packed_alignments),
    ),
    format(
        49,
        "2.7",
        "Split size <= 32768",
        Rings(plain_split, split_size_bounded),
    ),
];

fn plain_split(variant: &Variant) -> bool {
    *variant == Variant::SPLIT
}

/// Whether queue `q` exists with these features, as the type's chapter says; `None` where that is not known.
fn is_there(device_type: DeviceType, features: Features, q: u16) -> Option<bool> {
    match device_type {
        // virtio 1.4 §5.1.2: pairs, then the control queue behind the last pair. How many pairs there are with MQ or RSS
        // is the device's to say.
        DeviceType::Net if features.contains(net::MQ) || features.contains(net::RSS) => {
            (q < 2).then_some(true)
        }
        DeviceType::Net => Some(q < 2 || q == 2 && features.contains(net::CTRL_VQ)),
        // §5.2.2.
        DeviceType::Block if features.contains(block::MQ) => (q < 1).then_some(true),
        // §5.4.2.
        DeviceType::Block | DeviceType::Entropy => Some(q < 1),
        _ => None,
    }
}

/// As the device says it, and as its registers do where there are any.
fn absent_queues(bench: &Bench<'_>) -> Checked {
    absent_queues_have_no_size(bench)?;
    beside(bench, registers::absent_have_no_size)
}

/// What registers add, where there are any.
fn beside(bench: &Bench<'_>, check: fn(&Bench<'_>) -> Checked) -> Checked {
    match bench.has_function() {
        true => check(bench),
        false => Ok(()),
    }
}

fn absent_queues_have_no_size(bench: &Bench<'_>) -> Checked {
    let rig = bench.open()?;
    let (device_type, count) = (rig.device.info().device_type, rig.device.info().queues);
    let plain = rig.plain(Variant::SPLIT);
    // For all that are absent: there may be tens of thousands.
    let area = rig.alloc(1 << 16)?;
    // A device may be unable to work without the features of its platform, virtio 1.4 §6.2.
    let least = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM, bits::ORDER_PLATFORM]);
    for features in [plain, plain & least] {
        rig.reset()?;
        rig.negotiate(features)?;
        for q in 0..count {
            let index = QueueIndex::new(q);
            let size = rig.device.queue_limits(index)?.max_size;
            let names = features.display(device_type);
            match is_there(device_type, features, q) {
                Some(true) => ensure!(size > 0, "queue {q} has size 0 with {names}"),
                Some(false) => ensure!(size == 0, "queue {q} has size {size} with {names}"),
                None => {}
            }
            let mut ring = match size {
                0 => {
                    absent(&rig, area, index)?;
                    continue;
                }
                _ => Ring::new(&rig, q, 16)?,
            };
            ring.start(&rig, None)
                .map_err(|stop| stop.about(format!("queue {q}, which has size {size}")))?;
        }
        // Beyond the last one there is none.
        let beyond = rig.device.queue_limits(QueueIndex::new(count));
        ensure!(
            matches!(beyond, Err(Error::QueueOutOfRange { .. })),
            "queue {count} of {count} has limits: {beyond:?}"
        );
    }
    Ok(())
}

/// A queue of size 0 cannot be started.
fn absent(rig: &Rig<'_>, area: Piece, q: QueueIndex) -> Checked {
    let at = |offset| Iova::new(area.at.get() + offset);
    let config = QueueConfig::new(16, at(0), at(0x4000), at(0x8000));
    match start(rig, q, config) {
        Err(Error::QueueAbsent { .. }) => Ok(()),
        other => fail!("queue {q} has size 0, and was started: {other:?}"),
    }
}

fn start(rig: &Rig<'_>, q: QueueIndex, config: QueueConfig) -> vdpa_core::Result<()> {
    let call = vdpa_core::Call::None;
    rig.device
        .start_queue(q, config, Kick::Taken, call)
        .map(drop)
}

/// The queue that requests go through, and what feeds it.
fn traffic(bench: &Bench<'_>) -> Checked<Traffic> {
    match bench.traffic()? {
        [first, ..] => Ok(*first),
        [] => skip!("no traffic"),
    }
}

fn sizes_of_split_rings(bench: &Bench<'_>, variant: Variant) -> Checked {
    split_sizes(bench, variant)?;
    beside(bench, registers::sizes_in_reset)
}

fn split_sizes(bench: &Bench<'_>, variant: Variant) -> Checked {
    let rig = bench.open()?;
    rig.negotiate(rig.plain(variant))?;
    for q in 0..rig.device.info().queues {
        let size = rig.device.queue_limits(QueueIndex::new(q))?.max_size;
        ensure!(
            size == 0 || size.is_power_of_two(),
            "queue {q} has size {size} with a split ring"
        );
    }
    // The largest works, and every smaller power of two.
    let traffic = traffic(bench)?;
    let probe = Lane::start(&rig, traffic, u16::MAX)?;
    let most = rig.device.queue_limits(probe.index())?.max_size;
    ensure!(
        probe.ring.size() == most,
        "the largest size is {most}, and {} was taken",
        probe.ring.size()
    );
    drop(probe);
    let shifts = (0..=most.ilog2()).rev();
    for size in shifts.map(|shift| 1u16 << shift) {
        rig.reset()?;
        rig.negotiate(rig.plain(variant))?;
        let mut lane = Lane::start(&rig, traffic, size)?;
        rig.run()?;
        // A disk's request takes two descriptors.
        let needed = if traffic == Traffic::Disk { 2 } else { 1 };
        // More than once, so that the smallest ones wrap.
        for _ in 0..if size >= needed { 3 } else { 0 } {
            lane.exchange(&rig, 1, Cut::Whole)
                .map_err(|stop| stop.about(format!("with size {size}")))?;
        }
    }
    Ok(())
}

/// A rig that is negotiated, on a device whose calls are written down.
fn written_down<'b>(
    bench: &'b Bench<'b>,
    variant: Variant,
) -> Checked<(std::sync::Arc<Recorder>, Rig<'b>)> {
    let recorder = driven::recorded(bench)?;
    let rig = bench.rig(recorder.clone())?;
    rig.negotiate(rig.plain(variant))?;
    Ok((recorder, rig))
}

/// Starting the queue so is refused, and the device does not hear of it.
fn refused(
    rig: &Rig<'_>,
    recorder: &Recorder,
    q: QueueIndex,
    config: QueueConfig,
    what: &str,
) -> Checked {
    let from = recorder.len();
    let started = start(rig, q, config);
    ensure!(started.is_err(), "{what}: the queue was started");
    let told = recorder.since(from);
    ensure!(
        !told.iter().any(|h| matches!(h, Heard::Start(..))),
        "{what}: the device was told to start it"
    );
    Ok(())
}

fn split_size_refused(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (recorder, rig) = written_down(bench, variant)?;
    let traffic = traffic(bench)?;
    let probe = Ring::new(&rig, traffic.queue(), 16)?;
    let most = rig.device.queue_limits(probe.index())?.max_size;
    for size in [0, 3, 6, most.wrapping_sub(1), most.wrapping_add(1)] {
        if size == 1 || size != 0 && size.is_power_of_two() && size <= most {
            continue;
        }
        let config = QueueConfig {
            size,
            ..probe.config(None)
        };
        let what = format!("size {size}");
        refused(&rig, &recorder, probe.index(), config, &what)?;
    }
    // A power of two is taken after all that.
    let mut lane = Lane::start(&rig, traffic, 16)?;
    rig.run()?;
    lane.exchange(&rig, 1, Cut::Whole)?;
    drop((lane, rig, recorder));
    // Our own driver does not set it up either.
    let mut session = driven::configured(bench, driven::recorded(bench)?, variant)?;
    let queues = session.device().info().queues;
    let free = (0..queues).map(QueueIndex::new).find(|q| {
        // Those of the traffic are set up already.
        q.get() >= 2 && session.queue_limits(*q).is_ok_and(|l| l.max_size >= 4)
    });
    if let Some(q) = free {
        let setup = vdpa_core::session::QueueSetup {
            size: 3,
            ..Default::default()
        };
        ensure!(
            session.queue(q, setup).is_err(),
            "a session set a split ring of 3 up"
        );
    }
    Ok(())
}

fn packed_sizes(bench: &Bench<'_>, variant: Variant) -> Checked {
    /// Descriptors of a ring that gets an indirect table for each.
    const MOST_TABLES: u16 = 1024;
    let (recorder, rig) = written_down(bench, variant)?;
    let traffic = traffic(bench)?;
    let probe = Ring::new(&rig, traffic.queue(), 16)?;
    let most = rig.device.queue_limits(probe.index())?.max_size;
    for size in [0, most.wrapping_add(1)] {
        let config = QueueConfig {
            size,
            ..probe.config(None)
        };
        let what = format!("size {size}");
        refused(&rig, &recorder, probe.index(), config, &what)?;
    }
    for size in [3, 7, 12, most.saturating_sub(1)] {
        if size < 2 || size > most {
            continue;
        }
        rig.reset()?;
        // A table a descriptor of the largest rings is more than the rig has memory for.
        let indirect = variant.indirect && size <= MOST_TABLES;
        rig.negotiate(rig.plain(Variant {
            indirect,
            ..variant
        }))?;
        let mut lane = Lane::start(&rig, traffic, size)?;
        ensure!(
            lane.ring.size() == size,
            "size {size} was asked for, and it is {}",
            lane.ring.size()
        );
        rig.run()?;
        // Once around a small ring. Not more: frames that nobody receives may stop a sender.
        let rounds = u32::from(size.min(8)) + 2;
        for _ in 0..rounds {
            lane.exchange(&rig, 1, Cut::Whole)
                .map_err(|stop| stop.about(format!("with size {size}")))?;
        }
    }
    Ok(())
}

fn split_alignments(bench: &Bench<'_>, variant: Variant) -> Checked {
    alignments(bench, variant, [16, 2, 4])
}

fn packed_alignments(bench: &Bench<'_>, variant: Variant) -> Checked {
    alignments(bench, variant, [16, 4, 4])
}

/// Less is refused, and just that is enough.
fn alignments(bench: &Bench<'_>, variant: Variant, aligns: [u32; 3]) -> Checked {
    let (recorder, rig) = written_down(bench, variant)?;
    let traffic = traffic(bench)?;
    let probe = Ring::new(&rig, traffic.queue(), 16)?;
    // Room behind the areas, so that it is the alignment that is wrong and nothing else.
    let room = rig.alloc(1 << 16)?;
    let at = |offset: u64| Iova::new(room.at.get() + offset);
    let good = QueueConfig::new(probe.size(), at(0), at(0x4000), at(0x8000));
    for (area, align) in Area::ALL.into_iter().zip(aligns) {
        for off in [align / 2, 1] {
            let moved = Iova::new(good.area(area).get() + u64::from(off));
            let config = match area {
                Area::Descriptor => QueueConfig {
                    descriptor: moved,
                    ..good
                },
                Area::Driver => QueueConfig {
                    driver: moved,
                    ..good
                },
                Area::Device => QueueConfig {
                    device: moved,
                    ..good
                },
            };
            let what = format!("{area} at {moved}, which has to be aligned to {align}");
            refused(&rig, &recorder, probe.index(), config, &what)?;
        }
    }
    let other = match traffic {
        Traffic::Transmit => Some(rig.queue(0, 16)?),
        _ => None,
    };
    let mut ring = probe;
    ring.align(&rig, aligns)?;
    ring.start(&rig, None)
        .map_err(|stop| stop.about(format!("areas aligned to {aligns:?}")))?;
    rig.run()?;
    let mut lane = Lane::with(traffic, ring, other);
    for _ in 0..4 {
        lane.exchange(&rig, 1, Cut::Whole)
            .map_err(|stop| stop.about(format!("areas aligned to {aligns:?}")))?;
    }
    drop((lane, rig, recorder));
    // Our own driver's are aligned so too.
    let recorder = driven::recorded(bench)?;
    let _session = driven::running(bench, recorder.clone(), variant)?;
    let format = if variant.is_packed() {
        Format::Packed
    } else {
        Format::Split
    };
    for heard in recorder.heard() {
        let Heard::Start(q, config) = heard else {
            continue;
        };
        let sizes = area_sizes(format, config.size, variant.event_idx);
        for (area, known) in
            Area::ALL
                .into_iter()
                .zip([sizes.descriptor, sizes.driver, sizes.device])
        {
            let at = config.area(area);
            ensure!(
                at.get().is_multiple_of(u64::from(known.align)),
                "queue {q}: the session put its {area} at {at}"
            );
        }
    }
    Ok(())
}

fn split_size_bounded(bench: &Bench<'_>, variant: Variant) -> Checked {
    let (recorder, rig) = written_down(bench, variant)?;
    for q in 0..rig.device.info().queues {
        let index = QueueIndex::new(q);
        let size = rig.device.queue_limits(index)?.max_size;
        ensure!(size <= 32768, "queue {q} has size {size}");
    }
    let probe = Ring::new(&rig, traffic(bench)?.queue(), 16)?;
    for size in [32769, 49152, 65535] {
        let config = QueueConfig {
            size,
            ..probe.config(None)
        };
        let what = format!("size {size}");
        refused(&rig, &recorder, probe.index(), config, &what)?;
    }
    Ok(())
}
