#!/bin/sh
# Makes .venv/ ready: setup.sh run (what `make demo` needs) | dev (what `make test` and `make check` need) | mosquitto.
#
# Does nothing, in a few milliseconds, when .venv/ was already made from this pyproject.toml. As root it installs what
# is missing with apt; otherwise it says in one line which command to run. Wheels only: no compiler is needed.
#
#   PYTHON=python3.12     the interpreter for a new .venv/ (default: python3, then python3.13 ... python3.10)
#   FLYBALL_REQUIRE_BROKER=1   a missing mosquitto is an error, not a remark
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
LOG=build/setup.log
FLOOR=310                        # requires-python, as one number: 3.10
PATH=$PATH:/usr/sbin:/usr/local/sbin   # mosquitto; not on an unprivileged user's PATH

say() { printf 'flyball: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
    say "installing with apt: $*"
    mkdir -p build
    {
        apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    } >build/apt.log 2>&1 || die "apt-get install $* failed: $(grep -m1 '^E:' build/apt.log || echo see build/apt.log)"
}

# Prints 311 for Python 3.11; nothing for what does not run (a pyenv shim without a version, say).
version_of() { "$1" -c 'import sys; print("%d%02d" % sys.version_info[:2])' 2>/dev/null || :; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        number=$(version_of "$candidate")
        if [ "${number:-0}" -ge $FLOOR ]; then
            echo "$candidate"
            return
        fi
    done
}

make_venv() {
    python=$(find_python)
    if [ -z "$python" ] && ! command -v python3 >/dev/null 2>&1; then
        may_install || die "Python is missing: run  sudo apt-get install python3 python3-venv  and then make again"
        apt_install python3 python3-venv
        python=$(find_python)
    fi
    [ -n "$python" ] || die "Python 3.10 or newer is needed, found $(python3 -V 2>&1 | head -n 1):" \
        "install one and run  make PYTHON=/path/to/python3.11 ..."
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        # Debian splits venv off into a package per minor version; python3-venv is that of /usr/bin/python3.
        package=python3-venv
        [ "$(version_of "$python")" = "$(version_of /usr/bin/python3)" ] || package="$(basename "$python")-venv"
        may_install || die "$python has no venv module: run  sudo apt-get install $package  and then make again"
        apt_install "$package"
        "$python" -c 'import venv, ensurepip' 2>/dev/null || die "$python still has no venv module after installing" \
            "$package: run  make PYTHON=/usr/bin/python3 ..."
    fi
    say "making $VENV with $("$python" -V)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV" || die "$python -m venv $VENV failed (see above)"
}

# What the environment was made from; a moved checkout, another Python or a changed pyproject.toml makes it anew.
fingerprint() { printf '%s %s %s\n' "$(cksum <pyproject.toml | tr ' ' -)" "$(pwd)" "$("$VENV/bin/python" -V 2>&1)"; }

pip_install() {
    export PIP_RETRIES="${PIP_RETRIES:-2}"   # per package: pip's own 5 keep an unreachable index silent for minutes
    # shellcheck disable=SC2086  # PIP_ARGS is a list of options
    "$VENV/bin/python" -m pip install --disable-pip-version-check ${PIP_ARGS:---only-binary=:all:} \
        -e ".[$1]" >"$LOG" 2>&1
}

unreachable() {
    grep -qE 'NewConnectionError|ConnectTimeout|name resolution|Max retries|SSLError|ReadTimeout' "$LOG" ||
        grep -q 'No matching distribution found for setuptools' "$LOG"   # every index has that one
}

# The one line for a pip that failed.
explain() {
    here="$("$VENV/bin/python" -V) on $(uname -m)"
    if grep -q 'No space left on device' "$LOG"; then
        die "the disk is full: free about 1 GB under $(pwd) or the temporary folder and run make again"
    elif grep -q CERTIFICATE_VERIFY_FAILED "$LOG"; then
        die "the certificate of the Python package index is not trusted here: set PIP_CERT to the file of your" \
            "network's certificate authority (details: $LOG)"
    elif unreachable; then
        die "the Python package index cannot be reached: connect this machine, or set PIP_INDEX_URL or PIP_FIND_LINKS" \
            "to a mirror (details: $LOG)"
    elif name=$(sed -n 's/.*No matching distribution found for \([^ ]*\).*/\1/p' "$LOG" | head -n 1) && [ -n "$name" ]; then
        die "there is no ready-made package of $name for $here: run  make PYTHON=... with another Python" \
            "(3.11 is known to work) or  make PIP_ARGS=  with a compiler installed (details: $LOG)"
    fi
    die "pip failed: $(grep -m1 '^ERROR' "$LOG" || tail -n 1 "$LOG") (details: $LOG)"
}

setup() {
    kind=$1
    if [ -x "$VENV/bin/python" ] && [ "$(version_of "$VENV/bin/python")" -ge $FLOOR ] 2>/dev/null; then
        made_from=$(fingerprint)
        for stamp in "$VENV/.flyball-dev" "$VENV/.flyball-$kind"; do
            [ "$(cat "$stamp" 2>/dev/null)" != "$made_from" ] || return 0
        done
    elif [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ]; then
        die "$(pwd)/$VENV is in the way and is not a virtual environment: move it elsewhere"
    else
        make_venv
    fi
    # A .venv/ that came along with a moved checkout works, but its scripts point to the old place.
    if [ -e "$VENV/bin/pip" ] && ! grep -q "$(pwd)/$VENV/" "$VENV/bin/pip"; then
        make_venv
    fi
    mkdir -p build
    case $kind in run) extras= ;; dev) extras=,dev ;; esac
    say "installing Flyball's dependencies into $VENV (a minute or two the first time)"
    if ! pip_install "onnx,litert$extras"; then
        # LiteRT comes for fewer Pythons and architectures than the rest; demo and daemon work without it.
        if unreachable || ! grep -qE 'No matching distribution found for ai[-_]edge[-_]litert' "$LOG"; then explain; fi
        say "LiteRT does not come for $("$VENV/bin/python" -V) on $(uname -m): going on without it, .tflite rungs cannot run"
        pip_install "onnx$extras" || explain
    fi
    fingerprint >"$VENV/.flyball-$kind"
}

need_mosquitto() {
    command -v mosquitto >/dev/null && return
    if may_install; then
        apt_install mosquitto
    elif [ "${FLYBALL_REQUIRE_BROKER:-}" = 1 ]; then
        die "mosquitto is missing and FLYBALL_REQUIRE_BROKER=1: run  sudo apt-get install mosquitto"
    else
        say "mosquitto is missing: the broker tests are skipped; run  sudo apt-get install mosquitto  to have them"
    fi
}

case ${1:-} in
    run | dev) setup "$1" ;;
    mosquitto) need_mosquitto ;;
    *) die "usage: packaging/setup.sh run|dev|mosquitto" ;;
esac
