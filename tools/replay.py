"""Deciding calls of the past again, under the policy as it is and under one that is proposed. Pure: rows of the past in, pairs of
decisions out, through the same `policy.decide` that the engine asks."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from . import conditions, past, policy
from .policy import Decision, PermissionRow, RuleRow

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Policy:
    """The rows that the runs of one tenant are held to."""

    rows: tuple[PermissionRow, ...] = ()
    rules: tuple[RuleRow, ...] = ()

    def asks_about_day(self) -> bool:
        return any("day." in rule.when for rule in self.rules)


@dataclass(frozen=True, slots=True)
class PastCall:
    """A tool call that a model asked for. `moment`, `started` and `answered` are numbers of its run's events: when it was decided
    (as recorded), first sent, first heard of; 0: not, or nothing else was open in its step."""

    step: int
    ord: int
    tool: str
    effect: str
    labels: frozenset[str]
    args: bytes
    at: datetime  # of the decision
    sent_at: datetime | None
    recorded: JSON  # the decision as it was kept with the call
    offered: bool = True
    heard: bool = False  # sent, and it was answered or is unknown
    applied: bool = False  # or may have been
    done: bool = False
    has_effect_key: bool = False
    mode: policy.Mode = "normal"
    asks_writes: bool = False  # a rung of the ladder has people see every write
    moment: int = 0
    started: int = 0
    answered: int = 0

    @property
    def mutating(self) -> bool:
        return self.effect != "read"


@dataclass(frozen=True, slots=True)
class PastRun:
    """`costs`: (step, micro-USD) of its model calls. `calls` in their order."""

    id: UUID
    tenant: str
    agent: str
    release: int
    user: JSON
    tools: tuple[str, ...]
    costs: tuple[tuple[int, int], ...] = ()
    calls: tuple[PastCall, ...] = ()
    by_hand: bool = False  # its one call was named by a person


@dataclass(frozen=True, slots=True)
class Written:
    """A write that counts for the day of its tenant."""

    at: datetime
    tenant: str
    tool: str
    args: bytes


@dataclass(frozen=True, slots=True)
class Pair:
    run: PastRun
    call: PastCall
    was: Decision  # under the policy as it is
    now: Decision  # under the proposed one

    @property
    def differs(self) -> bool:
        return self.was.strictness() != self.now.strictness()


@dataclass(frozen=True, slots=True)
class Change:
    """The rows and rules that are in one of two policies only. Where none of them holds, both decide alike: most calls need no more."""

    rows: frozenset[PermissionRow]
    rules: frozenset[RuleRow]

    @classmethod
    def between(cls, was: Policy, now: Policy) -> "Change":
        return cls(frozenset(was.rows) ^ frozenset(now.rows), frozenset(was.rules) ^ frozenset(now.rules))

    def touches(self, seen: policy.Facts) -> bool:
        visible = policy.visible(seen)
        here = [row.when for row in self.rows if policy.in_place(row, seen.tool, visible["run"])]
        here += [rule.when for rule in self.rules if rule.on == "call"]
        return any(may_hold(when, visible) for when in here)


def may_hold(when: str, visible: JSON) -> bool:
    """What cannot be evaluated decides too: it denies."""
    try:
        return not when or conditions.holds(when, visible)
    except conditions.ConditionError:
        return True


Policies = Mapping[str, tuple[Policy, Policy]]  # tenant -> (as it is, as proposed)
Concerned = Callable[[PastRun, PastCall], bool]


def replay(
    runs: Iterable[PastRun], written: Iterable[Written], policies: Policies, concerned: Concerned, *, every: bool = False
) -> Iterator[Pair | None]:
    """One answer for each call, newest run first; None: the proposal makes no difference to it. `every`: decided all the same."""
    told = sorted(runs, key=lambda run: run.id.int, reverse=True)
    asks = any(each.asks_about_day() for pair in policies.values() for each in pair)
    days = days_of(told, written) if asks else {}
    changes = {tenant: Change.between(*pair) for tenant, pair in policies.items()}
    for run in told:
        for call in reversed(run.calls):
            if not concerned(run, call):
                yield None
                continue
            seen = facts(run, call, days.get((run.id, call.step, call.ord), {}))
            if not every and not changes[run.tenant].touches(seen):
                yield None
                continue
            was, now = (decided(run, call, seen, each) for each in policies[run.tenant])
            yield Pair(run, call, was, now)


def decided(run: PastRun, call: PastCall, seen: policy.Facts, held_to: Policy) -> Decision:
    """As the engine decides before the first send."""
    found = policy.decide(seen, held_to.rows, held_to.rules, offered=call.offered, enabled=True, mode=call.mode)
    if run.by_hand and found.verdict == "draft":
        return Decision("ask", "A draft that is carried out is seen by a person.", "action", 1)
    if found.verdict != "allow" or not call.mutating:
        return found
    if call.asks_writes:
        return Decision("ask", "The run was on a rung where people see every change.", "ladder", 1)
    if not call.has_effect_key and any(is_same_write(other, call) for other in run.calls):
        return Decision("ask", "The run had made exactly this change already.", "repeated_write", 1)
    return found


def is_same_write(earlier: PastCall, call: PastCall) -> bool:
    before = (earlier.step, earlier.ord) < (call.step, call.ord)
    return before and earlier.done and (earlier.tool, earlier.args) == (call.tool, call.args)


def facts(run: PastRun, call: PastCall, day: JSON) -> policy.Facts:
    """What conditions saw of the call when it was decided."""
    made = [
        past.Made(c.step, c.ord, c.tool, c.labels, c.args, c.applied)
        for c in run.calls
        if c.heard and c is not call and (c.step < call.step or (c.step == call.step and 0 < c.answered < call.moment))
    ]
    return policy.Facts(
        tool=call.tool,
        effect=call.effect,
        labels=call.labels,
        args=json.loads(call.args),
        run={
            "agent": run.agent,
            "tenant": run.tenant,
            "user": run.user,
            "release": run.release,
            "step": call.step,
            "labels": sorted(past.labels(made)),
            "writes": sum(c.mutating and sent_before(c, call) for c in run.calls),
            "cost_usd": sum(micro for step, micro in run.costs if step <= call.step) / 1e6,
            "tools": past.none_yet(run.tools) | past.applied(made),
        },
        now=call.at.isoformat(),
        day=day,
        sources=past.sources(made),
    )


def sent_before(other: PastCall, call: PastCall) -> bool:
    if other.sent_at is None or other is call:
        return False
    return other.step < call.step or (other.step == call.step and 0 < other.started < call.moment)


def days_of(runs: list[PastRun], written: Iterable[Written]) -> dict[tuple[UUID, int, int], JSON]:
    """What each call's tenant had written since midnight (UTC) when the call was decided."""
    calls = sorted(((call.at, run, call) for run in runs for call in run.calls), key=lambda each: each[0])
    writes = sorted(written, key=lambda write: write.at)
    totals: dict[tuple[str, date], JSON] = {}
    found: dict[tuple[UUID, int, int], JSON] = {}
    place = 0
    for at, run, call in calls:
        while place < len(writes) and writes[place].at < at:
            write = writes[place]
            past.add(totals.setdefault((write.tenant, write.at.date()), {}), write.tool, write.args)
            place += 1
        today = totals.get((run.tenant, at.date()), {})
        tools = {name: {"count": each["count"], "sums": dict(each["sums"])} for name, each in today.items()}
        found[run.id, call.step, call.ord] = {"tools": past.none_yet(run.tools) | tools}
    return found
