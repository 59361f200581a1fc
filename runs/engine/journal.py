"""Group commit with a fence per run: many runs' facts, one statement, one fsync.

An *entry* is everything one run has to say at one moment, written whole or not at all. At most one entry per run is in a flush.
What the writer is told about its entry:

  ok       written
  already  this very entry is there: the answer to its first flush was lost
  stale    another fence owns the run: stop, touch nothing
  recheck  a permission, tool, model or switch changed since the decision: nothing was written, decide again

An entry whose row somebody else holds (a person's decision) is tried again here. An entry that cannot be written (`Fault`) takes no
other with it: the caller then writes the result alone, under the same number, and fails its run.
"""

import asyncio
import dataclasses
import logging
import operator
import struct
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg

from runs.failpoints import fp

from .arrays import Blobs, Floats, Ints, Texts, Uuids, register
from .statements import FLUSH, numbered

log = logging.getLogger(__name__)

# One generic plan (planning costs more than the statement), tables only through their keys. Hash joins stay on: they join the batch
# with itself. A transaction that hangs is ended well before a lease is.
SESSION = (
    "-c plan_cache_mode=force_generic_plan -c enable_mergejoin=off -c enable_seqscan=off -c jit=off "
    "-c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=10s"
)
MAX_BATCH = 256
BUSY_AGAIN_S = 0.005
PAUSE_S = (0.05, 2.0)  # after the first failure that is nobody's fault, and at most: a full disk answers at once, each time
# SQLSTATE classes that say nothing about the entries: connection, serialisation, resources, shutdown, files, lock and statement timeouts.
NOBODYS_FAULT = {"08", "40", "53", "57", "58", "55P03", "25P03"}


class Fault(Exception):
    """This entry cannot be written (an illegal move, a broken value). Its run is at fault, no other."""


@dataclasses.dataclass(slots=True, frozen=True)
class Written:
    verdict: str
    cancel_requested: bool


@dataclasses.dataclass(slots=True)
class Changed:
    """A call that exists gets a new state. Times in seconds from now; `result` and `decision` are JSON texts."""

    step: int
    ord: int
    state: str
    name: str | None = None
    result: str | None = None
    error: str | None = None
    attempt: int = 1
    decision: str | None = None
    deadline: float | None = None
    latency: int | None = None
    tin: int | None = None
    tout: int | None = None
    cost: int | None = None


@dataclasses.dataclass(slots=True)
class Planned:
    """A call that is new."""

    step: int
    ord: int
    state: str
    name: str
    version: UUID | None
    effect: str
    provider: str | None = None
    args: bytes | None = None
    key: str | None = None
    decision: str | None = None
    attempt: int = 0
    deadline: float | None = None
    result: str | None = None
    error: str | None = None


@dataclasses.dataclass(slots=True)
class Entry:
    """What one run says at once. `rare` is a JSON text of what only parks and endings set (see FLUSH)."""

    run: UUID
    fence: int
    entry: int
    events: Sequence[tuple[str, str]] = ()
    steps: Sequence[tuple[int, str, str, int]] = ()
    changed: Sequence[Changed] = ()
    planned: Sequence[Planned] = ()
    rev: int | None = None
    state: str | None = None
    step: int | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost: int = 0
    reserve: int = 0
    hold: float | None = None
    tool_calls: int = 0
    writes: int = 0
    rare: str | None = None
    done: "asyncio.Future[Written] | None" = None


RUN = {
    "run": Uuids, "fence": Ints, "entry": Ints, "rev": Ints, "state": Texts, "step": Ints, "tokens_in": Ints, "tokens_out": Ints,
    "cost": Ints, "reserve": Ints, "hold": Floats, "tool_calls": Ints, "writes": Ints, "rare": Texts,
}  # fmt: skip
CHANGED = {
    "step": Ints, "ord": Ints, "state": Texts, "name": Texts, "result": Texts, "error": Texts, "attempt": Ints, "decision": Texts,
    "deadline": Floats, "latency": Ints, "tin": Ints, "tout": Ints, "cost": Ints,
}  # fmt: skip
PLANNED = {
    "step": Ints, "ord": Ints, "state": Texts, "name": Texts, "version": Uuids, "effect": Texts, "provider": Texts, "args": Blobs,
    "key": Texts, "decision": Texts, "attempt": Ints, "deadline": Floats, "result": Texts, "error": Texts,
}  # fmt: skip
STEPS = {"run": Uuids, "step": Ints, "role": Texts, "model": Texts, "calls": Ints}
EVENTS = {"run": Uuids, "n": Ints, "kind": Texts, "payload": Texts}
# psycopg parses a statement of this length anew each time; with numbered places there is nothing to parse.
STATEMENT, ORDER = numbered(FLUSH)
_run, _changed, _planned = (operator.attrgetter(*names) for names in (RUN, CHANGED, PLANNED))


