"""Figures and series for the console, from the hours that are kept (`console.rollups`). Every one is of one tenant, or of all of them
for a platform admin.

One rule for all: a period holds the runs that *started* in it, with their calls, so that every figure can be followed to the list
of runs that it was made of. A period is made of whole clock hours (UTC): it begins with the hour that `since` lies in.

How fresh they are: see `console.readings`. Quantiles are those of histograms: `console.histograms` says how far off they may be.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from django.db import connection

from runs.states import DUE, PEOPLE, TERMINAL, RunState
from tenants.actors import Actor
from tenants.ids import first_at

from . import histograms
from .figures import Figures, classes_of, figures, of_class
from .models import CallHour, RunHour
from .readings import Cut as Cut
from .readings import Part, cut_of, read
from .readings import Reading as Reading
from .readings import Scope as Scope
from .rollups import HOUR, LIMITED, hour_of, hours_between
from .stored_hours import told_apart

Grouping = Literal["tenant", "agent", "release", "model", "tool", "failure_class"]
OVERDUE_S = 60  # a run that is due for longer has no engine that takes it
SOON_S = 600
GROUPS_MOST = 500

# Runs that are not over are few, and found by tenant and state: there is an index for that, and none for all tenants at once.
STANDING = """
with live as materialized (
  select r.state, r.available_at from tenants_tenant t, lateral (
    select state, available_at from run where tenant_id = t.id and state = any(%(live)s) offset 0
  ) r where {tenant}
)
select (select count(*) from engine where lease_until > now() and pid <> 0),
  (select extract(epoch from now() - max(at)) from runs_canary where name = 'jobs'),
  (select count(*) filter (where r.state = any(%(due)s) and r.available_at < now() - make_interval(secs => %(overdue)s)) from live r),
  (select count(*) from live),
  (select count(*) from live r where r.state = any(%(people)s)),
  (select count(*) from approvals_approval r where {scope} r.state = 'pending' and r.expires_at > now()),
  (select count(*) from approvals_approval r where {scope} r.state = 'pending' and r.expires_at > now()
     and r.expires_at < now() + make_interval(secs => %(soon)s))
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The figures of the stretch that began at `at`."""

    at: datetime
    figures: Figures


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
    return hour_of(now) - (count - 1) * HOUR


# figures ----------------------------------------------------------------------------------------------------------------------


def summary(part: Part, since: datetime, until: datetime, group_by: Grouping | None = None) -> dict[str, Figures]:
    """Figures by the group's key, the largest first; without `group_by` one, under an empty key. At most GROUPS_MOST groups."""
    return grouped(read(part, since, until, apart=told_apart(group_by)), cut_of(part), group_by)


def series(part: Part, since: datetime, until: datetime, every: timedelta = HOUR) -> list[Stretch]:
    """One for each `every` (whole hours) from the hour of `since`, those without runs too, the oldest first."""
    return stretches(read(part, since, until), cut_of(part), since, until, every)


def grouped(reading: Reading, cut: Cut, group_by: Grouping | None) -> dict[str, Figures]:
    if group_by is None:
        return {"": figures_of(reading.runs, reading.calls, cut)}
    if group_by == "failure_class":
        return _largest({name: of_class(reading.calls, name) for name in classes_of(reading.calls)})
    key = KEYS[group_by]
    runs: list[RunHour] = [] if group_by in ("model", "tool") else reading.runs
    calls = [row for row in reading.calls if group_by not in ("model", "tool") or row.kind == group_by]
    parts: dict[str, tuple[list[RunHour], list[CallHour]]] = {}
    for run in runs:
        parts.setdefault(key(run), ([], []))[0].append(run)
    for call in calls:
        parts.setdefault(key(call), ([], []))[1].append(call)
    return _largest({name: figures_of(*rows, cut) for name, rows in parts.items()})


KEYS: dict[str, Callable[[Any], str]] = {
    "tenant": lambda row: str(row.tenant_id),
    "agent": lambda row: str(row.agent),
    "release": lambda row: str(row.release_id),
    "model": lambda row: str(row.name),
    "tool": lambda row: str(row.name),
}


