"""The events of an ended run -> its spans. Pure: the same run gives the same spans, with the same ids, whenever it is told.

`invoke_agent {agent}` is the root; under it stands one span for each *send* of a call: `chat {model}` or `execute_tool {tool}`. A send
and not a call, because a request carries the id of its span (`runs.tracing`), and the sends of one call differ in model, time and
fate; a call that was never sent has no span. Everything else that the run tells (rulings, approvals, rungs, waits) are events on the
root, retries and fallbacks on the send that they follow.

A span begins when the intent was durable and lasts as long as the answer took. A root lasts from acceptance to the end, days of waiting
included: its children say when work was done. Clocks may jump: no span ends before it begins, and none outside its root.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from console import rebuild
from runs.events import Kind
from runs.states import RunState
from runs.tracing import Trace, trace_of

from . import content, names
from .content import Content

JSON = dict[str, Any]
Value = str | bool | int | float | list[str]
Attributes = dict[str, Value]
Place = tuple[int, int]  # step, ord

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INTERNAL, CLIENT = 1, 3  # kinds of spans
MARKS = 256  # events on one span; further ones are counted
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@-]{0,127}", re.ASCII)  # what a model made up as a name may be any text, and content
STARTED = (Kind.MODEL_CALL_STARTED, Kind.TOOL_CALL_STARTED)
CLOSED = (
    Kind.MODEL_CALL_COMPLETED, Kind.MODEL_CALL_FAILED, Kind.TOOL_CALL_COMPLETED, Kind.TOOL_CALL_FAILED, Kind.TOOL_CALL_UNKNOWN,
)  # fmt: skip
FOLLOWS = (Kind.RETRY_SCHEDULED, Kind.FALLBACK_ACTIVATED, Kind.TOOL_CALL_UNKNOWN)
QUIET = (Kind.RUN_ACCEPTED, Kind.RUN_COMPLETED, Kind.PLAN_DECIDED)  # the root itself; the last lists what a model asked for
BAD = ("error", "unknown")  # results
UNANSWERED: JSON = {"result": "unknown", "error_type": "unanswered", "data": {"lost": True}}


@dataclass(frozen=True, slots=True)
class Mark:
    """An event on a span. `at`: nanoseconds since 1970, as all times here."""

    name: str
    at: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Span:
    trace_id: str
    id: str
    parent_id: str  # empty: a trace begins here
    name: str
    kind: int
    start: int
    end: int
    attributes: Attributes
    marks: tuple[Mark, ...] = ()
    dropped: int = 0  # marks that there was no room for
    failed: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """What the events do not say. `providers`: model definition -> whose wire it speaks. `content`: None, unless it may leave."""

    run_id: str
    tenant: str
    traceparent: str = ""
    providers: Mapping[str, str] = field(default_factory=dict)
    content: Content | None = None


@dataclass(slots=True)
class Send:
    """`closing`: the event that told its end; None while nobody did."""

    step: int
    ord: int
    attempt: int
    name: str
    role: Any
    start: int
    end: int
    lost: int = 0  # when its engine was seen to be gone
    closing: Mapping[str, Any] | None = None
    marks: list[Mark] = field(default_factory=list)


@dataclass(slots=True)
class Reading:
    """What the events have told so far."""

    story: rebuild.Story = field(default_factory=rebuild.Story)
    sends: list[Send] = field(default_factory=list)
    latest: dict[Place, Send] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


def of_run(about: About, events: Iterable[Mapping[str, Any]], calls: Iterable[Mapping[str, Any]]) -> list[Span]:
    """`events` in order from the first, `calls` in any order (some or all may be gone), both in the API's form. The root comes first."""
    reading = Reading()
    for event in events:
        take(reading, event, nanoseconds(event["at"]))
    rows = {rebuild.place(call["call_id"]): call for call in calls}
    trace = trace_of(about.run_id, about.traceparent)
    children = [child(about, trace, send, rows.get((send.step, send.ord))) for send in reading.sends]
    start = min([*reading.times, *(one.start for one in children)])
    end = max([*reading.times, *(one.end for one in children)])
    return [root(about, trace, reading, rows, (start, end)), *children]


