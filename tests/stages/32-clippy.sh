# what: clippy on the workspace, all targets, warnings are errors
# minutes: 2
# quick: yes
# shellcheck shell=bash

# clippy::incompatible_msrv is on by default: a use of something newer than `rust-version` is found here too.
stage() { check "clippy" 900 cargo clippy --locked --workspace --all-targets -- -D warnings; }
