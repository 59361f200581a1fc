"""What the runs of each hour came to, kept (`console.models.rollup`) so that a figure of a week costs no more than one of a day.

`measure` counts from the rows, `fold` keeps an hour of it. Nothing is ever added to what is kept: an hour is counted anew and
replaced whole, by whoever, as often as they like. So it may be late, and `manage.py rollups` sets any stretch of it right.

Which hours are counted anew (`due`): the one that runs now; those of runs that had an event since the last look, by the event's time;
those that were never counted, the newest first; and of the last week the one that was counted longest ago, because a clock may jump
and a transaction may commit late.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Model

from runs.events import Kind
from runs.models import Canary, DeletedHistory
from runs.rehearsals import MODES
from runs.states import TERMINAL, Outcome
from tenants.ids import SKEW, first_at

from .models import CallHour, FoldedHour, RunHour
from .rollup_sql import MEASURE, TOUCHED, UNCOUNTED

HOUR = timedelta(hours=1)
AHEAD = timedelta(days=2)  # how far the clock that makes ids may be ahead of the database's
LATE = timedelta(minutes=2)  # a transaction may commit this long after the time of its events
KEPT = timedelta(days=400)  # of history that is counted by itself
WEEK = timedelta(days=7)
AT_ONCE = 24  # hours in a round
LOOK = "rollups"  # the canary that says when hours were last looked for
FOLDING = 0x5B0A_F01D  # advisory lock: one folder at a time
LIMITED = (Outcome.BUDGET_EXCEEDED, Outcome.STEP_LIMIT, Outcome.DEADLINE_EXCEEDED)
FELL_BACK = (Kind.FALLBACK_ACTIVATED, Kind.RUNG_ENTERED)
Measured = tuple[list[RunHour], list[CallHour]]


def hour_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hours_between(since: datetime, until: datetime, every: timedelta = HOUR) -> Iterator[datetime]:
    """The beginnings of the stretches from the clock hour of `since` until nothing of the period is left, the oldest first."""
    at = hour_of(since)
    while at < until:
        yield at
        at += every


def measure(since: datetime, until: datetime, tenant: UUID | None = None) -> Measured:
    """Rows (not saved) for the runs that started in the period, counted from what is stored of them. `tenant` None: of all.

    One statement. Its cost grows with the runs of the period: a page asks for few of them only.
    """
    asked = {
        "since": since,
        "until": until,
        "tenant": tenant,
        "first": first_at(since),
        "last": first_at(until + SKEW + AHEAD),
        "terminal": [state.value for state in TERMINAL],
        "limited": [outcome.value for outcome in LIMITED],
        "fell_back": [kind.value for kind in FELL_BACK],
        "rehearsals": list(MODES),
        "telling": [kind.value for kind in (*FELL_BACK, Kind.POLICY_VIOLATED, Kind.RETRY_SCHEDULED)],
    }
    return _rows(_ask(MEASURE, asked))


def fold(hour: datetime) -> Measured:
    """Counts the hour and keeps that instead of what was kept; nothing once runs of it were deleted, which would count them away."""
    hour = hour_of(hour)
    if pruned(hour):
        return [], []
    with transaction.atomic():
        _ask("select pg_advisory_xact_lock(%(key)s)::text", {"key": FOLDING})
        [[at]] = _ask("select clock_timestamp()", {})  # no two counts of an hour have the same: readers know a new one by it
        runs, calls = measure(hour, hour + HOUR)
        _replace(hour, runs, calls, at)
    return runs, calls


def pruned(hour: datetime) -> bool:
    """Whether it was counted while runs were there that are deleted by now."""
    gone = DeletedHistory.objects.filter(run_id__gte=first_at(hour), run_id__lt=first_at(hour + HOUR + SKEW))
    return gone.exists() and FoldedHour.objects.filter(hour=hour).exists()


def due(now: datetime, limit: int = AT_ONCE) -> list[datetime]:
    """The hours to count now, the most urgent first: at most `limit` of them beside those that something happened to."""
    wanted = dict.fromkeys([hour_of(now), *dirty(now)])
    for hour in uncounted(now, limit):
        wanted.setdefault(hour)
    since = hour_of(now) - WEEK
    stale = FoldedHour.objects.filter(hour__gte=since, at__lt=now - HOUR).order_by("at").values_list("hour", flat=True).first()
    if stale is not None:
        wanted.setdefault(stale)
    return list(wanted)


def dirty(now: datetime) -> list[datetime]:
    """The hours of runs that had any event since the last look, the newest first. Nothing before the first look: all is uncounted then."""
    last = Canary.objects.filter(name=LOOK).values_list("at", flat=True).first()
    if last is None:
        return []
    return sorted((row[0] for row in _ask(TOUCHED, {"since": min(last, now) - LATE})), reverse=True)


def uncounted(now: datetime, limit: int) -> list[datetime]:
    return [row[0] for row in _ask(UNCOUNTED, {"now": hour_of(now), "oldest": hour_of(now) - KEPT, "limit": limit})]


def fold_due(limit: int = AT_ONCE) -> int:
    """One round; how many hours were counted. What happens while it works is found by the next one."""
    now = database_now()
    hours = due(now, limit)
    for hour in hours:
        fold(hour)
    Canary.objects.update_or_create(name=LOOK, defaults={"at": now})
    return len(hours)


def database_now() -> datetime:
    [[now]] = _ask("select now()", {})
    return datetime.fromtimestamp(now.timestamp(), UTC)


def kept(hours: Iterable[datetime]) -> dict[datetime, dict[tuple[str, ...], dict[str, Any]]]:
    """What is kept of these hours, as plain values by key: to tell what a recount changed."""
    found: dict[datetime, dict[tuple[str, ...], dict[str, Any]]] = {}
    listed = list(hours)
    for model in (RunHour, CallHour):
        for row in model.objects.filter(hour__in=listed):
            found.setdefault(row.hour, {})[key_of(row)] = plain(row)
    return found


def key_of(row: RunHour | CallHour) -> tuple[str, ...]:
    call = (row.kind, row.name) if isinstance(row, CallHour) else ("run",)
    return (str(row.tenant_id), row.agent, str(row.release_id), *call)


KEYS = frozenset({"id", "hour", "tenant_id", "agent", "release_id", "kind", "name"})
COUNTS = {"states", "outcomes", "steps", "duration_ms", "cost", "classes", "retry_classes", "latency_ms"}


def plain(row: Model) -> dict[str, Any]:
    """Its figures by name."""
    return {name: getattr(row, name) for name in figure_names(type(row))}


def figure_names(model: type[Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields if field.attname not in KEYS]


def _rows(found: Iterable[tuple[Any, ...]]) -> Measured:
    runs: dict[tuple[Any, ...], RunHour] = {}
    calls: dict[tuple[Any, ...], CallHour] = {}
    for hour, tenant, agent, release, kind, name, field, key, number in found:
        about = {"hour": hour, "tenant_id": tenant, "agent": agent, "release_id": release}
        place = (hour, tenant, agent, release, kind, name)
        row: RunHour | CallHour
        if kind:
            row = calls[place] if place in calls else calls.setdefault(place, _empty(CallHour, **about, kind=kind, name=name))
        else:
            row = runs[place] if place in runs else runs.setdefault(place, _empty(RunHour, **about))
        if key:
            getattr(row, field)[key] = number
        else:
            setattr(row, field, number)
    return list(runs.values()), list(calls.values())


def _empty(model: type[Any], **about: Any) -> Any:
    return model(**about, **{name: {} if name in COUNTS else 0 for name in figure_names(model)})


def _replace(hour: datetime, runs: list[RunHour], calls: list[CallHour], at: datetime) -> None:
    RunHour.objects.filter(hour=hour).delete()
    CallHour.objects.filter(hour=hour).delete()
    RunHour.objects.bulk_create(runs, batch_size=500)
    CallHour.objects.bulk_create(calls, batch_size=500)
    FoldedHour.objects.update_or_create(hour=hour, defaults={"at": at})


def _ask(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
