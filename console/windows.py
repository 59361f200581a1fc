"""The stretch of time that a page shows, in parts that make the bars of its charts. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SPANS = {  # what the address says -> (words, bars, hours of each)
    "24h": ("last 24 hours", 24, 1),
    "7d": ("last 7 days", 28, 6),
    "30d": ("last 30 days", 30, 24),
}
USUAL = "24h"
LONGEST = timedelta(days=92)


@dataclass(frozen=True, slots=True)
class Window:
    """From `since` (UTC, on a clock hour) in `count` bars of `every`. The last one may still run: nothing is asked after `until`."""

    key: str
    words: str
    since: datetime
    until: datetime
    every: timedelta
    count: int

    @property
    def times(self) -> list[datetime]:
        return [self.since + n * self.every for n in range(self.count)]

    @property
    def whole(self) -> timedelta:
        return self.count * self.every

    @property
    def before(self) -> "Window":
        """As long, and over when this one began."""
        return Window("", f"{self.words} before", self.since - self.whole, self.since, self.every, self.count)

    @property
    def writes(self) -> str:
        """How a moment of it is written: "time", "moment" or "day"."""
        return "day" if self.every >= DAY else "moment" if self.whole > DAY else "time"


def window(key: str, now: datetime) -> Window:
    """A name that is not known is the usual one."""
    key = key if key in SPANS else USUAL
    words, count, hours = SPANS[key]
    every = hours * HOUR
    return Window(key, words, floor(now, every) - (count - 1) * every, now, every, count)


def stretch(since: datetime, until: datetime, now: datetime, words: str = "") -> Window:
    """Any stretch of whole hours, in at most 48 bars."""
    since, end = floor(since, HOUR), -((-(until - EPOCH)) // HOUR) * HOUR + EPOCH
    every = next((step for step in (HOUR, 6 * HOUR, DAY) if (end - since) / step <= 48), 7 * DAY)
    return Window("", words, since, min(end, now), every, max(1, -((since - end) // every)))


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def floor(at: datetime, step: timedelta) -> datetime:
    """The last multiple of `step` in UTC that is not after `at`."""
    return EPOCH + (at.astimezone(UTC) - EPOCH) // step * step


def iso(at: datetime) -> str:
    """As links and charts have it: 2026-01-31T12:00:00Z."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
