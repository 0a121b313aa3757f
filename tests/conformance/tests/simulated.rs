//! The simulated devices keep every statement that applies to them.

use std::sync::Arc;

use vdpa_conformance::{Effort, Selection, Target, run};

fn holds(spec: &str) {
    let mut registry = vdpa_core::Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    let target = Target::named(&registry, spec).unwrap();
    let report = run(&target, &Selection::all(Effort::Full));
    println!("{report}");
    assert_eq!(report.failed() + report.excepted(), 0, "{report}");
}

#[test]
fn a_network_card() {
    holds("sim:net");
}

#[test]
fn a_disk() {
    holds("sim:blk");
}

#[test]
fn a_source_of_entropy() {
    holds("sim:rng");
}
