//! What cards on a hub go through before one is taken out: what `guest shut`, `twice`, `deleted` and `broken` said.

use serde_json::{Value, json};

use crate::transcript::Step;

/// Frames pass, whether BARs are reached by mapped pages, by the window in configuration space, or by system calls alone.
#[track_caller]
pub(crate) fn shut_off_bars(step: &Step) {
    let said = step.well().json();
    let (usual, shut) = (&said["usual"], &said["shut"]);
    for way in ["there", "back"] {
        for run in [usual, shut] {
            assert!(run["frames"][way].as_u64() >= Some(200), "{said}");
        }
    }
    assert_eq!(usual["windows"], json!([false, false]), "{said}");
    assert_eq!(shut["windows"], json!([true, false]), "{said}");
    assert!(usual["mapped"].as_u64() >= Some(2), "{said}");
    assert_eq!(shut["mapped"], 0, "{said}");
    assert_eq!(shut["accesses"][0], 0, "a hidden BAR was reached: {said}");
    assert!(shut["accesses"][1].as_u64() > Some(0), "{said}");
}

/// A function that is open is opened by nobody else.
#[track_caller]
pub(crate) fn refused_twice(step: &Step) {
    let said = step.well().json();
    for (who, kind) in [("here", "Misuse"), ("elsewhere", "Busy")] {
        assert_eq!(said[who]["kind"], kind, "{said}");
        let error = said[who]["error"].as_str().unwrap();
        assert!(error.contains("0000:"), "which function: {error}");
    }
}

/// A driver whose device is deleted is told so, in an event and by its next call, and the function can be had again.
#[track_caller]
pub(crate) fn deleted_while_in_use(step: &Step) {
    let said = step.well().json();
    assert!(said["sent"].as_u64() > Some(0), "{said}");
    assert_eq!(said["status"], "Gone", "{said}");
    assert_eq!(said["stopped"], Value::Null, "{said}");
    assert_eq!(said["gone"], true, "{said}");
    assert!(said["again"].as_u64() > Some(0), "{said}");
}

/// An error of the bus is told as an event that says whose it is.
#[track_caller]
pub(crate) fn reported_broken(step: &Step) {
    let out = &step.well().out;
    let said = out.lines().find(|line| line.starts_with('{')).unwrap();
    let said: Value = serde_json::from_str(said).unwrap();
    let why = said["why"].as_str().unwrap();
    assert!(why.contains("0000:") && why.contains("error"), "{said}");
}
