# what: SPIN models of event suppression: no notification is lost, and each is lost without what prevents it
# minutes: 3
# quick: no
# shellcheck shell=bash

# docs/models: both formats, both directions, with EVENT_IDX and with flags. --full: the packed ring's two directions
# at once also in a ring of three slots, and without end with events; each fence missing by itself.
stage() {
  local format event form broken
  if ! command -v spin >/dev/null || ! command -v cc >/dev/null; then
    missing "split, packed" "spin, cc"
    return
  fi
  for format in split packed; do
    for event in "" -DEVENT_IDX; do
      for form in "" -DCALLS "-DLOOP -DSIZE=2"; do
        model holds "$format" "$event $form"
      done
      # The packed one with events visits ten million states.
      if [ "$EFFORT" = full ] || [ "$format$event" != packed-DEVENT_IDX ]; then
        model progresses "$format" "$event -DLOOP -DSIZE=2"
      fi
      for form in "" -DCALLS; do
        for broken in NO_FENCE NO_FENCE_PRODUCER NO_FENCE_CONSUMER NO_SECOND_LOOK; do
          model lost "$format" "$event $form -D$broken"
        done
      done
    done
    for form in "" -DCALLS; do
      for broken in NAIVE_EVENT_TEST STALE_EVENT; do
        model lost "$format" "-DEVENT_IDX $form -D$broken"
      done
    done
  done
  for form in "" -DCALLS; do
    model holds packed "-DEVENT_IDX -DANY_ORDER $form"
  done
  model torn packed -DSHOW_FIRST
  [ "$EFFORT" = full ] || return 0
  for event in "" -DEVENT_IDX; do
    model holds packed "$event -DLOOP"
    for format in split packed; do
      for broken in NO_FENCE_DRIVER_PUBLISH NO_FENCE_DEVICE_COMMIT NO_FENCE_DRIVER_ARM NO_FENCE_DEVICE_ARM; do
        model lost "$format" "$event -DLOOP -DSIZE=2 -D$broken"
      done
    done
  done
}

model() { # EXPECTED FORMAT OPTIONS
  local options
  read -ra options <<<"$3"
  check "$2 ${options[*]}: $1" 600 docs/models/check.sh "$1" "$2" "${options[@]}"
}
