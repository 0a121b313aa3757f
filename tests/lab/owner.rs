//! A function that its owner has handed in.

use crate::transcript::Step;

/// What `guest handed` said.
#[track_caller]
pub(crate) fn has_handed_over(step: &Step, sectors: u64) {
    let said = step.well().json();
    // With memory that the driver's side maps in the owner's container; when it is done the function reaches none.
    assert_eq!(said["contents"]["read"], sectors / 2, "{said}");
    assert_eq!(said["quiet"], true, "{said}");
    // With memory that the owner has mapped, and goes on to have mapped.
    let elsewhere = &said["elsewhere"];
    assert_eq!(elsewhere["answered"], 0, "{said}");
    assert_eq!(elsewhere["untouched"], false, "{said}");
    assert_eq!(elsewhere["master"], true, "{said}");
}
