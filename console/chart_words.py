"""What a chart shows, in one sentence for who cannot see it. Pure.

A moment stands in the sentence as `{2026-01-31T12:00:00Z}`: the browser writes it in the reader's zone, `written` in UTC.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from .windows import iso

Point = tuple[datetime, float | None]
MOMENT = re.compile(r"\{(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\}")
FORMATS = {"time": "%H:%M", "moment": "%-d %b %H:%M", "day": "%-d %b"}


@dataclass(frozen=True, slots=True)
class Move:
    """The largest step between two neighbours that have a value."""

    since: datetime
    until: datetime
    was: float
    now: float


def course(name: str, points: Sequence[Point], shown: Callable[[float], str], enough: float, counted: str, nothing: str) -> str:
    """How a line went: where it moved most, or that it did not move. `enough`: the least step that is told. `counted`: "1,204 runs"."""
    known = [value for _, value in points if value is not None]
    if not known:
        return f"{name}: {nothing}."
    moved = largest(points)
    if moved and abs(moved.now - moved.was) >= enough:
        way = "rose" if moved.now > moved.was else "fell"
        said = f"{name} {way} from {shown(moved.was)} to {shown(moved.now)} between {{{iso(moved.since)}}} and {{{iso(moved.until)}}}"
    elif shown(min(known)) == shown(max(known)):
        said = f"{name} was {shown(known[-1])}" + (" throughout" if len(known) > 1 else "")
    else:
        said = f"{name} stayed between {shown(min(known))} and {shown(max(known))}"
    return f"{said}; {counted}."


def largest(points: Sequence[Point]) -> Move | None:
    """Of equal ones the latest. Stretches without a value are stepped over."""
    known = [(at, value) for at, value in points if value is not None]
    moves = [Move(a, b, was, now) for (a, was), (b, now) in pairwise(known)]
    return max(reversed(moves), key=lambda move: abs(move.now - move.was), default=None)


def peak(name: str, points: Sequence[Point], shown: Callable[[float], str], counted: str) -> str:
    """Where a count was highest."""
    at, most = max(points, key=lambda point: point[1] or 0.0)
    if not most:
        return f"{name}: none."
    return f"{name}: {counted}, most of them, {shown(most)}, from {{{iso(at)}}}."


def parts(counts: Sequence[tuple[str, int]]) -> str:
    """12 completed, 2 failed"""
    return ", ".join(f"{many:,} {name.lower()}" for name, many in counts if many)


def counted(many: int, one: str, more: str = "") -> str:
    return f"{many:,} {one if many == 1 else more or one + 's'}"


def percent(share: float) -> str:
    """0.9421 -> 94.2%, 1 -> 100%"""
    return f"{share * 100:.1f}".removesuffix(".0") + "%"


def written(words: str, writes: str) -> str:
    """With its moments in UTC."""
    return MOMENT.sub(lambda found: f"{datetime.fromisoformat(found[1]):{FORMATS[writes]}}", words)
