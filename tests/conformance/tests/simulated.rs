//! The simulated devices keep every statement that applies to them.

use std::sync::{Arc, Mutex};

use vdpa_conformance::{Effort, Ids, Outcome, Report, Selection, Target, run};

fn judged(spec: &str, selection: &Selection) -> Report {
    let mut registry = vdpa_core::Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    let target = Target::named(&registry, spec).unwrap();
    let report = run(&target, selection);
    println!("{report}");
    assert_eq!(report.failed() + report.excepted(), 0, "{report}");
    report
}

fn holds(spec: &str) {
    judged(spec, &Selection::all(Effort::Full));
}

/// Of a disk of another kind: what is said of disks; and these statements are not skipped.
fn holds_as_a_disk(spec: &str, tried: &[u16]) {
    let report = judged(spec, &Selection::only("186-202".parse().unwrap()));
    for id in tried {
        let mut rows = report.rows.iter().filter(|row| row.statement.id == *id);
        let passed = rows.any(|row| row.outcome == Outcome::Passed);
        assert!(passed, "{spec}: statement {id} did not come to be tried");
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

#[test]
fn a_disk_for_reading() {
    holds_as_a_disk("sim:blk,ro=on", &[186, 187, 188, 189, 195, 198, 199, 202]);
}

#[test]
fn a_disk_of_large_blocks_and_several_queues() {
    let tried = [190, 191, 192, 193, 194, 197, 198, 200, 201, 202];
    holds_as_a_disk("sim:blk,blk_size=4096,queues=4", &tried);
}

#[test]
fn a_disk_that_takes_neither_discards_nor_flushes() {
    let features = "-DISCARD-WRITE_ZEROES-SECURE_ERASE-CONFIG_WCE-FLUSH-MQ";
    holds_as_a_disk(
        &format!("sim:blk,features={features}"),
        &[195, 198, 199, 202],
    );
}

#[test]
fn a_disk_in_a_file() {
    let name = format!("vdpa-conformance-{}.img", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, vec![0x5a; 8 << 20]).unwrap();
    let spec = format!("sim:blk,file={}", path.display());
    let tried = [190, 191, 192, 193, 194, 197, 198, 200, 201, 202];
    let ended = std::panic::catch_unwind(|| {
        holds_as_a_disk(&spec, &tried);
        holds_as_a_disk(&format!("{spec},io=threads,ro=on"), &[189, 198, 199, 202]);
        // It exists once: no statement opens a second one beside the first.
        judged(&spec, &Selection::all(Effort::Quick));
    });
    std::fs::remove_file(&path).unwrap();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// A device that is there for more than this is left as it was.
#[test]
fn what_is_changed_is_changed_back() {
    for spec in ["sim:net", "sim:blk"] {
        let mut registry = vdpa_core::Registry::new();
        registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
        let parsed = vdpa_core::DeviceSpec::parse(spec).unwrap();
        let (maker, parent) = (registry.clone(), parsed.parent().to_owned());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let target = Target::new(spec, move || maker.make(&parsed)).managed(move |name, attr| {
            log.lock().unwrap().push(attr);
            registry.dev_set(&parent, name, attr)
        });
        let report = run(&target, &Selection::only("32,59,60".parse().unwrap()));
        assert_eq!(report.failed(), 0, "{report}");
        let asked = asked.lock().unwrap();
        let changes: Vec<_> = asked.chunks(2).collect();
        assert!(changes.len() >= 3, "{asked:?}");
        for change in &changes {
            assert!(change.len() == 2 && change[1] == changes[0][1], "{asked:?}");
            assert_ne!(change[0], change[1], "{asked:?}");
        }
    }
}

/// Of queues smaller than statements ask for: each statement once.
fn holds_when_small(spec: &str) {
    judged(spec, &Selection::all(Effort::Quick));
}

#[test]
fn small_queues() {
    holds_when_small("sim:rng,queue_size=8");
    holds_when_small("sim:blk,queue_size=32");
    holds_when_small("sim:blk,queue_size=64");
    holds_when_small("sim:net,queue_size=4");
}

#[test]
fn a_card_whose_port_gives_nothing_back() {
    let report = judged("sim:net,port=null", &Selection::all(Effort::Quick));
    let tried = |row: &vdpa_conformance::Row| row.outcome == Outcome::Passed;
    assert!(report.rows.iter().filter(|row| tried(row)).count() > 60);
}

#[test]
fn a_card_that_waits_for_pages() {
    judged(
        "sim:net,page_requests=on",
        &Selection::only("71-73,80-83,103-107".parse().unwrap()),
    );
}

/// Of queues so small that many statements find no room, which they say: none fails.
#[test]
fn smallest_queues() {
    for kind in ["net", "blk", "rng"] {
        for size in 1..=3 {
            let spec = format!("sim:{kind},queue_size={size}");
            let report = judged(&spec, &Selection::all(Effort::Quick));
            let small = |row: &&vdpa_conformance::Row| {
                let Outcome::Skipped { reason } = &row.outcome else {
                    return false;
                };
                reason.starts_with("a queue of ") && reason.contains(" is too small: it takes ")
            };
            assert!(report.rows.iter().any(|row| small(&row)), "{report}");
        }
    }
}

#[test]
fn queues_of_four() {
    for kind in ["net", "blk", "rng"] {
        holds(&format!("sim:{kind},queue_size=4"));
    }
}

/// Of devices at the ends of what is legal: what is not failed, and not skipped either.
#[test]
fn a_short_mtu_and_a_long_queue() {
    for (spec, id) in [("sim:net,mtu=68", 101), ("sim:net,queue_size=32768", 41)] {
        let report = judged(spec, &Selection::only(Ids::one(id)));
        assert_eq!(report.skipped(), 0, "{spec}: {report}");
    }
}

/// A card that sends what nobody takes does not look at it: that it misses no buffers says nothing of it.
#[test]
fn a_card_that_reads_nothing_of_what_is_sent() {
    let quick = Selection {
        effort: Effort::Quick,
        ..Selection::only(Ids::one(209))
    };
    for (spec, reads) in [
        ("sim:net,port=wire:unplugged", false),
        ("sim:net,port=switch:alone", false),
        ("sim:net,link=down", false),
        ("sim:net,port=null", true),
    ] {
        let report = judged(spec, &quick);
        assert_eq!(report.passed(), usize::from(reads), "{spec}: {report}");
        for row in &report.rows {
            let reason = row.outcome.reason();
            assert!(
                reads || reason.ends_with("what is sent is not read"),
                "{reason}"
            );
        }
    }
}

/// Features of one type of device are not looked for on another.
#[test]
fn statements_on_a_type_are_skipped_for_the_type_alone() {
    for (spec, ids, wanted) in [
        (
            "sim:rng",
            "146-185",
            "the device is of type entropy, not net",
        ),
        ("sim:blk", "146-185", "the device is of type block, not net"),
        ("sim:net", "186-202", "the device is of type net, not block"),
    ] {
        let report = judged(spec, &Selection::only(ids.parse().unwrap()));
        for row in &report.rows {
            assert_eq!(row.outcome.reason(), wanted, "{spec}: {}", row.statement.id);
        }
    }
}
