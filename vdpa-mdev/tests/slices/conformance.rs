//! Sixteen slices of one card at a time keep every statement that applies to them: four in full, twelve quickly.

use std::sync::atomic::{AtomicU16, Ordering};

use vdpa_conformance::{Effort, Report, Selection, Target, catalogue, run};
use vdpa_core::{DeviceSpec, Registry};

use crate::rig::*;

/// The address that the suite sends from: no slice sends from another one than its own.
const OURS: &str = "52:54:00:12:34:56";

/// Statement 174, of tags without CTRL_VLAN: what a slice of one VLAN may not send, no wire gives back.
const TAGS: u16 = 174;

/// VLANs that a run takes in turn: more than it has slices at once.
const VLANS: u16 = 250;

/// Slices of a card that gives back what is sent, each in a VLAN of its own.
///
/// * `number`: of the run
fn target(registry: &Registry, number: u16) -> Target {
    let (maker, manager) = (registry.clone(), registry.clone());
    let made = AtomicU16::new(0);
    let target = Target::new("mdev:slice", move || {
        let vlan = 1 + number * VLANS + made.fetch_add(1, Ordering::Relaxed) % VLANS;
        let spec = format!("mdev:slice,of=sim:net,mac={OURS},vlan={vlan}");
        maker.make(&DeviceSpec::parse(&spec)?)
    });
    target.managed(move |name, attr| manager.dev_set("mdev", name, attr))
}

fn kept(report: &Report) {
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.passed() > 100, "{report}");
}

#[test]
fn sixteen_slices_of_one_card() {
    let registry = registry();
    // Somebody who keeps the card open, beside whom the others are.
    let keeper = registry.open("mdev:slice,of=sim:net,limit=128").unwrap();
    std::thread::scope(|s| {
        for number in 0..16 {
            let target = target(&registry, number);
            let effort = if number < 4 {
                Effort::Full
            } else {
                Effort::Quick
            };
            s.spawn(move || {
                let mut selection = Selection::all(effort);
                // Not kept, as is shown below: here it would be waited for in vain, and long.
                let ids = catalogue().iter().map(|statement| statement.id);
                selection.only = Some(ids.filter(|id| *id != TAGS).collect());
                // Sixteen share the processors.
                selection.patience = Some(std::time::Duration::from_secs(60));
                kept(&run(&target, &selection));
            });
        }
    });
    drop(keeper);
}

/// Listed as what is not kept: were it kept, the run would fail.
#[test]
fn a_slice_of_one_vlan_sends_no_tags() {
    let target =
        target(&registry(), 16).except(TAGS, "a slice sends no tags, so that none come back");
    let report = run(&target, &Selection::only([TAGS].into_iter().collect()));
    assert_eq!(report.failed(), 0, "{report}");
    let mut rows = report.rows.iter();
    assert!(
        rows.any(|row| matches!(row.outcome, vdpa_conformance::Outcome::Excepted { .. })),
        "{report}"
    );
}

#[test]
fn a_slice_of_any_vlan_with_four_pairs_keeps_what_is_said_of_tags_and_of_steering() {
    let registry = registry();
    let spec = format!("mdev:slice,of=sim:net,mac={OURS},vlan=any,queue_pairs=4");
    let target = Target::named(&registry, &spec).unwrap();
    let report = run(&target, &Selection::all(Effort::Quick));
    assert_eq!(report.failed(), 0, "{report}");
    let mut rows = report.rows.iter();
    assert!(rows.any(|row| row.statement.id == TAGS && row.outcome == vdpa_conformance::Outcome::Passed), "{report}");
}
