"""Queries -> plain figures and series for the console. Every one is of one tenant, or of all of them for a platform admin.

One rule for all: a period holds the runs that *started* in it, with their calls, so that every figure can be followed to the list
of runs that it was made of. Ids sort by time, which bounds each query to the end of the primary key.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from runs.events import Kind
from runs.states import DUE, PEOPLE, TERMINAL, Outcome
from tenants.actors import Actor
from tenants.ids import first_at

Scope = UUID | None  # a tenant, or None: all of them
HOUR = timedelta(hours=1)
LIMITED = (Outcome.BUDGET_EXCEEDED, Outcome.STEP_LIMIT, Outcome.DEADLINE_EXCEEDED)
FELL_BACK = (Kind.FALLBACK_ACTIVATED, Kind.RUNG_ENTERED)
OVERDUE_S = 60  # a run that is due for longer has no engine that takes it
SOON_S = 600

ENDED = "r.state = any(%(terminal)s)"
SECONDS = "extract(epoch from r.ended_at - r.created_at)"
STARTED = "r.id >= %(first)s and r.created_at >= %(since)s and r.created_at < %(until)s"
HOURS = f"""
select date_trunc('hour', r.created_at, 'UTC'),
  count(*) filter (where r.state = 'succeeded' and r.outcome is distinct from 'completed_degraded'),
  count(*) filter (where r.state = 'succeeded' and r.outcome = 'completed_degraded'),
  count(*) filter (where r.state = 'failed' and r.outcome = any(%(limited)s)),
  count(*) filter (where r.state = 'failed' and not coalesce(r.outcome = any(%(limited)s), false)),
  count(*) filter (where r.state = 'cancelled'),
  count(*) filter (where not {ENDED}),
  percentile_cont(0.5) within group (order by {SECONDS}),
  percentile_cont(0.95) within group (order by {SECONDS}),
  sum(r.cost_micro) filter (where {ENDED})
from run r where {{scope}} {STARTED} group by 1
"""
PERIODS = f"""
select r.created_at >= %(middle)s, count(*), count(*) filter (where {ENDED}), count(*) filter (where r.state = 'succeeded'),
  percentile_cont(0.95) within group (order by {SECONDS}), sum(r.cost_micro) filter (where {ENDED}), bool_or(r.unpriced),
  count(*) filter (where {ENDED} and exists (select from event e where e.run_id = r.id and e.kind = any(%(fell_back)s)))
from run r where {{scope}} {STARTED} group by 1
"""
CALLS = f"""
select r.created_at >= %(middle)s, c.ord > 0, c.name, count(*), count(*) filter (where c.attempt > 1),
  count(*) filter (where c.state = 'unknown' or c.error_class <> 'duplicate_request'),
  percentile_cont(0.95) within group (order by c.latency_ms)
from run r join call c on c.run_id = r.id
where {{scope}} {STARTED} and c.attempt > 0 and c.state = any(array['done', 'failed_not_applied', 'unknown']) group by 1, 2, 3
"""
STANDING = """
select (select count(*) from engine where lease_until > now() and pid <> 0),
  (select extract(epoch from now() - max(at)) from runs_canary where name = 'jobs'),
  (select count(*) from run r where {scope} r.state = any(%(due)s) and r.available_at < now() - make_interval(secs => %(overdue)s)),
  (select count(*) from run r where {scope} not {ended}),
  (select count(*) from run r where {scope} r.state = any(%(people)s)),
  (select count(*) from approvals_approval r where {scope} r.state = 'pending' and r.expires_at > now()),
  (select count(*) from approvals_approval r where {scope} r.state = 'pending' and r.expires_at > now()
     and r.expires_at < now() + make_interval(secs => %(soon)s))
