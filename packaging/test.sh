#!/bin/sh
# test.sh [pytest's arguments]: every test, TEST_PROCESSES files at a time, then those marked `alone`, which watch what
# the machine's load does and must be all of it. Exit code 0 when all passed; none chosen is an error.
#
# Many tests wait a second or so for a real process. Where the host of a virtual machine keeps back processor time, that
# second holds less than one: then, and only then, what failed is run again by itself, and has to pass.
set -u
cd "$(dirname "$0")/.." || exit 2

pass() { .venv/bin/python -m pytest "$@"; }
FAILED=1 NONE=5  # pytest's exit codes: some failed, nothing was chosen
STARVED=5        # percent
AGAIN=2          # times at the most

# What all processors did since boot, in ticks: for others (stolen), and all that was asked of them (that included).
processors() { awk '/^cpu /{ print $9, $2 + $3 + $4 + $7 + $8 + $9 }' "${FLYBALL_PROC:-/proc}/stat" || echo 0 0; }

# kept_back SINCE: the percentage kept back of what was asked for since `processors` said that.
kept_back() {
  echo "$1 $(processors)" | awk '{ asked = $4 - $2; print (asked > 0 ? int(100 * ($3 - $1) / asked) : 0) }'
}

# judged MARKER REPORT pytest's arguments: one pass over the tests so marked, and again where that is justified.
judged() {
  marker=$1 report=$2 since=$(processors) round=0
  shift 2
  if [ "$marker" = alone ]; then
    pass -m alone --junitxml="$report" "$@"
  else
    pass -n "${TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder -m "$marker" --junitxml="$report" "$@"
  fi
  code=$?
  while [ "$code" = "$FAILED" ] && [ "$round" -lt "$AGAIN" ]; do
    share=$(kept_back "$since")
    [ "$share" -ge "$STARVED" ] || break
    echo "the host of this machine kept back $share % of the processor time: what failed is run again, one at a time"
    round=$((round + 1)) since=$(processors)
    pass -m "$marker" --last-failed --last-failed-no-failures none --junitxml="${report%.xml}-again.xml" "$@"
    code=$?
  done
  return "$code"
}

mkdir -p build
rm -f build/tests.xml build/alone.xml build/tests-again.xml build/alone-again.xml
judged 'not alone' build/tests.xml "$@"
many=$?
[ "$many" = 0 ] || [ "$many" = "$NONE" ] || exit "$many"
judged alone build/alone.xml "$@"
alone=$?
[ "$alone" = 0 ] && exit 0
[ "$alone" = "$NONE" ] && exit "$many"
exit "$alone"
