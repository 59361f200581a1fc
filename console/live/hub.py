"""One LISTEN for each web process, fanned out in memory. A hint says which run moved; whoever cares reads the rows."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
from django.conf import settings

from runs.history import MOVED

log = logging.getLogger(__name__)
ALL: UUID = UUID(int=0)  # subscribers that want every hint


class Hub:
    """Subscribers wait on an asyncio.Event. A lost connection or an unreadable hint wakes everybody: hints may only be extra."""

    def __init__(self) -> None:
        self.waiting: dict[UUID, set[asyncio.Event]] = defaultdict(set)
        self.task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()

    @contextmanager
    def subscribe(self, run: UUID) -> Iterator[asyncio.Event]:
        """Inside a running loop. The event is set whenever `run` may have moved; the subscriber clears it, then reads."""
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._listen())
        moved = asyncio.Event()
        self.waiting[run].add(moved)
        try:
            yield moved
        finally:
            self.waiting[run].discard(moved)
            if not self.waiting[run]:
                del self.waiting[run]

    async def _listen(self) -> None:
        delay = 0.1
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(settings.PLAIN_URL, autocommit=True) as connection:
                    await connection.execute(f"listen {MOVED}")
                    self.listening.set()
                    delay = 0.1
                    self.everybody()  # what moved while nobody listened
                    async for note in connection.notifies():
                        self.hear(note.payload)
            except psycopg.Error as error:
                log.warning("live: not listening (%s)", str(error).strip())
            self.listening.clear()
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5)

    def hear(self, payload: str) -> None:
        try:
            runs = [UUID(text) for text in payload.split(",")]
        except ValueError:
            self.everybody()
            return
        for run in runs:
            self.wake(run)
        self.wake(ALL)

    def wake(self, run: UUID) -> None:
        for moved in self.waiting.get(run, ()):
            moved.set()

    def everybody(self) -> None:
        for run in list(self.waiting):
            self.wake(run)


hub = Hub()
