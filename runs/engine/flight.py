"""One run in an engine's memory: what its rows say, and what is decided but not yet committed."""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from runs.budgets import Stop, Used
from runs.events import Kind, encode, event
from runs.inference.tiers import ACTION, CRITIQUE
from runs.inference.transcript import Transcript
from runs.inference.types import ModelEndpoint
from runs.limits import Limits
from runs.rehearsals import Rehearsal
from runs.states import CallState, Outcome, RunState
from runs.stops import SwitchOn
from runs.tracing import trace_of
from tenants import ids

from .definitions import ReleaseView, Snapshot
from .journal import Changed, Entry, Journal, Planned
from .lease import Lease, Stale
from .stance import Stance

JSON = dict[str, Any]


@dataclass(slots=True)
class ToolCall:
    """One call the model asked for. `result` is set exactly when it is settled: the model will be told it."""

    ord: int
    name: str
    provider_id: str
    args: bytes | None  # canonical bytes; None: the arguments were not an object
    state: str | None = None  # None: no row yet
    attempt: int = 0
    result: JSON | None = None
    error: str | None = None
    decision: JSON | None = None
    approval_id: UUID | None = None
    version: UUID | None = None  # of the tool, where the row says so
    edited: bool = False  # a person wrote these arguments instead of the model's
    wait_s: float | None = None  # a retry is due after this
    unsure: bool = False  # a write, and an earlier send of it may have been applied
    key: str = ""  # equal for calls that ask for the same; filled when it is needed
    sent_at: float | None = None  # monotonic time of the send before: the other side forgets keys


@dataclass(slots=True)
class Turn:
    """One step: a model call, and the tool calls it asked for once it has answered."""

    step: int
    role: str
    model: str
    state: str | None = None  # of the model call
    attempt: int = 0
    tries: int = 0  # sends to the current model
    reply: JSON | None = None
    calls: list[ToolCall] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    of: int = 0  # a critique: the step it checks
    waited_s: float = 0.0  # of its model call's time, for a seat
    given_up: bool = False  # its model call failed for good, and a rung went on without it

    @property
    def settled(self) -> bool:
        return self.given_up or (self.reply is not None and all(call.result is not None for call in self.calls))


@dataclass(slots=True)
class Pending:
    """Facts that wait for the next commit: they were seen, nothing depends on them yet."""

    events: list[tuple[str, str]] = field(default_factory=list)
    steps: list[tuple[int, str, str, int]] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    tokens_in: int = 0
    tokens_out: int = 0
    cost: int = 0
    rare: JSON = field(default_factory=dict)


@dataclass(slots=True)
class Intent:
    """What the run is about to do. Made anew when the controls changed between the decision and the commit."""

    events: list[tuple[str, str]] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    state: str | None = None
    step: int | None = None
    reserve: int = 0
    hold: float | None = None
    tool_calls: int = 0
    writes: int = 0
    rare: JSON = field(default_factory=dict)
    dispatches: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    state: RunState
    outcome: Outcome
    stop: Stop | None = None
    error: JSON | None = None
    answer_step: int | None = None


EDITED = "A person changed the arguments before this was sent. These were sent."


def overlap(first: list[Changed], second: list[Changed]) -> bool:
    """Whether a call is in both."""
    return bool(second) and bool({(c.step, c.ord) for c in first} & {(c.step, c.ord) for c in second})


