# what: AddressSanitizer on the hostile rows: no access beside what is mapped or allocated
# minutes: 4
# quick: no
# shellcheck shell=bash

# Own target directory, since every crate is built with the sanitizer; a target is named, so that build scripts and
# macros are not. The standard library comes as it is. No leaks are looked for here, and the tests that compare memory over
# many cycles are left to the plain allocator: freed memory waits in a quarantine; row 148 looks for ASAN_OPTIONS and
# compares the rest.
stage() {
  local target
  if ! rustup run nightly rustc --version >>"$LOG" 2>&1; then
    missing "vdpa-hostile" "toolchain nightly"
    return
  fi
  target=$(rustup run nightly rustc -vV | sed -n 's/^host: //p')
  cargo_tests "vdpa-hostile" 900 env RUSTFLAGS="-Zsanitizer=address ${RUSTFLAGS-}" \
    CARGO_TARGET_DIR="$CARGO_TARGET_DIR/asan" CARGO_PROFILE_DEV_DEBUG=line-tables-only \
    ASAN_OPTIONS="detect_leaks=0:quarantine_size_mb=16:${ASAN_OPTIONS-}" \
    cargo +nightly test --locked -p vdpa-hostile --target "$target" --test rows --test oracle --test table --no-fail-fast --
}
