# what: loom models of publication, re-arming, sections, pause and replacement
# minutes: 2
# quick: no
# shellcheck shell=bash

# A model is tests/loom.rs of its crate. Preemptions a model explores: 3 (--full: 5); one that sets its own
# bound says so. Own target directory, since --cfg loom rebuilds every crate; no debug information, since that
# is where the time goes.
stage() {
  local bound=3 manifest package
  [ "$EFFORT" != full ] || bound=5
  while IFS= read -r manifest; do
    [ -f "$(dirname "$manifest")/tests/loom.rs" ] || continue
    package=$(awk -F '"' '/^name *=/ { print $2; exit }' "$manifest")
    cargo_tests "$package" 900 env RUSTFLAGS="--cfg loom ${RUSTFLAGS-}" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/loom" \
      CARGO_PROFILE_RELEASE_DEBUG=none \
      LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-$bound}" \
      cargo test --locked --release -p "$package" --test loom --no-fail-fast --
  done < <(packages)
}
