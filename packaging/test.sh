#!/bin/sh
# test.sh [pytest's arguments]: every test, TEST_PROCESSES files at a time, then those marked `alone`, which watch what
# the machine's load does and must be all of it. Exit code 0 when all passed; none chosen is an error.
set -u
cd "$(dirname "$0")/.." || exit 2

pass() { .venv/bin/python -m pytest "$@"; }
NONE=5   # pytest's exit code when nothing was chosen

mkdir -p build
rm -f build/tests.xml build/alone.xml
pass -n "${TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder -m 'not alone' --junitxml=build/tests.xml "$@"
many=$?
[ "$many" = 0 ] || [ "$many" = "$NONE" ] || exit "$many"
pass -m alone --junitxml=build/alone.xml "$@"
alone=$?
[ "$alone" = 0 ] && exit 0
[ "$alone" = "$NONE" ] && exit "$many"
exit "$alone"
