"""The hours of the past as the detectors measure them: from what is kept of each hour (console.models.rollup)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import IntegerField, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast

from console import histograms
from console.models import CallHour, RunHour
from console.rollups import HOUR, hour_of

from .detectors import Subject

Place = tuple[UUID, str]  # tenant, kind of detector
Histories = dict[Place, dict[Subject, "list[Point]"]]
DUPLICATES = Cast(KeyTextTransform("duplicate_request", "classes"), IntegerField())
OF_TOOLS = ("tool_errors", "duplicate_answers", "retry_cascade")


@dataclass(frozen=True, slots=True)
class Point:
    """What the detector would have measured of the hour from `at`. `n`: of how many things."""

    at: datetime
    value: float
    n: int


def histories(since: datetime, until: datetime, tenant: UUID | None = None) -> Histories:
    """The hours that began in [since, until), the oldest first. `tenant` None: of all."""
    found: Histories = defaultdict(lambda: defaultdict(list))
    for source in (_runs, _calls, _latencies):
        for place, subject, point in source(since, until, tenant):
            found[place][subject].append(point)
    return found


def compared(points: list[Point], since: datetime, until: datetime, least: int) -> tuple[float, ...]:
    """The values of the hours in [since, until) that had `least` things at least."""
    return tuple(point.value for point in points if since <= point.at < until and point.n >= least)


def least_of(minimum: int) -> int:
    """An hour is calmer than a window that fires: a quarter of its minimum is enough to be compared with."""
    return max(1, -(-minimum // 4))


Found = Iterator[tuple[Place, Subject, Point]]


def _runs(since: datetime, until: datetime, tenant: UUID | None) -> Found:
    rows = RunHour.objects.filter(hour__gte=since, hour__lt=until, **_of(tenant)).order_by("hour")
    parts: dict[tuple[datetime, UUID, str], list[RunHour]] = {}
    for row in rows.iterator():
        parts.setdefault((row.hour, row.tenant_id, row.agent), []).append(row)
    for (at, owner, agent), held in parts.items():
        ended = sum(row.ended for row in held)
        if ended:
            for kind, value in _figures(held, ended).items():
                yield (owner, kind), ("agent", agent), Point(at, value, ended)


def _figures(held: list[RunHour], ended: int) -> dict[str, float]:
    return {
        "steps_per_run": float(round(histograms.quantile(histograms.merge(*(row.steps for row in held)), 0.5) or 0)),
        "cost_per_run": (histograms.quantile(histograms.merge(*(row.cost for row in held)), 0.5) or 0) / 1_000_000,
        "fallback_rate": sum(row.fell_back for row in held) / ended,
        "budget_exceeded": sum(row.budget_exceeded for row in held) / ended,
    }


def _calls(since: datetime, until: datetime, tenant: UUID | None) -> Found:
    rows = CallHour.objects.filter(hour__gte=since, hour__lt=until, calls__gt=0, **_of(tenant))
    of_kind = rows.values("hour", "tenant_id", "kind", "name").order_by("hour")
    for row in of_kind.annotate(n=Sum("calls"), failed=Sum("errors"), sent=Sum("sends"), duplicates=Sum(DUPLICATES)):
        at, owner, n = row["hour"], row["tenant_id"], row["n"]
        if row["kind"] == CallHour.Kind.MODEL:
            yield (owner, "provider_degraded"), ("model", row["name"]), Point(at, row["failed"] / n, n)
            continue
        values = (row["failed"] / n, (row["duplicates"] or 0) / n, row["sent"] / n)
        for kind, value in zip(OF_TOOLS, values, strict=True):
            yield (owner, kind), ("tool", row["name"]), Point(at, value, n)


def _latencies(since: datetime, until: datetime, tenant: UUID | None) -> Found:
    rows = CallHour.objects.filter(hour__gte=since, hour__lt=until, kind=CallHour.Kind.MODEL, calls__gt=0, **_of(tenant)).order_by("hour")
    parts: dict[tuple[datetime, UUID, str], list[Mapping[str, int]]] = {}
    for at, owner, name, latency in rows.values_list("hour", "tenant_id", "name", "latency_ms").iterator():
        parts.setdefault((at, owner, name), []).append(latency)
    for (at, owner, name), held in parts.items():
        whole = histograms.merge(*held)
        p95 = histograms.quantile(whole, 0.95)
        if p95 is not None:
            yield (owner, "provider_slow"), ("model", name), Point(at, p95, histograms.total(whole))


def _of(tenant: UUID | None) -> dict[str, UUID]:
    return {} if tenant is None else {"tenant_id": tenant}


class Past:
    """What the last days were, read anew every few minutes: a baseline does not move between two looks."""

    KEEP = HOUR / 6

    def __init__(self) -> None:
        self.days = 0
        self.at: datetime | None = None
        self.held: Histories = {}

    def of(self, now: datetime, days: int) -> Histories:
        if self.at is None or days > self.days or not self.at <= now < self.at + self.KEEP:
            self.held = histories(hour_of(now) - days * 24 * HOUR, hour_of(now))
            self.at, self.days = now, days
        return self.held
