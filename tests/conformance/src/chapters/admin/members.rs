//! A member of a group, seen from its own side while its owner administers it.

use std::sync::Arc;

use vdpa_core::{CallKind, Status};
use vdpa_pci::PciAccess;
use vdpa_ring::Format;

use super::super::config::{Change, Undo, change};
use super::client::{Owner, member, op};
use super::commands::went_well;
use super::parts::{Part, parts, prepared, set};
use crate::checked::{ensure, fail};
use crate::lane::{Cut, Lane, Request};
use crate::registers::{Bells, Plain, reg};
use crate::{Bench, Checked, Rig, Variant};

/// The member that is looked at.
const FIRST: u16 = 1;
/// Requests that are under way when it is stopped, and as many that are shown to it afterwards.
const TOGETHER: usize = 4;
/// Kicks of a member that is stopped.
const KICKS: u32 = 100;
/// More vectors are not switched on.
const VECTORS: u16 = 16;

/// A member under the plainest driver, live, with a queue that works.
struct Live<'b> {
    plain: Arc<Plain>,
    rig: Rig<'b>,
    lane: Lane,
    /// Its vectors, if it has any, mapped to the queue and to changes of the configuration.
    bells: Option<Bells>,
}

impl<'b> Live<'b> {
    fn of(bench: &'b Bench<'b>, function: Arc<dyn PciAccess>, variant: Variant) -> Checked<Self> {
        let plain = Plain::of(function)?;
        let rig = bench.rig(plain.clone())?;
        rig.reset()?;
        let bells = plain.bells(VECTORS)?;
        rig.negotiate(rig.plain(variant))?;
        let lane = Lane::start(&rig, bench.traffic()?[0], 16)?.draining();
        if let Some(bells) = &bells {
            plain.map_queue(lane.index(), bells.count() - 1)?;
            plain.map_config(0)?;
        }
        rig.run()?;
        let mut live = Self {
            plain,
            rig,
            lane,
            bells,
        };
        let (called, request) = (live.calls(), live.lane.request(&live.rig)?);
        live.lane.ring.arm();
        live.lane.complete(&live.rig, &[request], Cut::Whole)?;
        live.is_called(called, "a request")?;
        Ok(live)
    }

    /// How often its vectors have called.
    fn calls(&self) -> u32 {
        self.bells.as_ref().map_or(0, Bells::total)
    }

    /// Waits until they have called more often than `before`.
    fn is_called(&self, before: u32, what: &str) -> Checked {
        if self.bells.is_none() {
            return Ok(());
        }
        let what = format!("the notification of {what}");
        self.rig.bench().until(&what, || Ok(self.calls() > before))
    }

    /// Shows requests to it, and does not kick. With the chain that each is in.
    fn show(&mut self) -> Checked<Vec<(u16, Request)>> {
        let mut shown = Vec::new();
        for _ in 0..TOGETHER {
            let request = self.lane.request(&self.rig)?;
            shown.push((self.lane.add(&request, Cut::Whole)?, request));
        }
        self.lane.ring.publish_silently();
        Ok(shown)
    }

    /// Waits until these have come back, and judges them.
    fn finish(&mut self, shown: &[(u16, Request)]) -> Checked {
        for done in self.lane.ring.wait(&self.rig, shown.len())? {
            let request = shown.iter().find(|(id, _)| *id == done.id);
            let Some((_, request)) = request else {
                fail!("a chain came back that was not given: {}", done.id);
            };
            self.lane.judge(&self.rig, request, done)?;
        }
        Ok(())
    }

    /// Kicks it, again and again, has its configuration change where that can be, and fails if it does anything.
    ///
    /// * `image`: its memory, as it was when it rested already
    fn rests(&self, image: &[u8], changed: Option<&Change>, when: &str) -> Checked {
        let bench = self.rig.bench();
        if self.plain.registers.function.interrupts().calls == CallKind::EventFd {
            // What it called before it was stopped is counted by another thread.
            bench.quiet();
        }
        let called = self.calls();
        let undo = changed.map(|change| Undo {
            rig: &self.rig,
            to: change.back,
        });
        if let Some(change) = changed {
            bench.manage(&self.rig, change.to)?;
        }
        for _ in 0..KICKS {
            self.lane.ring.kick();
            if let Some(other) = &self.lane.other {
                other.kick();
            }
        }
        let status = self.rig.status()?;
        ensure!(
            status.contains(Status::DRIVER_OK) && !status.contains(Status::DEVICE_NEEDS_RESET),
            "a member that is stopped shows the status {status}, {when}"
        );
        bench.quiet();
        let what = |stop: crate::Stop| stop.about(format!("a member is stopped, {when}"));
        self.rig.only_changed(image, &[]).map_err(what)?;
        let calls = self.calls() - called;
        ensure!(
            calls == 0,
            "a member that is stopped has notified its driver {calls} times, {when}"
        );
        drop(undo);
        Ok(())
    }
}

