# what: every fuzz target for some seconds from its seeds, with AddressSanitizer; fuzz/ through rustfmt and clippy
# minutes: 5
# quick: no
# shellcheck shell=bash

# The runs are those of some 10 s, and counted: the same seed then tries the same inputs, and who changes nothing about them
# finds nothing new. --full goes by time.
# The package is none of the workspace, and has a lock file and a target directory of its own.
stage() {
  local seconds=10 dir=${CARGO_TARGET_DIR:-target}/fuzz target first=
  local out=$dir/x86_64-unknown-linux-gnu/release
  check "cargo fmt of fuzz/" 60 cargo fmt --manifest-path fuzz/Cargo.toml --check -- --color never
  if ! has_fuzz; then
    missing "fuzz targets" "cargo-fuzz $CARGO_FUZZ, a nightly compiler, a C++ compiler"
    return
  fi
  [ "$EFFORT" != full ] || seconds=30
  check "clippy of fuzz/" 600 env CARGO_TARGET_DIR="$dir" \
    cargo +nightly clippy --manifest-path fuzz/Cargo.toml --locked --all-targets -- -D warnings
  check "build" 900 env CARGO_TARGET_DIR="$dir" cargo +nightly fuzz build || return
  # What was found before is gone on from with --full alone.
  [ "$EFFORT" = full ] || rm -rf "$dir/found"
  mkdir -p "$dir/artifacts" "$dir/found"
  # Two at a time: a target is one thread.
  while IFS= read -r target; do
    if [ -z "$first" ]; then
      first=$target
      continue
    fi
    fuzz_pair "$seconds" "$dir" "$out" "$first" "$target"
    first=
  done < <(fuzz_targets)
  [ -z "$first" ] || fuzz_pair "$seconds" "$dir" "$out" "$first"
}

# The names of the targets.
fuzz_targets() { sed -n '/^\[\[bin\]\]/,/^path/s/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml; }

# Runs one target, or two beside each other; each is a test.
fuzz_pair() { # SECONDS DIR OUT TARGET...
  local seconds=$1 dir=$2 out=$3 target code artifact
  shift 3
  for target in "$@"; do rm -f "$dir/found/$target.code"; done
  # shellcheck disable=SC2016
  bounded $((seconds * 6 + 120)) bash -c '
    seconds=$1 dir=$2 out=$3
    shift 3
    for target in "$@"; do
      mkdir -p "$dir/found/$target" "$dir/artifacts/$target"
      (
        case $target in
          driver_* | device_split | device_packed) runs=150000 ;;
          block_request | restore) runs=60000 ;;
          device_string) runs=30000 ;;
          vhost_user) runs=3000 ;;
          *) runs=15000 ;;
        esac
        [ "$seconds" = 10 ] || runs=-1
        ASAN_OPTIONS=detect_leaks=0 "$out/$target" -runs="$runs" -max_total_time="$((seconds * 6))" -seed=1 -max_len=256 -timeout=30 \
          -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$dir/artifacts/$target/" \
          "$dir/found/$target" "fuzz/corpus/$target" >"$dir/found/$target.log" 2>&1
        echo $? >"$dir/found/$target.code"
      ) &
    done
    wait' fuzz "$seconds" "$dir" "$out" "$@"
  for target in "$@"; do
    code=$(cat "$dir/found/$target.code" 2>/dev/null || echo none)
    grep -h -E '^(Done|stat::number_of_executed_units)' "$dir/found/$target.log" >>"$LOG" 2>/dev/null
    if [ "$code" = 0 ]; then
      pass
      continue
    fi
    grep -h -A4 -E 'panicked at|ERROR: ' "$dir/found/$target.log" | head -n 20 | sed 's/^/   | /'
    artifact=$(find "$dir/artifacts/$target" -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    echo "   $target ended with $code; its input: ${artifact:-none was written}"
    echo "   again: cargo run --manifest-path fuzz/Cargo.toml --example replay -- $target ${artifact:-FILE}"
    fail "$target"
  done
}
