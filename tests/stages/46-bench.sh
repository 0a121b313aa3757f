# what: every bench, a tiny round: it works, its payloads are right, nothing of ours allocates
# minutes: 2
# quick: no
# shellcheck shell=bash

# No speed is checked: a busy machine is no wrong program.
stage() {
  local file name
  check "build" 900 cargo build --locked --profile bench --benches || return
  for file in benches/*.rs benches/*/main.rs; do
    [ -f "$file" ] || continue
    name=${file#benches/} name=${name%/main.rs} name=${name%.rs}
    check "$name" 120 cargo bench --locked --bench "$name" -- --test
  done
}
