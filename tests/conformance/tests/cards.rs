//! The statements about network cards, of simulated ones with several pairs of queues, with other MTUs, with few features,
//! and of one that gives nothing back.

use std::sync::Arc;

use vdpa_conformance::{Effort, Outcome, Report, Selection, Target, run};

fn holds(spec: &str) -> Report {
    holds_to(spec, "146-185")
}

fn holds_to(spec: &str, ids: &str) -> Report {
    let mut registry = vdpa_core::Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    let target = Target::named(&registry, spec).unwrap();
    let report = run(&target, &Selection::only(ids.parse().unwrap()));
    println!("{report}");
    assert_eq!(report.failed() + report.excepted(), 0, "{report}");
    report
}

fn skipped(report: &Report, id: u16) -> Option<&str> {
    report.rows.iter().find_map(|row| match &row.outcome {
        Outcome::Skipped { reason } if row.statement.id == id => Some(reason.as_str()),
        _ => None,
    })
}

#[test]
fn one_with_pairs() {
    let report = holds("sim:net,queue_pairs=3");
    assert_eq!(report.skipped(), 0, "{report}");
}

#[test]
fn one_with_jumbo_frames() {
    holds("sim:net,mtu=9000,queue_pairs=5");
}

/// More queues that are absent without MQ than there is memory for one set of areas each.
#[test]
fn one_with_very_many_pairs() {
    let report = holds_to("sim:net,queue_pairs=128", "38");
    assert_eq!(report.skipped(), 0, "{report}");
}

/// No frame is longer than these let pass.
#[test]
fn one_with_a_small_mtu() {
    let report = holds("sim:net,mtu=1280");
    for id in 148..=155 {
        assert_eq!(skipped(&report, id), None, "{report}");
    }
    // The least that there is.
    holds("sim:net,mtu=68");
}

/// Three times as much as a frame holds is more than a length can say.
#[test]
fn ones_with_large_mtus() {
    for spec in ["sim:net,mtu=30000", "sim:net,mtu=65535"] {
        let report = holds_to(spec, "147-149");
        assert_eq!(report.skipped(), 0, "{report}");
    }
}

#[test]
fn one_with_few_features() {
    holds("sim:net,features=VERSION_1+ACCESS_PLATFORM+MAC,queue_size=64");
}

#[test]
fn one_with_short_queues() {
    let report = holds("sim:net,queue_size=16,queue_pairs=2");
    assert_eq!(report.skipped(), 0, "{report}");
    holds("sim:net,queue_size=4");
}

#[test]
fn one_that_gives_nothing_back() {
    let report = holds("sim:net,port=null");
    for id in [148, 155, 163, 179] {
        assert_eq!(
            skipped(&report, id),
            Some("what is sent does not come back"),
            "{report}"
        );
    }
    for id in [146, 168, 181, 182, 185] {
        assert_eq!(skipped(&report, id), None, "{report}");
    }
    // What is seen of these without a loop is right, and that is half of it.
    for id in [169, 170, 173, 180, 183, 184] {
        let reason = skipped(&report, id).unwrap_or_default();
        assert!(
            reason.starts_with("commands are answered rightly"),
            "{report}"
        );
    }
}

#[test]
fn each_statement_once() {
    let mut registry = vdpa_core::Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    let target = Target::named(&registry, "sim:net,queue_pairs=2").unwrap();
    let selection = Selection {
        effort: Effort::Quick,
        ..Selection::only("146-185".parse().unwrap())
    };
    let report = run(&target, &selection);
    assert_eq!(report.passed(), 40, "{report}");
}
