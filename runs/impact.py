"""What a kill switch would hit, or has hit, in numbers. Reads only."""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from tools.models import Tool

from .models import Switch
from .states import TERMINAL, RunState

HOUR = timedelta(hours=1)
LONGEST = timedelta(days=7)  # calls since a moment are looked for in runs that were accepted up to so long before it
MOST = 8  # names of each list
OPEN = [state.value for state in RunState if state not in TERMINAL]

# Releases that may make the calls in question; for a scope of whole runs, all.
RUNS = """
(%(tenant)s::uuid is null or r.tenant_id = %(tenant)s) and (%(agent)s = '' or r.agent_id = %(agent)s)
and (%(tools)s::text[] is null or r.release_id in (select id from runs_release where tools ?| %(tools)s::text[]))
"""
CALLS = "(%(tools)s::text[] is null or c.ord > 0 and c.name = any(%(tools)s))"
WRITE = "c.ord > 0 and c.effect <> 'read'"

NOW = f"""
with r as materialized (
  select r.id, r.state, r.owner from run r where {RUNS} and r.state = any(%(open)s)
), c as materialized (
  select c.* from r join call c on c.run_id = r.id where r.owner is not null and c.state = 'dispatched' and c.result is null and {CALLS}
)
select (select count(*) from r where owner is not null), (select count(*) from r where state = 'queued'),
    (select count(*) from r where owner is null and state not in ('queued', 'paused')), (select count(*) from r where state = 'paused'),
    (select count(*) from c), (select count(*) from c where {WRITE})
"""
BY_RUN = """
select {name}, count(*) from run r {join} where {runs} and r.id >= %(since)s group by 1 order by 2 desc, 1
"""
BY_TOOL = f"""
select c.name, count(*) from run r join call c on c.run_id = r.id
where {RUNS} and r.id >= %(since)s and c.ord > 0 and c.dispatched_at is not null and {CALLS} group by 1 order by 2 desc, 1
"""
SINCE = f"""
select (select count(*) from run r where {RUNS} and r.id >= %(since)s and r.id < %(end)s),
    count(c.run_id), count(c.run_id) filter (where {WRITE})
from run r join call c on c.run_id = r.id
where {RUNS} and r.id >= %(before)s and c.dispatched_at >= %(at)s and c.dispatched_at < %(until)s and {CALLS}
"""


@dataclass(frozen=True, slots=True)
class Impact:
    """Now: runs by what they do, and calls on their way, which end normally. `last_hour`: of the runs accepted in it."""

    in_flight: int = 0
    queued: int = 0
    waiting: int = 0  # for people, for a time, or set aside: they meet the switch when they go on
    paused: int = 0
    calls_in_flight: int = 0
    writes_in_flight: int = 0
    last_hour: dict[str, dict[str, int]] = field(default_factory=dict)  # by agent, tenant and tool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Since:
    """What came within its scope since it is on: what a drill would have stopped."""

    runs_accepted: int
    calls_sent: int
    writes_sent: int

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def impact(scope: str, *, tenant: UUID | None = None, agent: str = "", tool: str = "") -> Impact:
    given, now = _given(scope, tenant, agent, tool), timezone.now()
    given["since"] = first_id(now - HOUR)
    by_run = {"agent": ("r.agent_id", ""), "tenant": ("t.slug", "join tenants_tenant t on t.id = r.tenant_id")}
    lists = {key: _top(BY_RUN.format(name=name, join=join, runs=RUNS), given) for key, (name, join) in by_run.items()}
    in_flight, queued, waiting, paused, calls, writes = _row(NOW, given | {"open": OPEN})
    return Impact(in_flight, queued, waiting, paused, calls, writes, lists | {"tool": _top(BY_TOOL, given)})


def since(switch: Switch, within: UUID | None) -> Since:
    """From its first moment to its last, or to now. `within`: only of this tenant."""
    given = _given(switch.scope, switch.tenant_id or within, switch.agent, switch.tool)
    until = switch.lifted_at or timezone.now()
    given |= {
        "at": switch.at,
        "until": until,
        "since": first_id(switch.at),
        "end": first_id(until),
        "before": first_id(switch.at - LONGEST),
    }
    return Since(*_row(SINCE, given))


def first_id(at: datetime) -> UUID:
    """No id made at or after this moment is less."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def _given(scope: str, tenant: UUID | None, agent: str, tool: str) -> dict[str, Any]:
    return {"tenant": tenant, "agent": agent, "tools": _tools(scope, tool)}


def _tools(scope: str, tool: str) -> list[str] | None:
    if scope == "tool":
        return [tool]
    if scope == "writes":
        return list(Tool.objects.exclude(current__effect="read").values_list("name", flat=True))
    return None


def _row(sql: str, given: dict[str, Any]) -> tuple[int, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, given)
        return tuple(cursor.fetchone())


def _top(sql: str, given: dict[str, Any]) -> dict[str, int]:
    """The greatest of them, and the rest as one."""
    with connection.cursor() as cursor:
        cursor.execute(sql, given)
        found: list[tuple[str, int]] = cursor.fetchall()
    rest = sum(n for _, n in found[MOST:])
    return dict(found[:MOST]) | ({"others": rest} if rest else {})
