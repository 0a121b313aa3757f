//! Simulated devices as PCI functions, in every layout: they keep every statement that applies to them, and those about
//! registers do.

use std::sync::Arc;

use vdpa_conformance::{Effort, Ids, Outcome, Report, Selection, Target, run};
use vdpa_core::{DeviceSpec, Registry};
use vdpa_pci::PciParent;
use vdpa_sim::SimMgmt;
use vdpa_sim::pci::{Identity, Layout};

/// The statements that look at registers.
const REGISTERS: &str = "11,12,18,36-39,42-46,52-54,56,112-131";
/// What no simulated function of this kind has: SR-IOV beside a device of its own.
const NOWHERE: [u16; 1] = [18];

fn target(spec: &str) -> Target {
    let parent = Arc::new(SimMgmt::new());
    let mut registry = Registry::new();
    registry.add(parent.clone());
    let parsed = DeviceSpec::parse(spec).unwrap();
    let target = Target::named(&registry, spec).unwrap();
    let what = parsed.what().to_owned();
    let members = parent.clone();
    target
        .with_function(move || parent.function(&parsed))
        .with_members(move |owner, number| {
            let spec = format!("sim:{what},as=vf,of={owner},number={number}");
            members.function(&DeviceSpec::parse(&spec)?)
        })
}

fn judged(spec: &str, selection: &Selection) -> Report {
    let report = run(&target(spec), selection);
    println!("{report} {:?}", report.elapsed);
    assert_eq!(report.failed() + report.excepted(), 0, "{report}");
    report
}

fn holds(spec: &str) {
    judged(spec, &Selection::all(Effort::Full));
}

#[test]
fn a_network_card() {
    holds("sim:net,as=pci");
}

#[test]
fn a_disk() {
    holds("sim:blk,as=pci");
}

#[test]
fn a_source_of_entropy() {
    holds("sim:rng,as=pci");
}

/// Layouts that differ in what a driver does all the time: doorbells, vectors, and the way to registers.
const UNLIKE: [&str; 5] = ["split", "multiplier-0", "vectors-1", "intx", "window"];

/// Statements about registers in every layout; and of network cards, which have most of everything, the others once in
/// some.
fn every_layout(kind: &str) {
    for (layout, _) in Layout::ALL {
        // There is nothing to drive.
        if layout.identity == Identity::Legacy {
            continue;
        }
        let spec = format!("{kind},as=pci,layout={}", layout.name);
        let ids: Ids = REGISTERS.parse().unwrap();
        let report = judged(&spec, &Selection::only(ids));
        for row in &report.rows {
            let id = row.statement.id;
            if let Outcome::Skipped { reason } = &row.outcome
                && !NOWHERE.contains(&id)
            {
                println!("{spec}: {id} {reason}");
                assert!(
                    skips(kind, layout, id),
                    "{spec}: {id} does not come to be tried: {reason}"
                );
            }
        }
        if kind == "sim:net" && UNLIKE.contains(&layout.name) {
            judged(&spec, &Selection::all(Effort::Quick));
        }
    }
}

/// Whether a statement does not apply to a device of this kind that is laid out so.
fn skips(kind: &str, layout: &Layout, id: u16) -> bool {
    let without_vectors = layout.vectors == Some(0) || layout.name == "intx";
    match id {
        12 | 122..=128 if without_vectors => true,
        119 => layout.name != "shared-memory",
        // Kicks of 32 bits have no room.
        116 | 129 | 131 => !layout.multiplier.is_multiple_of(4),
        // Its configuration has no fields, or does not change.
        117 | 118 | 125 | 128 => kind == "sim:rng",
        _ => false,
    }
}

#[test]
fn network_cards_in_every_layout() {
    every_layout("sim:net");
}

#[test]
fn disks_in_every_layout() {
    every_layout("sim:blk");
}

#[test]
fn sources_of_entropy_in_every_layout() {
    every_layout("sim:rng");
}

/// One that administers its virtual functions.
#[test]
fn an_owner_of_virtual_functions() {
    let ids: Ids = "18,132-145".parse().unwrap();
    let report = judged("sim:net,as=pf,vfs=4", &Selection::only(ids));
    assert_eq!(report.skipped(), 0, "{report}");
    judged("sim:net,as=pf,vfs=2", &Selection::all(Effort::Quick));
    judged(
        "sim:blk,as=pf,vfs=2",
        &Selection::only("112-145".parse().unwrap()),
    );
}

/// One with room for a single mapping, which says so: what takes more is not tried.
#[test]
fn a_card_with_room_for_one_mapping() {
    let report = judged(
        "sim:net,as=pci,dma_entries=1",
        &Selection::all(Effort::Quick),
    );
    let reasons = report.rows.iter().map(|row| row.outcome.reason());
    let short = reasons.filter(|reason| reason.starts_with("it takes 1 mapping, the judge needs "));
    assert!(short.count() > 10, "{report}");
}
