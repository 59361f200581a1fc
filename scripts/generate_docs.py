"""Documents that follow from the code: those of GENERATED, here and in `scripts/reference`.

    python scripts/generate_docs.py           write them
    python scripts/generate_docs.py --check   say which are stale and fail; writes nothing

States, their comments and the legal moves are read from `runs/states.py` and `approvals/models.py`. Events are read from
`runs/event_catalogue.py`; a name without words (or words without a name) is a failure.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

import django  # noqa: E402

django.setup()

from console.metric_definitions import METRICS  # noqa: E402
from runs.evals.checks import CHECKS  # noqa: E402
from runs.evals.checks import VERSION as CHECKS_VERSION  # noqa: E402
from runs.event_catalogue import EVENTS, schema  # noqa: E402
from runs.events import FIELDS, VERSION, Kind  # noqa: E402
from runs.states import CALL, DUE, NEW, OWNED, PEOPLE, RUN, TERMINAL, Outcome, RunState  # noqa: E402
from scripts.reference import HEAD, api, commands, errors, keys  # noqa: E402

Moves = Mapping[str, tuple[str, ...]]

# The gate's moves (`approvals/gate.py` is the only writer). The states must be those of `Approval.State`.
APPROVAL: dict[str, tuple[str, ...]] = {
    "pending": (NEW,),
    "approved": ("pending",),
    "rejected": ("pending",),
    "expired": ("pending",),
    "void": ("pending", "approved"),
    "consumed": ("approved",),
}
ENDED = "the run has ended; nothing moves it on"


def comments(path: str, name: str) -> dict[str, str]:
    """Value -> comment on the line, of each member of the class `name` (wherever in the file it is)."""
    source = (ROOT / path).read_text()
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant):
                    found[str(item.value.value)] = lines[item.lineno - 1].partition("#")[2].strip()
    return found


def diagram(moves: Moves) -> str:
    """Mermaid. A state that nothing leaves ends the machine."""
    left = {source for sources in moves.values() for source in sources}
    lines = ["```mermaid", "stateDiagram-v2"]
    for target, sources in moves.items():
        lines += [f"    {'[*]' if source == NEW else source} --> {target}" for source in sources]
    lines += [f"    {state} --> [*]" for state in moves if state not in left]
    return "\n".join([*lines, "```"])


def table(moves: Moves, told: Mapping[str, str]) -> str:
    if set(moves) != set(told):
        raise SystemExit(f"These states are in the moves or in the code, not in both: {sorted(set(moves) ^ set(told))}")
    rows = ["| state | meaning, and who moves it on | comes from |", "|---|---|---|"]
    for state, comment in told.items():
        sources = ", ".join("*new*" if source == NEW else f"`{source}`" for source in moves[state])
        rows.append(f"| `{state}` | {comment or (ENDED if state in TERMINAL else '')} | {sources} |")
    return "\n".join(rows)


def named(states: Iterable[str]) -> str:
    return ", ".join(f"`{state}`" for state in states)


def unused(kind: type[StrEnum]) -> list[str]:
    """The members that nothing in `runs` gives yet."""
    files = [path for path in (ROOT / "runs").rglob("*.py") if path.name != "states.py" and "migrations" not in path.parts]
    text = "\n".join(path.read_text() for path in files)
    return [each.value for each in kind if f"{kind.__name__}.{each.name}" not in text and f"state = '{each.value}'" not in text]


def state_machines() -> str:
    states, outcomes = unused(RunState), unused(Outcome)
    return f"""{HEAD}
# States

One table in `runs/states.py` holds the legal moves of runs and calls. The write modules use it, and a trigger generated from it
refuses every other move in the database (SQLSTATE `SBX01`). What the words mean is in the [glossary](glossary.md).

## Run

{diagram(RUN)}

{table(RUN, comments("runs/states.py", "RunState"))}

- An engine owns the run exactly in {named(OWNED)}.
- It can be claimed, once `available_at` has come, in {named(DUE)}.
- A person is waited for, and the deadline stands still, in {named(PEOPLE)}.
- It has ended in {named(TERMINAL)}.

Declared, and not reached by anything yet: {named(states) or "none"}.

