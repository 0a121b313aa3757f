# What line coverage and mutants are counted over: the code that stands between a peer and the rest.
# shellcheck shell=bash

# Its crates, whose own tests count.
export JUDGED_PACKAGES="vdpa-mem vdpa-ring vdpa-core vdpa-sim"

# The rings and guest memory; what the core checks before a parent is called; what the simulator reads of a driver's.
# Globs of paths, whose files end in .rs; tests beside the code are not meant.
export JUDGED_FILES="
  vdpa-mem/src/**/*.rs
  vdpa-ring/src/**/*.rs
  vdpa-core/src/{config,features,graph,image,spec,status}/**/*.rs
  vdpa-core/src/{features,graph,image,spec,status}.rs
  vdpa-core/src/device/{checks,config}.rs
  vdpa-sim/src/{blk,net}/config.rs
  vdpa-sim/src/blk/request.rs
  vdpa-sim/src/net/{control,filter,hashing,coalesce}.rs
  vdpa-sim/src/offload/*.rs
"

# The files, of the tree.
judged_files() {
  local globs pattern
  read -ra globs -d '' <<<"$JUDGED_FILES"
  # A pattern a glob.
  pattern=$(printf '^%s$\n' "${globs[@]}" | sed -e 's/\./\\./g' -e 's|\*\*/|@|g' -e 's|\*|[^/]*|g' -e 's|@|(.*/)?|g' \
    -e '/{/s/,/|/g' -e 's/{/(/g; s/}/)/g')
  git ls-files '*.rs' | grep -E "$pattern" | grep -vE '(^|/)tests\.rs$|/tests/'
}
