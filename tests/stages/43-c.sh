# what: the C interface, installed: header, symbols, calls, constants and layouts; its example and its tests, in valgrind and AddressSanitizer
# minutes: 3
# quick: no
# shellcheck shell=bash

# All is built as somebody else would, against a prefix and by pkg-config. Debug, so that overflows and assertions count.
stage() {
  local root=$CARGO_TARGET_DIR/c lib name program strict uses archive
  for program in cc pkg-config objdump; do
    command -v "$program" >/dev/null || { missing "c" "$program"; return; }
  done
  rm -rf "$root"
  mkdir -p "$root"
  check "install" 900 bindings/c/install --prefix "$root/prefix" --profile dev || return
  lib=$root/prefix/lib
  # Built already, and to be used elsewhere than where it is put.
  check "install for a package" 300 bindings/c/install --prefix /usr --libdir /usr/lib/here --destdir "$root/dest" --profile dev &&
    check "only the place of use is in vdpa.pc" 10 grep -qx "libdir=/usr/lib/here" "$root/dest/usr/lib/here/pkgconfig/vdpa.pc"
  rm -rf "$root/dest"

  read -ra uses < <(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --cflags --libs vdpa)
  # What the archive needs in turn; the archive itself in place of the shared library.
  read -ra archive < <(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --static --cflags --libs vdpa | sed "s|-lvdpa|$lib/libvdpa.a|")
  strict=(-Wall -Wextra -Wpedantic -Werror)

  check "header as C99" 30 cc -std=c99 "${strict[@]}" -fsyntax-only -x c "$root/prefix/include/vdpa.h"
  if command -v c++ >/dev/null; then
    check "header as C++" 30 c++ -std=c++11 "${strict[@]}" -fsyntax-only -x c++ "$root/prefix/include/vdpa.h"
  else
    missing "header as C++" c++
  fi
  grep -E '^(soname|symbol) ' bindings/c/abi.txt >"$root/listed"
  c_exports "$lib/libvdpa.so" >"$root/exported"
  check "soname and symbols are those of abi.txt" 10 diff "$root/listed" "$root/exported"
  c_layouts >"$root/layouts.c"
  check "structs, constants and calls are in C what abi.txt says" 30 cc -std=c11 "${strict[@]}" "${uses[@]}" -fsyntax-only "$root/layouts.c"

  strict+=(-std=c11 -D_GNU_SOURCE -pthread -g)
  uses+=("-Wl,-rpath,$lib")
  for program in bindings/c/examples/loopback.c bindings/c/tests/{errors,life}.c; do
    name=$(basename "$program" .c)
    check "$name, built" 60 cc "${strict[@]}" "$program" "${uses[@]}" -o "$root/$name" || continue
    check "$name" 120 "$root/$name"
    if command -v valgrind >/dev/null; then
      check "$name in valgrind" 300 valgrind -q --error-exitcode=9 --leak-check=full \
        --suppressions=bindings/c/tests/valgrind.supp "$root/$name"
    else
      missing "$name in valgrind" valgrind
    fi
    if [ -e "$(cc -print-file-name=libasan.so)" ]; then
      check "$name with AddressSanitizer, built" 60 cc "${strict[@]}" -fsanitize=address "$program" "${uses[@]}" \
        -o "$root/$name-asan" && check "$name with AddressSanitizer" 300 "$root/$name-asan"
    else
      missing "$name with AddressSanitizer" libasan
    fi
  done
  check "loopback with the archive, built" 120 cc "${strict[@]}" bindings/c/examples/loopback.c "${archive[@]}" \
    -o "$root/loopback-static" && check "loopback with the archive" 60 "$root/loopback-static"
  # Debug builds of the libraries are large, and there is nothing more to learn from them.
  rm -rf "$root/prefix"
}

# As in abi.txt.
c_exports() { # LIBRARY
  objdump -p "$1" | awk '$1 == "SONAME" { print "soname " $2 }'
  nm -D --defined-only "$1" | awk '{ print "symbol " $3 }' | LC_ALL=C sort
}

# The layouts, constants and prototypes of abi.txt, as assertions.
c_layouts() {
  echo '#include <vdpa.h>'
  awk '$1 == "struct" { printf "_Static_assert(sizeof(struct %s) == %s && _Alignof(struct %s) == %s, \"%s\");\n", $2, $3, $2, $4, $2 }
    $1 == "const" { printf "_Static_assert(%s == %s, \"%s\");\n", $2, $3, $2 }
    # Another declaration of the same function has to agree with that of the header.
    $1 == "call" { sub(/^call /, ""); print }
    $1 == "field" { split($2, of, "."); printf "_Static_assert(offsetof(struct %s, %s) == %s, \"%s\");\n", of[1], of[2], $3, $2 }
    ' bindings/c/abi.txt
}
