//! What `vdpactl check --json` has said.

use crate::transcript::Step;

/// A device keeps every statement that applies to it, and `least` of them do.
#[track_caller]
pub(crate) fn is_well(step: &Step, least: u64) {
    let object = step.json();
    let statements = object["statements"].as_array().unwrap();
    let failed: Vec<String> = statements
        .iter()
        .filter(|row| row["result"] == "failed")
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            format!(
                "{} {} {}: {}",
                row["id"],
                text("clause"),
                text("variant"),
                text("reason")
            )
        })
        .collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", object["spec"]);
    let passed = object["passed"].as_u64().unwrap();
    println!(
        "{}: {passed} passed in {} s",
        object["spec"], object["seconds"]
    );
    assert!(
        passed >= least,
        "{}: {passed} statements passed, at least {least} apply",
        object["spec"]
    );
    step.well();
}
