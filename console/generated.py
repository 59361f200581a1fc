"""Invented history of many runs, for benches and for looking at the console under load. Pure: the same seed gives the same rows.

Every run is one of a few stories, told by the same functions as real ones, so that doctor, the catalogue of events and `rebuild` hold
for it. States are those that a row may be born in; `ENDS` says where the legal moves take it from there.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from runs.events import Kind, event
from runs.states import CallState, Outcome, RunState
from tenants.ids import encode

BY_HOUR = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 20, 20, 17, 18, 19, 18, 16, 13, 9, 7, 5, 4, 3, 2)  # runs are started by people at work
QUESTIONS = (
    "What is the refund policy?", "I was charged twice on acct_{n}", "How do I change my plan?", "Please close my account acct_{n}",
    "Which invoices are open for acct_{n}?", "My invoice shows the wrong address", "URGENT: nobody answers my ticket",
    "Can I get a copy of invoice {n}?",
)  # fmt: skip
STORIES = ("answered", "searched", "wrote", "failed", "waits", "cancelled")
PRICE = (800_000, 3_200_000)  # micro-USD for a million tokens


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run may live: a tenant, and the live release of one of its agents with the tools that the stories use."""

    tenant: UUID
    agent: str
    release: UUID
    release_id: str
    limits: dict[str, Any]
    read: tuple[str, UUID]  # name, version
    write: tuple[str, UUID]
    starter: int


