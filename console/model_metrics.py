"""How models fare and what they cost: plain figures and series, as `console.metrics` has them for runs and tools.

A call counts for the model that it ended with. Calls that were sent and are settled count; those in flight are told apart.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from console.figures import total
from console.histograms import merge, quantile
from console.metrics import first_id, last_hours
from console.models import CallHour
from console.readings import Cut, Scope, read
from console.rollups import HOUR

SENT = "c.ord = 0 and c.attempt > 0 and c.state <> 'dispatched'"
FAILED = "c.state = 'failed_not_applied'"
IN_FLIGHT = """
select c.name, count(*) from run r join call c on c.run_id = r.id
where {scope} r.owner is not null and c.ord = 0 and c.state = 'dispatched' group by 1
"""
BY_ROLE = f"""
select coalesce(s.role, ''), count(*), count(*) filter (where {FAILED}), sum(c.cost_micro), sum(c.tokens_in), sum(c.tokens_out)
from run r join call c on c.run_id = r.id left join step s on s.run_id = c.run_id and s.step = c.step
where {{scope}} r.id >= %(first)s and r.created_at >= %(since)s and {SENT} and c.name = %(name)s
group by 1 order by 4 desc nulls last, 1
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Calls of one model in a stretch of time that began at `at`. `sends`: with every attempt."""

    at: datetime
    calls: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    cost_micro: int = 0
    today_micro: int = 0
    sends: int = 0

    @property
    def error_rate(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    calls: int
    errors: int
    cost_micro: int
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class Used:
    """One model in the last 24 clock hours: the whole, and each hour, the oldest first."""

    whole: Stretch
    hours: tuple[Stretch, ...]


def models(scope: Scope, now: datetime, name: str | None = None) -> dict[str, Used]:
    """The models that were called, by name."""
    since = last_hours(now)
    rows: dict[str, list[CallHour]] = {}
    for row in read(Cut(scope, model=name or ""), since, now, runs=False).calls:
        if row.kind == CallHour.Kind.MODEL and row.calls:
            rows.setdefault(row.name, []).append(row)
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {model: _used(since, today, found) for model, found in rows.items()}


def _used(since: datetime, today: datetime, rows: list[CallHour]) -> Used:
    hours = [_stretch(at, today, [row for row in rows if row.hour == at]) for at in (since + n * HOUR for n in range(24))]
    return Used(_stretch(since, today, rows), tuple(hours))


def _stretch(at: datetime, today: datetime, rows: list[CallHour]) -> Stretch:
    latency = merge(*(row.latency_ms for row in rows))
    return Stretch(
        at,
        calls=total(rows, "calls"),
        errors=total(rows, "errors"),
        p50_ms=quantile(latency, 0.5),
        p95_ms=quantile(latency, 0.95),
        cost_micro=total(rows, "cost_micro"),
        today_micro=total([row for row in rows if row.hour >= today], "cost_micro"),
        sends=total(rows, "sends"),
    )


def in_flight(scope: Scope) -> dict[str, int]:
    now = datetime.now(UTC)
    return dict(_rows(IN_FLIGHT, scope, now, now, None))


def roles(scope: Scope, now: datetime, name: str) -> list[Role]:
    """What each role has spent on the model, the dearest first. A step that got no answer has no role: its name is empty."""
    return [
        Role(role, calls, errors, *(int(n or 0) for n in rest))
        for role, calls, errors, *rest in _rows(BY_ROLE, scope, last_hours(now), now, name)
    ]


def _rows(sql: str, scope: Scope, since: datetime, now: datetime, name: str | None) -> list[Any]:
    limit = "" if scope is None else "r.tenant_id = %(tenant)s and"
    with connection.cursor() as cursor:
        cursor.execute(sql.format(scope=limit), {"tenant": scope, "first": first_id(since), "since": since, "name": name})
        return list(cursor.fetchall())
