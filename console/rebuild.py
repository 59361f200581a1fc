"""A run rebuilt from its events and the rows they refer to, without looking at the run's own row. Pure.

Events and calls come in the forms of the API (`records.event_record`, `records.call_record`), so this works on the database, on
an export, and over HTTP alike. What it gives carries the names of the run's record; `differences` compares the two.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from runs.events import Kind
from runs.states import TERMINAL, Outcome, RunState
from tools import canonical

JSON = dict[str, Any]
Place = tuple[int, int]  # step, ord

STATE_AFTER = {
    Kind.RUN_ACCEPTED: RunState.QUEUED,
    Kind.RUN_STARTED: RunState.RUNNING,
    Kind.RUN_CLAIMED: RunState.RUNNING,
    Kind.RUN_TAKEN_OVER: RunState.RUNNING,
    Kind.RUN_RESUMED: RunState.QUEUED,
}
SETTLED = (Kind.MODEL_CALL_COMPLETED, Kind.MODEL_CALL_FAILED)
FAILED = (Kind.MODEL_CALL_FAILED, Kind.TOOL_CALL_FAILED)
FROM_STORE = ("cached", "retrieval_only")  # rungs that answer


@dataclass
class Story:
    """What the events have told so far."""

    run_id: str = ""
    agent: str | None = None
    release: str | None = None
    state: str | None = None
    outcome: str | None = None
    stop: JSON | None = None
    step: int = 0
    seq: int = 0
    cancel_requested: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    sent: set[Place] = field(default_factory=set)  # tool calls that were sent at least once
    last_error: JSON | None = None
    answer_step: int | None = None
    rungs: list[JSON] = field(default_factory=list)
    drafts: list[str] = field(default_factory=list)
    checked: dict[int, int] = field(default_factory=dict)  # the step of a critique -> the step that it checked


def rebuild(events: Iterable[Mapping[str, Any]], calls: Iterable[Mapping[str, Any]]) -> JSON:
    """Events in order from the first -> the fields of the record that they account for. Raises ValueError at a gap."""
    story = Story()
    for event in events:
        if event["seq"] != story.seq + 1:
            raise ValueError(f"event {story.seq + 1} is missing")
        story.seq, story.run_id = event["seq"], event["run_id"]
        move(story, event)
        charge(story, event)
        step_down(story, event)
    return record(story, {place(call["call_id"]): call for call in calls})


def place(call_id: str) -> Place:
    """`agt_….<step>.<ord>`"""
    _, step, ord_ = call_id.split(".")
    return int(step), int(ord_)


def move(story: Story, event: Mapping[str, Any]) -> None:
    kind, data = event["event"], event["data"] or {}
    story.state = STATE_AFTER.get(kind, story.state)
    if kind == Kind.RUN_ACCEPTED:
        story.agent, story.release = data["agent"], data["release"]
        story.step = data.get("fork_step", 1) - 1
    elif kind == Kind.RELEASE_CHANGED:
        story.release = data["to"]
    elif kind == Kind.RUN_PARKED:
        story.state = data["state"]
    elif kind == Kind.CANCEL_REQUESTED:
        story.cancel_requested = True
    elif kind == Kind.MODEL_CALL_STARTED:
        story.step = max(story.step, event["step_id"])
    elif kind in (Kind.TOOL_CALL_STARTED, Kind.CALL_REHEARSED):
        story.sent.add(place(event["call_id"]))
    elif kind == Kind.RUN_COMPLETED:
        finish(story, event, data)


def charge(story: Story, event: Mapping[str, Any]) -> None:
    if event["event"] in SETTLED:
        story.input_tokens += event["input_tokens"] or 0
        story.output_tokens += event["output_tokens"] or 0
        story.cost += Decimal(event["cost_usd"] or 0)
    data = event["data"] or {}
    if event["event"] in FAILED and not data.get("lost") and data.get("sent", True):  # somebody answered, or nobody did in time
        story.last_error = error_of(event["error_type"], event["step_id"], event["tool"])


def step_down(story: Story, event: Mapping[str, Any]) -> None:
    """The rungs of the ladder, critiques, and what was kept for a person on the way."""
    if event["event"] == Kind.RUNG_ENTERED:
        story.rungs.append(event["data"])
    elif event["event"] == Kind.RUNG_MISSED:
        story.rungs.append(event["data"] | {"missed": True})
    elif event["event"] == Kind.CALL_DRAFTED:
        story.drafts.append(event["call_id"])
    elif event["event"] == Kind.CRITIQUE_DECIDED:
        story.checked[event["step_id"]] = event["data"]["of"]


def finish(story: Story, event: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    story.state, story.outcome = data["state"], data["outcome"]
    story.stop = data["stop"] if "stop" in data else {"by": data["by"], "step": story.step}  # the latter: ended by a person
    story.cancel_requested = story.cancel_requested or story.state == RunState.CANCELLED
    if event["error_type"]:
        story.last_error = error_of(event["error_type"], event["step_id"], None)
    if story.state == RunState.SUCCEEDED:
        story.answer_step = story.checked.get(event["step_id"], event["step_id"])


def error_of(error_type: str | None, step: int | None, tool: str | None) -> JSON:
    """Without the message: that is text, and lives in the rows only."""
    return {"error_type": error_type, "step": step} | ({"tool": tool} if tool else {})


def degraded(story: Story) -> bool:
    if story.state in TERMINAL:
        return story.outcome == Outcome.COMPLETED_DEGRADED
    return any(not rung.get("missed") for rung in story.rungs)


def record(story: Story, calls: Mapping[Place, Mapping[str, Any]]) -> JSON:
    sent = [calls[at] for at in sorted(story.sent)]
    step = story.answer_step
    if step is not None and any(rung["do"] in FROM_STORE and not rung.get("missed") for rung in story.rungs):
        step = max((at for at, ord_ in calls if not ord_), default=step)  # no model took it: it is the last there is
    answered = None if step is None else calls.get((step, 0))  # a run of one call has none
    answer = answered["result"] if answered else None
    cost = format(story.cost.normalize(), "f")
    return {
        "run_id": story.run_id,
        "agent": story.agent,
        "release": story.release,
        "state": story.state,
        "outcome": story.outcome,
        "degraded": degraded(story),
        "rungs": story.rungs,
        "drafts": sorted(story.drafts, key=place),
        "stop": story.stop,
        "step": story.step,
        "seq": story.seq,
        "cancel_requested": story.cancel_requested,
        "cost_usd": cost,
        "usage": {
            "steps": story.step,
            "tool_calls": len(sent),
            "writes": sum(call["effect"] != "read" for call in sent),
            "input_tokens": story.input_tokens,
            "output_tokens": story.output_tokens,
            "cost_usd": cost,
        },
        "tools_called": list(dict.fromkeys(call["name"] for call in sent)),
        "last_error": story.last_error,
        "output": None if answer is None else {"text": answer["text"]},
    }


def differences(rebuilt: Mapping[str, Any], row: Mapping[str, Any]) -> JSON:
    """Field -> (rebuilt, as recorded), for those that are not the same. Empty: the history accounts for the run."""
    pairs = {name: (value, like(value, row[name])) for name, value in rebuilt.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def like(rebuilt: Any, recorded: Any) -> Any:
    """The recorded value, cut to the members that the history speaks of."""
    if isinstance(rebuilt, dict) and isinstance(recorded, dict):
        return {name: recorded.get(name) for name in rebuilt}
    return recorded


def tampered(events: Iterable[Mapping[str, Any]], calls: Iterable[Mapping[str, Any]]) -> list[str]:
    """Ids of the tool calls whose rows no longer hold what the events say was sent or came back."""
    rows = {call["call_id"]: call for call in calls}
    found = []
    for event in events:
        row, data = rows.get(event["call_id"] or ""), event["data"] or {}
        if row is None or not event["tool"]:
            continue
        args, result = data.get("args_sha256"), data.get("result_sha256")
        was_last = event["event"] == Kind.TOOL_CALL_COMPLETED
        if (args and args != sha256(row["args"])) or (result and was_last and result != sha256(row["result"])):
            found.append(row["call_id"])
    return sorted(set(found))


def sha256(value: Any) -> str:
    return hashlib.sha256(canonical.dumps(value)).hexdigest()
