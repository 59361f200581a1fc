"""What the last minutes were, as the detectors measure them. Each statement is of all tenants asked for, and made once for a look.

Events are found by their time (a BRIN index on `at`); what waits is found by its state.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from console import audit_health
from console.rollups import FELL_BACK, LIMITED
from runs.events import Kind
from runs.models import ModelDefinition
from runs.rehearsals import MODES
from tools.breakers import host_port
from tools.models import Breaker

from .detectors import Reading

Found = Iterator[tuple[UUID | None, Reading]]  # None: the installation's own
Rows = list[tuple[Any, ...]]
MOST = 50_000  # runs that a window is measured by

# Each send of a call has one answer, `completed` or `failed`; one that is not sent again settles the call. An unknown write says
# `failed` with the result unknown, and then `unknown`.
CALLS = """
select tenant_id, kind like 'tool%%', name, count(*) filter (where settled), count(*) filter (where settled and bad),
  count(*) filter (where error = 'duplicate_request'), count(*) filter (where began), count(distinct call) filter (where began),
  count(*) filter (where answered), count(*) filter (where answered and bad),
  percentile_cont(0.95) within group (order by ms) filter (where kind = 'model_call_completed')
from (
  select e.tenant_id, e.kind, coalesce(p->>'tool', p->>'model') as name, p->>'error_type' as error, (p->>'latency_ms')::int as ms,
    (e.run_id, p->>'step_id', p->>'ord') as call,
    e.kind in ('tool_call_started', 'model_call_started') as began,
    e.kind in ('tool_call_failed', 'model_call_failed', 'tool_call_unknown')
      and coalesce(p->>'error_type', '') <> 'duplicate_request' as bad,
    e.kind in ('model_call_completed', 'model_call_failed') as answered,
    e.kind in ('tool_call_completed', 'tool_call_unknown', 'model_call_completed')
      or (e.kind in ('tool_call_failed', 'model_call_failed') and coalesce(p->>'retryable', '') <> 'true'
        and coalesce(p->>'result', '') <> 'unknown') as settled
  from event e cross join lateral (select e.payload as p) payload
  where e.at > %(since)s and e.at <= %(now)s and e.tenant_id = any(%(tenants)s) and e.kind = any(%(kinds)s)
    and coalesce(p->'data'->>'sent', '') <> 'false'
) said group by 1, 2, 3
"""
CALL_KINDS = (
    Kind.TOOL_CALL_STARTED, Kind.TOOL_CALL_COMPLETED, Kind.TOOL_CALL_FAILED, Kind.TOOL_CALL_UNKNOWN, Kind.MODEL_CALL_STARTED,
    Kind.MODEL_CALL_COMPLETED, Kind.MODEL_CALL_FAILED,
)  # fmt: skip
RUNS = """
select r.tenant_id, r.agent_id, count(*), percentile_cont(0.5) within group (order by r.step),
  percentile_cont(0.5) within group (order by r.cost_micro), count(*) filter (where r.outcome = any(%(limited)s)),
  count(*) filter (where exists (select from event f where f.run_id = r.id and f.kind = any(%(fell_back)s)))
