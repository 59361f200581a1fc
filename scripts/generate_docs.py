"""Documents that follow from the code: docs/state-machines.md and docs/events.md.

    python scripts/generate_docs.py           write them
    python scripts/generate_docs.py --check   say which are stale and fail; writes nothing

States, their comments and the legal moves are read from `runs/states.py` and `approvals/models.py`. The names of events are read
from `runs/events.py`; when each is written is told here, and a name without words (or words without a name) is a failure.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

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


class Told(NamedTuple):
    """When an event is written, which of FIELDS it has, and the keys of its `data`. A `?` marks what is not always there."""

    when: str
    fields: str = ""
    data: str = ""


CALL_OF_TOOL = "step_id ord tool"
CALL_OF_MODEL = "step_id ord model"
SPENT = "latency_ms input_tokens output_tokens cost_micro"
SENT = "attempt status result_sha256 sanitized?"
RUNG = "n on do step limit? value? used? by? share? tool? error_type? of? verdict?"

EVENTS: dict[str, Told] = {
    "run_accepted": Told("intake, in the transaction that accepts the run", "", "agent release input_sha256 retry_of?"),
    "run_started": Told("an engine claims the run for the first time"),
    "run_resumed": Told("no call of the run waits for a person any more: it is queued again"),
    "run_claimed": Told("an engine claims it again after a wait"),
    "run_taken_over": Told("another engine takes it, because the lease of its owner is over"),
    "run_parked": Told("the engine lets go of it: to people, to a timer, or back to the queue", "step_id?", "state reason? switch?"),
    "run_completed": Told(
        "the run ends; its last event", "step_id? input_tokens? output_tokens? cost_micro? result?", "state outcome stop? by?"
    ),
    "cancel_requested": Told("a person cancels a run that an engine holds; the engine makes the move", "", "by"),
    "plan_decided": Told("a model has answered: the tools it was offered and those it asked for", "step_id model", "calls offered"),
    "model_call_started": Told("the intent of a model call is durable; it is sent next", CALL_OF_MODEL, "attempt role reserve_micro"),
    "model_call_completed": Told("the model has answered", f"{CALL_OF_MODEL} {SPENT} result", "attempt result_sha256 finish estimated"),
    "model_call_failed": Told(
        "it failed, or its engine was lost (`lost`: the reservation counts as spent)",
        f"{CALL_OF_MODEL} latency_ms? input_tokens? output_tokens? cost_micro result error_type retryable",
        "attempt status? lost?",
    ),
    "tool_call_started": Told("the intent of a tool call is durable; it is sent next", CALL_OF_TOOL, "attempt args_sha256 approval_id?"),
    "tool_call_completed": Told(
        "the tool has answered; a write is applied (`duplicate_request`: it was before)",
        f"{CALL_OF_TOOL} latency_ms result error_type?",
        SENT,
    ),
    "tool_call_failed": Told(
        "an answer with an error, no answer, or (`sent` false) a call that was never sent",
        f"{CALL_OF_TOOL} latency_ms? result error_type retryable",
        f"sent? {SENT.replace(' ', '? ').replace('??', '?')}",
    ),
    "tool_call_unknown": Told(
        "a write may or may not be applied; it is not sent again",
        f"{CALL_OF_TOOL} result error_type?",
        "attempt? status? result_sha256? sanitized? lost?",
    ),
    "tool_call_reconciled": Told(
        "an unknown outcome was settled: by late evidence, a probe or a person",
        "step_id ord tool result",
        "result how by unknown_id resend",
    ),
    "retry_scheduled": Told(
        "a failed call will be sent again; `attempt` is the next one", "step_id ord model? tool? result error_type", "attempt wait_ms"
    ),
    "call_held": Told(
        "a call is not sent now, and its run is parked: the breaker of its host is open (`breaker_open`), or too much is in flight"
        " there (`no_room`); no attempt is spent",
        "step_id ord model? tool?",
        "reason wait_ms",
    ),
    "policy_decided": Told("the policy has ruled on a call", f"{CALL_OF_TOOL} result", "decision by rev"),
    "policy_violated": Told(
        "the ruling is deny, or an approved call may no longer be sent", f"{CALL_OF_TOOL} result error_type", "decision? by? rev?"
    ),
    "approval_requested": Told(
        "people are asked about a call, or (with `limit`) for more of the run's budget",
        "step_id ord tool?",
        "approval_id digest needed limit? preview_sha256?",
    ),
    "approval_decided": Told(
        "a person has decided; the reason is kept as a hash here", f"{CALL_OF_TOOL} result", "approval_id by verdict state reason_sha256?"
    ),
    "approval_edited": Told(
        "a person wrote other arguments, which are asked about anew; earlier approvals are gone",
        f"{CALL_OF_TOOL} result",
        "approval_id by digest fields",
    ),
    "approval_escalated": Told(
        "half of the time is over and nobody has decided: the group that theirs escalates to may decide too",
        "step_id ord tool?",
        "approval_id groups",
    ),
    "approval_expired": Told("nobody decided in time; the call is not made", f"{CALL_OF_TOOL} result", "approval_id"),
    "approval_voided": Told("an open approval is not needed or not valid any more", "step_id? ord? tool? result?", "approval_id"),
    "budget_exceeded": Told("a limit has no room for the next call; the run ends", "step_id result", "limit value used by step"),
    "deadline_exceeded": Told("the time of the run is over; the run ends", "result", "limit value"),
    "fallback_activated": Told(
        "a model is given up for the next one of its role", f"{CALL_OF_MODEL} result error_type?", "from to reason? limit?"
    ),
    "rung_entered": Told(
        "the run takes a rung of its ladder and goes on with less; the same is kept in its record (`rungs`)",
        "step_id result",
        f"{RUNG} last_step? from? age_s? exact? results?",
    ),
    "rung_missed": Told("a rung had nothing to give, so the next one was tried", "step_id result", RUNG),
    "rung_left": Told("the run ends, and with it each rung that it stood on", "step_id result", "n on do"),
    "loop_detected": Told(
        "a call is not sent, because it was answered `times` times before, each time alike, the last time in step `seen`",
        f"{CALL_OF_TOOL} result",
        "times seen",
    ),
    "call_drafted": Told("a write is kept for a person instead of sent; it is never sent by this run", f"{CALL_OF_TOOL} result", "attempt"),
    "critique_decided": Told(
        "a critique has checked step `of`; the reasons are in its reply, their number here",
        "step_id model? result",
        "of checks verdict reasons",
    ),
    "budget_granted": Told(
        "a person has raised limits of this run, each with its value before and after", "step_id result", "approval_id by limits"
    ),
}


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
        raise SystemExit(f"scripts/generate_docs.py: EVENTS and runs.events.Kind differ in {sorted(differ)}")
    if strange := {name.rstrip("?") for told in EVENTS.values() for name in told.fields.split()} - set(FIELDS):
        raise SystemExit(f"scripts/generate_docs.py: not in runs.events.FIELDS: {sorted(strange)}")
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

A `?` marks what is not always there.

| event | written when | fields | in `data` |
|---|---|---|---|
{rows}
"""


GENERATED = {"docs/state-machines.md": state_machines, "docs/events.md": events}


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
