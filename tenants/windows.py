"""The calendar windows of cost ceilings, the token bucket of starts, and where a pace leads. Pure; all times are UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

COST_DAY, COST_MONTH = COSTS = ("cost_usd_per_day", "cost_usd_per_month")  # the kinds of `Ceiling` that have windows
MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """What a window comes to if it goes on as it did, in micro-USD, and when it passes the ceiling (None: it does not)."""

    by_end_micro: int
    over_at: datetime | None


def is_cost(kind: str) -> bool:
    return kind in COSTS


def starts(kind: str, now: datetime) -> datetime:
    """When the window that holds `now` began."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day.replace(day=1) if kind == COST_MONTH else day


def ends(kind: str, start: datetime) -> datetime:
    """When the window that began at `start` is over: the next one begins."""
    return starts(kind, start + timedelta(days=32)) if kind == COST_MONTH else start + timedelta(days=1)


def left(value: int, bucket: float | None, at: datetime | None, now: datetime) -> float:
    """Starts left of `value` a minute. A bucket that was never used is full; time that runs backwards fills nothing."""
    if bucket is None or at is None:
        return float(value)
    return min(float(value), bucket + max((now - at).total_seconds(), 0.0) * value / 60)


def wait_s(value: int, tokens: float) -> float:
    """Seconds until one start is left."""
    return (1 - tokens) * 60 / value if value else 60.0


def pace(spent: int, value: int, start: datetime, end: datetime, now: datetime) -> Pace | None:
    """On a straight line from the window's start. None: nothing was spent yet, or no time has passed."""
    passed = (now - start).total_seconds()
    if passed <= 0 or spent <= 0:
        return None
    at_end = int(spent * (end - start).total_seconds() / passed)
    over = start + timedelta(seconds=passed * value / spent)
    return Pace(at_end, over if now < over < end else None)
