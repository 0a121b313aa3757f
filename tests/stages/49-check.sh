# what: `vdpactl check`: the simulated devices keep every statement that applies to them
# minutes: 3
# quick: no
# shellcheck shell=bash

# Meant to take under 30 s a device; the seconds are printed, and no test fails for them.
stage() {
  local spec disk=$CARGO_TARGET_DIR/check.img
  check "build" 900 cargo build --locked --release --bin vdpactl || return
  truncate -s 16M "$disk"
  for spec in sim:net sim:net,queue_pairs=4,queue_size=100 sim:blk sim:blk,ro=on "sim:blk,file=$disk,queues=2" sim:rng; do
    judge "$spec" full
  done
  # What stands around a device changes nothing.
  judge sim:net,fault=kick.lost:0,seed=1 quick
  judge sim:net,trace=error quick
  rm -f "$disk"
}

judge() { # SPEC EFFORT
  local began=$EPOCHREALTIME
  check "$1, $2" 120 "$CARGO_TARGET_DIR/release/vdpactl" check "$1" --effort "$2"
  awk -v a="$began" -v b="$EPOCHREALTIME" -v s="$1" 'BEGIN { printf "   %s took %.1f s\n", s, b - a }'
}
