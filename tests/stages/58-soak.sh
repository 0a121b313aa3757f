# what: traffic through devices that are reset, moved, paused and cut off all the while: nothing is lost, doubled or altered
# minutes: 3
# quick: no
# shellcheck shell=bash

# Every ring format, with mergeable buffers and without, EVENT_IDX and INDIRECT_DESC: each combination comes in its turn.
stage() {
  check "build" 900 cargo build --locked --release || return
  local vdpactl=${CARGO_TARGET_DIR:-target}/release/vdpactl
  check "card" 120 "$vdpactl" soak sim:net --packets 1000000 --seed 1
  check "card, pairs" 120 "$vdpactl" soak sim:net,queue_pairs=4,workers=2 --packets 500000 --seed 2
  check "card, sleepy" 120 "$vdpactl" soak sim:net,queue_pairs=2,poll_us=0 --packets 200000 --seed 3
  check "disk" 120 "$vdpactl" soak sim:blk --packets 200000 --seed 1
  check "disk, queues" 120 "$vdpactl" soak sim:blk,size=8M,queues=4,workers=2 --packets 100000 --seed 2
}
