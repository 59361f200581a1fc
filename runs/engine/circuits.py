"""What this engine knows of each way out: one line for each (tenant, host:port), with its breaker and its pace.

A call takes a place before its intent is committed, so that no attempt is spent while it waits. Nothing is awaited where the breaker is
closed and there is a place. Engines tell each other of open breakers by rows, and one of them all sends the one probe.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from django.db import connection

from tools import breakers
from tools.breaker import LEAST, LEAST_OF_ONE, START, Breaker, Pace, State, open_s, says
from tools.breakers import Told

log = logging.getLogger(__name__)
SPREAD_S = 1.0  # runs that wait for the same probe come back within this after it, not all at once
ASKED_AGAIN_S = 0.5  # while somebody asks for the probe, and for a database that does not answer
OUT_S = 1.5  # a probe that is out is waited for; one that takes longer is waited for by a timer
SLOW_PROBE_S = 5.0
FORCED_S = 10.0  # a person holds it open: how often a run looks again
NO_ROOM_S = 5.0  # the longest wait for a place before looking again
ABANDONED_S = 1.0  # a probe that was taken and never sent
Why = Literal["breaker_open", "probe_due", "no_room"]


@dataclass(frozen=True, slots=True)
class Wait:
    """No place now. `seconds`: until it is worth asking again."""

    line: "Line"
    seconds: float
    why: Why


class Line:
    """One tenant's way to one host:port."""

    __slots__ = ("asking", "breaker", "changed", "host", "out_since", "pace", "place", "probe", "tenant", "waiting", "writing")

    def __init__(self, circuits: "Circuits", tenant: UUID, host: str) -> None:
        self.tenant, self.host = tenant, host
        self.breaker, self.pace = Breaker(), Pace(max(1, START // circuits.engines))
        self.place = Place(circuits, self)  # one for all calls that are no probe: it holds nothing of its own
        self.probe: Probe | None = None  # ours, while it is out
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.asking = False  # for the probe
        self.writing = 0  # rows on their way: what is read meanwhile may be older
        self.changed = self.out_since = 0.0

    def wake(self, count: int) -> None:
        while self.waiting and count > 0:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1


class Place:
    """A call's place in its line. Its holder tells what came of the call, if it was sent, and leaves in any case."""

    __slots__ = ("circuits", "line")

    def __init__(self, circuits: "Circuits", line: Line) -> None:
        self.circuits, self.line = circuits, line

    def saw(self, error_class: str | None, latency_ms: int, *, retry_after: bool = False) -> None:
        failed = says(error_class, retry_after=retry_after)
        if failed is None:
            return
        now, line = self.circuits.clock(), self.line
        line.pace.saw(failed or error_class == "rate_limit", now, latency_ms / 1000)
        self.judge(failed, now)

    def judge(self, failed: bool, now: float) -> None:
        if self.line.breaker.saw(failed, now, self.circuits.least):
            self.circuits.open(self.line, now)

    def leave(self) -> None:
        line = self.line
        line.pace.leave()
        if line.waiting and line.breaker.lets_through:
            line.wake(line.pace.room - line.pace.in_flight)


class Probe(Place):
    """The one call that finds out whether the host is back."""

    __slots__ = ("told",)

    def __init__(self, circuits: "Circuits", line: Line) -> None:
        super().__init__(circuits, line)
        self.told = False

    def judge(self, failed: bool, now: float) -> None:
        self.told = True
        self.circuits.settle(self.line, failed, now)

    def leave(self) -> None:
        if not self.told:
            self.circuits.abandon(self.line)
        super().leave()


class Nowhere(Place):
    """For what is called without a host: nothing is counted."""

    __slots__ = ()

    def saw(self, error_class: str | None, latency_ms: int, *, retry_after: bool = False) -> None:
        return

    def leave(self) -> None:
        return


class Circuits:
    """Used in the engine's loop only. `orm` runs a function in the engine's own threads."""

    def __init__(
        self, orm: Callable[..., Any], *, clock: Callable[[], float] = time.monotonic, rnd: Callable[[], float] = random.random
    ) -> None:
        self.orm, self.clock, self.rnd = orm, clock, rnd
        self.engines = 1
        self.least = LEAST
        self.by_url: dict[tuple[UUID, str], Line | None] = {}
        self.lines: dict[tuple[UUID, str], Line] = {}
        self.writes: set[asyncio.Task[None]] = set()
        self.nowhere = Nowhere(self, None)  # type: ignore[arg-type]  # it looks at neither

    # in the path of every call ----------------------------------------------------------------------------------------------------

    def enter(self, tenant: UUID, url: str) -> Place | Wait:
        """A place for one call, to be left by its holder, or how long to wait."""
        try:
            line = self.by_url[tenant, url]
        except KeyError:
            line = self._line_of(tenant, url)
        if line is None:
            return self.nowhere
        if line.breaker.lets_through and line.pace.enter(self.clock()):
            return line.place
        return self._wait(line)

    def lets_through(self, tenant: UUID, url: str) -> bool:
        """Whether the breaker is closed; there need not be a place."""
        line = self._line_of(tenant, url)
        return line is None or line.breaker.lets_through

    def _line_of(self, tenant: UUID, url: str) -> Line | None:
        host = breakers.host_port(url)
        line = self.by_url[tenant, url] = self._line(tenant, host) if host else None
        return line

    def _line(self, tenant: UUID, host: str) -> Line:
        line = self.lines.get((tenant, host))
        if line is None:
            line = self.lines[tenant, host] = Line(self, tenant, host)
        return line

    def _wait(self, line: Line) -> Wait:
        now, breaker, pace = self.clock(), line.breaker, line.pace
        if breaker.lets_through:
            return Wait(line, min(pace.wait_s(len(line.waiting) + 1, now), NO_ROOM_S) * (0.5 + self.rnd() / 2), "no_room")
        if breaker.forced:
            return Wait(line, FORCED_S * (1 + self.rnd() / 2), "breaker_open")
        if breaker.probe_is_due(now):
            return Wait(line, ASKED_AGAIN_S, "breaker_open" if line.asking else "probe_due")
        left = breaker.probe_at - now
        if breaker.state is State.HALF_OPEN:
            soon = OUT_S if now - line.out_since <= OUT_S else SLOW_PROBE_S
            return Wait(line, min(left, soon) + ASKED_AGAIN_S * self.rnd(), "breaker_open")
        return Wait(line, left + SPREAD_S * self.rnd(), "breaker_open")

    async def room(self, line: Line, seconds: float) -> None:
        """Until a place may be free or the breaker has moved, `seconds` at most. No place is taken: the caller enters again."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(future)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(future, seconds)
        finally:
            if future.cancelled():
                with contextlib.suppress(ValueError):
                    line.waiting.remove(future)

    # where something fails --------------------------------------------------------------------------------------------------------

    def open(self, line: Line, now: float) -> None:
        seconds, window = open_s(0, self.rnd()), line.breaker.window
        line.breaker.open(now, seconds)
        log.warning("breaker of %s opened: %d of %d sends failed", line.host, window.failures, window.sends)
        self._write(line, breakers.opened, seconds, window.sends, window.failures)

    async def probe(self, line: Line, lost_after_s: float) -> Place | None:
        """The place of the one probe, if it is ours to send. `lost_after_s`: no call that is sent takes longer."""
        if line.asking:
            return None
        line.asking = True
        try:
            ours, row = await self.orm(breakers.take_probe, line.tenant, line.host, lost_after_s)
        except Exception as error:
            log.warning("breaker of %s: no probe (%s)", line.host, str(error).strip())
            line.breaker.probe_at = self.clock() + ASKED_AGAIN_S
            return None
        finally:
            line.asking = False
        if not ours:
            self._adopt(line, row)
            return None
        now = line.changed = line.out_since = self.clock()
        line.breaker.take_probe(now, lost_after_s)
        line.pace.in_flight += 1
        line.probe = Probe(self, line)
        return line.probe

    def settle(self, line: Line, failed: bool, now: float) -> None:
        """Our probe is back."""
        line.probe = None
        if failed:
            line.breaker.reopen(now, self.rnd())
        else:
            line.breaker.close()
            line.pace.start_over()
            log.warning("breaker of %s closed: its probe was answered", line.host)
        self._write(line, breakers.probed, failed, line.breaker.lasted_s)
        line.wake(len(line.waiting))

    def abandon(self, line: Line) -> None:
        """Our probe was never sent: the next call is one."""
        line.probe = None
        line.breaker.open(self.clock(), ABANDONED_S)
        self._write(line, breakers.probed, True, ABANDONED_S)

    def _write(self, line: Line, function: Callable[..., Told | None], *values: Any) -> None:
        line.changed = self.clock()
        line.writing += 1
        self.writes.add(task := asyncio.create_task(self._written(line, function, values)))
        task.add_done_callback(self.writes.discard)

    async def _written(self, line: Line, function: Callable[..., Told | None], values: tuple[Any, ...]) -> None:
        row, known = None, False
        try:
            row, known = await self.orm(function, line.tenant, line.host, *values), True
        except Exception as error:
            log.warning("breaker of %s: not written (%s)", line.host, str(error).strip())
        finally:
            line.writing -= 1
        if known and not line.writing:
            self._adopt(line, row)

    # what the other engines and people say ----------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Once a second."""
        asked = self.clock()
        try:
            engines, rows = await self.orm(look)
        except Exception as error:
            log.warning("engine: breakers not read (%s)", str(error).strip())
            return
        self.engines = max(1, engines)
        self.least = max(LEAST_OF_ONE, LEAST // self.engines)
        for row in rows:
            known = (row.tenant, row.host_port) in self.lines
            if known or row.forced or row.state != State.CLOSED:
                line = self._line(row.tenant, row.host_port)
                line.pace.start = max(1, START // self.engines)
                if not line.writing and not line.asking and line.changed < asked:
                    self._adopt(line, row)

    def _adopt(self, line: Line, row: Told | None) -> None:
        """The row decides; where there is none the breaker is closed. Our own probe tells us more than its row."""
        breaker, now, before = line.breaker, self.clock(), line.breaker.lets_through
        line.changed = now
        breaker.forced = row.forced if row else ""
        if row is None or row.state == State.CLOSED:
            if breaker.state is not State.CLOSED:
                breaker.close()
                line.pace.start_over()
        elif row.state == State.OPEN:
            breaker.open(now + row.probe_in_s - row.lasts_s, row.lasts_s)
        elif line.probe is None:
            line.out_since = now if breaker.state is not State.HALF_OPEN else line.out_since
            breaker.take_probe(now, row.probe_in_s)
        if breaker.lets_through != before:
            line.wake(len(line.waiting))

    async def aclose(self) -> None:
        if self.writes:
            await asyncio.wait(self.writes, timeout=5)


def look() -> tuple[int, list[Told]]:
    """(engines that live, what the rows say)."""
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from engine where lease_until > statement_timestamp() and pid <> 0")
        [(engines,)] = cursor.fetchall()
    return engines, breakers.told()
