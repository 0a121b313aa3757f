# what: every library, binary, test, bench and example, debug; the binary, the examples and the benches, release
# minutes: 7
# quick: yes
# shellcheck shell=bash

# --quick has no use for more of release than what is shipped.
stage() {
  check "debug" 900 cargo build --locked --workspace --all-targets
  check "release" 900 cargo build --locked --release
  [ "$EFFORT" = quick ] || check "release, all" 900 cargo build "${RELEASED[@]}"
}