def take(reading: Reading, event: Mapping[str, Any], at: int) -> None:
    """One event finds its place: it begins a send, ends it, follows it, or belongs to the run."""
    for count in (rebuild.move, rebuild.charge, rebuild.step_down):
        count(reading.story, event)
    reading.times.append(at)
    kind, place = event["event"], rebuild.place(event["call_id"]) if event["call_id"] else None
    before = reading.latest.get(place) if place else None
    if kind in STARTED and place:
        give_up(before, at)
        reading.latest[place] = begin(event, place, at)
        reading.sends.append(reading.latest[place])
    elif before and before.closing is None and kind in CLOSED:
        close(before, event, at)
    elif kind not in QUIET:
        (before.marks if before and kind in FOLLOWS else reading.marks).append(mark(event, place, at))
    over(reading, kind, at)


def over(reading: Reading, kind: str, at: int) -> None:
    """Whose engine is gone gets no answer any more, and after the end of the run nobody does."""
    if kind == Kind.RUN_TAKEN_OVER:
        for send in reading.latest.values():
            send.lost = send.lost or at
    elif kind == Kind.RUN_COMPLETED:
        for send in reading.latest.values():
            give_up(send, at)


def begin(event: Mapping[str, Any], place: Place, at: int) -> Send:
    data = event["data"] or {}
    name = clean(event["model"] if place[1] == 0 else event["tool"])
    return Send(*place, data.get("attempt") or 1, name, data.get("role"), at, at)


def close(send: Send, event: Mapping[str, Any], at: int) -> None:
    """An answer's own latency is truer than the time its event was committed."""
    send.closing, latency = event, event["latency_ms"]
    took = None if latency is None else max(latency, 0) * 1_000_000
    if at < send.start:  # the clock was set back meanwhile
        send.end = send.start + (took or 0)
    else:
        send.end = at if took is None else min(at, send.start + took)


def give_up(send: Send | None, at: int) -> None:
    """No answer was told, and none will be: it lasted until its engine was seen to be gone, else until now."""
    if send is not None and send.closing is None:
        send.closing, send.end = UNANSWERED, max(send.start, send.lost or at)


def root(about: About, trace: Trace, reading: Reading, rows: Mapping[Place, Mapping[str, Any]], times: tuple[int, int]) -> Span:
    story, marks = reading.story, reading.marks
    failed = story.state == RunState.FAILED
    attributes = present({
        names.OPERATION: names.INVOKE_AGENT, names.AGENT_NAME: story.agent, names.RUN: about.run_id, names.TENANT: about.tenant,
        names.RELEASE: story.release, names.STATE: story.state, names.OUTCOME: story.outcome, names.DEGRADED: rebuild.degraded(story),
        names.STEPS: story.step, names.INPUT_TOKENS: story.input_tokens, names.OUTPUT_TOKENS: story.output_tokens,
        names.COST: float(story.cost), names.STOP_LIMIT: (story.stop or {}).get("limit"),
        names.ERROR_TYPE: story.outcome if failed else None,
    })  # fmt: skip
    if about.content:
        attributes |= content.of_run(about.content, rows.get((answer_step(story, rows), 0)))
    name, more = f"{names.INVOKE_AGENT} {story.agent}", max(0, len(marks) - MARKS)
    return Span(trace.id, trace.root, trace.parent, name, INTERNAL, *times, attributes, tuple(marks[:MARKS]), more, failed)


def answer_step(story: rebuild.Story, rows: Mapping[Place, Any]) -> int:
    """The step whose model call is the answer; 0: there is none."""
    if any(rung["do"] in rebuild.FROM_STORE and not rung.get("missed") for rung in story.rungs):
        return max((step for step, ord_ in rows if not ord_), default=0)
    return story.answer_step or 0


