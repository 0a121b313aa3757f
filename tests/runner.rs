//! `tests/run` itself: what it counts, what it prints last, what it writes and how it exits.
//!
//! A copy of it runs in a directory of its own over made-up stages, so that failures can be shown.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What `cargo test` prints: two binaries, of which the second dies; one failure, one ignored, one skip.
const CARGO_OUTPUT: &str = "     Running unittests src/lib.rs (target/debug/deps/a-1)
running 4 tests
test a::bad ... FAILED
test a::good ... ok
test a::late ... ignored, needs \"root\"
test a::skips ... ok
---- a::skips stdout ----
SKIP a::skips: no /dev/kvm: a virtual machine
test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
     Running tests/b.rs (target/debug/deps/b-2)
running 1 test
";

/// A tree with the runner and the stages given by name and body of their `stage` function.
fn tree(stages: &[(&str, &str)]) -> TempDir {
    let tree = tempfile::tempdir().expect("a temporary directory");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(tree.path().join("tests/stages")).expect("tests/stages is made");
    for file in ["tests/run", "tests/stages/ledger.bash"] {
        fs::copy(ours.join(file), tree.path().join(file)).expect("the runner is copied");
    }
    fs::write(tree.path().join("output"), CARGO_OUTPUT).expect("the output is written");
    for (name, body) in stages {
        let text = format!("# what: {name}\n# minutes: 1\n# quick: no\nstage() {{\n{body}\n}}\n");
        fs::write(tree.path().join(format!("tests/stages/{name}.sh")), text).expect("a stage");
    }
    tree
}

fn run(tree: &TempDir, arguments: &[&str], ci: bool) -> Output {
    let mut command = Command::new("bash");
    command
        .arg(tree.path().join("tests/run"))
        .args(arguments)
        .env_remove("CI");
    if ci {
        command.env("CI", "true");
    }
    command.output().expect("bash runs")
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

fn report(tree: &TempDir) -> Value {
    let text = fs::read_to_string(tree.path().join("target/tests.json")).expect("tests.json");
    serde_json::from_str(&text).expect("tests.json is JSON")
}

#[test]
fn a_good_run_exits_0_and_ends_with_its_counts() {
    let tree = tree(&[
        ("10-one", "check a 9 true; check b 9 true"),
        ("20-two", "check c 9 true"),
    ]);
    let output = run(&tree, &[], true);
    assert_eq!(last_line(&output), "3 passed, 0 failed, 0 skipped");
    assert_eq!(output.status.code(), Some(0));
    let stages = &report(&tree)["stages"];
    assert_eq!(stages[0]["name"], "one");
    assert_eq!(stages[0]["passed"], 2);
    assert_eq!(stages[1]["name"], "two");
    assert!(stages[1]["seconds"].is_number());
    assert_eq!(stages[1]["skipped"], json!([]));
}

#[test]
fn tests_of_cargo_are_counted_and_a_skip_is_no_pass() {
    let tree = tree(&[("10-unit", "cargo_tests t 9 sh -c 'cat output; exit 101'")]);
    let output = run(&tree, &[], false);
    // One passed; a::bad and the binary that died failed; ignored and SKIP are skipped.
    assert_eq!(last_line(&output), "1 passed, 2 failed, 2 skipped");
    assert_eq!(output.status.code(), Some(1));
    let skipped = &report(&tree)["stages"][0]["skipped"];
    assert_eq!(
        *skipped,
        json!([
            {"test": "t: a::late", "reason": "needs \"root\""},
            {"test": "t: a::skips", "reason": "no /dev/kvm: a virtual machine"},
        ])
    );
}

#[test]
fn a_build_that_fails_is_a_failure() {
    let tree = tree(&[("10-unit", "cargo_tests t 9 false")]);
    assert_eq!(
        last_line(&run(&tree, &[], false)),
        "0 passed, 1 failed, 0 skipped"
    );
}

#[test]
fn a_command_out_of_time_is_a_failure() {
    let tree = tree(&[("10-slow", "check sleeper 1 sleep 60")]);
    let output = run(&tree, &[], false);
    assert_eq!(last_line(&output), "0 passed, 1 failed, 0 skipped");
    assert!(String::from_utf8_lossy(&output.stdout).contains("out of time"));
}

#[test]
fn a_skip_that_an_installation_would_mend_fails_in_ci_alone() {
    let tree = tree(&[(
        "10-lab",
        "missing guests qemu; skip bare 'no such hardware'",
    )]);
    assert_eq!(
        last_line(&run(&tree, &[], false)),
        "0 passed, 0 failed, 2 skipped"
    );
    let output = run(&tree, &[], true);
    assert_eq!(last_line(&output), "0 passed, 1 failed, 1 skipped");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn one_stage_can_be_asked_for_and_a_wrong_one_is_refused() {
    let tree = tree(&[("10-one", "check a 9 true"), ("20-two", "check b 9 false")]);
    assert_eq!(
        last_line(&run(&tree, &["--only", "one"], false)),
        "1 passed, 0 failed, 0 skipped"
    );
    for wrong in [
        &["--only", "three"][..],
        &["--only", "*"],
        &["--only"],
        &["--fast"],
    ] {
        assert_eq!(run(&tree, wrong, false).status.code(), Some(2), "{wrong:?}");
    }
    let list = run(&tree, &["--list"], false);
    assert_eq!(String::from_utf8_lossy(&list.stdout).lines().count(), 2);
}
