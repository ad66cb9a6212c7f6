#!/bin/sh
# The oldest Pythons that are promised: compiles and imports the daemon with 3.10 and the worker's side with 3.8,
# where those interpreters exist (on the PATH, or under ~/.pyenv). Keeps an environment for each under .venv/.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        if "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# environment VERSION PACKAGES...: prints the interpreter of an environment that has the packages, or nothing
environment() {
    version=$1
    shift
    python=$(find_python "$version")
    [ -n "$python" ] || return 0
    place=.venv/floor-$version
    stamp="$place/.made-for-$(echo "$*" | cksum | tr ' ' -)"
    if [ ! -e "$stamp" ]; then
        rm -rf "$place"
        { "$python" -m venv "$place" && "$place/bin/python" -m pip install -q --only-binary=:all: "$@"; } >build/floors.log 2>&1 ||
            { echo "Python $version: its packages could not be installed (build/floors.log)" >&2; return 1; }
        touch "$stamp"
    fi
    echo "$place/bin/python"
}

# try VERSION INTERPRETER MODULES...: compiles the sources of the modules' packages and imports every module
try() {
    version=$1 python=$2
    shift 2
    if [ -z "$python" ]; then
        echo "Python $version is not installed: not tried"
        return
    fi
    PYTHONPATH=agent:backends:kernels:fleet PYTHONDONTWRITEBYTECODE=1 "$python" -W error - "$@" <<'CODE'
import importlib, pathlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print("Python %d.%d: %d modules imported" % (*sys.version_info[:2], len(sys.argv) - 1))
CODE
}

modules() { # modules ROOT [FILTER]: the importable names under a source root
    (cd "$1" && find . -name '*.py' | sed -e 's,^\./,,' -e 's,/__init__\.py$,,' -e 's,\.py$,,' -e 's,/,.,g' | sort | grep -E "${2:-.}")
}

mkdir -p build
worker='^flyball\.engine\.(worker|lanes|pipeline|tasks|slots|channel|wire)$'
# shellcheck disable=SC2046  # one word a module
try 3.8 "$(environment 3.8 numpy pillow)" $(modules kernels) $(modules backends) $(modules agent "$worker")
needs=$(sed -n '/^dependencies = \[/,/^\]/s/^  "\([^"]*\)",$/\1/p' pyproject.toml)
# shellcheck disable=SC2046,SC2086
try 3.10 "$(environment 3.10 $(echo "$needs" | grep -v python_version) tomli)" \
    $(modules kernels) $(modules backends) $(modules agent | grep -v '^flyball\.__main__$') $(modules fleet)
