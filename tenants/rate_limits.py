"""How often somebody may ask: a token bucket for each name, in PostgreSQL, so that all processes share it.

A process takes a small batch at a time (a twentieth of the bucket) and spends it without asking again, so most requests cost no
statement. What it holds was taken from the bucket: several processes together never spend more than it gave, and what one keeps
unspent for `KEPT_S` is gone. An empty bucket is believed until a token is due, so a flood costs no statements either.

The table is unlogged: a bucket moves without a wait for the disk, and after a crash all of them are full again.
"""

import logging
import math
import threading
import time
from dataclasses import dataclass, field

from django.db import DatabaseError, connection

log = logging.getLogger(__name__)
SECONDS = 10  # what a full bucket is worth
KEPT_S = 10.0
UNASKED_S = 1.0  # a batch of its own lasts that long, while the bucket cannot be asked
AT_ONCE = 10_000  # names that a process remembers

TAKE = """
insert into tenants_ratebucket as old (name, tokens, given, at)
values (%(name)s, %(size)s - %(batch)s, %(batch)s, clock_timestamp())
on conflict (name) do update set (tokens, given, at) = (
  select have - least(floor(have), %(batch)s), least(floor(have), %(batch)s), greatest(old.at, clock_timestamp())
  from (
    select least(%(size)s, old.tokens + greatest(extract(epoch from clock_timestamp() - old.at), 0) * %(per_s)s) as have
  ) as bucket
)
returning given, tokens
"""
FORGET = "delete from tenants_ratebucket where at < clock_timestamp() - interval '1 hour'"  # full again long since


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` requests a second; above 0."""

    per_s: float

    @property
    def size(self) -> int:
        return max(1, math.ceil(self.per_s * SECONDS))

    @property
    def batch(self) -> int:
        return max(1, self.size // 20)


@dataclass(frozen=True, slots=True)
class Taken:
    """`left`: tokens that this process knew of, at its last look. `wait_s`: until there is one; 0 when one was given."""

    given: bool
    left: int
    wait_s: float = 0.0


@dataclass(slots=True)
class _Held:
    tokens: int  # 0: the bucket was empty, and has none before `until`
    left: float  # in the bucket, when it was looked at
    until: float  # monotonic: then it is asked again


@dataclass(slots=True)
class Buckets:
    """What one process holds. Safe to use from many threads."""

    held: dict[str, _Held] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, name: str, rate: Rate, *, fail_open: bool) -> Taken:
        """One token. Where the bucket cannot be asked: from a batch of its own a second, or DatabaseError."""
        return self._spend(name) or self._ask(name, rate, fail_open)

    def _spend(self, name: str) -> Taken | None:
        """None: the bucket must be asked."""
        now = time.monotonic()
        with self.lock:
            mine = self.held.get(name)
            if mine is None or now >= mine.until:
                return None
            if not mine.tokens:
                return Taken(False, 0, mine.until - now)
            mine.tokens -= 1
            if not mine.tokens:
                del self.held[name]
            return Taken(True, mine.tokens + int(mine.left))

    def _ask(self, name: str, rate: Rate, fail_open: bool) -> Taken:
        try:
            given, left = _taken(name, rate)
            kept = KEPT_S if given else (1 - left) / rate.per_s
        except DatabaseError:
            if not fail_open:
                raise
            log.warning("the rate limit of %s could not be asked: this process goes by its own count", name, exc_info=True)
            given, left, kept = rate.batch, 0.0, UNASKED_S
        if given != 1:
            self._keep(name, _Held(max(given - 1, 0), left, time.monotonic() + kept))
        return Taken(True, given - 1 + int(left)) if given else Taken(False, 0, kept)

    def _keep(self, name: str, mine: _Held) -> None:
        with self.lock:
            if len(self.held) >= AT_ONCE:
                self._let_go(time.monotonic())
            self.held[name] = mine

    def _let_go(self, now: float) -> None:
        self.held = {name: mine for name, mine in self.held.items() if now < mine.until}
        if len(self.held) >= AT_ONCE:  # what is held for them is lost, and the buckets fill again
            self.held.clear()


def _taken(name: str, rate: Rate) -> tuple[int, float]:
    """(tokens given, tokens left in the bucket). A statement of its own: no other row waits for it."""
    with connection.cursor() as cursor:
        cursor.execute(TAKE, {"name": name, "size": rate.size, "batch": rate.batch, "per_s": rate.per_s})
        given, left = cursor.fetchone()
    return int(given), float(left)


def forget() -> None:
    """Buckets that nobody asked for an hour."""
    with connection.cursor() as cursor:
        cursor.execute(FORGET)
