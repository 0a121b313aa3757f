# what: every bench, a tiny round: it works, its payloads are right, nothing of ours allocates
# minutes: 2
# quick: no
# shellcheck shell=bash

# No speed is checked: a busy machine is no wrong program.
stage() {
  local file name from why
  check "build" 900 cargo build "${RELEASED[@]}" || return
  for file in benches/*.rs benches/*/main.rs; do
    [ -f "$file" ] || continue
    name=${file#benches/} name=${name%/main.rs} name=${name%.rs}
    check "$name" 120 cargo bench --locked "${BENCHED[@]}" --bench "$name" -- --test
  done
  # Beside strangers, where they are installed.
  from=$(log_size)
  check "vhost_user" 120 cargo bench --locked "${BENCHED[@]}" --bench vhost_user -- --test
  while IFS=$'\t' read -r name why; do
    skip "vhost_user: $name" "$why"
  done < <(log_from "$from" | sed -nE '/^SKIP .*: /{s/^SKIP //;s/: /\t/;p}')
}