def stretches(reading: Reading, cut: Cut, since: datetime, until: datetime, every: timedelta = HOUR) -> list[Stretch]:
    start = hour_of(since)
    parts: dict[datetime, tuple[list[RunHour], list[CallHour]]] = {at: ([], []) for at in hours_between(since, until, every)}
    for run in reading.runs:
        parts[start + (run.hour - start) // every * every][0].append(run)
    for call in reading.calls:
        parts[start + (call.hour - start) // every * every][1].append(call)
    return [Stretch(at, figures_of(*rows, cut)) for at, rows in parts.items()]


def figures_of(runs: Iterable[RunHour], calls: Iterable[CallHour], cut: Cut) -> Figures:
    return of_class(calls, cut.failure_class) if cut.failure_class else figures(runs, calls)


def _largest(found: dict[str, Figures]) -> dict[str, Figures]:
    def size(pair: tuple[str, Figures]) -> tuple[int, int, int, str]:
        name, made = pair
        return -made.runs, -made.calls, -(made.tool_errors + made.retried), name

    return dict(sorted(found.items(), key=size)[:GROUPS_MOST])


def hours(part: Part, since: datetime, until: datetime) -> list[Hour]:
    """One for each clock hour from `since`, those without runs too, oldest first."""
    cut = cut_of(part)
    return [_hour(one) for one in stretches(read(cut, since, until, calls=False), cut, since, until)]


def periods(part: Part, since: datetime, until: datetime, before: timedelta = timedelta(hours=24)) -> tuple[Period, Period]:
    """(the period, the one of length `before` that ended when it began)."""
    reading, middle = read(part, since - before, until), hour_of(since)
    now = Reading([r for r in reading.runs if r.hour >= middle], [c for c in reading.calls if c.hour >= middle], reading.as_of)
    then = Reading([r for r in reading.runs if r.hour < middle], [c for c in reading.calls if c.hour < middle], reading.as_of)
    return _period(now, cut_of(part)), _period(then, cut_of(part))


def tools(part: Part, since: datetime, until: datetime) -> dict[str, ToolHealth]:
    """The tools that were called, by name, the worst first."""
    return {health.name: health for health in _tools(read(part, since, until, runs=False).calls)}


def _hour(one: Stretch) -> Hour:
    made = one.figures
    degraded = made.outcomes.get("completed_degraded", 0)
    limited = sum(made.outcomes.get(outcome, 0) for outcome in LIMITED)
    return Hour(
        one.at,
        completed=made.succeeded - degraded,
        degraded=degraded,
        limited=limited,
        failed=made.states.get("failed", 0) - limited,
        cancelled=made.states.get("cancelled", 0),
        going=made.runs - made.ended,
        p50_s=_seconds(made.p50_ms),
        p95_s=_seconds(made.p95_ms),
        cost_micro=made.cost_micro,
    )


def _period(reading: Reading, cut: Cut) -> Period:
    made = figures_of(reading.runs, reading.calls, cut)
    return Period(
        runs=made.runs,
        ended=made.ended,
        success_rate=made.success_rate,
        p95_s=_seconds(made.p95_ms),
        cost_per_success=made.cost_per_success,
        partial=made.partial,
        fallback_rate=made.fallback_rate,
        tool_error_rate=made.tool_error_rate,
        retry_rate=made.retry_rate,
        tools=tuple(_tools(reading.calls)),
    )


def _tools(calls: Iterable[CallHour]) -> list[ToolHealth]:
    by_name: dict[str, list[CallHour]] = {}
    for row in calls:
        if row.kind == CallHour.Kind.TOOL and row.calls:
            by_name.setdefault(row.name, []).append(row)
    found = [_tool(name, rows) for name, rows in by_name.items()]
    return sorted(found, key=lambda tool: (-tool.error_rate, tool.name))


def _tool(name: str, rows: list[CallHour]) -> ToolHealth:
    slow = histograms.quantile(histograms.merge(*(row.latency_ms for row in rows)), 0.95)
    return ToolHealth(name, sum(row.calls for row in rows), sum(row.errors for row in rows), slow)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def standing(scope: Scope) -> Standing:
    people = [state.value for state in PEOPLE]
    due = [state.value for state in DUE]
    limit = {"scope": "", "tenant": "true"} if scope is None else {"scope": "r.tenant_id = %(tenant)s and", "tenant": "t.id = %(tenant)s"}
    asked: dict[str, Any] = {"due": due, "people": people, "overdue": OVERDUE_S, "soon": SOON_S, "tenant": scope}
    with connection.cursor() as cursor:
        cursor.execute(STANDING.format(**limit), asked | {"live": [state.value for state in RunState if state not in TERMINAL]})
        [row] = cursor.fetchall()
    engines, canary, *counts = row
    return Standing(engines, None if canary is None else float(canary), *counts)


def first_id(at: datetime) -> UUID:
    """No run that was accepted at or after `at` has a lesser id."""
    return first_at(at)
