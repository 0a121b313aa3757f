//! Devices of which there is one at a time, as hardware is: no statement makes one while it has another.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use vdpa_conformance::{Effort, Ids, Selection, Target, catalogue, run};
use vdpa_core::{DeviceSpec, Error, Registry, VdpaDevice};

/// Refuses to make a device while the last one is there.
fn alone(spec: &str) -> Target {
    let mut registry = Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    let parsed = DeviceSpec::parse(spec).unwrap();
    let (maker, parent) = (registry.clone(), parsed.parent().to_owned());
    let last = Mutex::new(None::<Weak<dyn VdpaDevice>>);
    let make = move || {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|last| last.strong_count() > 0) {
            let what = "another one that is open";
            return Err(Error::Busy { what });
        }
        let made = maker.make(&parsed)?;
        *last = Some(Arc::downgrade(&made));
        Ok(made)
    };
    Target::new(spec, make).managed(move |name, attr| registry.dev_set(&parent, name, attr))
}

fn holds(spec: &str) {
    let report = run(&alone(spec), &Selection::all(Effort::Full));
    println!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
    // Each by itself: what is found out once for all of them is found out by any of them.
    for statement in catalogue() {
        let selection = Selection {
            effort: Effort::Quick,
            ..Selection::only(Ids::one(statement.id))
        };
        let report = run(&alone(spec), &selection);
        assert_eq!(report.failed(), 0, "{report}");
    }
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
