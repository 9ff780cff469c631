#!/usr/bin/env bash
# Makes the virtual environment at $1 with the interpreter $2, after checking everything a build needs.
# As root on Debian it installs the missing python3-venv itself; otherwise it says what to install and stops.
set -euo pipefail

venv=$1
python=$2

die() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

command -v "$python" >/dev/null || die "'$python' was not found: install Python 3.11 or newer, or run make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or newer is needed, '$python' is $("$python" -V): run make PYTHON=/path/to/python3.11"
command -v cargo >/dev/null || die "'cargo' was not found: install Rust, for example with rustup"
rust=$(rustc --version | cut -d' ' -f2)
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
[ "$(printf '%s\n%s\n' "$oldest" "${rust%%-*}" | sort -V | head -n1)" = "$oldest" ] ||
    die "Rust $oldest or newer is needed, this is $rust"
command -v cc >/dev/null || die "no C compiler 'cc' was found (Rust links with it): apt-get install gcc libc6-dev"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "== '$python' lacks the venv module: installing $package"
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$package"
    else
        die "'$python' lacks the venv module: run 'apt-get install $package' as root, then make again"
    fi
fi

"$python" -m venv --clear "$venv"
echo "== $venv: $("$venv/bin/python" -V), cargo $rust"