def child(about: About, trace: Trace, send: Send, row: Mapping[str, Any] | None) -> Span:
    told = send.closing or {}
    data, failed = told.get("data") or {}, told.get("result") in BAD
    attributes = present({
        names.OPERATION: names.EXECUTE_TOOL if send.ord else names.CHAT, names.CALL: f"{about.run_id}.{send.step}.{send.ord}",
        names.STEP: send.step, names.ATTEMPT: send.attempt, names.TENANT: about.tenant, names.RESULT: told.get("result"),
        names.ERROR_TYPE: (word(told.get("error_type")) or names.OTHER) if failed else None,
        names.STATUS_CODE: data.get("status"), names.LOST: data.get("lost"),
    })  # fmt: skip
    latest = row if row and row["attempt"] == send.attempt else None  # a row keeps what its last send brought
    attributes |= of_tool(about, send) if send.ord else of_model(about, send, told, latest)
    if about.content and latest and not told.get("lost"):
        attributes |= content.of_call(about.content, latest, told.get("result") == "ok")
    span = trace.span(send.step, send.ord, send.attempt)
    name, kind = f"{attributes[names.OPERATION]} {send.name}", INTERNAL if send.ord else CLIENT
    return Span(trace.id, span, trace.root, name, kind, send.start, send.end, attributes, tuple(send.marks), failed=failed)


def of_tool(about: About, send: Send) -> Attributes:
    call_id = f"{about.run_id}.{send.step}.{send.ord}"
    return {names.TOOL_NAME: send.name, names.TOOL_TYPE: names.EXTENSION, names.TOOL_CALL_ID: call_id}


def of_model(about: About, send: Send, told: Mapping[str, Any], row: Mapping[str, Any] | None) -> Attributes:
    finish = word((told.get("data") or {}).get("finish"))
    reported = word(((row or {}).get("result") or {}).get("model"))
    cost = told.get("cost_usd")
    return present({
        names.PROVIDER: about.providers.get(send.name, names.OTHER), names.REQUEST_MODEL: send.name, names.RESPONSE_MODEL: reported,
        names.FINISH_REASONS: [finish] if finish else None, names.INPUT_TOKENS: told.get("input_tokens"),
        names.OUTPUT_TOKENS: told.get("output_tokens"), names.COST: None if cost is None else float(cost),
        names.ROLE: word(send.role),
    })  # fmt: skip


def mark(event: Mapping[str, Any], place: Place | None, at: int) -> Mark:
    data = event["data"] or {}
    attributes: dict[str, Value | None] = {
        names.STEP: event["step_id"], names.ORD: place[1] if place else None, names.ERROR_TYPE: word(event["error_type"]),
        names.TOOL_NAME: event["tool"] and clean(event["tool"]), names.REQUEST_MODEL: event["model"] and clean(event["model"]),
        names.RETRYABLE: event["retryable"],
    }  # fmt: skip
    attributes |= {f"signalbox.{key}": simple(data[key]) for key in names.TOLD if key in data}
    if event["event"] in names.RULED:
        attributes["signalbox.by"] = word(data.get("by"))
    attributes.setdefault(names.RESULT, event["result"])
    return Mark(event["event"], at, present(attributes))


def clean(name: str | None) -> str:
    return word(name) or names.OTHER


def word(value: Any) -> str | None:
    """A name or a code; None for any other text, which may be content."""
    return value if isinstance(value, str) and NAME.fullmatch(value) else None


def simple(value: Any) -> Value | None:
    return value if isinstance(value, bool | int | float) else word(value)


def present(attributes: Mapping[str, Value | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def nanoseconds(at: str) -> int:
    return (datetime.fromisoformat(at) - EPOCH) // timedelta(microseconds=1) * 1000
