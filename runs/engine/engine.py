"""One asyncio engine: claims runs, drives up to a thousand of them, renews one lease, and lets go in order.

Rows are the truth, NOTIFY is a hint, a one-second poll is the safety net, the lease decides.
"""

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections import Counter
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import dict_row

from runs import ceilings, reconcile, rehearsals, reminders, signoff, switches, undo
from runs.failpoints import fp
from runs.history import DUE, MOVED
from tools.egress import Egress
from tools.invoke import Tools

from . import moving, verify
from .circuits import Circuits
from .definitions import Definitions, with_tool
from .drive import QUARANTINE_AFTER, drive
from .effects import recorded_writes
from .flight import Flight
from .host import Host, started
from .journal import SESSION, Journal
from .lease import Lease
from .services import Orm, Services
from .statements import CALLS, CLAIM, FEW, FORGET, GIVE_BACK, PEERS, REGISTER, RENEW, RETIRE, STEP_AGE, STEPS, TAKEOVER

log = logging.getLogger(__name__)
POLL_S = 1.0
DRAIN_S = 25.0
CLAIM_AT_ONCE = 40
NOTIFY_BYTES = 7900
TOGETHER_S = 0.005  # hints of this long travel together


def sweep() -> None:
    """What a job does for runs, done by every engine as well: a dead jobs cluster delays nothing."""
    signoff.expire_due()
    signoff.void_of_ended()
    reminders.sweep()
    reconcile.open_cases()
    reconcile.use_late_evidence()
    switches.release_stranded()
    ceilings.sweep()


