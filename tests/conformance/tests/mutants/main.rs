//! The judge is judged: devices that are wrong on purpose, each in one way, and the statement that has to find out.
//!
//! A mutant is a wrapper over a device: a [`Bend`](bend::Bend) of its control side, or a [`Twist`](shadow::Twist) of its
//! data path; of a function it stands before its registers. A catch counts only by the statement named beforehand, and the
//! same wrappers around nothing wrong pass everything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test, and a rig that not every mutant uses wholly"
)]

mod bend;
mod dying;
mod hand;
mod shadow;

mod admin;
mod block;
mod config;
mod features;
mod in_order;
mod indirect;
mod net;
mod other;
mod packed;
mod queue_reset;
mod queues;
mod registers;
mod split;
mod status;
mod suppression;
mod suspend;
mod vdpa;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vdpa_conformance::{Effort, Ids, Report, Selection, Target, run};
use vdpa_core::{DeviceSpec, Registry, VdpaDevice};

/// Puts something wrong around a device.
pub type Wrap = fn(Arc<dyn VdpaDevice>) -> Arc<dyn VdpaDevice>;

/// A device that is wrong in one way.
pub struct Mutant {
    /// What it does wrong, in a few words; no two have the same.
    pub name: &'static str,
    /// The statement that has to find out.
    pub caught_by: u16,
    /// What it is made of.
    pub spec: &'static str,
    pub wrap: Wrap,
}

/// A module of mutants a chapter, and a test of it.
macro_rules! chapters {
    ($($chapter:ident)+) => {
        const CHAPTERS: &[(&str, &[Mutant])] = &[$((stringify!($chapter), $chapter::MUTANTS)),+];

        mod caught {
            $(#[test] fn $chapter() { super::caught(stringify!($chapter)); })+
        }
    };
}

chapters! {
    status features config queues queue_reset suspend split indirect suppression packed in_order net block other vdpa
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    registry
}

/// What comes of a wrapped device.
fn judge(name: &str, spec: &str, wrap: Wrap, selection: &Selection) -> Report {
    let (registry, spec) = (registry(), DeviceSpec::parse(spec).unwrap());
    let (maker, parent) = (registry.clone(), spec.parent().to_owned());
    let target = Target::new(name, move || Ok(wrap(maker.make(&spec)?)))
        .managed(move |name, attr| registry.dev_set(&parent, name, attr));
    run(&target, selection)
}

/// What some mutants do wrong depends on who is first. A statement that finds it out sometimes can find it out.
const TRIES: usize = 5;

/// The mutants of a chapter, all of them caught.
fn caught(chapter: &str) {
    let (_, mutants) = CHAPTERS.iter().find(|(name, _)| *name == chapter).unwrap();
    assert!(!mutants.is_empty(), "{chapter} has none");
    let mut free = Vec::new();
    for mutant in *mutants {
        let selection = Selection {
            patience: Some(Duration::from_secs(1)),
            fail_fast: true,
            ..Selection::only(Ids::one(mutant.caught_by))
        };
        let try_it = |_| judge(mutant.name, mutant.spec, mutant.wrap, &selection);
        if !(0..TRIES).map(try_it).any(|report| report.failed() > 0) {
            free.push(mutant.name);
        }
    }
    assert!(free.is_empty(), "not caught: {free:#?}");
}

#[test]
fn every_mutant_is_one_of_its_own() {
    let all: Vec<_> = CHAPTERS.iter().flat_map(|(_, mutants)| *mutants).collect();
    let names: BTreeSet<_> = all.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), all.len(), "two have the same name");
    let statements: BTreeSet<_> = all.iter().map(|mutant| mutant.caught_by).collect();
    println!("{} mutants, of {} statements", all.len(), statements.len());
    assert!(all.len() >= 100);
}

/// What is wrapped in nothing wrong keeps everything.
fn unbroken(spec: &str) {
    let wraps: [(&str, Wrap); 2] = [
        ("bent", |inner| bend::bent(inner, bend::Straight)),
        ("shadow", |inner| shadow::shadow(inner, shadow::Plain)),
    ];
    for (name, wrap) in wraps {
        let report = judge(name, spec, wrap, &Selection::all(Effort::Full));
        assert_eq!(report.failed(), 0, "{spec}, {report}");
    }
}

#[test]
fn the_wrappers_alone_break_no_network_card() {
    unbroken("sim:net");
}

#[test]
fn the_wrappers_alone_break_no_disk() {
    unbroken("sim:blk");
}

#[test]
fn the_wrappers_alone_break_no_source_of_entropy() {
    unbroken("sim:rng");
}
