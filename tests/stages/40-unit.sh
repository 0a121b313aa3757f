# what: unit, property, command-line, layering, runner and documentation tests of the workspace
# minutes: 4
# quick: yes
# shellcheck shell=bash

# The two packages of the judge are a stage of their own, which takes longer than --quick has. Most tests wait for other
# threads most of the time: more of them at once than there are processors.
stage() {
  local cases=${PROPTEST_CASES:-256} limit=900 ignored=()
  if [ "$EFFORT" = full ]; then
    cases=${PROPTEST_CASES:-4096} limit=7200 ignored=(--include-ignored)
  fi
  cargo_tests "workspace" "$limit" env PROPTEST_CASES="$cases" RUST_TEST_THREADS="$((2 * $(nproc)))" \
    cargo test --locked --workspace --exclude vdpa-conformance --exclude vdpa-hostile --no-fail-fast -- "${ignored[@]}"
}