class Engine:
    """`run()` returns after `stop()` and an orderly drain."""

    def __init__(self, dsn: str, *, slots: int = 1000, ttl_s: float = 30.0) -> None:
        self.dsn, self.slots, self.ttl_s = dsn, slots, ttl_s
        self.id = uuid.uuid4()
        self.host = Host.here()
        self.flights: dict[uuid.UUID, tuple[Flight | None, asyncio.Task[bool]]] = {}
        self.driven: Counter[uuid.UUID] = Counter()  # runs in flight by tenant: who has many here waits for its turn
        self.wake = asyncio.Event()
        self.stopping = asyncio.Event()
        self.reconnecting = asyncio.Lock()
        self.ended = 0  # flights that landed: ended, parked or lost
        self.giving_back: set[asyncio.Task[None]] = set()
        self.moved: set[uuid.UUID] = set()
        self.moved_wake = asyncio.Event()
        orm, egress = Orm(), Egress()
        circuits = Circuits(orm)
        journal = Journal(dsn, self._on_flush)
        self.services = Services(journal, egress, Tools(egress), Definitions(orm, circuits), Lease(ttl_s), orm, circuits)

    def stop(self) -> None:
        """No new claims, no new dispatch; calls in flight end, runs go back to the queue."""
        self.stopping.set()
        self.wake.set()
        for flight, _ in self.flights.values():
            if flight:
                flight.draining = True
                flight.poked.set()

    async def run(self) -> None:
        self.connection = await self._connect()
        self.services.lease.confirmed = await self._register(self.id)
        await self.services.circuits.refresh()
        await self.services.journal.start()
        loops = [asyncio.create_task(loop()) for loop in (self._renew, self._tell, self._listen, self._mind, self._probe)]
        try:
            await self._claim_until_stopped()
            await self._drain()
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._leave()

    async def _connect(self) -> psycopg.AsyncConnection[dict[str, Any]]:
        delay = 0.1
        while True:
            try:
                return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, options=SESSION, row_factory=dict_row)
            except psycopg.OperationalError as error:
                if self.stopping.is_set():
                    raise
                log.warning("engine: no database (%s), next try in %.1f s", str(error).strip(), delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2)

    async def _execute(self, sql: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """On the engine's own connection; a lost one is made again and the statement tried once more by the next tick."""
        try:
            cursor = await self.connection.execute(sql, params, prepare=True)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            async with self.reconnecting:
                if self.connection.broken or self.connection.closed:
                    self.connection = await self._connect()
            raise

    async def _register(self, identity: uuid.UUID) -> float:
        """The monotonic time from which the lease counts."""
        own = {"engine": identity, "host": self.host.name, "boot": self.host.boot_id, "pid": os.getpid()}
        before = time.monotonic()
        await self._execute(REGISTER, {**own, "started": started(os.getpid()) or 0, "ttl": self.ttl_s})
        return before

    # claiming ---------------------------------------------------------------------------------------------------------------------

    async def _claim_until_stopped(self) -> None:
        while not self.stopping.is_set():
            self.wake.clear()
            try:
                took = await self._claim(CLAIM) + await self._claim(TAKEOVER)
            except psycopg.Error as error:
                log.warning("engine: could not claim (%s)", str(error).strip())
                took = 0
                await asyncio.sleep(0.2)
            if took < FEW:
                await self._nap()

    async def _nap(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), POLL_S)

    async def _claim(self, statement: str) -> int:
        free, lease = min(self.slots - len(self.flights), CLAIM_AT_ONCE), self.services.lease
        if free <= 0 or self.stopping.is_set() or not lease.holds:
            return 0
        tenants, held = list(self.driven), list(self.driven.values())
        asked = {"n": free, "deep": free + CLAIM_AT_ONCE, "tenants": tenants, "held": held}
        before = time.monotonic()
        rows = await self._execute(statement, {"engine": self.id, **asked})
        for row in rows:
            fp("after_claim")
            if row["id"] in self.flights:  # taken over from ourselves: the old flight finds its fence stale
                self.flights.pop(row["id"])
            task = asyncio.create_task(self._fly(row | {"claimed": before}, lease))
            self.flights[row["id"]] = (None, task)
            self.driven[row["tenant_id"]] += 1
            task.add_done_callback(partial(self._landed, row["id"], row["tenant_id"], row["fence"]))
            self._moved(row["id"])
        return len(rows)

    def _landed(self, run: uuid.UUID, tenant: uuid.UUID, fence: int, task: asyncio.Task[bool]) -> None:
        self.ended += 1
        self.driven[tenant] -= 1
        if not self.driven[tenant]:
            del self.driven[tenant]
        held = self.flights.get(run)
        if held and held[1] is task:
            del self.flights[run]
        if task.cancelled():
            return
        if error := task.exception():
            log.error("run %s: its coroutine failed", run, exc_info=error)
        if error or not task.result():
            self.giving_back.add(given := asyncio.create_task(self._give_back(run, fence)))
            given.add_done_callback(self.giving_back.discard)
        self.wake.set()

    async def _give_back(self, run: uuid.UUID, fence: int) -> None:
        """A run that nobody drives although we hold it. Not ours any more: nothing happens, the fence sees to that."""
        while not self.stopping.is_set():
            try:
                given = await self._execute(GIVE_BACK, {"run": run, "fence": fence, "engine": self.id, "most": QUARANTINE_AFTER})
            except psycopg.Error as error:
                log.warning("run %s: not given back yet (%s)", run, str(error).strip())
                await asyncio.sleep(1)
                continue
            if given:
                self._moved(run)
            return

    async def _fly(self, row: dict[str, Any], lease: Lease) -> bool:
        release = await self.services.definitions.release(row["release_id"])
        snapshot = await self.services.definitions.snapshot(row["tenant_id"], row["rev"])
        if (action := row["action"]) and action["kind"] == undo.KIND:
            release = await self.services.orm(with_tool, release, uuid.UUID(action["version"]))
        flight = Flight(row, release, snapshot, self.services.journal, lease)
        if row["rehearsal"]:
            flight.rehearse(await self.services.orm(rehearsals.load, row["rehearsal"]))
        if row["retry_of"]:
            flight.recorded = await self.services.orm(recorded_writes, row["retry_of"])
        if row["fence"] > 1 or row["fork"]:
            calls = await self._execute(CALLS, {"run": row["id"]})
            steps = await self._execute(STEPS, {"run": row["id"]})
            flight.restore(calls, {step["step"]: step["role"] for step in steps})
            await moving.remember(flight, self.services)
            if (turn := flight.turn) and not turn.settled:
                (worked,) = await self._execute(STEP_AGE, {"run": row["id"], "step": turn.step})
                turn.started = time.monotonic() - worked["age_s"]
        held = self.flights.get(row["id"])
        if held:
            self.flights[row["id"]] = (flight, held[1])
        flight.draining = self.stopping.is_set()
        return await drive(flight, self.services)

    # the lease, neighbours, hints -------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """From the loop itself: an engine whose loop hangs loses its lease, and should."""
        while True:
            await asyncio.sleep(self.ttl_s / 4)
            before = time.monotonic()
            fp("lease_renewal")
            try:
                if await self._execute(RENEW, {"ttl": self.ttl_s, "engine": self.id}):
                    self.services.lease.confirmed = before
                else:
                    await self._start_over()
            except psycopg.Error as error:
                log.warning("engine: lease not renewed (%s)", str(error).strip())

    async def _start_over(self) -> None:
        """Our lease is over, so our runs are somebody else's now. A new identity, and nothing is claimed before it is registered."""
        log.error("engine: our lease is over; registering anew")
        self.services.lease.over = True
        identity, lease = uuid.uuid4(), Lease(self.ttl_s)
        lease.confirmed = await self._register(identity)
        self.id, self.services.lease = identity, lease

    async def _mind(self) -> None:
        """Each second: retire dead neighbours on this host, and expire what no person decided in time."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                peers = await self._execute(PEERS, {"host": self.host.name, "boot": self.host.boot_id})
                dead = [p["id"] for p in peers if started(p["pid"]) != p["started"] and p["id"] != self.id]
                if dead:
                    await self._execute(RETIRE, {"engines": dead})
                    await self._execute(FORGET, {})
                    self.wake.set()
                await self.services.circuits.refresh()
                await self.services.orm(sweep)
            except Exception as error:
                log.warning("engine: sweep failed (%s)", str(error).strip())

    async def _probe(self) -> None:
        """Ask tools about unknown writes. A loop of its own: a slow answer must not hold up the watch over the neighbours."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await verify.probe_due(self.services)
            except Exception as error:
                log.warning("engine: probe failed (%s)", str(error).strip())

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
                    await connection.execute(f"listen {DUE}")
                    self.wake.set()
                    async for note in connection.notifies():
                        self._hear(note.payload)
            except psycopg.Error as error:
                log.warning("engine: not listening (%s)", str(error).strip())
                await asyncio.sleep(1)

    def _hear(self, payload: str) -> None:
        """A run became due, or one of ours was asked to stop."""
        self.wake.set()
        try:
            held = self.flights.get(uuid.UUID(payload))
        except ValueError:
            return
        if held and held[0]:
            held[0].poked.set()

    def _on_flush(self, runs: list[uuid.UUID]) -> None:
        self.moved.update(runs)
        self.moved_wake.set()

    def _moved(self, run: uuid.UUID) -> None:
        self._on_flush([run])

    async def _tell(self) -> None:
        """One NOTIFY for everything that moved in the last few milliseconds; ids only."""
        connection = await self._connect()
        while True:
            await self.moved_wake.wait()
            await asyncio.sleep(TOGETHER_S)
            self.moved_wake.clear()
            runs, self.moved = self.moved, set()
            payload = ",".join(run.hex for run in runs)
            try:
                await connection.execute("select pg_notify(%s, %s)", (MOVED, payload if len(payload) < NOTIFY_BYTES else ""))
            except psycopg.Error:
                if connection.broken or connection.closed:
                    connection = await self._connect()

    # leaving ----------------------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        self.stop()
        fp("drain")
        tasks = [task for _, task in self.flights.values()]
        if tasks:
            log.info("engine: draining %d runs", len(tasks))
            await asyncio.wait(tasks, timeout=DRAIN_S)

    async def _leave(self) -> None:
        for _, task in self.flights.values():
            task.cancel()
        await self.services.journal.stop()
        try:
            await self._execute(RETIRE, {"engines": [self.id]})
        except psycopg.Error:
            log.warning("engine: could not give its lease back; it runs out by itself")
        await self.services.tools.aclose()
        await self.services.circuits.aclose()
        self.services.orm.close()
        await self.connection.close()
