#!/usr/bin/env bash
# What `make test` runs: run.sh PATH... -- OPTIONS. All tests are two runs of pytest: rules, rows and pages side by side in two processes
# (each with a database of its own), then alone what starts many processes and would only get in its own way.
set -euo pipefail
cd "$(dirname "$0")/.."
paths=()
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do paths+=("$1"); shift; done
shift || true
run() { .venv/bin/pytest --ignore=tests/bench -m "not services and not system" "$@"; }

if [ "${paths[*]}" != tests ]; then
  run "${paths[@]}" "$@"
  exit
fi
alone=(tests/crash tests/acceptance tests/browser tests/runtime/test_circuits.py tests/runtime/test_fair_claims.py tests/runtime/test_deadlines.py)
first=0 second=0
run tests "${alone[@]/#/--ignore=}" -n 2 --dist loadfile "$@" || first=$?
run "${alone[@]}" "$@" || second=$?
nothing=5  # pytest's word for a selection without a test
if [ "$first" = "$nothing" ]; then exit "$second"; fi
if [ "$second" = "$nothing" ]; then exit "$first"; fi
exit $((first > second ? first : second))
