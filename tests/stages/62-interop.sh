# what: stock guests under QEMU, and other strangers, in front of devices that vdpactl serves
# minutes: 9
# quick: no
# shellcheck shell=bash

# What guests start from is the lab's. Guests have one or two processors: two at a time.
stage() {
  local skip=(--skip full::)
  [ "$EFFORT" != full ] || skip=()
  if [ "$(uname -m)" != x86_64 ]; then
    skip "interop" "its guests are x86-64: this is $(uname -m)"
    return
  fi
  if [ "$INSTALL" = yes ] && debian_root; then
    check "set-up" 600 tests/lab/setup || return
  elif ! tests/lab/setup --check >>"$LOG" 2>&1; then
    missing "interop" "QEMU 10, and what guests start from (tests/lab/setup, as root on Debian 12 or later)"
    return
  fi
  check "clippy" 600 cargo clippy --locked -p vdpa --test interop --example talker -- -D warnings
  check "programs" 900 cargo build --locked -p vdpa --bin vdpactl --example talker || return
  cargo_tests "interop" 1200 cargo test --locked -p vdpa --test interop --no-fail-fast -- --test-threads=2 "${skip[@]}"
}
