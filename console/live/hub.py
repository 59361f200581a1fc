"""One LISTEN for each web process, fanned out in memory. A hint says which run moved; whoever cares reads the rows."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
from django.conf import settings

from runs.history import MOVED

log = logging.getLogger(__name__)


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Hints:
    """What moved since the last `take`, for one subscriber that wants every hint."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.runs: set[UUID] = set()
        self.lost = False

    def add(self, *runs: UUID) -> None:
        self.runs.update(runs)
        self.event.set()

    def lose(self) -> None:
        self.lost = True
        self.event.set()

    def take(self) -> tuple[set[UUID], bool]:
        """(runs that moved, whether others may have moved too because hints were lost)."""
        taken = self.runs, self.lost
        self.runs, self.lost = set(), False
        self.event.clear()
        return taken


class Hub:
    """Subscribers wait on an asyncio.Event. A lost connection or an unreadable hint wakes everybody: hints may only be extra."""

    def __init__(self) -> None:
        self.waiting: dict[UUID, set[asyncio.Event]] = defaultdict(set)
        self.gathering: set[Hints] = set()
        self.task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        self.whole_since = 0  # microseconds: from here on no hint was missed; 0 while not listening
        self.heard_at = 0  # microseconds: when the last hint came

    @contextmanager
    def subscribe(self, run: UUID) -> Iterator[asyncio.Event]:
        """Inside a running loop. The event is set whenever `run` may have moved; the subscriber clears it, then reads."""
        self.start()
        moved = asyncio.Event()
        self.waiting[run].add(moved)
        try:
            yield moved
        finally:
            self.waiting[run].discard(moved)
            if not self.waiting[run]:
                del self.waiting[run]

    @contextmanager
    def gather(self, hints: Hints) -> Iterator[None]:
        """Inside a running loop. Every hint goes into `hints`."""
        self.start()
        self.gathering.add(hints)
        try:
            yield
        finally:
            self.gathering.discard(hints)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self.task is None or self.task.done() or self.task.get_loop() is not loop:
            self.listening = asyncio.Event()
            self.whole_since = 0
            self.task = loop.create_task(self._listen())

    def quiet_since(self, moment: int) -> bool:
        """Whether it is certain that nothing moved after `moment` (microseconds)."""
        return 0 < self.whole_since <= moment and self.heard_at < moment

    async def _listen(self) -> None:
        delay = 0.1
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(settings.PLAIN_URL, autocommit=True) as connection:
                    await connection.execute(f"listen {MOVED}")
                    self.whole_since = now_us()
                    self.listening.set()
                    delay = 0.1
                    self.everybody()  # what moved while nobody listened
                    async for note in connection.notifies():
                        self.hear(note.payload)
            except psycopg.Error as error:
                log.warning("live: not listening (%s)", str(error).strip())
            self.listening.clear()
            self.whole_since = 0
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5)

    def hear(self, payload: str) -> None:
        self.heard_at = now_us()
        try:
            runs = [UUID(text) for text in payload.split(",")]
        except ValueError:
            self.everybody()
            return
        for run in runs:
            self.wake(run)
        for hints in self.gathering:
            hints.add(*runs)

    def wake(self, run: UUID) -> None:
        for moved in self.waiting.get(run, ()):
            moved.set()

    def everybody(self) -> None:
        for run in list(self.waiting):
            self.wake(run)
        for hints in self.gathering:
            hints.lose()


hub = Hub()
