//! Capabilities that a driver has to live with.

use std::sync::Arc;

use vdpa_core::ErrorKind;
use vdpa_pci::PciAccess;

use crate::checked::{ensure, fail};
use crate::registers::{Overlay, Planned, Registers, Structure, Through};
use crate::{Bench, Checked, Variant, driven};

/// How a driver has to take a function whose capabilities are shown so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It works.
    Works,
    /// It works, or is refused.
    Survived,
}

/// The function's own, as a plan.
fn own(registers: &Registers) -> Vec<Planned> {
    let Registers {
        common,
        notify,
        isr,
        config,
        ..
    } = registers;
    let all = [Some(*common), Some(*notify), Some(*isr), *config];
    all.into_iter()
        .flatten()
        .chain(registers.window().copied())
        .map(Planned::from)
        .collect()
}

/// What is shown, how it is called, and what is due.
fn plans(own: &[Planned], common: Structure) -> Vec<(&'static str, Due, Vec<Planned>)> {
    let first = Planned::from(common);
    let before = |planned: Planned| [&[planned], own].concat();
    let changed = |change: fn(&mut Planned)| {
        let mut all = own.to_vec();
        all.iter_mut().for_each(change);
        all
    };
    let in_front = |change: fn(&mut Planned)| {
        let mut planned = first;
        change(&mut planned);
        before(planned)
    };
    vec![
        ("its own capabilities", Due::Works, own.to_vec()),
        (
            "an unknown cfg_type in front",
            Due::Works,
            in_front(|p| p.cfg_type = 0x2a),
        ),
        (
            "a vendor's own cfg_type in front",
            Due::Works,
            in_front(|p| p.cfg_type = 9),
        ),
        (
            "a common configuration in BAR 6 in front",
            Due::Works,
            in_front(|p| p.bar = 6),
        ),
        (
            "a common configuration in BAR 255 in front",
            Due::Works,
            in_front(|p| p.bar = 255),
        ),
        (
            "longer capabilities",
            Due::Works,
            changed(|p| {
                p.cap_len += 8;
                p.takes += 8;
            }),
        ),
        (
            "a common configuration of all the lengths that there are",
            Due::Survived,
            in_front(|p| (p.offset, p.length) = (u32::MAX - 15, u32::MAX)),
        ),
        (
            "structures of length 0",
            Due::Survived,
            changed(|p| p.length = 0),
        ),
        (
            "structures of length 0xffffffff",
            Due::Survived,
            changed(|p| p.length = u32::MAX),
        ),
        (
            "structures behind their BARs",
            Due::Survived,
            changed(|p| p.offset = 0xffff_f000),
        ),
        (
            "a multiplier of 0xffffffff",
            Due::Survived,
            changed(|p| p.multiplier = u32::MAX),
        ),
        (
            "capabilities of length 0",
            Due::Survived,
            changed(|p| p.cap_len = 0),
        ),
        (
            "capabilities of length 255",
            Due::Survived,
            changed(|p| p.cap_len = 255),
        ),
        (
            "a list that goes back to its first",
            Due::Survived,
            in_front(|p| p.next = Some(0x40)),
        ),
        (
            "a list that goes on in the header",
            Due::Survived,
            in_front(|p| p.next = Some(0x10)),
        ),
        (
            "a list that goes on at the last byte",
            Due::Survived,
            in_front(|p| p.next = Some(0xff)),
        ),
        ("nothing", Due::Survived, Vec::new()),
    ]
}

pub(super) fn misled(bench: &Bench<'_>) -> Checked {
    let names: Vec<_> = {
        let registers = Registers::of(bench.function()?)?;
        plans(&own(&registers), registers.common)
            .iter()
            .map(|(name, ..)| *name)
            .collect()
    };
    for (number, name) in names.into_iter().enumerate() {
        let function = bench.function()?;
        let registers = Registers::of(Arc::clone(&function))?;
        let plans = plans(&own(&registers), registers.common);
        drop(registers);
        let Some((_, due, plan)) = plans.get(number) else {
            fail!("the function shows other structures than a moment ago");
        };
        let overlay = Arc::new(Overlay::of(plan)?);
        shown(bench, Through::around(function, overlay), *due).map_err(|stop| stop.about(name))?;
    }
    Ok(())
}

fn shown(bench: &Bench<'_>, function: Arc<dyn PciAccess>, due: Due) -> Checked {
    let opened = bench.drive(function);
    let parent = match (opened, due) {
        (Ok(parent), _) => parent,
        // Refused in words.
        (Err(_), Due::Survived) => return Ok(()),
        (Err(stop), Due::Works) => return Err(stop),
    };
    let worked = works(bench, parent);
    match due {
        Due::Works => worked,
        // It has been opened, and what comes then is an error of the device or a success. What it must not be is a panic.
        Due::Survived => Ok(()),
    }
}

fn works(bench: &Bench<'_>, parent: Arc<dyn vdpa_core::VdpaDevice>) -> Checked {
    let mut session = driven::running(bench, parent, Variant::SPLIT)?;
    driven::request(bench, &mut session)?;
    match session.close(bench.by()) {
        Ok(device) => drop(device),
        Err((_, e)) => {
            ensure!(e.kind() == ErrorKind::Gone, "it does not close: {e}");
        }
    }
    Ok(())
}
