"""Which rows a period is made of: those that are kept (`console.rollups`), and what is not counted yet.

Background jobs count the hour that runs now every few seconds, and that is what is read while it is `FRESH`. Where they do not, and for
hours that were never counted, the runs themselves are counted when they are read, as long as they are few (`RAW_MOST`). Where they
are many, what was counted last is read; `Reading.as_of` says when that was.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from tenants.ids import first_at

from .models import CallHour, FoldedHour, RunHour
from .rollups import HOUR, hour_of, hours_between, measure
from .stored_hours import Apart, asked_of, rows

Scope = UUID | None  # a tenant, or None: all of them
FRESH = timedelta(seconds=20)  # a little more than a round of background jobs takes
RAW_MOST = 200  # runs that are counted while a page waits: a few hundredths of a second
FEW = """
select count(*) from (select from run r where {scope} r.id >= %(first)s and r.created_at >= %(since)s and r.created_at < %(until)s
  limit %(most)s) few
"""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which part is looked at; empty: all of it. By model, tool and failure class only calls are told apart: figures of runs are empty."""

    scope: Scope = None
    agent: str = ""
    release: UUID | None = None
    model: str = ""
    tool: str = ""
    failure_class: str = ""

    @property
    def of_calls(self) -> bool:
        return bool(self.model or self.tool or self.failure_class)


Part = Cut | UUID | None


@dataclass(frozen=True, slots=True)
class Reading:
    """The rows of a period. `as_of`: when its youngest hour was counted, None if never. `uncounted`: hours that are still to be counted."""

    runs: list[RunHour]
    calls: list[CallHour]
    as_of: datetime | None
    uncounted: int = 0


def cut_of(part: Part) -> Cut:
    return part if isinstance(part, Cut) else Cut(part)


def read(part: Part, since: datetime, until: datetime, *, runs: bool = True, calls: bool = True, apart: tuple[Apart, ...] = ()) -> Reading:
    """The rows of the hours that `since` to `until` touches, for reading only. Five small queries at most, however many runs there are.

    Only what is said to be told `apart` is: of the rest there may be one row for all, without its name.
    """
    cut, now = cut_of(part), datetime.now(UTC)
    wanted = [at for at in hours_between(since, until) if at <= now]
    counted = dict(FoldedHour.objects.filter(hour__gte=hour_of(since), hour__lt=until).values_list("hour", "at"))
    raw = _raw(cut.scope, [at for at in wanted if at not in counted or (at == hour_of(now) and counted[at] < now - FRESH)], now)
    fresh = {at for at in wanted if raw and raw[0] <= at < raw[1]}
    found_runs, found_calls = _measured(cut, *raw) if raw else ([], [])
    kept = {hour: at for hour, at in counted.items() if hour not in fresh}
    found_runs += rows(RunHour, kept, _where(cut), apart) if kept and runs else ()
    found_calls += rows(CallHour, kept, _where(cut), apart) if kept and calls else ()
    return Reading(
        found_runs if runs and not cut.of_calls else [],
        [row for row in found_calls if calls and _is_named(row, cut)],
        now if hour_of(now) in fresh else max(counted.values(), default=None),
        sum(at not in counted and at not in fresh for at in wanted),
    )


def _raw(scope: Scope, lacking: list[datetime], now: datetime) -> tuple[datetime, datetime] | None:
    """The stretch to count from the runs: all that lacks, else the hour that runs now, else nothing."""
    if not lacking:
        return None
    whole = (lacking[0], lacking[-1] + HOUR)
    current = (hour_of(now), hour_of(now) + HOUR)
    choices = [whole, current] if lacking[-1] == current[0] and whole != current else [whole]
    return next((one for one in choices if _few(scope, *one)), None)


def _few(scope: Scope, since: datetime, until: datetime) -> bool:
    limit = "" if scope is None else "r.tenant_id = %(tenant)s and"
    asked = {"tenant": scope, "first": first_at(since), "since": since, "until": until, "most": RAW_MOST + 1}
    with connection.cursor() as cursor:
        cursor.execute(FEW.format(scope=limit), asked)
        [[count]] = cursor.fetchall()
    return bool(count <= RAW_MOST)


def _where(cut: Cut) -> dict[str, Any]:
    return asked_of(cut.scope, cut.agent, cut.release)


def _measured(cut: Cut, since: datetime, until: datetime) -> tuple[list[RunHour], list[CallHour]]:
    """What is counted is of the tenant already."""
    runs, calls = measure(since, until, cut.scope)
    return [row for row in runs if _is_in(row, cut)], [row for row in calls if _is_in(row, cut)]


def _is_in(row: RunHour | CallHour, cut: Cut) -> bool:
    return all(getattr(row, name) == value for name, value in _where(cut).items())


def _is_named(row: CallHour, cut: Cut) -> bool:
    wanted = [name for kind, name in ((CallHour.Kind.MODEL, cut.model), (CallHour.Kind.TOOL, cut.tool)) if name and kind == row.kind]
    return row.name in wanted if cut.model or cut.tool else True