def columns(batch: Sequence[Entry]) -> dict[str, Any]:
    """Entries -> the statement's parameters, columns of fixed type."""
    parts: list[tuple[str, dict[str, Any], list[tuple[Any, ...]]]] = [
        ("", RUN, [_run(e) for e in batch]),
        ("u_", {"run": Uuids, **CHANGED}, [(e.run, *_changed(x)) for e in batch for x in e.changed]),
        ("i_", {"run": Uuids, **PLANNED}, [(e.run, *_planned(x)) for e in batch for x in e.planned]),
        ("s_", STEPS, [(e.run, *s) for e in batch for s in e.steps]),
        ("e_", EVENTS, [(e.run, n, *x) for e in batch for n, x in enumerate(e.events, 1)]),
    ]  # fmt: skip
    values: dict[str, Any] = {"events": Ints([len(e.events) for e in batch])}
    for prefix, kinds, rows in parts:
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
        values.update({prefix + name: kind(cell) for (name, kind), cell in zip(kinds.items(), cells, strict=True)})
    return values


class Journal:
    """One writer per engine. `write` returns when the entry is durable, or says why it is not."""

    def __init__(self, dsn: str, on_flush: Callable[[list[UUID]], None] = lambda runs: None) -> None:
        self.dsn, self.on_flush = dsn, on_flush
        self.queue: list[Entry] = []
        self.wake = asyncio.Event()
        self.stopping = False
        self.flushes = self.entries = self.reconnects = 0
        self.pause_s = PAUSE_S[0]
        self.connection: psycopg.AsyncConnection[Any] | None = None
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.connection = await self._connect()
        self.task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        """Flushes what is queued, then ends."""
        self.stopping = True
        self.wake.set()
        if self.task:
            await self.task
        if self.connection:
            await self.connection.close()

    async def write(self, entry: Entry) -> Written:
        """Raises Fault. Shielded: cancelling the caller does not cancel the flush."""
        entry.done = asyncio.get_running_loop().create_future()
        self.queue.append(entry)
        self.wake.set()
        return await asyncio.shield(entry.done)

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, options=SESSION, cursor_factory=psycopg.AsyncRawCursor
        )
        register(connection)
        return connection

    async def _loop(self) -> None:
        while not (self.stopping and not self.queue):
            if not self.queue:
                self.wake.clear()
                await self.wake.wait()
                await asyncio.sleep(0)  # let the others that became ready in this turn of the loop join
            await self._flush(self._batch())

    def _batch(self) -> list[Entry]:
        """One entry per run: that keeps the order within a run, and nothing has to be merged."""
        batch: list[Entry] = []
        rest: list[Entry] = []
        seen: set[UUID] = set()
        for entry in self.queue:
            (rest if entry.run in seen or len(batch) >= MAX_BATCH else batch).append(entry)
            seen.add(entry.run)
        self.queue = rest
        return batch

    async def _flush(self, batch: list[Entry]) -> None:
        if not batch:
            return
        try:
            rows = await self._execute(batch)
        except (psycopg.Error, ValueError, TypeError, struct.error) as error:  # the latter: what cannot even be packed
            await self._failed(batch, error)
            return
        self._answer(batch, {row[0]: row for row in rows})

    async def _execute(self, batch: list[Entry]) -> list[Any]:
        assert self.connection
        self.flushes += 1
        self.entries += len(batch)
        values = columns(batch)
        fp("in_flush")
        cursor = await self.connection.execute(STATEMENT, [values[name] for name in ORDER], prepare=True, binary=True)
        rows = await cursor.fetchall()
        self.pause_s = PAUSE_S[0]
        fp("after_flush")
        return rows

    def _answer(self, batch: list[Entry], rows: dict[UUID, Any]) -> None:
        written = []
        for entry in batch:
            _, verdict, _, cancel = rows[entry.run]
            if verdict == "busy":
                asyncio.get_running_loop().call_later(BUSY_AGAIN_S, self._again, entry)
                continue
            if verdict == "ok":
                written.append(entry.run)
            if entry.done and not entry.done.done():
                entry.done.set_result(Written(verdict, bool(cancel)))
        if written:
            self.on_flush(written)

    async def _failed(self, batch: list[Entry], error: Exception) -> None:
        assert self.connection
        state = getattr(error, "sqlstate", None) or ""
        if self.connection.broken or self.connection.closed or {state, state[:2]} & NOBODYS_FAULT:
            self.queue[:0] = batch  # `entry` makes sending it all again safe, also when only the answer was lost
            log.warning("journal: %d entries not written yet (%s), again in %.2f s", len(batch), str(error).strip(), self.pause_s)
            await asyncio.sleep(self.pause_s)
            self.pause_s = min(self.pause_s * 2, PAUSE_S[1])
            await self._reconnect()
        elif len(batch) == 1:
            if (done := batch[0].done) and not done.done():
                done.set_exception(Fault(str(error)))
        else:
            half = len(batch) // 2  # halving finds one bad entry of 256 in ~16 statements
            await self._flush(batch[:half])
            await self._flush(batch[half:])

    def _again(self, entry: Entry) -> None:
        self.queue.append(entry)
        self.wake.set()

    async def _reconnect(self) -> None:
        delay = 0.05
        while True:
            try:
                if self.connection:
                    await self.connection.close()
                self.connection = await self._connect()
                self.reconnects += 1
                return
            except psycopg.Error as error:
                log.warning("journal: no database (%s), next try in %.2f s", error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2)
