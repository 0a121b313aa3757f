# what: guests in QEMU: VFIO of a real kernel, emulated IOMMUs and virtio functions, driven by our programs
# minutes: 15
# quick: no
# shellcheck shell=bash

# The second kernel was begun in `install`, and takes what processor time the stages between have left; it is waited for
# last. Guests have one processor each, so there are two at a time. --full: more machines.
stage() {
  local target=x86_64-unknown-linux-gnu skip=(--skip full::)
  [ "$EFFORT" != full ] || skip=()
  if [ "$(uname -m)" != x86_64 ]; then
    skip "lab" "its guests are x86-64, and so have to be the programs of ours in them: this is $(uname -m)"
    return
  fi
  if [ "$INSTALL" = yes ] && debian_root; then
    check "set-up" 600 tests/lab/setup || return
    # Without them one guest is skipped, and says so.
    check "modules" 600 tests/lab/modules
  elif ! tests/lab/setup --check >>"$LOG" 2>&1; then
    missing "lab" "QEMU 10, and what guests start from (tests/lab/setup, as root on Debian 12 or later)"
    return
  fi
  begin_second_kernel
  check "clippy" 600 cargo clippy --locked -p vdpa --test lab --example guest -- -D warnings
  check "static programs" 900 env RUSTFLAGS="-C target-feature=+crt-static ${RUSTFLAGS-}" \
    CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=symbols \
    cargo build --locked --release --target "$target" -p vdpa --bin vdpactl --example guest || return
  guests "stock kernel" --skip second_kernel "${skip[@]}"
  if second_kernel_is_there; then
    guests "second kernel" second_kernel "${skip[@]}"
  fi
}

guests() { # NAME ARGUMENT...: of the test binary
  local name=$1
  shift
  cargo_tests "$name" 1200 cargo test --locked -p vdpa --test lab --no-fail-fast -- --test-threads=2 "$@"
}

second_kernel_is_there() {
  if is_beside second-kernel; then
    joined "second kernel" second-kernel
  elif ! tests/lab/kernel --check >>"$LOG" 2>&1; then
    missing "second kernel" "a kernel with iommufd (tests/lab/kernel, after tests/lab/setup)"
    return 1
  fi
}
