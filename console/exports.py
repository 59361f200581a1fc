"""Events in bulk, in the order of their time: a page at a time, each found through the BRIN index of a stretch that it adjusts.

No transaction and no cursor is held between pages, so an export may take hours and costs the writers nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db.models import Q

from runs.models import Event, Run
from tenants.scope import Tenants, tenant_scope

from . import records

AT_ONCE = 1000
EVER = datetime(2000, 1, 1, tzinfo=UTC)
SETTLED = timedelta(seconds=10)  # an event is written with its transaction's time, and committed later
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`seen`: whose rows may be met; `tenant`: one of them. From `since` on, before `until`."""

    seen: Tenants
    since: datetime
    until: datetime
    tenant: UUID | None = None
    agent: str = ""


@dataclass
class Walk:
    """Where an export stands. `page` moves it on."""

    wanted: Wanted
    low: datetime = field(init=False)
    stretch: timedelta = timedelta(minutes=10)
    last: Event | None = None

    def __post_init__(self) -> None:
        self.low = self.wanted.since

    @property
    def over(self) -> bool:
        return self.low >= self.wanted.until

    def page(self) -> list[Event]:
        """The next events, at most AT_ONCE. Empty does not mean over."""
        high = min(self.low + self.stretch, self.wanted.until)
        rows = self._rows(high)
        if len(rows) == AT_ONCE:
            self.last, self.low, self.stretch = rows[-1], rows[-1].at, max(self.stretch / 2, SHORTEST)
        else:
            self.last, self.low, self.stretch = None, high, min(self.stretch * 2, LONGEST)
        return rows

    def _rows(self, high: datetime) -> list[Event]:
        with tenant_scope(self.wanted.seen):
            rows = Event.objects.filter(at__gte=self.low, at__lt=high)
            if self.wanted.tenant:
                rows = rows.filter(tenant_id=self.wanted.tenant)
            if self.wanted.agent:
                rows = rows.filter(run__agent_id=self.wanted.agent)
            if last := self.last:
                here = Q(run_id=last.run_id, seq__gt=last.seq) | Q(run_id__gt=last.run_id)
                rows = rows.filter(Q(at__gt=last.at) | (Q(at=last.at) & here))
            return list(rows.order_by("at", "run_id", "seq")[:AT_ONCE])


def lines(events: list[Event]) -> bytes:
    """NDJSON: one event a line, in the form of the API."""
    return b"".join(json.dumps(records.event_record(event), separators=(",", ":")).encode() + b"\n" for event in events)


def first_event(seen: Tenants) -> datetime | None:
    """When the first run that is still there was accepted; None: there is none."""
    with tenant_scope(seen):
        return Run.objects.order_by("id").values_list("created_at", flat=True).first()


def of_run(run_id: UUID, seen: Tenants, last: int) -> Iterator[list[Event]]:
    """The run's events up to `last`, in order, a page at a time."""
    after = 0
    while after < last:
        with tenant_scope(seen):
            rows = list(Event.objects.filter(run_id=run_id, seq__gt=after, seq__lte=last).order_by("seq")[:AT_ONCE])
        if not rows:
            return
        after = rows[-1].seq
        yield rows


def walk(wanted: Wanted) -> Iterator[list[Event]]:
    """Every page of what is wanted; what lies before the first run is not looked for."""
    first = first_event(wanted.seen) or wanted.until
    here = Walk(replace(wanted, since=max(wanted.since, first - timedelta(hours=1))))
    while not here.over:
        yield here.page()
