"""What is frozen when an incident opens: the figure over the last day, the runs it touched, and what changed before.

Names, ids and numbers only: it outlives the runs, and holds nothing that they said.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from console import changes, records
from console.rollups import FELL_BACK, HOUR, LIMITED, hour_of
from runs.rehearsals import MODES
from tenants.ids import encode

from .detectors import Finding, Subject
from .kinds import KINDS
from .past import histories

JSON = dict[str, Any]
RUNS = 200  # of an incident
WORST = 10
CHANGES = 20
DAY = timedelta(hours=24)

# (run, what was bad about it), the worst first. Through the time of events, or the state of what waits.
WINDOW = "e.at > %(since)s and e.at <= %(now)s and e.tenant_id = %(tenant)s"
FAILURES = f"""
select e.run_id, count(*)::float from event e
where {WINDOW} and e.kind = any(%(kinds)s) and coalesce(e.payload->>'tool', e.payload->>'model') = %(name)s
  and (%(error)s = '' or e.payload->>'error_type' = %(error)s) group by 1
"""
ENDED = f"""
select r.id, {{figure}}::float from run r
where r.agent_id = %(name)s and r.mode <> all(%(rehearsals)s) and {{only}}
  and r.id in (select e.run_id from event e where {WINDOW} and e.kind = 'run_completed')
"""
MADE_TWICE = """
select run_id, max(times)::float from (
  select run_id, count(*) over (partition by md5(args)) as times from call
  where tenant_id = %(tenant)s and name = %(name)s and effect <> 'read' and dispatched_at > %(since)s and dispatched_at <= %(now)s
    and state = 'done' and error_class is null and args is not null
) made where times > 1 group by 1
"""
UNKNOWN = """
select run_id, count(*)::float from runs_unknownwrite where tenant_id = %(tenant)s and tool = %(name)s and result = '' group by 1
"""
WAITING = """
select run_id, extract(epoch from %(now)s - min(created_at))::float / 60 from approvals_approval
where tenant_id = %(tenant)s and state = 'pending' and expires_at > %(now)s group by 1
"""
FELL = "exists (select from event f where f.run_id = r.id and f.kind = any(%(fell_back)s))"
TOUCHED = {
    "tool_errors": FAILURES,
    "retry_cascade": FAILURES,
    "duplicate_answers": FAILURES,
    "provider_degraded": FAILURES,
    "provider_slow": f"select e.run_id, max((e.payload->>'latency_ms')::int)::float from event e where {WINDOW} "
    "and e.kind = 'model_call_completed' and e.payload->>'model' = %(name)s group by 1",
    "steps_per_run": ENDED.format(figure="r.step", only="true"),
    "cost_per_run": ENDED.format(figure="r.cost_micro / 1000000.0", only="true"),
    "budget_exceeded": ENDED.format(figure="r.step", only="r.outcome = any(%(limited)s)"),
    "fallback_rate": ENDED.format(figure="r.step", only=FELL),
    "duplicate_writes": MADE_TWICE,
    "unknown_outcomes": UNKNOWN,
    "approvals_ageing": WAITING,
}
EVENTS = {
    "tool_errors": ("tool_call_failed", "tool_call_unknown"),
    "retry_cascade": ("retry_scheduled",),
    "duplicate_answers": ("tool_call_completed",),
    "provider_degraded": ("model_call_failed",),
}


@dataclass(frozen=True, slots=True)
class Place:
    """What an incident is about. `tenant` None: the installation."""

    tenant: UUID | None
    kind: str
    subject: Subject


def frozen(place: Place, finding: Finding, minutes: int, now: datetime) -> tuple[JSON, list[tuple[UUID, float]]]:
    """-> (the evidence, the runs it touched)."""
    kind, since = KINDS[place.kind], now - timedelta(minutes=minutes)
    runs = touched(place, since, now)
    if kind.by == "times":  # the others of the window are as they should be
        runs = [run for run in runs if run[1] >= finding.threshold] or runs
    base = finding.baseline
    held = {
        "metric": kind.metric,
        "unit": kind.unit,
        "sentence": finding.sentence,
        "threshold": finding.threshold,
        "baseline": {"median": base.median, "mad": base.mad, "hours": base.hours} if base else None,
        "window": {"since": records.time(since), "until": records.time(now), "minutes": minutes, "value": finding.value, "n": finding.n},
        "series": series(place, now),
        "runs": examples(runs),
        "changes": before(place.tenant, now - DAY, now),
    }
    return held, runs


def of_chart(place: Place, minutes: int, now: datetime) -> tuple[JSON, list[tuple[UUID, float]]]:
    """The same for one that a person opens from a chart: the figure as it is, without a line that it crossed."""
    kind, since = KINDS[place.kind], now - timedelta(minutes=minutes)
    runs = touched(place, since, now)
    held = {
        "metric": kind.metric,
        "unit": kind.unit,
        "sentence": "",
        "threshold": None,
        "baseline": None,
        "window": {"since": records.time(since), "until": records.time(now), "minutes": minutes, "value": None, "n": None},
        "series": series(place, now),
        "runs": examples(runs),
        "changes": before(place.tenant, now - DAY, now),
    }
    return held, runs


def touched(place: Place, since: datetime, now: datetime) -> list[tuple[UUID, float]]:
    """The runs of the window that show it, the worst first; RUNS at most."""
    sql = TOUCHED.get(place.kind)
    if sql is None or place.tenant is None:
        return []
    values: JSON = {
        "tenant": place.tenant,
        "name": place.subject[1],
        "since": since,
        "now": now,
        "kinds": list(EVENTS.get(place.kind, ())),
        "error": "duplicate_request" if place.kind == "duplicate_answers" else "",
        "limited": [outcome.value for outcome in LIMITED],
        "fell_back": [kind.value for kind in FELL_BACK],
        "rehearsals": list(MODES),
    }
    with connection.cursor() as cursor:
        cursor.execute(f"select * from ({sql}) found (run, value) order by value desc, run desc limit {RUNS}", values)
        return list(cursor.fetchall())


def series(place: Place, now: datetime) -> list[JSON]:
    """[{at, value, n}] of the last day's hours, the oldest first. Empty where the hours do not say it."""
    if place.tenant is None or not KINDS[place.kind].history:
        return []
    found = histories(hour_of(now - DAY), hour_of(now) + HOUR, place.tenant)
    points = found.get((place.tenant, place.kind), {}).get(place.subject, [])
    return [{"at": records.time(point.at), "value": point.value, "n": point.n} for point in points]


def examples(runs: Iterable[tuple[UUID, float]]) -> list[JSON]:
    return [{"run_id": encode("agt", run), "value": value} for run, value in runs][:WORST]


def before(tenant: UUID | None, since: datetime, until: datetime) -> list[JSON]:
    """What people changed that runs are decided by, as far as the tenant sees it; the newest first."""
    rows = changes.visible(tenant).filter(changes.of_kinds(()), at__gt=since, at__lte=until)
    rows = rows if tenant else rows.filter(tenant=None)
    found = rows.order_by("-at", "-id").values_list("at", "actor", "action", "object_kind", "object_id")[:CHANGES]
    return [dict(zip(("at", "by", "action", "kind", "id"), (records.time(at), *rest), strict=True)) for at, *rest in found]
