# The ledger of a run: runs commands under a time limit, counts what passed, failed and was skipped,
# and writes it down. Sourced by tests/run; the stages use `check`, `cargo_tests`, `skip`, `missing`.
# shellcheck shell=bash

# A reason that starts so is one that an installation would mend; with CI=true such a skip is a failure.
INSTALLABLE='not installed: '
# Seconds from the start that a run is meant to take at most, and after which nothing more is started and what runs is
# stopped: a busy machine is no wrong program.
declare -A run_budgets=([quick]=480 [normal]=3600 [full]=36000)
declare -A run_limits=([quick]=3000 [normal]=5100 [full]=36000)
run_started=$SECONDS
all_passed=0 all_failed=0 all_skipped=0
all_failures=() all_skips=() stages_json=
# What runs beside the stages, by name: the processes.
declare -A beside=()
# Install steps that were tried and refused, where a stage has a second way; its skip then is no installable one.
export REFUSED=

open_ledger() { # DIR: tests.json and the logs go there
  ledger_dir=$1 child=
  mkdir -p "$ledger_dir/tests"
  rm -f "$ledger_dir/tests.json" "$ledger_dir"/tests/*.log
  trap 'kill_child; exit 130' INT TERM
}

# `timeout` leads its own process group, so that what it started dies with it.
kill_child() {
  local one
  for one in $child "${beside[@]}"; do kill -TERM "$one" 2>/dev/null; done
}

begin_stage() { # NAME MINUTES WHAT
  STAGE=$1 stage_minutes=$2 stage_began=$EPOCHREALTIME
  LOG=$ledger_dir/tests/$1.log
  passed=0 failed=0 failures=() skips=() skips_json=
  : >"$LOG"
  printf '\n== %s: %s\n' "$1" "$3"
}

end_stage() {
  local seconds
  seconds=$(awk -v a="$stage_began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  printf '   %d passed, %d failed, %d skipped; %s s\n' "$passed" "$failed" "${#skips[@]}" "$seconds"
  awk -v s="$seconds" -v m="$stage_minutes" 'BEGIN { exit !(s > m * 60) }' &&
    printf '   warning: over its budget of %s min\n' "$stage_minutes"
  all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed))
  all_skipped=$((all_skipped + ${#skips[@]}))
  all_failures+=("${failures[@]/#/$STAGE: }") all_skips+=("${skips[@]/#/$STAGE: }")
  stages_json+=${stages_json:+,}$(printf '\n{"name":%s,"seconds":%s,"passed":%d,"failed":%d,"skipped":[%s]}' \
    "$(json "$STAGE")" "$seconds" "$passed" "$failed" "$skips_json")
}

# Writes tests.json, prints a warning for what took too long, the failures, the skips and the last line; the exit code of the run.
close_ledger() {
  kill_child
  printf '{"stages":[%s\n]}\n' "$stages_json" >"$ledger_dir/tests.json"
  printf '\nall of it: %d s\n' "$((SECONDS - run_started))"
  [ "$((SECONDS - run_started))" -le "${run_budgets[$EFFORT]}" ] ||
    printf '   warning: over its budget of %d min\n' "$((run_budgets[$EFFORT] / 60))"
  if [ ${#all_failures[@]} -gt 0 ]; then printf '\nfailed:\n'; printf '  %s\n' "${all_failures[@]}"; fi
  if [ ${#all_skips[@]} -gt 0 ]; then printf '\nskipped:\n'; printf '  %s\n' "${all_skips[@]}"; fi
  printf '\n%d passed, %d failed, %d skipped\n' "$all_passed" "$all_failed" "$all_skipped"
  [ "$all_failed" -eq 0 ]
}

json() { # STRING: as a JSON string
  local s=${1//\\/\\\\}
  s=${s//\"/\\\"} s=${s//$'\t'/ }
  printf '"%s"' "$(tr -d '\000-\037' <<<"$s")"
}

pass() { passed=$((passed + 1)); }
fail() { # NAME: one failure, already explained on the screen or in the log
  failed=$((failed + 1))
  failures+=("$1")
  printf '   FAILED %s\n' "$1"
}
skip() { # NAME REASON
  if [ "${CI-}" = true ] && [[ $2 == "$INSTALLABLE"* ]]; then
    fail "$1 ($2; a skip that an installation would mend is a failure with CI=true)"
    return
  fi
  skips+=("$1: $2")
  skips_json+=${skips_json:+,}"{\"test\":$(json "$1"),\"reason\":$(json "$2")}"
  printf '   SKIP %s: %s\n' "$1" "$2"
}
missing() { skip "$1" "$INSTALLABLE$2"; } # NAME WHAT

# Runs a command with its output in the stage's log. 124: out of time.
bounded() { # SECONDS COMMAND...
  local limit=$1 left code
  shift
  left=$((run_limits[$EFFORT] - (SECONDS - run_started)))
  if [ "$left" -le 0 ]; then
    echo "the run's ${run_limits[$EFFORT]} s are used up; not started: $*" >>"$LOG"
    return 124
  fi
  [ "$limit" -le "$left" ] || limit=$left
  echo "\$ $*" >>"$LOG"
  timeout -k 10 "$limit" "$@" >>"$LOG" 2>&1 &
  child=$!
  wait "$child"
  code=$? child=
  [ "$code" -ne 124 ] || echo "stopped after $limit s: $*" >>"$LOG"
  return "$code"
}

# A command that runs beside the stages, on what processor time they leave, with a log of its own, until a stage waits
# for it. It has what is left of the run.
begin_beside() { # NAME COMMAND...
  local name=$1
  shift
  timeout -k 10 "$((run_limits[$EFFORT] - (SECONDS - run_started)))" chrt -i 0 nice -n 19 "$@" \
    >"$ledger_dir/tests/$name.log" 2>&1 &
  beside[$name]=$!
}
is_beside() { [ -n "${beside[$1]-}" ]; } # NAME

# Waits for it; a test.
joined() { # TEST NAME
  local code
  wait "${beside[$2]}"
  code=$?
  unset "beside[$2]"
  cat "$ledger_dir/tests/$2.log" >>"$LOG"
  if [ "$code" -eq 0 ]; then pass; return 0; fi
  tail -n 60 "$ledger_dir/tests/$2.log" | sed 's/^/   | /'
  fail "$1"
  return 1
}

# The log from byte $1 on; on a failure its last 60 lines are shown.
log_size() { stat -c %s "$LOG"; }
log_from() { tail -c "+$(($1 + 1))" "$LOG"; }
show_from() { # what passed is left out
  log_from "$1" | awk '/^successes:$/ { hide = 1 } /^(failures:|test result:)/ { hide = 0 } !hide && !/^test .* \.\.\. ok$/' |
    tail -n 60 | sed 's/^/   | /'
}

# One command, one test.
check() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 from code
  shift 2
  from=$(log_size)
  bounded "$limit" "$@"
  code=$?
  if [ "$code" -eq 0 ]; then pass; return 0; fi
  show_from "$from"
  [ "$code" -ne 124 ] || name+=" (out of time)"
  fail "$name"
  return 1
}

# A `cargo test`: counts its tests. An ignored test, and one that printed `SKIP name: reason`, is a skip.
# A test binary that ended without its result line, and a build that failed, is a failure.
cargo_tests() { # NAME SECONDS COMMAND... (with the arguments of the test binaries after --)
  local name=$1 limit=$2 from code counts ok bad started ended skipped_of test why named=0
  shift 2
  from=$(log_size)
  bounded "$limit" "$@" --show-output
  code=$?
  counts=$(log_from "$from" | awk '
    /^test result: / { ended++; for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) ok += $(i-1); if ($i ~ /^failed/) bad += $(i-1) } }
    /^ +(Running|Doc-tests) / { started++ }
    /^---- .* stdout ----$/ { block = NR }
    /^SKIP / && block && !(block in seen) { seen[block]; skipped++ }
    END { print ok + 0, bad + 0, started + 0, ended + 0, skipped + 0 }')
  read -r ok bad started ended skipped_of <<<"$counts"
  passed=$((passed + ok - skipped_of))
  # "test a::b ... ignored, why" and "SKIP a::b: why" both become "a::b<tab>why".
  while IFS=$'\t' read -r test why; do
    skip "$name: $test" "${why:-no reason given}"
  done < <(log_from "$from" | sed -nE \
    -e 's/^test (.*) \.\.\. ignored(, (.*))?$/\1\t\3/p' \
    -e '/^SKIP .*: /{s/^SKIP //;s/: /\t/;p}')
  while IFS= read -r test; do
    named=$((named + 1))
    fail "$name: $test"
  done < <(log_from "$from" | sed -nE 's/^test (.*) \.\.\. FAILED.*$/\1/p')
  [ "$code" -ne 0 ] || return 0
  if [ "$code" -eq 124 ]; then
    fail "$name: out of time"
  elif [ "$started" -gt "$ended" ] || [ "$bad" -eq 0 ]; then
    fail "$name: did not build, or a test binary died"
  elif [ "$bad" -gt "$named" ]; then
    fail "$name: $bad failed, $named of them named"
  fi
  show_from "$from"
  return 1
}

# --- what several stages ask ---

# Debian 12 or later; testing and unstable carry no number.
debian_root() {
  [ "$(id -u)" -eq 0 ] && [ -r /etc/os-release ] || return 1
  (
    # shellcheck source=/dev/null
    . /etc/os-release
    [ "${ID-}" = debian ] && [ "${VERSION_ID:-99}" -ge 12 ]
  )
}

# The lab's second kernel takes minutes: it is made beside the stages, where it may be made at all.
begin_second_kernel() {
  if [ "$INSTALL" = yes ] && debian_root && ! is_beside second-kernel; then
    begin_beside second-kernel tests/lab/kernel
  fi
}

# What tests and benches have of release, built in one way by whoever needs it: with other packages or targets named,
# features differ, and all of it is built again.
BENCHED=(-p vdpa -p vdpa-export)
# shellcheck disable=SC2034
RELEASED=(--locked --release "${BENCHED[@]}" --bins --examples --benches)

# A target without an operating system, where only `no_std` code builds.
BARE_TARGET=x86_64-unknown-none
has_target() { rustup target list --installed 2>/dev/null | grep -qx "$BARE_TARGET"; }
has_miri() {
  cargo +nightly miri --version >/dev/null 2>&1 &&
    [ -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]
}
# The version of cargo-fuzz that the `install` stage installs.
CARGO_FUZZ=0.13.2
has_fuzz() {
  cargo +nightly --version >/dev/null 2>&1 && command -v c++ >/dev/null &&
    cargo fuzz --version 2>/dev/null | grep -qx "cargo-fuzz $CARGO_FUZZ"
}
minimum_rust() { awk -F '"' '/^rust-version *=/ { print $2; exit }' Cargo.toml; }
# The manifests of the workspace: the root's, and each member's.
packages() {
  echo Cargo.toml
  sed -n '/^members *=/{:more;/\]/!{N;b more};p}' Cargo.toml | grep -oE '"[^"]+"' | tr -d '"' | sed 's|$|/Cargo.toml|'
}