A run that has ended has one outcome: {named(Outcome)}. Declared, and not given by anything yet: {named(outcomes) or "none"}.

## Call

Model calls begin in `dispatched`. Only tool calls wait, are blocked, or become unknown.

{diagram(CALL)}

{table(CALL, comments("runs/states.py", "CallState"))}

## Approval

`approvals/gate.py` is the only writer. A call has at most one approval that is `pending` or `approved`.

{diagram(APPROVAL)}

{table(APPROVAL, comments("approvals/models.py", "State"))}
"""


def listed(names: str) -> str:
    return ", ".join(f"`{name.rstrip('?')}`{'?' if name.endswith('?') else ''}" for name in names.split()) or "-"


def events() -> str:
    if differ := set(EVENTS) ^ {kind.value for kind in Kind}:
        raise SystemExit(f"runs/event_catalogue.py: EVENTS and runs.events.Kind differ in {sorted(differ)}")
    if strange := {name.rstrip("?") for told in EVENTS.values() for name in told.fields.split()} - set(FIELDS):
        raise SystemExit(f"runs/event_catalogue.py: not in runs.events.FIELDS: {sorted(strange)}")
    rows = "\n".join(f"| `{kind}` | {told.when} | {listed(told.fields)} | {listed(told.data)} |" for kind, told in EVENTS.items())
    return f"""{HEAD}
# Events

A run tells its whole story in events: append-only, numbered from 1 without a gap. Each is written in the transaction of what it
tells, so there is no fact without its event and no event without its fact. Events hold names, numbers, hashes and references,
never free text: prompts, arguments and results are in the rows of the calls.

`GET /api/v1/runs/{{id}}/events` gives each as
`{{seq, run_id, step_id, call_id, event, at, model, tool, latency_ms, input_tokens, output_tokens, cost_usd, result, error_type,
retryable, data, v}}`. What an event does not have is null. `v` is the version of this form, now {VERSION}. `call_id` is the run, the
step and `ord` (0 is the model call of the step, 1.. its tool calls). `cost_usd` is `cost_micro` in USD, a decimal string. `result`
is one of `ok`, `error`, `denied`, `retried`, `unknown`, `degraded`.

A `?` marks what is not always there. The same as JSON Schema (2020-12), one for each kind: [events.schema.json](events.schema.json), and
`GET /api/v1/events/schema` of the installation that you read. Under one version it only grows: a reader takes fields, values and kinds
that it does not know, and goes on.

| event | written when | fields | in `data` |
|---|---|---|---|
{rows}
"""


def events_schema() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def metrics() -> str:
    rows = "\n".join(f"| `{each.key}` | {each.unit} | {each.counted} | {each.among} |" for each in METRICS)
    by_call = ", ".join(f"`{each.key}`" for each in METRICS if each.by_call)
    return f"""{HEAD}
# Metrics

**One rule for all**: a period holds the runs that *started* in it, with all their calls, whenever these were made. So every figure can
be followed to the list of runs that it was made of, and a figure of the past moves when one of its runs ends. Periods are made of
whole clock hours (UTC); the one that runs now is counted with them.

| key | unit | how it is counted | `n` |
|---|---|---|---|
{rows}

Without anything to count a value is null, never 0. `n` says how many it was made of.

## How they are kept

Background jobs count each hour from the rows of its runs, calls, events and approvals, and keep the result for each tenant, agent and
release, and for each model and tool that was called. An hour is always counted anew and replaced whole: the one that runs now every 15
seconds, an older one when something happens to one of its runs (a run that ends hours later is counted where it started), and each hour
of the last week once in a while. Until an hour was counted, and for the one that runs now, a page counts from the rows while these are few
(200 runs), else it shows what was counted last; `as_of` says when that was.

    python manage.py rollups --since 2026-05-01T00:00:00Z --until 2026-05-08T00:00:00Z

counts any stretch anew and prints what was different.

Durations, latencies, steps and costs are kept as histograms with buckets of ratio 1.15. A quantile is the nearest rank, told as the
middle of its bucket: within 7.3 % of the exact value.

## Where to read them

