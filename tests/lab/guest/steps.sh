# What scripts of a guest have: `. /lab/steps.sh`. The test reads what `step` prints, step by step.
# shellcheck shell=sh

# Runs a command: a line with its name, what it prints, what it prints on standard error, and how it ended.
step() { # NAME COMMAND...
  echo "@step $1"
  shift
  "$@" 2>/run/errors
  code=$?
  printf '\n@errors\n'
  cat /run/errors
  printf '\n@end %d\n' "$code"
  return $code
}

# The function behind a port of the root: its buses have the numbers that the firmware finds best.
behind() { # SLOT [FUNCTION]
  for at in /sys/bus/pci/devices/"0000:00:$1.0"/0000:*:*."${2-0}"; do echo "${at##*/}"; done
}

driver_of() { # FUNCTION
  at=$(readlink "/sys/bus/pci/devices/$1/driver") && echo "${at##*/}" || echo none
}

# What VFIO needs, and the drivers whose functions are taken from them; nothing where they are built in.
load() {
  for module in virtio-iommu vfio-pci vfio_iommu_type1 virtio_net virtio_blk; do modprobe "$module" 2>/dev/null; done
  return 0
}

# Says a line to the test, which may wait for it.
tell() { echo "@tell $*"; }

# Waits for a line of the test's.
hear() { read -r heard </dev/ttyS1 && [ "$heard" = "$1" ]; }
