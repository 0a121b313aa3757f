# what: Miri on guest memory and rings: undefined behaviour, races, provenance
# minutes: 5
# quick: no
# shellcheck shell=bash

# Isolation is off since proptest asks for the working directory and tests for the time.
# --full: other seeds are other interleavings, weak-memory outcomes and addresses.
stage() {
  local seed seeds=(0)
  if ! has_miri; then
    missing "vdpa-mem, vdpa-ring" "components miri, rust-src"
    return
  fi
  [ "$EFFORT" != full ] || seeds=(0 1 2 3 4 5 6 7)
  for seed in "${seeds[@]}"; do
    cargo_tests "seed $seed" 900 env MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-seed=$seed ${MIRIFLAGS-}" \
      cargo +nightly miri test --locked -p vdpa-mem -p vdpa-ring --no-fail-fast --
  done
}
