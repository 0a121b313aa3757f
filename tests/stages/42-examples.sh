# what: every example, release, with stdin closed, exits 0
# minutes: 0.5
# quick: yes
# shellcheck shell=bash

stage() {
  local file name
  check "build" 900 cargo build --locked --release --examples || return
  for file in examples/*.rs examples/*/main.rs; do
    [ -f "$file" ] || continue
    name=${file#examples/} name=${name%/main.rs} name=${name%.rs}
    check "$name" 30 "$CARGO_TARGET_DIR/release/examples/$name"
  done
}
