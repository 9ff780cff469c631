#!/bin/sh
# Every order of events between two or three writers of a segment, as far as the models' bounds reach: about a minute, plus
# the build. By hand: `ci/loom.sh`, one model: `ci/loom.sh same_key`, deeper: `LOOM_MAX_PREEMPTIONS=4 ci/loom.sh`.
set -eu
cd "$(dirname "$0")/.."
# A build of its own: the flag changes every crate of the graph.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/loom}"
export RUSTFLAGS="--cfg loom"
exec cargo test -p agent-shm --release --test loom -- --nocapture "$@"
