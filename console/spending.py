"""What was spent, and how far each ceiling is used: figures for the page and the API."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from runs.ceilings import LEDGER
from runs.models import Release
from runs.rehearsals import MODES
from tenants import windows
from tenants.actors import Actor
from tenants.ids import first_at
from tenants.models import Ceiling, Spending
from tenants.quotas import scope_name

from .models import CallHour
from .readings import Cut, Scope, read

DAYS = 14
STARTED = "r.id >= %(first)s and r.created_at >= %(since)s and r.created_at < %(until)s and r.mode <> 'normal' and r.mode = any(%(modes)s)"
# Rehearsals are in no rollup, and cost what they cost. They are few, and have an index of their own.
BY_DAY = f"""
select date_trunc('day', r.created_at, 'UTC'), r.agent_id, count(*), coalesce(sum(r.cost_micro), 0)::bigint, bool_or(r.unpriced)
from run r where {{scope}} {STARTED} group by 1, 2
"""
BY_MODEL = f"""
select c.name, coalesce(s.role, ''), count(*), coalesce(sum(c.cost_micro), 0)::bigint, sum(c.tokens_in)::bigint, sum(c.tokens_out)::bigint
from run r join call c on c.run_id = r.id and c.ord = 0 left join step s on s.run_id = c.run_id and s.step = c.step
where {{scope}} {STARTED} and c.attempt > 0 group by 1, 2 order by 4 desc, 1, 2
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """A ceiling and how far it is used, now. Costs in micro-USD; a count's `reserved` is the runs that are live.

    `used`: spent and reserved together; None where nothing is kept (starts a minute: what is left refills by itself).
    """

    ceiling: Ceiling
    used: int | None
    spent: int = 0
    reserved: int = 0
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    pace: windows.Pace | None = None

    @property
    def scope(self) -> str:
        return scope_name(self.ceiling.tenant.slug if self.ceiling.tenant else None, self.ceiling.agent)

    @property
    def over(self) -> bool:
        """More is held than the ceiling allows: it was lowered. Nothing stops, nothing new is accepted."""
        return (self.used or 0) > self.ceiling.value

    @property
    def is_cost(self) -> bool:
        return windows.is_cost(self.ceiling.kind)


@dataclass(frozen=True, slots=True)
class Day:
    at: datetime
    runs: int = 0
    cost_micro: int = 0


@dataclass(frozen=True, slots=True)
class Agent:
    name: str
    runs: int
    cost_micro: int


@dataclass(frozen=True, slots=True)
class Model:
    """Calls of one model in one role: that which the release gives to it, all of them where there are more."""

    name: str
    role: str
    calls: int
    cost_micro: int
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class Spent:
    """`partial`: some of it had no known price."""

    days: tuple[Day, ...]
    agents: tuple[Agent, ...]
    models: tuple[Model, ...]
    partial: bool

    @property
    def cost_micro(self) -> int:
        return sum(day.cost_micro for day in self.days)


def visible(actor: Actor) -> "QuerySet[Ceiling]":
    """A tenant's own; for platform admins all. What others spend together is told to no tenant."""
    rows = Ceiling.objects.select_related("tenant")
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def standings(actor: Actor, now: datetime) -> list[Standing]:
    """Installation first, then tenants by name, then agents; costs before counts."""
    starts = {windows.starts(kind, now) for kind in windows.COSTS}
    held = {(one.ceiling_id, one.starts_at): one for one in Spending.objects.filter(starts_at__in=starts)}
    found = [standing(ceiling, now, held) for ceiling in visible(actor)]
    kinds = Ceiling.Kind.values
    return sorted(
        found, key=lambda one: (one.ceiling.agent != "", one.ceiling.tenant_id is not None, one.scope, kinds.index(one.ceiling.kind))
    )


def standing(ceiling: Ceiling, now: datetime, held: dict[tuple[int, datetime], Spending]) -> Standing:
    if ceiling.kind == Ceiling.Kind.CONCURRENT:
        live = LEDGER.live(ceiling.tenant_id, ceiling.agent, 10 * ceiling.value + 1000)
        return Standing(ceiling, live, reserved=live)
    if ceiling.kind == Ceiling.Kind.PER_MINUTE:
        return Standing(ceiling, None)
    start = windows.starts(ceiling.kind, now)
    end = windows.ends(ceiling.kind, start)
    window = held.get((ceiling.pk, start)) or Spending(reserved_micro=0, spent_micro=0)
    spent, reserved = window.spent_micro, window.reserved_micro
    return Standing(ceiling, spent + reserved, spent, reserved, start, end, windows.pace(spent, ceiling.value, start, end, now))


def spent(scope: Scope, now: datetime, days: int = DAYS) -> Spent:
    """Of the runs that were accepted on the last `days` days, today included; running ones with what they cost so far."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=days - 1)
    asked = {"since": since, "until": now, "first": first_at(since), "tenant": scope, "modes": list(MODES)}
    reading = read(Cut(scope), since, now, apart=("agent", "release"))
    rows = [(_midnight(one.hour), one.agent, one.started, one.spent_micro, one.unpriced > 0) for one in reading.runs]
    rows += _rows(BY_DAY, scope, asked)
    return Spent(
        tuple(_day(since + timedelta(days=n), rows) for n in range(days)),
        _agents(rows),
        _models(reading.calls, _rows(BY_MODEL, scope, asked)),
        any(row[4] for row in rows),
    )


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0)


def _models(calls: list[CallHour], rehearsed: list[Any]) -> tuple[Model, ...]:
    """The dearest first."""
    sent = [row for row in calls if row.kind == CallHour.Kind.MODEL and row.calls]
    roles = _roles({row.release_id for row in sent})
    found: dict[tuple[str, str], list[int]] = {}
    for name, role, *figures in [
        *((row.name, roles.get((row.release_id, row.name), ""), row.calls, row.cost_micro, row.tokens_in, row.tokens_out) for row in sent),
        *rehearsed,
    ]:
        found[name, role] = [a + b for a, b in zip(found.get((name, role), [0, 0, 0, 0]), figures, strict=True)]
    models = [Model(*key, *figures) for key, figures in found.items()]
    return tuple(sorted(models, key=lambda one: (-one.cost_micro, one.name, one.role)))


def _roles(releases: set[UUID]) -> dict[tuple[UUID, str], str]:
    """What each release has a model do."""
    found: dict[tuple[UUID, str], str] = {}
    for pk, models in Release.objects.filter(pk__in=releases).values_list("pk", "spec__models"):
        for role, one in (models or {}).items():
            for name in (one["model"], *one.get("fallback", ())) if one else ():
                found[pk, name] = f"{found[pk, name]}, {role}" if (pk, name) in found else role
    return found


def _day(at: datetime, rows: list[Any]) -> Day:
    mine = [row for row in rows if row[0] == at]
    return Day(at, sum(row[2] for row in mine), sum(row[3] for row in mine))


def _agents(rows: list[Any]) -> tuple[Agent, ...]:
    names = {row[1] for row in rows}
    found = [Agent(name, *(sum(row[n] for row in rows if row[1] == name) for n in (2, 3))) for name in names]
    return tuple(sorted(found, key=lambda agent: (-agent.cost_micro, agent.name)))


def _rows(sql: str, scope: Scope, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql.format(scope="" if scope is None else "r.tenant_id = %(tenant)s and"), values)
        return list(cursor.fetchall())
