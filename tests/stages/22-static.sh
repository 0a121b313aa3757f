# what: what a reader would find wrong without building: leftovers, reasons, lengths, links, scripts
# minutes: 0.5
# quick: yes
# shellcheck shell=bash

# Every file of the tree, committed or about to be.
tree() {
  git ls-files --cached --others --exclude-standard 2>/dev/null ||
    find . -name target -prune -o -name .git -prune -o -type f -printf '%P\n'
}
files() { tree | grep -E "$1" | while IFS= read -r file; do [ -f "$file" ] && printf '%s\n' "$file"; done; }
# Rust that ships: not tests, benches, examples, fuzz targets.
shipped() { files '\.rs$' | grep -vE '(^|/)(tests?|benches|examples|fuzz)/|/tests\.rs$'; }

# Passes if nothing came in on standard input; else shows it and fails.
none() { # NAME
  local found
  found=$(cat)
  { echo "$1:"; echo "${found:-  nothing}"; } >>"$LOG"
  if [ -z "$found" ]; then pass; return; fi
  head -n 40 <<<"$found" | sed 's/^/   | /'
  fail "$1"
}

stage() {
  local scripts
  mapfile -t scripts < <(files '(\.sh|\.bash|^tests/(run|coverage|mutate)$|^bindings/c/install$|^\.ci/run)$')
  if command -v shellcheck >/dev/null; then
    check "shellcheck" 60 shellcheck -x "${scripts[@]}"
  else
    missing "shellcheck" shellcheck
  fi
  check "Cargo.lock says what Cargo.toml asks for" 120 cargo metadata --quiet --locked --format-version 1

  # `none` counts, so it must not run in a pipe's subshell: it reads from a process substitution.
  none "code left to be written" < <(shipped | xargs -r grep -nHE 'todo!\(|unimplemented!\(|FIXME|XXX|HACK')
  none "unsafe without a reason of its own" < <(unsafe_without_reason)
  none "lint opened without a reason" < <(opened_without_reason)
  none "ignored test without a reason" < <(files '\.rs$' | xargs -r grep -nHE '#\[ignore\]|\bignore\)\]')
  none "words that don't belong" < <(tree | grep -v '\.lock$' | tr '\n' '\0' |
    xargs -0 -r grep -nHIE "$(home_of_tree)/tm""p/[a-z]|\bLL""M\b|\bAI assis""tant\b|target-cpu=nat""ive" 2>/dev/null)
  none "names that say nothing" < <(files '(^|/)(utils?|common|helpers?|misc)(\.rs$|/)')
  none "getters with a prefix" < <(shipped | xargs -r grep -nHE '\bfn get_')
  none "examples over 120 lines" < <(longer_than 120 < <(files '^examples/[^/]+\.rs$'))
  none "links to files that are not there" < <(dead_links)
  none "stages that docs/testing.md does not name" < <(unnamed_stages)
  long_files
}

# The directory that the tree stands in, as a pattern and a bar, unless it is one of the system's own.
home_of_tree() {
  local home
  home=$(dirname "$ROOT")
  case $home in
    / | /tm[p] | /usr* | /opt* | /dev* | /sys* | /var* | /run*) ;;
    *) printf '%s/|' "$home" ;;
  esac
}

# A file of shipped code whose `unsafe`s outnumber its reasons.
unsafe_without_reason() {
  local file count reasons
  shipped | while IFS= read -r file; do
    count=$(grep -vE '^\s*//' "$file" | sed 's/"[^"]*"//g' | grep -cE '\bunsafe( |$)')
    reasons=$(grep -cE 'SAFETY|# Safety' "$file")
    [ "$count" -le "$reasons" ] || echo "$file: $count unsafe, $reasons reasons"
  done
}

# `allow` of a lint that the workspace denies needs `reason = "..."` or a comment on the line above.
opened_without_reason() {
  # shellcheck disable=SC2016 # awk's own variables
  shipped | xargs -r awk '
    FNR == 1 { above = "" }
    /#!?\[(allow|expect)\(/ { at = FNR; whole = ""; ok = (above ~ /^[ \t]*\/\//) }
    at { whole = whole $0; if (/\]/) {
      if (!ok && whole !~ /reason *=/ && whole !~ /"/) print FILENAME ":" at ": " whole
      at = 0 } }
    { above = $0 }'
}

longer_than() { # LINES; file names on standard input
  local file lines
  while IFS= read -r file; do
    lines=$(wc -l <"$file")
    [ "$lines" -le "$1" ] || echo "$file: $lines lines"
  done
}

# Relative links of Markdown files, without their anchors.
dead_links() {
  local file link
  # shellcheck disable=SC2016 # fences, not commands
  files '\.md$' | while IFS= read -r file; do
    sed '/^ *```/,/^ *```/d' "$file" | grep -oE '\]\([^)# ]+' | cut -c3- | grep -v : | while IFS= read -r link; do
      [ -e "$(dirname "$file")/$link" ] || echo "$file: $link"
    done
  done
}

unnamed_stages() {
  local name
  list | awk '{ print $1 }' | while IFS= read -r name; do
    grep -q "^| \`$name\`" docs/testing.md || echo "$name"
  done
}

# Not a failure: a long file may have one reason to exist.
long_files() {
  local long
  long=$(longer_than 600 < <(shipped))
  [ -z "$long" ] || printf '   note: over 600 lines:\n%s\n' "$long"
}
