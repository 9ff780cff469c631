#!/bin/sh
# The tests of the crates that touch shared memory or foreign bytes, with AddressSanitizer: 0 reports, or it fails. It needs
# no other toolchain: the compiler's own switch for unstable flags is used, and std itself is not instrumented.
set -eu
cd "$(dirname "$0")/.."
target="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
# Examples in the docs are built by another program.
export RUSTDOCFLAGS="$RUSTFLAGS"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/asan}"
# Signals of truncated files are the product's own, and a child that is killed cannot say what it leaked.
export ASAN_OPTIONS="allow_user_segv_handler=1:handle_sigbus=0:detect_leaks=0:halt_on_error=1:abort_on_error=1"
exec cargo test --locked --target "$target" -p agent-shm -p agent-wire -p agent-metric "$@"
