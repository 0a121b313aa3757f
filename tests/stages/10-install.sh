# what: Debian packages, toolchains, targets and components that the other stages use
# minutes: 6
# quick: no
# shellcheck shell=bash

# An attempt that fails or runs into its limit is made twice more; then the step fails with its name.
# (SOFT=yes: a step whose stage has a second way; that stage reports it.)
install() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 from attempt
  shift 2
  from=$(log_size)
  for attempt in 1 2 3; do
    if bounded "$limit" "$@"; then pass; return; fi
    echo "   $name: attempt $attempt failed"
    sleep "$attempt"
  done
  if [ "${SOFT-}" = yes ]; then
    REFUSED+=" $name"
    return
  fi
  show_from "$from"
  fail "$name"
}

stage() {
  local may=no packages=() toolchain
  [ "$INSTALL" = yes ] && debian_root && may=yes

  command -v cc >/dev/null || packages+=(gcc libc6-dev)
  command -v c++ >/dev/null || packages+=(g++)
  command -v git >/dev/null || packages+=(git)
  command -v shellcheck >/dev/null || packages+=(shellcheck)
  command -v ip >/dev/null || packages+=(iproute2)
  command -v ping >/dev/null || packages+=(iputils-ping)
  command -v spin >/dev/null || packages+=(spin)
  command -v mdevctl >/dev/null || packages+=(mdevctl)
  command -v pkg-config >/dev/null || packages+=(pkg-config)
  command -v valgrind >/dev/null || packages+=(valgrind)
  # Strangers on both sides of vhost-user, and what guests take along.
  command -v ethtool >/dev/null || packages+=(ethtool)
  command -v dpdk-testpmd >/dev/null || packages+=(dpdk-dev)
  command -v ovs-vswitchd >/dev/null || packages+=(openvswitch-switch-dpdk)
  command -v qemu-storage-daemon >/dev/null || packages+=(qemu-utils)
  command -v virt-xml-validate >/dev/null || packages+=(libvirt-clients)
  command -v xmllint >/dev/null || packages+=(libxml2-utils)
  command -v mkfs.ext4 >/dev/null || packages+=(e2fsprogs)
  if [ ${#packages[@]} -gt 0 ]; then
    if [ $may = yes ]; then
      export DEBIAN_FRONTEND=noninteractive
      install "package lists" 120 apt-get -q -o DPkg::Lock::Timeout=60 update
      install "packages ${packages[*]}" 300 apt-get -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 install "${packages[@]}"
    else
      echo "   missing packages: ${packages[*]}"
    fi
  fi

  # First of all what takes longest. Without the lab's stage nobody asks for it.
  if [ $may = yes ] && [ "$(uname -m)" = x86_64 ] && selected tests/stages/60-lab.sh; then
    install "lab" 600 tests/lab/setup
    begin_second_kernel
  fi
  # What the bindings' numbers are held to beside the system's headers.
  [ $may = no ] || SOFT=yes install "kernel headers" 180 bindings/uapi/tests/headers/fetch

  if ! command -v rustup >/dev/null; then
    echo "   toolchains, targets and Miri come by rustup: https://rustup.rs"
    missing "install" rustup
    return
  fi
  toolchain=$(minimum_rust)
  rust_piece "component clippy, rustfmt" "$may" 120 "cargo clippy --version && cargo fmt --version" \
    rustup component add clippy rustfmt
  rust_piece "target $BARE_TARGET" "$may" 120 "has_target" rustup target add "$BARE_TARGET"
  rust_piece "toolchain nightly" "$may" 240 "cargo +nightly --version" \
    rustup toolchain install nightly --profile minimal --no-self-update
  rust_piece "components miri, rust-src" "$may" 180 "has_miri" \
    rustup component add --toolchain nightly miri rust-src
  rust_piece "cargo-fuzz $CARGO_FUZZ" "$may" 300 "has_fuzz" \
    cargo install cargo-fuzz --version "$CARGO_FUZZ" --locked
  SOFT=yes rust_piece "toolchain $toolchain" "$may" 120 "cargo +$toolchain --version" \
    rustup toolchain install "$toolchain" --profile minimal --no-self-update
  [ $may = no ] || install "crates" 240 cargo fetch --locked
  [ $may = no ] || install "crates of fuzz/" 120 cargo fetch --locked --manifest-path fuzz/Cargo.toml
}

# Does nothing if the probe succeeds; else installs, if that is allowed, or says what is missing.
rust_piece() { # NAME MAY SECONDS PROBE COMMAND...
  local name=$1 may=$2 limit=$3 probe=$4
  shift 4
  if eval "$probe" >>"$LOG" 2>&1; then return; fi
  if [ "$may" = yes ]; then install "$name" "$limit" "$@"; else echo "   missing: $name ($*)"; fi
}
