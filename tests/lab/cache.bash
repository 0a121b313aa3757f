# Where the lab keeps what it made, and under which names. Sourced by setup, kernel and boot.
# shellcheck shell=bash

# shellcheck disable=SC2034
LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_CACHE=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vdpa-lab}

# No script of the lab ends without a word.
told() { trap 'echo "${BASH_SOURCE[0]}: line $LINENO has failed" >&2' ERR; }

# What a guest starts from is named by what it was made of: a change of any of these, and it is made anew.
key() { # FILE-OR-WORD...
  local part
  for part in "$@"; do
    if [ -f "$part" ]; then cat "$part"; else printf '%s\n' "$part"; fi
  done | sha256sum | cut -c1-16
}

# The kernel package of this system, as its lists have it now: linux-image-6.12.N+deb12-amd64. Nothing when they have none.
stock_package() {
  local meta name
  for meta in linux-image-6.12-amd64 linux-image-amd64; do
    name=$(apt-cache depends "$meta" 2>/dev/null | sed -n '0,/^ *Depends: linux-image-[0-9]/s/^ *Depends: \(linux-image-[0-9].*\)$/\1/p')
    if [ -n "$name" ]; then
      echo "$name"
      return
    fi
  done
}

# The package with the kernel's source, and the version that would be installed.
source_package() {
  local name version
  for name in linux-source-6.12 linux-source; do
    version=$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    if [ -n "$version" ] && [ "$version" != "(none)" ]; then
      echo "$name=$version"
      return
    fi
  done
}

# Fetches packages into the working directory and unpacks them under ROOT; nothing is installed.
unpack() { # ROOT PACKAGE...
  local root=$1 package
  shift
  apt-get download -qq -o APT::Sandbox::User=root "$@"
  for package in ./*.deb; do
    dpkg-deb -x "$package" "$root"
    rm "$package"
  done
}

# A directory beside NAME to make it in. It becomes NAME when all of it is there, so that half of it is never found.
begin() { # NAME
  mkdir -p "$LAB_CACHE"
  making=$(mktemp -d "$LAB_CACHE/making.XXXXXX")
  trap 'rm -rf "$making"' EXIT
  chmod 755 "$making"
  name=$1
}
finish() {
  rm -rf "${LAB_CACHE:?}/$name"
  mv "$making" "$LAB_CACHE/$name"
}

# The initramfs of a kernel that is there; it has a key of its own, since it costs a second and a kernel minutes.
pack() { # NAME MODULE...
  local at=$LAB_CACHE/$1 want
  shift
  want=$(key "$*" "$LAB"/{initramfs,guest/init})
  [ "$(cat "$at/initramfs.key" 2>/dev/null)" != "$want" ] || return 0
  "$LAB/initramfs" "$at/root" "$LAB_CACHE/stock/busybox" "$at/initramfs.new" "$@"
  mv "$at/initramfs.new" "$at/initramfs.cpio"
  echo "$want" >"$at/initramfs.key"
}

# Only the newest of a kind is kept, and has the kind's name.
keep() { # KIND NAME
  local old
  ln -sfn "$2" "$LAB_CACHE/$1"
  for old in "$LAB_CACHE/$1"-*; do
    [ "$old" = "$LAB_CACHE/$2" ] || [ ! -d "$old" ] || rm -rf "$old"
  done
}
