//! `vdpactl check`: what it prints, and how it ends.
#![cfg(feature = "cli")]

mod vdpactl;

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use vdpactl::{keys, run};

/// A device that refuses every choice of features, so that most statements cannot be kept.
const STUBBORN: &str = "sim:rng,fault=control.refused:1,seed=1";

#[test]
fn every_statement_of_the_list_is_in_the_object() {
    let run = run(["--json", "check", "sim:rng", "--effort", "quick"]);
    assert_eq!(run.code, 0, "{run:?}");
    let object = run.object();
    assert_eq!(
        keys(&object),
        [
            "effort",
            "excepted",
            "failed",
            "passed",
            "seconds",
            "skipped",
            "spec",
            "statements"
        ]
    );
    assert_eq!(object["spec"], "sim:rng");
    assert_eq!(object["effort"], "quick");
    let statements = object["statements"].as_array().unwrap();
    let ids: BTreeSet<u64> = statements
        .iter()
        .map(|row| row["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (1..=211).collect());
    let mut counted = 0;
    for (word, key) in [
        ("passed", "passed"),
        ("failed", "failed"),
        ("skipped", "skipped"),
        ("excepted", "excepted"),
    ] {
        let of = |row: &&Value| row["result"] == word;
        let there = statements.iter().filter(of).count() as u64;
        assert_eq!(object[key].as_u64(), Some(there), "{key}");
        counted += there;
    }
    assert_eq!(counted as usize, statements.len());
    assert!(object["seconds"].is_u64() && object["passed"].as_u64() > Some(0));
    for row in statements {
        let row = row.as_object().unwrap();
        assert_eq!(
            keys(row),
            ["clause", "id", "reason", "result", "variant"],
            "{row:?}"
        );
        let silent = row["reason"] == "";
        assert_eq!(silent, row["result"] == "passed", "{row:?}");
    }
}

#[test]
fn only_what_is_asked_for_is_tried() {
    let run = run(["--json", "check", "sim:rng", "--only", "1,112-113"]);
    assert_eq!(run.code, 0, "{run:?}");
    let object = run.object();
    let statements = object["statements"].as_array().unwrap();
    let ids: Vec<u64> = statements
        .iter()
        .map(|row| row["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, 112, 113]);
    assert_eq!(statements[1]["result"], "skipped");
    assert_eq!(statements[1]["reason"], "needs register-level access");
}

#[test]
fn an_owner_is_judged_beside_its_members() {
    let owner = "sim:net,as=pf,vfs=2";
    let run = run(["--json", "check", owner, "--only", "132-145"]);
    assert_eq!(run.code, 0, "{run:?}");
    let object = run.object();
    assert_eq!(object["passed"], 14, "{object:?}");
    assert_eq!(object["skipped"], 0, "{object:?}");
}

#[test]
fn a_failure_says_what_was_seen_what_is_asked_and_how_to_try_it_again() {
    let run = run(["check", STUBBORN, "--only", "1"]);
    assert_eq!(run.code, 1, "{run:?}");
    for part in [
        "FAILED 1 Status reads 0 after reset",
        "seen   a call was refused",
        "asks   virtio 1.4 §2.1",
        &format!("again  vdpactl check {STUBBORN} --only 1"),
        "0 passed, 1 failed",
    ] {
        assert!(run.stdout.contains(part), "{part} is not in {run:?}");
    }
}

#[test]
fn a_known_exception_is_no_failure_and_one_that_does_not_come_is() {
    let known = run([
        "--json",
        "check",
        STUBBORN,
        "--only",
        "1",
        "--except",
        "1=stubborn",
    ]);
    assert_eq!(known.code, 0, "{known:?}");
    let object = known.object();
    assert_eq!(object["excepted"], 1);
    assert_eq!(object["statements"][0]["reason"], "stubborn");

    let stale = run(["check", "sim:rng", "--only", "1", "--except", "1=stubborn"]);
    assert_eq!(stale.code, 1, "{stale:?}");
    assert!(
        stale
            .stdout
            .contains("known exception (stubborn), and is kept")
    );
}

#[test]
fn how_to_try_it_again_is_said_with_the_effort() {
    let run = run(["check", STUBBORN, "--only", "1", "--effort", "quick"]);
    let line = format!("again  vdpactl check {STUBBORN} --only 1 --effort quick\n");
    assert!(run.stdout.contains(&line), "{run:?}");
}

#[test]
fn failures_are_told_as_they_come_where_nobody_looks_at_a_terminal() {
    let run = run(["--json", "check", STUBBORN, "--only", "1,2"]);
    assert_eq!(run.code, 1, "{run:?}");
    let told = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("failed "));
    let failed = run.object()["failed"].as_u64().unwrap();
    assert_eq!(told.count() as u64, failed, "{run:?}");
}

#[test]
fn exceptions_that_cannot_be_meant_are_refused() {
    let line = ["check", "sim:rng", "--except", "1=a", "--except", "1=b"];
    run(line).is_refused_with(&["statement 1 twice"]);
    let line = ["check", "sim:rng", "--only", "2-4", "--except", "1=known"];
    run(line).is_refused_with(&["statement 1,", "--only names 2-4"]);
}

#[test]
fn a_file_is_replaced_once_there_is_something_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("check.xml");
    fs::write(&file, "as it was").unwrap();
    let path = file.to_str().unwrap();
    // It ends before it begins.
    run(["check", "sim:nut", "--junit", path]).is_refused_with(&["nut"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "as it was");
    assert_eq!(
        run(["check", "sim:rng", "--only", "1", "--junit", path]).code,
        0
    );
    assert!(fs::read_to_string(&file).unwrap().contains("testsuites"));
    // And nothing stays beside it.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_tried_after_a_failure_where_that_is_asked_for() {
    let run = run(["--json", "check", STUBBORN, "--only", "1-12", "--fail-fast"]);
    assert_eq!(run.code, 1, "{run:?}");
    let object = run.object();
    assert_eq!(object["failed"], 1);
    assert_eq!(
        object["statements"][5]["reason"],
        "not tried after a failure"
    );
}

#[test]
fn the_judgement_comes_as_tap_and_as_junit_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("check.xml");
    let path = file.to_str().unwrap();
    let run = run([
        "check", STUBBORN, "--only", "1,112", "--tap", "--junit", path,
    ]);
    assert_eq!(run.code, 1, "{run:?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[..2], ["TAP version 14", "1..2"]);
    assert!(
        lines[2].starts_with("not ok 1 - 1 Status reads 0"),
        "{run:?}"
    );
    let skip =
        "ok 2 - 112 At least one common config, 4-aligned # SKIP needs register-level access";
    assert_eq!(lines.last(), Some(&skip));

    let xml = fs::read_to_string(file).unwrap();
    for part in [
        r#"<testsuites name="sim:rng,fault=control.refused:1,seed=1" tests="2" failures="1""#,
        r#"<testcase name="1 Status reads 0 after reset""#,
        r#"type="virtio 1.4 §2.1""#,
        r#"tests="1" disabled="0" errors="0" failures="0" skipped="1">"#,
        r#"<skipped message="needs register-level access""#,
    ] {
        assert!(xml.contains(part), "{part} is not in {xml}");
    }
}

#[test]
fn bad_input_is_refused_before_anything_is_tried() {
    run(["check", "sim:nut"]).is_refused_with(&["nut", "net"]);
    run(["check", "sim:rng", "--only", "212"]).is_refused_with(&["212", "1 to 211"]);
    run(["check", "sim:rng", "--except", "1"]).is_refused_with(&["1", "110=known bug"]);
    run(["check", "sim:rng", "--junit", "/proc/none/x.xml"]).is_refused_with(&["/proc/none/x.xml"]);
    run(["--json", "check", "sim:rng", "--tap"]).is_refused_with(&["--json", "--tap"]);
}
