# what: every library, binary, test, bench and example, debug; the binary and the examples, release
# minutes: 5
# quick: yes
# shellcheck shell=bash

stage() {
  check "debug" 900 cargo build --locked --workspace --all-targets
  check "release" 900 cargo build --locked --release --bins --examples
}