- `GET /api/v1/metrics/summary?since=24h&until=&group_by=`: the whole, and by `tenant`, `agent`, `release`, `model`, `tool` or
  `failure_class`. By model, tool and failure class only what is counted by call is told ({by_call}).
- `GET /api/v1/metrics/series?since=7d&every=6h`: the same for each stretch of the period.
- Both take `agent`, `release`, `model`, `tool`, `failure_class` and, from a platform admin, `tenant`; and `format=csv` or `jsonl`.
- `GET /metrics`: for Prometheus, with a key that may `metrics:read`, or from the same machine without one. Counters are sums over all
  that is kept; they can go down a little when an hour is counted anew. What a proxy passes on needs a key: the proxy must set
  `X-Forwarded-For` or `Forwarded`.
"""


def checks() -> str:
    rows = "\n".join(
        f"| `{check.name}` | {check.title} | {check.unit}, {check.better} is better | {'1' if check.must else '-'} | {check.counted} |"
        for check in CHECKS
    )
    return f"""{HEAD}
# Checks

What the path of a run is measured by: its recorded steps and calls, without a model as a judge. The table is made from
`runs/evals/checks.py`, and the console shows the same under Evals, Checks. This is version {CHECKS_VERSION}: it is stored with every
score, and scores of different versions are not compared. A share of the runs of production is scored as they end
([`SIGNALBOX_SCORE_SHARE`](settings.md)); without a case, what needs expectations has no value.

Every measure has its value, the number it was made from, and the places it points at: `2` is a step, `2.1` a call of it.

| check | | | a case needs | how it is counted |
|---|---|---|---|---|
{rows}

## Cases

A case is JSON (one a line in an import and an export):

```json
{{"key": "charged-twice", "input": {{"text": "I was charged twice", "data": null, "user": {{"id": "u1"}}}},
 "tools": {{"how": "simulated", "given": [{{"tool": "fetch_account", "args": {{"account_id": "acct_1001"}}, "result": {{"ok": true}}}}]}},
 "expect": {{"allowed": ["fetch_account", "create_ticket"], "required": ["create_ticket"], "order": [["fetch_account", "create_ticket"]],
            "writes": [{{"tool": "create_ticket", "args": {{"priority": "urgent"}}, "matches": {{"summary": "charged"}}}}],
            "max_steps": 4, "max_cost_usd": "0.05", "answer": [{{"contains": "ticket"}}, {{"excludes": "guarantee"}}]}}}}
```

- What is not said is not judged. `writes: []` means that nothing may be changed.
- `tools.how`: `recorded` (from a run), `simulated` (written for the case), `live` (reads are sent to the tools). Writes are never sent:
  one that nothing answers is kept as what would have been done. Of `given` the first is used that names the tool and whose `args`
  the call has.
- A write of `writes` fits a call by `args` (these fields are exactly so), `matches` (fields by pattern) and `schema` (all arguments).
  Patterns never backtrack and are bounded, as in [tools](adr/0011-bounded-schemas.md).
- Expectations that cannot both be met (`required` and `forbidden` name the same tool, `max_steps` is less than an order takes) are
  refused with `contradiction`, which names both. `answer: [{{judge: ...}}]` is answered with `not_supported`.
- A suite has 10,000 cases at most, a case 256 KiB. A changed case gets a new version; an evaluation keeps those it began with.
"""


GENERATED = {
    "docs/state-machines.md": state_machines,
    "docs/events.md": events,
    "docs/events.schema.json": events_schema,
    "docs/metrics.md": metrics,
    "docs/checks.md": checks,
    "docs/errors.md": errors.written,
    "docs/reference/api.md": api.written,
    "docs/reference/commands.md": commands.written,
    "docs/reference/configuration.md": keys.written,
}


def stale(root: Path = ROOT) -> list[str]:
    """Paths whose text is not what the code says now."""
    return [path for path, made in GENERATED.items() if not (root / path).exists() or (root / path).read_text() != made()]


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the documents that follow from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document is stale")
    if parser.parse_args().check:
        for path in stale():
            print(f"{path} is stale: run `python scripts/generate_docs.py`.", file=sys.stderr)
        return 1 if stale() else 0
    for path in stale():
        (ROOT / path).write_text(GENERATED[path]())
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
