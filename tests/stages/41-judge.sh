# what: the conformance suite, the mutants that it has to catch, and every hostile input, with what is left behind
# minutes: 6
# quick: no
# shellcheck shell=bash

# Mutants are waited for in vain most of the time.
stage() {
  cargo_tests "judge" 1500 env RUST_TEST_THREADS="$((3 * $(nproc)))" cargo test --locked -p vdpa-conformance -p vdpa-hostile --no-fail-fast --
}