/// Stops the member, or has it go on.
fn mode(owner: &mut Owner<'_>, mode: u8, what: &str) -> Checked {
    let answer = owner.ask(&member(op::MODE_SET, FIRST.into(), &[mode]))?;
    went_well(&answer, what)
}

pub(super) fn rests_while_stopped(bench: &Bench<'_>) -> Checked {
    let mut owner = Owner::ready(bench)?;
    owner.require(op::MODE_SET, "DEV_MODE_SET")?;
    let function = bench.member(&owner.name, FIRST)?;
    let offered = bench.offered()?;
    let packed = Variant {
        format: Format::Packed,
        ..Variant::SPLIT
    };
    for variant in [Variant::SPLIT, packed] {
        if variant.lacks(offered).is_some() {
            continue;
        }
        let mut live = Live::of(bench, Arc::clone(&function), variant)?;
        // What there is to be notified of beside the queue, if there is anything.
        let changed = change(&live.rig).ok();
        let changed = changed.filter(|change| bench.manage(&live.rig, change.back).is_ok());
        for _ in 0..bench.times(8, 2) {
            let mut shown = live.show()?;
            live.lane.ring.kick();
            mode(&mut owner, 1, "a stop")?;
            let image = live.rig.image();
            live.rests(&image, None, "with requests from before")?;
            shown.extend(live.show()?);
            let image = live.rig.image();
            live.rests(&image, changed.as_ref(), "with requests from after it")?;
            live.lane.ring.arm();
            let called = live.calls();
            mode(&mut owner, 0, "a resume")?;
            live.lane.ring.kick();
            live.finish(&shown)?;
            live.is_called(called, "what was asked of a member that was stopped")?;
        }
    }
    Ok(())
}

/// How a member is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// Its driver writes 0 to its status.
    Status,
    /// The function is reset as a whole.
    Function,
}

/// Fails unless parts that are known are as virtio 1.4 §2.4 and §4.1.4.3 have them after a reset.
fn are_defaults(all: &[Part], when: &str) -> Checked {
    const HEADER: usize = 16;
    const DRV_FEATURES: u16 = 0x101;
    const DEVICE_STATUS: u16 = 0x103;
    const VQ_CFG: u16 = 0x104;
    for (kind, part) in all {
        let value = part.get(HEADER..).unwrap_or_default();
        // Of a queue: whether it is enabled, and where its areas are.
        let zero = match *kind {
            DRV_FEATURES | DEVICE_STATUS => value,
            VQ_CFG => value.get(4..).unwrap_or_default(),
            _ => continue,
        };
        ensure!(
            zero.iter().all(|byte| *byte == 0),
            "the part {kind:#x} is {value:02x?} {when}"
        );
    }
    Ok(())
}

pub(super) fn parts_are_cleared(bench: &Bench<'_>) -> Checked {
    let mut owner = prepared(bench)?;
    let function = bench.member(&owner.name, FIRST)?;
    let plain = Plain::of(Arc::clone(&function))?;
    bench.rig(plain)?.reset()?;
    mode(&mut owner, 1, "a stop")?;
    let fresh = parts(&mut owner)?;
    are_defaults(&fresh, "of a member that nobody drives")?;
    mode(&mut owner, 0, "a resume")?;
    for by in [By::Status, By::Function] {
        let live = Live::of(bench, Arc::clone(&function), Variant::SPLIT)?;
        mode(&mut owner, 1, "a stop")?;
        let used = parts(&mut owner)?;
        ensure!(
            used != fresh,
            "a member is driven, and has the parts of one that is not"
        );
        // What is set is forgotten too.
        let answer = set(&mut owner, &used)?;
        went_well(&answer, "setting what was got")?;
        match by {
            By::Status => {
                let registers = &live.plain.registers;
                registers.set(reg::DEVICE_STATUS, 0)?;
                bench.until("the end of a reset", || {
                    Ok(registers.get(reg::DEVICE_STATUS)? == 0)
                })?;
            }
            By::Function => {
                // Not every function can be reset, nor every access do it.
                if function.reset().is_err() {
                    mode(&mut owner, 0, "a resume")?;
                    continue;
                }
            }
        }
        let when = format!("after a reset by {by:?}");
        let now = parts(&mut owner)?;
        are_defaults(&now, &when)?;
        ensure!(
            now == fresh,
            "the parts of a member differ {when} from those it had at first"
        );
        mode(&mut owner, 0, "a resume")?;
        drop(live);
    }
    // It is of use still.
    drop(Live::of(bench, function, Variant::SPLIT)?);
    Ok(())
}
