"""When calls to one host:port are sent, of one tenant. Pure: no clock but the `now` that is passed in (seconds, only differences count).

* A `Breaker` opens when half of at least twenty sends in thirty seconds failed, and lets one probe through after a while.
* A `Pace` bounds what is in flight while the breaker is closed: it grows with each success and is halved by failures, so that a host
  that dies under load is asked by few, also where each has to wait for a slow timeout.
"""

import math
from enum import StrEnum
from typing import Final

WINDOW_S: Final = 30
LEAST: Final = 20  # sends that a verdict needs
LEAST_OF_ONE: Final = 10  # and of one engine among several, each of which sees its share only
SHARE: Final = 0.5
FIRST_OPEN_S: Final = 5.0
LONGEST_OPEN_S: Final = 60.0
JITTER: Final = 0.2  # upwards only: a probe never comes early

START: Final = 10  # in flight, before anything is known of the host
MOST: Final = 1000
BURST_S: Final = 0.1  # failures this close together halve once

FAILURES: Final = frozenset({"not_sent", "timeout", "transient_upstream", "unknown"})  # `unknown`: the same two, of a write without a key


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def says(error_class: str | None, *, retry_after: bool = False) -> bool | None:
    """What an outcome says of the host: True it failed, False it answered, None nothing (our own guard refused the call).

    A 429 is an answer while it says when to come back: such a host is well and busy. Without `Retry-After` it counts as a failure.
    """
    if error_class == "policy":
        return None
    if error_class == "rate_limit":
        return not retry_after
    return error_class in FAILURES


def open_s(before_s: float, chance: float) -> float:
    """How long to stay open: five seconds, or twice as long as before; up to a fifth more by `chance` in [0, 1); a minute at most."""
    return min((2 * before_s if before_s > 0 else FIRST_OPEN_S) * (1 + JITTER * chance), LONGEST_OPEN_S)


class Window:
    """Sends and failures of the last thirty seconds, in buckets of one second each."""

    __slots__ = ("_at", "_failures", "_sends", "failures", "sends")

    def __init__(self) -> None:
        self._sends, self._failures = [0] * WINDOW_S, [0] * WINDOW_S
        self._at: int | None = None
        self.sends = self.failures = 0

    def add(self, failed: bool, now: float) -> None:
        self.forget(now)
        place = int(now) % WINDOW_S
        self._sends[place] += 1
        self.sends += 1
        if failed:
            self._failures[place] += 1
            self.failures += 1

    def forget(self, now: float) -> None:
        """Drop what is older than the window."""
        second = int(now)
        if self._at is None:
            self._at = second
        for passed in range(self._at + 1, min(second, self._at + WINDOW_S) + 1):
            place = passed % WINDOW_S
            self.sends -= self._sends[place]
            self.failures -= self._failures[place]
            self._sends[place] = self._failures[place] = 0
        self._at = max(second, self._at)

    def bad(self, least: int) -> bool:
        return self.sends >= least and self.failures >= SHARE * self.sends


class Breaker:
    """Closed, open until `probe_at`, or half-open while one probe is out. `forced` is a person's word and beats all of it."""

    __slots__ = ("forced", "lasted_s", "probe_at", "state", "window")

    def __init__(self) -> None:
        self.window = Window()
        self.state = State.CLOSED
        self.forced = ""  # "open", "closed", or as measured
        self.probe_at = 0.0  # open: when a probe is due. Half-open: when the one that is out counts as lost
        self.lasted_s = 0.0  # how long it stayed open the last time, while it is not closed

    @property
    def lets_through(self) -> bool:
        """Whether calls that are no probe are sent."""
        return self.forced == "closed" if self.forced else self.state is State.CLOSED

    def probe_is_due(self, now: float) -> bool:
        return not self.forced and self.state is not State.CLOSED and now >= self.probe_at

    def saw(self, failed: bool, now: float, least: int) -> bool:
        """An outcome of a call that was no probe. True: it is to be opened. What was sent before it opened says nothing any more."""
        if self.state is not State.CLOSED:
            return False
        self.window.add(failed, now)
        return failed and not self.forced and self.window.bad(least)

    def open(self, now: float, seconds: float) -> None:
        self.state, self.lasted_s, self.probe_at = State.OPEN, seconds, now + seconds

    def take_probe(self, now: float, lost_after_s: float) -> None:
        self.state, self.probe_at = State.HALF_OPEN, now + lost_after_s

    def reopen(self, now: float, chance: float) -> None:
        """The probe failed: open again, for twice as long."""
        self.open(now, open_s(self.lasted_s, chance))

    def close(self) -> None:
        self.state, self.lasted_s, self.probe_at = State.CLOSED, 0.0, 0.0
        self.window = Window()


class Pace:
    """How many calls may be in flight. Once all room was used, one more for each of as many successes, so that it doubles with each
    round; half as many after a failure; as many as at first after half a minute without a call: what was true then need not be now."""

    __slots__ = ("_credit", "_halved", "_used", "in_flight", "latency_s", "room", "start")

    def __init__(self, start: int = START) -> None:
        self.room = self.start = max(1, start)
        self.in_flight = 0
        self.latency_s = 0.0  # a running mean
        self._credit = 0  # successes that still add room
        self._used = self._halved = -math.inf

    def enter(self, now: float) -> bool:
        """Take a place, if there is one."""
        if now - self._used > WINDOW_S and self.room > self.start:
            self.room = self.start
        if self.in_flight >= self.room:
            return False
        self.in_flight += 1
        if self.in_flight == self.room:
            self._credit = self.room
        self._used = now
        return True

    def leave(self) -> None:
        self.in_flight -= 1

    def start_over(self) -> None:
        """The host is back after an outage: it is not met with what it could take before."""
        self.room = min(self.room, self.start)

    def saw(self, failed: bool, now: float, latency_s: float) -> None:
        """An outcome, before its place is left."""
        self.latency_s += 0.2 * (latency_s - self.latency_s)
        self._used = now
        if not failed:
            if self._credit and self.room < MOST:
                self.room, self._credit = self.room + 1, self._credit - 1
        elif now - self._halved > BURST_S:
            self.room, self._credit, self._halved = max(1, self.room // 2), 0, now

    def wait_s(self, waiting: int, now: float) -> float:
        """About how long the last of `waiting` calls waits for a place, were all to go well: room doubles with each answer's time."""
        silent_s = now - self._used if self.in_flight else 0.0
        return max(self.latency_s, silent_s) * math.log2(1 + waiting / self.room)
