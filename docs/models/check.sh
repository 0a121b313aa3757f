#!/usr/bin/env bash
# One run of a model, in a directory of its own that is removed behind it:
#
#   docs/models/check.sh holds MODEL [-DOPTION...]       the whole state space, without an error
#   docs/models/check.sh progresses MODEL [-DOPTION...]  no run without progress, if nobody is passed over for ever
#   docs/models/check.sh lost MODEL [-DOPTION...]        a lost notification is found
#   docs/models/check.sh torn MODEL [-DOPTION...]        a chain that is taken in part is found
#
# MODEL is `split` or `packed`; its head says which options there are. Exit: 0 if it is as said.
set -uo pipefail

usage() { sed -n '4,9s/^# \{0,3\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
expected=$1 model=$(cd "$(dirname "$0")" && pwd)/$2.pml
shift 2
[ -r "$model" ] || usage

case $expected in
  holds) build=(-O2 -DSAFETY -DNOCLAIM) how=() verdict='errors: 0' ;;
  progresses) build=(-O2 -DNP -DNFAIR=3) how=(-l -f) verdict='errors: 0' ;;
  lost) build=(-O1 -DSAFETY -DNOCLAIM) how=() verdict='assertion violated +!\(+asleep' ;;
  torn) build=(-O1 -DSAFETY -DNOCLAIM) how=() verdict='assertion violated +\(\(seen&3\)==' ;;
  *) usage ;;
esac

mkdir -p "${CARGO_TARGET_DIR:=target}"
room=$(mktemp -d "$(realpath "$CARGO_TARGET_DIR")/model.XXXXXX") || exit 1
trap 'rm -rf "$room"' EXIT
cd "$room" || exit 1
spin -a "$@" "$model" >spin.log 2>&1 || { head -n 5 spin.log; exit 1; }
# Collapsed states are whole ones, kept in less memory. 4 GB is more than any run here takes.
cc -w "${build[@]}" -DCOLLAPSE -DMEMLIM=4000 -o pan pan.c || exit 1
# 2 million steps deep; a search that would go deeper counts as none.
./pan -m2000000 "${how[@]}" >pan.log 2>&1
grep -E 'assertion violated|non-progress cycle|invalid end state \(|states, stored|depth reached|elapsed time' pan.log
if [ "$verdict" = 'errors: 0' ] && grep -qE 'not completed|depth too small|out of memory|memory limit' pan.log; then
  echo "not the whole state space"
  exit 1
fi
grep -qE "$verdict" pan.log || { echo "expected: $expected"; exit 1; }