@dataclass
class Story:
    """Rows of one run. Calls and events in the order of their columns, see `console.management.commands.generate`."""

    id: UUID
    place: Place
    at: datetime
    question: str
    events: list[tuple[str, str, datetime]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    approval: dict[str, Any] | None = None
    state: str = RunState.SUCCEEDED
    outcome: str | None = Outcome.COMPLETED
    last_error: dict[str, Any] | None = None
    answer_step: int | None = None
    now: datetime = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.now = self.at

    def say(self, kind: Kind, **fields: Any) -> None:
        self.events.append((*event(kind, **fields), self.now))

    def total(self, name: str) -> int:
        return sum(int(call.get(name, 0)) for call in self.calls)

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [call for call in self.calls if call["ord"] and call["attempt"]]


def stories(places: list[Place], count: int, until: datetime, days: float, seed: int) -> Iterator[Story]:
    """In the order of time."""
    rng = random.Random(seed)
    for at in sorted(moment(rng, until, days) for _ in range(count)):
        yield tell(rng, rng.choice(places), at, until)


def moment(rng: random.Random, until: datetime, days: float) -> datetime:
    hour = rng.choices(range(24), BY_HOUR)[0]
    midnight = (until - timedelta(days=rng.random() * days)).replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + timedelta(hours=hour, seconds=rng.random() * 3600)
    return at if at < until - timedelta(hours=1) else at - timedelta(days=1)


def an_id(rng: random.Random, at: datetime) -> UUID:
    return UUID(int=int(at.timestamp() * 1000) << 80 | rng.getrandbits(80))


def a_hash(rng: random.Random) -> str:
    return f"{rng.getrandbits(256):064x}"


def tell(rng: random.Random, place: Place, at: datetime, until: datetime) -> Story:
    story = Story(an_id(rng, at), place, at, rng.choice(QUESTIONS).format(n=rng.randrange(1000, 9999)))
    told = rng.choices(STORIES, (34, 40, 16, 6, 1 if until - at < timedelta(days=2) else 0, 3))[0]
    sha256 = hashlib.sha256(story.question.encode()).hexdigest()
    story.say(Kind.RUN_ACCEPTED, data={"agent": place.agent, "release": place.release_id, "input_sha256": sha256})
    if told == "cancelled":
        return cancelled(rng, story)
    pass_time(rng, story, 30)
    story.say(Kind.RUN_STARTED)
    if told == "failed":
        return failed(rng, story)
    if told in ("wrote", "waits"):
        turn(rng, story, [place.write[0]])
        if told == "waits":
            return waits(rng, story)
        use(rng, story, place.write, "write", approved=rng.random() < 0.3)
    for _ in range(rng.choice((1, 1, 1, 2, 3)) if told == "searched" else 0):
        turn(rng, story, [place.read[0]])
        use(rng, story, place.read, "read")
    turn(rng, story, [])
    story.answer_step = story.step
    return ended(story, "ok")


def pass_time(rng: random.Random, story: Story, about_ms: float) -> int:
    """Milliseconds that went by, with a long tail."""
    took = max(1, int(about_ms * rng.lognormvariate(0, 0.6)))
    story.now += timedelta(milliseconds=took)
    return took


def turn(rng: random.Random, story: Story, calls: list[str]) -> None:
    """One model turn that asks for these tools, or answers."""
    story.step += 1
    about = {"step_id": story.step, "ord": 0, "model": "primary"}
    story.say(Kind.MODEL_CALL_STARTED, **about, data={"attempt": 1, "role": "planner", "reserve_micro": 4000})
    began, tokens_in, tokens_out = story.now, rng.randrange(300, 2500), rng.randrange(20, 400)
    took, cost = pass_time(rng, story, 700), (tokens_in * PRICE[0] + tokens_out * PRICE[1]) // 1_000_000
    spent = {"latency_ms": took, "input_tokens": tokens_in, "output_tokens": tokens_out, "cost_micro": cost}
    finish = "tool_calls" if calls else "stop"
    data = {"attempt": 1, "result_sha256": a_hash(rng), "finish": finish, "estimated": False}
    story.say(Kind.MODEL_CALL_COMPLETED, **about, **spent, result="ok", data=data)
    story.say(
        Kind.PLAN_DECIDED,
        step_id=story.step,
        model="primary",
        data={"calls": calls, "offered": [story.place.read[0], story.place.write[0]]},
    )
    text = "" if calls else "This is what the handbook says about it."
    story.calls.append(
        {"step": story.step, "ord": 0, "name": "primary", "effect": "read", "attempt": 1, "dispatched_at": began, "ended_at": story.now,
         "latency_ms": took, "tokens_in": tokens_in, "tokens_out": tokens_out, "cost_micro": cost, "asked": len(calls),
         "result": {"text": text, "calls": [], "finish": finish}}
    )  # fmt: skip


def use(rng: random.Random, story: Story, tool: tuple[str, UUID], effect: str, *, approved: bool = False) -> None:
    """The call that the last turn asked for: ruled on, perhaps approved by a person, sent and answered."""
    call, about = begun(rng, story, tool, effect, "ask" if approved else "allow")
    if approved:
        ask(rng, story, call, "consumed")
        story.now += timedelta(minutes=rng.uniform(1, 40))
        apr = encode("apr", call["approval_id"])
        story.say(
            Kind.APPROVAL_DECIDED,
            **about,
            result="ok",
            data={"approval_id": apr, "by": "approver", "verdict": "approve", "state": "approved"},
        )
        story.say(Kind.RUN_RESUMED)
        story.say(Kind.RUN_CLAIMED)
    began, failed_once = story.now, effect == "read" and rng.random() < 0.03
    told = {"args_sha256": hashlib.sha256(call["args"]).hexdigest()} | ({"approval_id": apr} if approved else {})
    if failed_once:
        story.say(Kind.TOOL_CALL_STARTED, **about, data=told | {"attempt": 1})
        failure = {"error_type": rng.choice(("timeout", "transient_upstream")), "latency_ms": pass_time(rng, story, 900)}
        story.say(Kind.TOOL_CALL_FAILED, **about, **failure, result="error", retryable=True,
                  data={"attempt": 1, "status": None, "result_sha256": a_hash(rng)})  # fmt: skip
        story.say(Kind.RETRY_SCHEDULED, **about, result="retried", error_type=failure["error_type"], data={"attempt": 2, "wait_ms": 200})
        story.last_error = {
            "error_type": failure["error_type"],
            "message": "It did not answer in time.",
            "step": story.step,
            "tool": tool[0],
        }
    attempt = 2 if failed_once else 1
    story.say(Kind.TOOL_CALL_STARTED, **about, data=told | {"attempt": attempt})
    took, result = pass_time(rng, story, 120), {"ok": True, "items": rng.randrange(9)}
    sha256 = hashlib.sha256(json.dumps(result, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
    story.say(
        Kind.TOOL_CALL_COMPLETED, **about, latency_ms=took, result="ok", data={"attempt": attempt, "status": 200, "result_sha256": sha256}
    )
    call |= {"attempt": attempt, "dispatched_at": began, "ended_at": story.now, "latency_ms": took, "result": result}


def begun(rng: random.Random, story: Story, tool: tuple[str, UUID], effect: str, decision: str) -> tuple[dict[str, Any], dict[str, Any]]:
    args = json.dumps({"account_id": f"acct_{rng.randrange(1000, 9999)}"}, separators=(",", ":")).encode()
    about = {"step_id": story.step, "ord": 1, "tool": tool[0]}
    data = {"decision": decision, "by": "default", "rev": 1}
    story.say(Kind.POLICY_DECIDED, **about, result="ok", data=data)
    call: dict[str, Any] = {
        "step": story.step, "ord": 1, "name": tool[0], "effect": effect, "version": tool[1], "args": args, "attempt": 0,
        "decision": data | {"why": "As the tool's effect has it."}, "provider_id": f"call_{story.step}",
        "idem_key": f"{rng.getrandbits(128):032x}" if effect != "read" else None,
    }  # fmt: skip
    story.calls.append(call)
    return call, about


def ask(rng: random.Random, story: Story, call: dict[str, Any], state: str) -> None:
    """A request for the call, and the run lets go of its engine."""
    call["approval_id"] = an_id(rng, story.now)
    story.approval = {"id": call["approval_id"], "step": story.step, "ord": 1, "state": state, "args": call["args"], "digest": a_hash(rng),
                      "tool": call["name"], "version": call["version"], "at": story.now}  # fmt: skip
    data = {"approval_id": encode("apr", call["approval_id"]), "digest": story.approval["digest"], "needed": 1}
    story.say(Kind.APPROVAL_REQUESTED, step_id=story.step, ord=1, tool=call["name"], data=data)
    story.say(Kind.RUN_PARKED, step_id=story.step, data={"state": RunState.WAITING_APPROVAL})


def waits(rng: random.Random, story: Story) -> Story:
    call, _ = begun(rng, story, story.place.write, "write", "ask")
    ask(rng, story, call, "pending")
    call["state"] = CallState.WAITING_APPROVAL
    story.state, story.outcome = RunState.WAITING_APPROVAL, None
    return story


def failed(rng: random.Random, story: Story) -> Story:
    """The model did not answer, twice."""
    story.step = 1
    about = {"step_id": 1, "ord": 0, "model": "primary"}
    began = story.now
    for attempt in (1, 2):
        story.say(Kind.MODEL_CALL_STARTED, **about, data={"attempt": attempt, "role": "planner", "reserve_micro": 4000})
        failure = {"error_type": "transient_upstream", "latency_ms": pass_time(rng, story, 2000), "cost_micro": 0}
        story.say(
            Kind.MODEL_CALL_FAILED, **about, **failure, result="error", retryable=attempt == 1, data={"attempt": attempt, "status": 503}
        )
        if attempt == 1:
            story.say(Kind.RETRY_SCHEDULED, **about, result="retried", error_type="transient_upstream", data={"attempt": 2, "wait_ms": 200})
    story.calls.append({"step": 1, "ord": 0, "name": "primary", "effect": "read", "attempt": 2, "dispatched_at": began,
                        "ended_at": story.now, "latency_ms": failure["latency_ms"], "error": "transient_upstream", "asked": 0})  # fmt: skip
    story.state, story.outcome = RunState.FAILED, Outcome.MODEL_ERROR
    story.last_error = {"error_type": "transient_upstream", "message": "The model did not answer.", "step": 1}
    return ended(story, "error")


def cancelled(rng: random.Random, story: Story) -> Story:
    pass_time(rng, story, 60_000)
    story.state, story.outcome = RunState.CANCELLED, Outcome.CANCELLED
    story.say(Kind.RUN_COMPLETED, data={"state": "cancelled", "outcome": "cancelled", "by": "operator"})
    return story


def ended(story: Story, result: str) -> Story:
    spent = {"input_tokens": story.total("tokens_in"), "output_tokens": story.total("tokens_out"), "cost_micro": story.total("cost_micro")}
    data = {"state": story.state, "outcome": story.outcome, "stop": None}
    story.say(Kind.RUN_COMPLETED, step_id=story.step, result=result, **spent, data=data)
    return story
