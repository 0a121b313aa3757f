# what: the documentation builds, warnings are errors
# minutes: 1
# quick: yes
# shellcheck shell=bash

stage() {
  check "doc" 600 env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
}
