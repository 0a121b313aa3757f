# what: no features, each alone (--full: every set), clippy and tests; ring and memory with no std
# minutes: 9
# quick: no
# shellcheck shell=bash

# The names in the [features] table of a manifest, `default` aside.
features_of() { # MANIFEST
  awk '/^\[/ { in_table = ($0 == "[features]") } in_table && /^[a-z][a-z0-9_-]* *=/ { print $1 }' "$1" | grep -v '^default$'
}

# The sets to try, one a line, comma separated; the empty line is none.
feature_sets() { # MANIFEST
  local names count set bits i
  mapfile -t names < <(features_of "$1")
  echo
  if [ "$EFFORT" != full ]; then
    [ ${#names[@]} -eq 0 ] || printf '%s\n' "${names[@]}"
    return
  fi
  count=$((1 << ${#names[@]}))
  for ((bits = 1; bits < count; bits++)); do
    set=
    for ((i = 0; i < ${#names[@]}; i++)); do
      (((bits >> i) & 1)) && set+=${set:+,}${names[i]}
    done
    echo "$set"
  done
}

stage() {
  local manifest package features
  while IFS= read -r manifest; do
    # A package without features has only the set that the unit stage tests.
    [ -n "$(features_of "$manifest")" ] || continue
    package=$(awk -F '"' '/^name *=/ { print $2; exit }' "$manifest")
    while IFS= read -r features; do
      check "clippy $package [${features:-no features}]" 600 \
        cargo clippy --locked -p "$package" --no-default-features --features "$features" -- -D warnings
      cargo_tests "$package [${features:-no features}]" 600 \
        cargo test --locked -p "$package" --lib --tests --no-fail-fast --no-default-features --features "$features" --
    done < <(feature_sets "$manifest")
  done < <(packages)

  if has_target; then
    check "vdpa-mem for $BARE_TARGET" 300 \
      cargo build --locked -p vdpa-mem --no-default-features --target "$BARE_TARGET"
    check "vdpa-ring for $BARE_TARGET" 300 cargo build --locked -p vdpa-ring --target "$BARE_TARGET"
  else
    missing "vdpa-mem and vdpa-ring for $BARE_TARGET" "target $BARE_TARGET"
  fi
}
