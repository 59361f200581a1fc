"""Pages of runs, of which a text search looks at a bounded number: there is no index that row security lets a text search use.

A page that is not full has a cursor all the same while there are older runs to look at: the search goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime

from runs.models import Run
from tenants.ids import SKEW, first_at

from .run_filters import is_id

LOOKED_AT = 20_000  # runs that one request reads the questions of
YEARS = range(1971, 9999)  # whose ids can be reckoned with


@dataclass(frozen=True, slots=True)
class Found:
    """Runs, newest first. `more`: where the next page begins; `end`: the run that this one stopped at before it was full."""

    rows: list[Run] = field(default_factory=list)
    more: UUID | None = None
    end: UUID | None = None


def bounded(query: Mapping[str, str]) -> bool:
    """Whether it reads what was asked. A run's id is looked up."""
    return bool(query.get("q")) and not is_id(query["q"])


def older(sight: QuerySet[Run], matching: QuerySet[Run], query: Mapping[str, str], limit: int, below: UUID | None = None) -> Found:
    """The newest of `matching`, below `below` if that is given. `sight`: all runs that the caller may see."""
    if not bounded(query):
        return _page(_under(matching, below), limit)
    within, end = _reach(sight, matching, query, below)
    found = _page(within, limit)
    return found if found.more or not end else Found(found.rows, end, end)


def at_once(sight: QuerySet[Run], matching: QuerySet[Run], query: Mapping[str, str]) -> tuple[QuerySet[Run], bool]:
    """-> (those of `matching` that one request may look for, whether there are older runs that it would have to read)."""
    if not bounded(query):
        return matching, False
    within, end = _reach(sight, matching, query, None)
    return within, end is not None


def _reach(
    sight: QuerySet[Run], matching: QuerySet[Run], query: Mapping[str, str], below: UUID | None
) -> tuple[QuerySet[Run], UUID | None]:
    """-> (what is looked at of the newest below `below`, where that ends before all that is asked for was looked at)."""
    start = min(filter(None, (below, _upper(query))), default=None)
    end, lower = _edge(_under(sight, start), "-id"), _lower(query)
    if end and lower and end <= lower:
        end = None  # nothing older is asked for
    within = _under(matching, start)
    return (within.filter(id__gte=end) if end else within), end


def newer(sight: QuerySet[Run], matching: QuerySet[Run], query: Mapping[str, str], limit: int, above: UUID) -> Found:
    """The oldest of `matching` above `above`, and `more` where still newer ones begin."""
    within, end = _above(sight, matching, query, above)
    rows = list(within.order_by("id")[: limit + 1])
    if len(rows) > limit:
        return Found(rows[:limit][::-1], rows[limit - 1].id)
    return Found(rows[::-1], end, end)


def count_newer(sight: QuerySet[Run], matching: QuerySet[Run], query: Mapping[str, str], most: int, above: UUID) -> int:
    """How many of `matching` are above `above`, counted to `most`."""
    return _above(sight, matching, query, above)[0].order_by().values("id")[:most].count()


def _above(sight: QuerySet[Run], matching: QuerySet[Run], query: Mapping[str, str], above: UUID) -> tuple[QuerySet[Run], UUID | None]:
    """-> (what is looked at, where that ends)."""
    within, end = matching.filter(id__gt=above), _edge(sight.filter(id__gt=above), "id") if bounded(query) else None
    return (within.filter(id__lte=end) if end else within), end


def _under(rows: QuerySet[Run], below: UUID | None) -> QuerySet[Run]:
    return rows.filter(id__lt=below) if below else rows


def _page(rows: QuerySet[Run], limit: int) -> Found:
    found = list(rows.order_by("-id")[: limit + 1])
    return Found(found[:limit], found[limit - 1].id if len(found) > limit else None)


def _edge(rows: QuerySet[Run], order: str) -> UUID | None:
    """The last run that is looked at; None: all of them are."""
    ids = list(rows.select_related(None).order_by(order).values_list("id", flat=True)[LOOKED_AT - 1 : LOOKED_AT + 1])
    return ids[0] if len(ids) == 2 else None


def _upper(query: Mapping[str, str]) -> UUID | None:
    """No run made before `until` has this id or a greater one."""
    at = _moment(query.get("until", ""))
    return first_at(at + 2 * SKEW) if at else None


def _lower(query: Mapping[str, str]) -> UUID | None:
    """No run made at or after `since` has a lesser id."""
    at = _moment(query.get("since", ""))
    return first_at(at) if at else None


def _moment(text: str) -> datetime | None:
    """What the filters have read already."""
    at = parse_datetime(text)
    return at if at and at.year in YEARS else None
