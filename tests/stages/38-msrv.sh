# what: the oldest compiler that Cargo.toml names builds the workspace, dev-dependencies aside
# minutes: 1
# quick: no
# shellcheck shell=bash

# Where that compiler can't be had, two checks stand for it: clippy::incompatible_msrv (stage clippy), and
# `no_dependency_needs_a_newer_compiler` of tests/dependencies.rs.
stage() {
  local toolchain
  toolchain=$(minimum_rust)
  if cargo "+$toolchain" --version >>"$LOG" 2>&1; then
    check "check with $toolchain" 600 cargo "+$toolchain" check --locked --workspace --all-features
  elif [[ $REFUSED == *"toolchain $toolchain"* ]]; then
    skip "check with $toolchain" "rustup could not fetch toolchain $toolchain; checked by lint and by metadata alone"
  else
    missing "check with $toolchain" "toolchain $toolchain"
  fi
}
