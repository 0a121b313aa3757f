# what: rustfmt has nothing to change
# minutes: 0.5
# quick: yes
# shellcheck shell=bash

stage() { check "cargo fmt" 60 cargo fmt --all --check -- --color never; }
