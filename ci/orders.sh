#!/bin/sh
# Orders of events between those who share a segment, model-checked: `ci/orders.sh loom` or `ci/orders.sh shuttle`, with
# arguments for the tests: `ci/orders.sh loom same_key`. LOOM_MAX_PREEMPTIONS goes deeper; AGENT_SCHEDULES and AGENT_SEED
# say how many random orders, and which.
set -eu
cd "$(dirname "$0")/.."
checker="${1:?loom or shuttle}"
shift
# A build of its own: the flags change every crate of the graph.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/$checker}"
export RUSTFLAGS="--cfg model --cfg $checker"
exec cargo test -p agent-shm --locked --profile model --test orders -- --nocapture "$@"