from (
  select distinct e.run_id from event e
  where e.at > %(since)s and e.at <= %(now)s and e.tenant_id = any(%(tenants)s) and e.kind = 'run_completed' limit %(most)s
) ended join run r on r.id = ended.run_id where r.mode <> all(%(rehearsals)s) group by 1, 2
"""
# What was sent and made, by the exact bytes. A second one is one too many; the calls of one tenant's window are few. What a rehearsal
# would have written has an error class, so it is none.
DUPLICATES = """
select tenant_id, name, sum(times - 1), sum(times) from (
  select tenant_id, name, count(*) as times from call
  where tenant_id = any(%(tenants)s) and effect <> 'read' and dispatched_at > %(since)s and dispatched_at <= %(now)s
    and state = 'done' and error_class is null and args is not null
  group by tenant_id, name, md5(args)
) made group by 1, 2 having sum(times - 1) > 0
"""
UNKNOWN = """
select tenant_id, tool, count(*) from runs_unknownwrite
where tenant_id = any(%(tenants)s) and result = '' and opened_at <= %(now)s group by 1, 2
"""
WAITING = """
select tenant_id, count(*), extract(epoch from %(now)s - min(created_at)) / 60 from approvals_approval
where tenant_id = any(%(tenants)s) and state = 'pending' and expires_at > %(now)s and created_at <= %(now)s group by 1
"""


@dataclass
class Window:
    """The facts up to `now` of these tenants. A statement that several detectors need is asked once."""

    now: datetime
    tenants: Sequence[UUID]
    asked: dict[tuple[str, int], Rows] = field(default_factory=dict)

    def rows(self, sql: str, minutes: int = 0) -> Rows:
        if (sql, minutes) not in self.asked:
            values: dict[str, Any] = {
                "now": self.now,
                "since": self.now - timedelta(minutes=minutes),
                "tenants": list(self.tenants),
                "kinds": [kind.value for kind in CALL_KINDS],
                "limited": [outcome.value for outcome in LIMITED],
                "fell_back": [kind.value for kind in FELL_BACK],
                "most": MOST,
                "rehearsals": list(MODES),
            }
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                self.asked[sql, minutes] = list(cursor.fetchall())
        return self.asked[sql, minutes]


def of_tools(window: Window, minutes: int, figure: Callable[..., tuple[float, int]]) -> Found:
    for tenant, is_tool, name, *counts in window.rows(CALLS, minutes):
        if is_tool:
            value, n = figure(*counts)
            yield tenant, Reading(("tool", name), value, n)


def share(part: int, whole: int) -> tuple[float, int]:
    return (part / whole if whole else 0.0, whole)


def tool_errors(window: Window, minutes: int) -> Found:
    return of_tools(window, minutes, lambda settled, bad, *_: share(bad, settled))


def duplicate_answers(window: Window, minutes: int) -> Found:
    return of_tools(window, minutes, lambda settled, bad, duplicates, *_: share(duplicates, settled))


def retry_cascade(window: Window, minutes: int) -> Found:
    return of_tools(window, minutes, lambda settled, bad, duplicates, began, calls, *_: share(began, calls))


def of_runs(window: Window, minutes: int, figure: Callable[..., float]) -> Found:
    for tenant, agent, ended, *figures in window.rows(RUNS, minutes):
        yield tenant, Reading(("agent", agent), figure(ended, *figures), ended)


def steps_per_run(window: Window, minutes: int) -> Found:
    return of_runs(window, minutes, lambda ended, steps, cost, limited, fell_back: float(steps))


def cost_per_run(window: Window, minutes: int) -> Found:
    return of_runs(window, minutes, lambda ended, steps, cost, limited, fell_back: float(cost) / 1_000_000)


def budget_exceeded(window: Window, minutes: int) -> Found:
    return of_runs(window, minutes, lambda ended, steps, cost, limited, fell_back: limited / ended)


def fallback_rate(window: Window, minutes: int) -> Found:
    return of_runs(window, minutes, lambda ended, steps, cost, limited, fell_back: fell_back / ended)


def duplicate_writes(window: Window, minutes: int) -> Found:
    for tenant, tool, extra, made in window.rows(DUPLICATES, minutes):
        yield tenant, Reading(("tool", tool), float(extra), int(made))


def unknown_outcomes(window: Window, minutes: int) -> Found:
    for tenant, tool, count in window.rows(UNKNOWN):
        yield tenant, Reading(("tool", tool), float(count), count)


def approvals_ageing(window: Window, minutes: int) -> Found:
    for tenant, count, oldest in window.rows(WAITING):
        yield tenant, Reading(("", ""), float(oldest), count)


def provider_slow(window: Window, minutes: int) -> Found:
    for tenant, is_tool, name, *_, answered, bad, p95 in window.rows(CALLS, minutes):
        if not is_tool and p95 is not None:
            yield tenant, Reading(("model", name), float(p95), answered - bad)


def provider_degraded(window: Window, minutes: int) -> Found:
    """Failed sends of a model; all of them, where the breaker of its host is open."""
    shut = open_breakers(window.tenants)
    for tenant, is_tool, name, *_, answered, bad, _p95 in window.rows(CALLS, minutes):
        if not is_tool and (tenant, name) not in shut:
            yield tenant, Reading(("model", name), *share(bad, answered))
    for (tenant, name), host in shut.items():
        yield tenant, Reading(("model", name), 1.0, 1, certain=True, note=f"The breaker of {host} is open.")


def open_breakers(tenants: Sequence[UUID]) -> dict[tuple[UUID, str], str]:
    """(tenant, model) -> the host whose breaker keeps its calls back. Nothing is read of models while none is open."""
    rows = Breaker.objects.filter(tenant__in=tenants, state=Breaker.State.OPEN).exclude(forced=Breaker.Forced.CLOSED)
    hosts = list(rows.values_list("tenant_id", "host_port"))
    if not hosts:
        return {}
    models = [(name, host_port(url)) for name, url in ModelDefinition.objects.values_list("name", "base_url")]
    return {(tenant, name): host for tenant, host in hosts for name, of in models if of == host}


def audit_chain(window: Window, minutes: int) -> Found:
    """As the regular verification of the trail found it last."""
    broken = audit_health.broken()
    if broken:
        named = audit_health.names([UUID(one["chain"]) for one in broken])
        yield None, Reading(("", ""), float(len(broken)), len(broken), note=f"Broken: {', '.join(sorted(named.values()))}.")


READ: Mapping[str, Callable[[Window, int], Found]] = {
    read.__name__: read
    for read in (
        tool_errors, duplicate_answers, retry_cascade, steps_per_run, cost_per_run, budget_exceeded, fallback_rate, duplicate_writes,
        unknown_outcomes, approvals_ageing, provider_degraded, provider_slow, audit_chain,
    )
}  # fmt: skip
