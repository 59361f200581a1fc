#!/usr/bin/env bash
# What `make test` runs: run.sh PATH... -- OPTIONS. All tests are four runs of pytest: rules and rows in two processes (each with a
# database of its own), pages in two browsers, stories on two installations, then alone what measures time or kills what it starts.
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
stories=(tests/acceptance tests/runtime/test_circuits.py tests/crash/test_{restore,webhooks,model_checker,approvals,approval_people,approval_drift}.py)
alone=(tests/crash tests/runtime/test_fair_claims.py tests/runtime/test_deadlines.py)
codes=()
part() { local code=0; run "$@" || code=$?; codes+=("$code"); }
part tests "${alone[@]/#/--ignore=}" "${stories[@]/#/--ignore=}" --ignore=tests/browser -n 2 --dist loadfile "$@"
part tests/browser -n 2 --dist loadgroup "$@"
part "${stories[@]}" -n 2 --dist loadfile "$@"
part "${alone[@]}" "${stories[@]/#/--ignore=}" "$@"
worst=5  # pytest's word for a selection without a test: it stands only if no part had any
for code in "${codes[@]}"; do
  if [ "$code" != 5 ] && { [ "$worst" = 5 ] || [ "$code" -gt "$worst" ]; }; then worst=$code; fi
done
exit "$worst"
