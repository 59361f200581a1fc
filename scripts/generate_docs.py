"""Documents that follow from the code: docs/state-machines.md, docs/events.md and docs/events.schema.json.

    python scripts/generate_docs.py           write them
    python scripts/generate_docs.py --check   say which are stale and fail; writes nothing

States, their comments and the legal moves are read from `runs/states.py` and `approvals/models.py`. Events are read from
`runs/event_catalogue.py`; a name without words (or words without a name) is a failure.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runs.event_catalogue import EVENTS, schema  # noqa: E402
from runs.events import FIELDS, VERSION, Kind  # noqa: E402
from runs.states import CALL, DUE, NEW, OWNED, PEOPLE, RUN, TERMINAL, Outcome, RunState  # noqa: E402

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
HEAD = "<!-- Written by scripts/generate_docs.py. Do not edit: change the code, then run it. -->\n"


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


GENERATED = {"docs/state-machines.md": state_machines, "docs/events.md": events, "docs/events.schema.json": events_schema}


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
