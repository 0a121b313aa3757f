# what: the kernel's stack against our driver: ping, TCP, UDP through a tap and a simulated card
# minutes: 3
# quick: no
# shellcheck shell=bash

# Not among the tests that `cargo test` finds by itself (`test = false` in Cargo.toml), so its lints are looked at here.
stage() {
  check "clippy" 300 cargo clippy --locked -p vdpa --test kernel -- -D warnings
  cargo_tests "kernel" 600 cargo test --locked -p vdpa --test kernel --no-fail-fast --
}