class Flight:
    """State of one claimed run. Only its own coroutine touches it, but for `cancel` and `poke`."""

    def __init__(self, row: Mapping[str, Any], release: ReleaseView, snapshot: Snapshot, journal: Journal, lease: Lease) -> None:
        self.lease = lease  # the one it was claimed under: a later one of the same engine says nothing about this run
        self.journal, self.release, self.snapshot = journal, release, snapshot
        self.id: UUID = row["id"]
        self.tenant: UUID = row["tenant_id"]
        self.run_id = ids.encode("agt", self.id)
        self.fence: int = row["fence"]
        self.entry = 0
        self.mode: str = row["mode"]
        self.limits = Limits(**row["limits"])
        self.deadline: float = row["claimed"] + row["left_s"]  # never later than the database has it
        self.takeovers: int = row["takeovers"]
        self.action: JSON | None = row["action"]
        self.input_key: str = row["input_key"]
        self.rungs: list[JSON] = list(row["rungs"])
        self.stance = Stance.after(self.rungs, self.mode)
        self.starter: int | None = row["starter_id"]
        self.used = Used(row["step"], row["tool_calls"], row["writes"], row["tokens_in"], row["tokens_out"], row["cost_micro"])
        self.reserved: int = row["reserved_micro"]
        self.unpriced: bool = row["unpriced"]
        self.user: JSON = row["user"] or {}
        self.trace = trace_of(self.run_id, row["traceparent"])
        self.asked = row["text"] if row["data"] is None else row["text"] + "\n\n" + json.dumps(row["data"], ensure_ascii=False)
        self.turns: list[Turn] = []
        self.behind = 0  # so many turns from the first on are settled, which they stay: nothing looks at them again at every move
        self.answers: dict[str, list[JSON]] = {}  # what calls that ask for the same (their key) were answered
        self.answered = 0  # turns already in `answers`
        self.messages = Transcript(
            (
                {"role": "system", "content": release.spec.instructions},
                {"role": "user", "content": self.asked},
            )
        )
        self.asking: JSON | None = None  # the rung that waits for a person to grant more
        self.told = 0  # turns already in `messages`
        self.pending = Pending()
        self.day: JSON = {}  # what the tenant's runs wrote today, when a rule asks
        self.labels = frozenset((row["fork"] or {}).get("labels", ()))  # what it was tainted with before its first call
        self.ending: Ending | None = None
        self.halt: SwitchOn | None = None  # what the call met that is the one next move
        self.wait_s: float | None = None  # the next model attempt is due after this
        self.cancel: bool = row["cancel_requested"]
        self.draining = False
        self.poked = asyncio.Event()  # set to end a back-off early
        self.recorded: dict[tuple[str, str], JSON] = {}  # (tool, args sha256) -> what that write came to in the run this one retries
        self.rehearsal: Rehearsal | None = None  # it changes nothing: its writes are answered, not sent
        self.seen: list[JSON] = []  # outcomes of writes that no commit holds yet: evidence if the run turns out to be lost

    def endpoint(self, model: str) -> ModelEndpoint | None:
        """As the release pinned it, with the price and the credential that it has now."""
        known, pinned = self.snapshot.endpoints.get(model), self.release.models.get(model)
        return replace(known, **pinned) if known and pinned else known

    def rehearse(self, rehearsal: Rehearsal) -> None:
        self.rehearsal, self.mode = rehearsal, rehearsal.mode
        self.stance = Stance.after(self.rungs, self.mode)

    @property
    def turn(self) -> Turn | None:
        """The one that is worked on: the last that is open (a critique stands before the turn it checks), else the last."""
        while self.behind < len(self.turns) and self.turns[self.behind].settled:
            self.behind += 1
        return next((turn for turn in reversed(self.turns[self.behind :]) if not turn.settled), self.turns[-1] if self.turns else None)

    @property
    def taken(self) -> list[JSON]:
        """The rungs that had something to give."""
        return [entry for entry in self.rungs if not entry.get("missed")]

    @property
    def work(self) -> list[Turn]:
        """The turns that make up the answer: without critiques and those given up."""
        return [turn for turn in self.turns if turn.role != CRITIQUE and not turn.given_up]

    @property
    def last(self) -> Turn | None:
        """The last of `work`."""
        return next((turn for turn in reversed(self.turns) if turn.role != CRITIQUE and not turn.given_up), None)

    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def left_for(self, turn: Turn, own: float) -> float:
        """Seconds for one call: never more than its step and its run have left."""
        return min(own, turn.started + self.limits.step_s - time.monotonic(), self.left_s())

    def restore(self, calls: Iterable[Mapping[str, Any]], roles: Mapping[int, str]) -> None:
        """Rebuild the turns from rows: a resumed run goes on exactly where its last commit was."""
        for row in calls:
            if row["ord"] == 0:
                role = roles.get(row["step"], "planner")
                if self.turns and self.turns[-1].reply is None:
                    self.turns[-1].given_up = True
                of = self.last.step if role == CRITIQUE and self.last else 0
                tries = row["attempt"]
                self.turns.append(Turn(row["step"], role, row["name"], row["state"], row["attempt"], tries, row["result"], of=of))
                continue
            if not self.turns:
                self.turns.append(self.acting())
            call = ToolCall(row["ord"], row["name"], row["provider_id"], None if row["args"] is None else bytes(row["args"]))
            call.state, call.attempt, call.result, call.error = row["state"], row["attempt"], row["result"], row["error_class"]
            call.decision, call.approval_id, call.version = row["decision"], row["approval_id"], row["tool_version_id"]
            call.edited = row["proposed"] is not None
            call.sent_at = None if row["age_s"] is None else time.monotonic() - row["age_s"]
            call.unsure = call.state == CallState.DISPATCHED and row["effect"] != "read"
            self.turns[-1].calls.append(call)

    def acting(self) -> Turn:
        """The only turn of a run whose one call a person named."""
        action = self.action or {}
        ask = {"id": "action", "name": action["tool"], "arguments": encode(action["args"])}
        return Turn(1, ACTION, "", CallState.DONE, reply={"text": "", "calls": [ask], "finish": "tool_calls"})

    def conversation(self) -> list[JSON]:
        """The messages so far. Each settled turn is added once; every call the model made has exactly one tool message."""
        while self.told < len(self.turns) and self.turns[self.told].settled:
            turn = self.turns[self.told]
            self.told += 1
            if not turn.calls or turn.role == CRITIQUE:
                continue  # a draft answer: the synthesis that follows writes its own
            reply = turn.reply or {}
            asks = [  # arguments that were no JSON object are not sent back: some providers refuse them
                {
                    "id": ask["id"],
                    "type": "function",
                    "function": {"name": ask["name"], "arguments": ask["arguments"] if c.args else "{}"},
                }
                for ask, c in zip(reply["calls"], turn.calls, strict=True)
            ]
            self.messages.append({"role": "assistant", "content": reply.get("text") or "", "tool_calls": asks})
            for call in turn.calls:
                edit = {"edited": {"arguments": json.loads(call.args or b"{}"), "note": EDITED}} if call.edited else {}
                content = encode({**(call.result or {}), **edit})
                self.messages.append({"role": "tool", "tool_call_id": call.provider_id, "content": content})
        return self.messages

    async def commit(self, intent: Intent) -> bool:
        """Write everything pending and the intent as one entry. False: the controls changed, decide again.

        Raises Stale (stop at once) and Fault (the entry cannot be written).
        """
        if overlap(self.pending.changed, intent.changed):
            await self.commit(Intent(reserve=self.reserved))  # one statement moves a row once: what failed first, then the next attempt
        facts = self.pending
        rare = facts.rare | intent.rare
        entry = Entry(
            self.id, self.fence, self.entry + 1, facts.events + intent.events, facts.steps, facts.changed + intent.changed,
            facts.planned + intent.planned, self.snapshot.rev if intent.dispatches else None, intent.state, intent.step,
            facts.tokens_in, facts.tokens_out, facts.cost, intent.reserve, intent.hold, intent.tool_calls, intent.writes,
            encode(rare) if rare else None,
        )  # fmt: skip
        written = await self.journal.write(entry)
        if written.verdict == "stale":
            raise Stale
        self.cancel = self.cancel or written.cancel_requested
        if written.verdict == "recheck":
            return False
        self.entry += 1
        self.pending = Pending()
        self.seen.clear()
        self.reserved = intent.reserve
        self.used.tool_calls += intent.tool_calls
        self.used.writes += intent.writes
        return True

    def say(self, kind: Kind, **fields: Any) -> None:
        self.pending.events.append(event(kind, **fields))

    def spend(self, tokens_in: int, tokens_out: int, cost: int) -> None:
        self.used.tokens_in += tokens_in
        self.used.tokens_out += tokens_out
        self.used.cost_micro += cost
        self.pending.tokens_in += tokens_in
        self.pending.tokens_out += tokens_out
        self.pending.cost += cost

    def abandoned(self) -> list[Changed]:
        """Open calls at the end of a run: given up before they were sent, or unknown when a send may have been applied."""
        ends = {CallState.READY: CallState.ABANDONED, CallState.WAITING_APPROVAL: CallState.ABANDONED}
        ends[CallState.DISPATCHED] = CallState.UNKNOWN
        return [
            Changed(turn.step, call.ord, ends[CallState(call.state)], attempt=call.attempt, error=call.error)
            for turn in self.turns
            for call in turn.calls
            if call.result is None and call.state in ends
        ]

    def note(self, turn: Turn, call: ToolCall, result: JSON, applied: bool | None) -> None:
        """Keep what a write came to until a commit holds it."""
        self.seen.append(
            {
                "step": turn.step,
                "ord": call.ord,
                "attempt": call.attempt,
                "applied": applied,
                "result": result,
                "error_class": call.error or "",
            }
        )