""".replace("{ended}", ENDED)


@dataclass(frozen=True, slots=True)
class Hour:
    """The runs that started in the hour from `at`, by what became of them. Seconds and micro-USD of those that ended."""

    at: datetime
    completed: int = 0
    degraded: int = 0
    limited: int = 0
    failed: int = 0
    cancelled: int = 0
    going: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    cost_micro: int = 0

    @property
    def succeeded(self) -> int:
        return self.completed + self.degraded

    @property
    def total(self) -> int:
        return self.succeeded + self.limited + self.failed + self.cancelled + self.going


@dataclass(frozen=True, slots=True)
class ToolHealth:
    """Calls of one tool that were sent and are settled. An error is any that is not a duplicate; an unknown write is one."""

    name: str
    calls: int
    errors: int
    p95_ms: float | None

    @property
    def error_rate(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time in figures. Rates are shares from 0 to 1; None: nothing that it could be a share of.

    `success_rate` is of all runs that ended, cancelled ones too. `cost_per_success` (micro-USD) is what all of them cost for each that
    succeeded. `fallback_rate` is the share of runs that ended and on their way gave a model up for the next one, or took a rung of their
    ladder. `retry_rate` is the share of calls, of models and tools, that were sent more than once. `partial`: some had no price.
    """

    runs: int = 0
    ended: int = 0
    success_rate: float | None = None
    p95_s: float | None = None
    cost_per_success: float | None = None
    partial: bool = False
    fallback_rate: float | None = None
    tool_error_rate: float | None = None
    retry_rate: float | None = None
    tools: tuple[ToolHealth, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand now. `canary_s`: seconds since background jobs gave a sign, None if they never did."""

    engines: int
    canary_s: float | None
    overdue: int
    live: int
    with_people: int
    waiting: int
    waiting_soon: int


def scope_of(actor: Actor) -> Scope:
    """The same limit as the lists of runs and approvals have."""
    return None if actor.platform_admin else actor.tenant.id


def last_hours(now: datetime, count: int = 24) -> datetime:
    """When the last `count` clock hours began; the hour that runs now is one of them."""
    return now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - (count - 1) * HOUR


def hours(scope: Scope, since: datetime, until: datetime) -> list[Hour]:
    """One for each clock hour from `since`, those without runs too, oldest first."""
    limited = [outcome.value for outcome in LIMITED]
    found = {row[0]: Hour(*[*row[:9], int(row[9] or 0)]) for row in _ask(HOURS, scope, since, until, limited=limited)}
    count = math.ceil((until - since) / HOUR)
    return [found.get(at) or Hour(at) for at in (since + n * HOUR for n in range(count))]


def periods(scope: Scope, since: datetime, until: datetime, before: timedelta = timedelta(hours=24)) -> tuple[Period, Period]:
    """(the period, the one of length `before` that ended when it began). Two queries."""
    asked = {"since": since - before, "until": until, "middle": since}
    runs = {current: row for current, *row in _ask(PERIODS, scope, **asked, fell_back=[kind.value for kind in FELL_BACK])}
    calls: dict[bool, list[Any]] = {True: [], False: []}
    for current, *row in _ask(CALLS, scope, **asked):
        calls[current].append(row)
    return _period(runs.get(True), calls[True]), _period(runs.get(False), calls[False])


def tools(scope: Scope, since: datetime, until: datetime) -> dict[str, ToolHealth]:
    """The tools that were called, by name."""
    rows = [row for _, *row in _ask(CALLS, scope, since, until, middle=since)]
    return {health.name: health for health in _tools(rows)}


def standing(scope: Scope) -> Standing:
    people = [state.value for state in PEOPLE]
    due = [state.value for state in DUE]
    [row] = _rows(STANDING, scope, {"due": due, "people": people, "overdue": OVERDUE_S, "soon": SOON_S})
    engines, canary, *counts = row
    return Standing(engines, None if canary is None else float(canary), *counts)


def first_id(at: datetime) -> UUID:
    """No run that was accepted at or after `at` has a lesser id."""
    return first_at(at)


def _period(row: Any, calls: list[Any]) -> Period:
    count, ended, succeeded, p95, cost, partial, fell_back = row or (0, 0, 0, None, 0, False, 0)
    used = _tools(calls)
    sent, of_tools = sum(call[2] for call in calls), sum(tool.calls for tool in used)
    return Period(
        runs=count,
        ended=ended,
        success_rate=succeeded / ended if ended else None,
        p95_s=p95,
        cost_per_success=float(cost or 0) / succeeded if succeeded else None,
        partial=bool(partial),
        fallback_rate=fell_back / ended if ended else None,
        tool_error_rate=sum(tool.errors for tool in used) / of_tools if of_tools else None,
        retry_rate=sum(call[3] for call in calls) / sent if sent else None,
        tools=tuple(used),
    )


def _tools(rows: Iterable[Any]) -> list[ToolHealth]:
    found = [ToolHealth(name, count, errors, p95) for of_tool, name, count, _, errors, p95 in rows if of_tool]
    return sorted(found, key=lambda tool: (-tool.error_rate, tool.name))


def _ask(sql: str, scope: Scope, since: datetime, until: datetime, **more: Any) -> list[Any]:
    return _rows(sql, scope, {"since": since, "until": until, "first": first_id(since), **more})


def _rows(sql: str, scope: Scope, values: dict[str, Any]) -> list[Any]:
    limit = "" if scope is None else "r.tenant_id = %(tenant)s and"
    terminal = [state.value for state in TERMINAL]
    with connection.cursor() as cursor:
        cursor.execute(sql.format(scope=limit), values | {"tenant": scope, "terminal": terminal})
        return list(cursor.fetchall())
