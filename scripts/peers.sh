#!/usr/bin/env bash
# Makes sure that the programs named after the group in $1 (`test`, `bench`, `callgrind`) are on this machine.
# As root on Debian it installs the missing ones, without starting their services; otherwise it says what is missing:
# the tests that need a missing program then skip, and fail when CI=true.
set -euo pipefail

# program:package
case "${1:-}" in
test) wanted="prometheus:prometheus promtool:prometheus curl:curl" ;;
bench)
    wanted="collectd:collectd-core netdata:netdata-core vmagent:victoria-metrics curl:curl"
    wanted="$wanted nginx:nginx-light wrk:wrk"
    ;;
callgrind) wanted="valgrind:valgrind" ;;
*) echo "usage: $0 test|bench|callgrind" >&2 && exit 64 ;;
esac

# Debian keeps daemons in sbin, which a user's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin
missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
missing=$(printf '%s\n' $missing | sort -u | xargs)
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "note: not installed, and only root can install it: $missing" >&2
    echo "note: run 'apt-get install --no-install-recommends $missing' as root for the full run" >&2
    exit 0
fi

echo "== installing from Debian: $missing"
# A package must not start its daemon on the default port of somebody's machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -q
# shellcheck disable=SC2086  # a list of packages
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
# Nor at the next boot; these are programs for tests to run, each on its own ports and folder.
# shellcheck disable=SC2086
! command -v systemctl >/dev/null || systemctl --quiet disable $missing vmagent netdata nginx 2>/dev/null || true
