//! vDPA itself.

mod memory;
mod state;

use std::sync::Arc;

use vdpa_core::{Device, Relay, VdpaDevice};

use super::any;
use crate::checked::fail;
use crate::lane::{Cut, Lane, Traffic};
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device};
use crate::{Bench, Checked, Variant};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        206,
        "contract",
        "State get -> set -> run equals an uninterrupted run, split and packed",
        Rings(any, state::state_goes_on),
    ),
    device(
        207,
        "contract",
        "Suspend is idempotent; resume serves the kicks that came meanwhile",
        Rings(any, state::suspend_twice),
    ),
    device(
        208,
        "contract",
        "Overlapping map: an error; a batch of maps is all or none",
        Once(memory::maps_all_or_none),
    ),
    device(
        209,
        "contract",
        "Unmapping under a running device faults; memory is never touched afterwards",
        Rings(any, memory::unmapped_is_untouched),
    ),
    device(
        210,
        "contract",
        "Reset keeps or clears maps exactly as the persistence capability declares",
        Once(memory::reset_keeps_maps),
    ),
    device(
        211,
        "contract",
        "A second open is refused; reopening right after drop succeeds",
        Once(opened_once),
    ),
];

fn opened_once(bench: &Bench<'_>) -> Checked {
    let traffic = bench.traffic()?;
    refuses_a_second(bench, traffic[0])?;
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

fn refuses_a_second(bench: &Bench<'_>, traffic: Traffic) -> Checked {
    let parent = bench.make()?;
    let rig = bench.rig(Arc::clone(&parent))?;
    rig.negotiate(rig.plain(Variant::SPLIT))?;
    let mut lane = Lane::start(&rig, traffic, 8)?;
    rig.run()?;
    lane.exchange(&rig, 1, Cut::Whole)?;
    if Device::new(Arc::clone(&parent), Relay::new()).is_ok() {
        fail!("a device that is open was opened again");
    }
    // Who was first has noticed nothing; what was begun behind its back has time to happen.
    bench.quiet();
    lane.exchange(&rig, 1, Cut::Whole)
        .map_err(|stop| stop.about("after a second open was refused"))?;
    Ok(())
}
