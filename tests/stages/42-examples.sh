# what: every example, release (--quick: debug), with stdin closed, exits 0
# minutes: 0.5
# quick: yes
# shellcheck shell=bash

stage() {
  local file name built=(--locked --workspace --examples) profile=debug
  [ "$EFFORT" = quick ] || built=("${RELEASED[@]}") profile=release
  check "build" 900 cargo build "${built[@]}" || return
  for file in examples/*.rs examples/*/main.rs; do
    [ -f "$file" ] || continue
    name=${file#examples/} name=${name%/main.rs} name=${name%.rs}
    check "$name" 30 "$CARGO_TARGET_DIR/$profile/examples/$name"
  done
}
