"""T36 and T38: clients that are cut off again and again see every event of a run once and in order. Long forms under CHAOS=1."""

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import psycopg
import pytest
from asgiref.sync import sync_to_async

from runs.models import Run
from tests.console.callers import key_of
from tests.console.live_site import Site, queued, site, sub, topic_of, world
from tests.runtime import waiting

from .figures import figure

__all__ = ["site", "world"]
CHAOS = bool(os.environ.get("CHAOS"))
SEED = 36
RECONNECTS, EVENTS = (500, 20_000) if CHAOS else (40, 2_000)
GUARD_S = 600 if CHAOS else 80
TELL = """
with moved as (update run set seq = seq + %(n)s where id = %(run)s returning id, tenant_id, seq - %(n)s as base),
told as (insert into event (run_id, seq, tenant_id, kind, payload, at)
  select id, base + n, tenant_id, 'plan_decided', '{"step_id": 1, "v": 1}', clock_timestamp() from moved, generate_series(1, %(n)s) n)
select pg_notify('signalbox_moved', %(hint)s)"""


@dataclass
class Reader:
    """One client that remembers the last seq it saw, whatever it is cut off in."""

    run: Run
    site: Site
    actor: Any
    session: aiohttp.ClientSession
    dice: random.Random
    last: int = 1
    got: int = 1
    wrong: int = 0
    connections: int = 0
    resets: int = 0

    def take(self, seq: int) -> None:
        self.wrong += seq != self.last + 1
        self.last, self.got = seq, self.got + 1

    @property
    def address(self) -> str:
        return f"{self.site.url.replace('ws:', 'http:').removesuffix('/ws')}/api/v1/runs/{self.run.run_id}/events"

    async def by_socket(self, until: int) -> None:
        async with self.site.open(self.actor) as page:
            await sub(page, self.run, self.last)
            while self.last < until:
                message = await page.next()
                if message.get("op") == "reset":  # too far behind for the socket: fetch, as a page does
                    self.resets += 1
                    await self.by_fetch()
                    return
                if message.get("t") == topic_of(self.run):
                    self.take(message["seq"])
            page.socket.transport.abort()

    async def by_fetch(self) -> None:
        async with self.session.get(self.address, params={"after": str(self.last)}) as answer:
            for one in (await answer.json())["items"]:
                self.take(one["seq"])

    async def by_stream(self, until: int) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self.last)}
        async with self.session.get(self.address, headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"id: "):
                    self.take(int(line[4:]))
                    if self.last >= until:
                        answer.close()  # in the middle of a record
                        return

    async def follow(self, way: Callable[[int], Awaitable[None]], times: int, end: int) -> None:
        for number in range(1, times + 1):
            self.connections += 1
            share = end * number // times
            await way(end if number == times else min(share, self.last + self.dice.randint(1, 2 * end // times)))


@pytest.mark.mission("P8.1", "P13.7")
async def test_no_event_is_lost_repeated_or_out_of_order_however_often_a_client_is_cut_off(
    world: waiting.World, site: Site, urls: Any
) -> None:
    """T36: half of the reconnects by WebSocket, half by the event stream, while the events are written in commits of uneven size."""
    run = await queued(world)
    key, began = await sync_to_async(key_of)(world.operator), time.monotonic()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        readers = [Reader(run, site, world.operator, session, random.Random(SEED + n)) for n in range(2)]
        ways = (readers[0].by_socket, readers[1].by_stream)
        writing = asyncio.create_task(write(urls.engine, run, EVENTS, random.Random(SEED)))
        following = (one.follow(way, RECONNECTS // 2, EVENTS + 1) for one, way in zip(readers, ways, strict=True))
        await asyncio.wait_for(asyncio.gather(*following), GUARD_S)
        commits = await writing

    assert [(one.wrong, one.got, one.last) for one in readers] == [(0, EVENTS + 1, EVENTS + 1)] * 2
    assert sum(one.connections for one in readers) == RECONNECTS
    if CHAOS:
        counters = {"events": EVENTS, "commits": commits, "gaps_or_repeats": 0, "told_to_fetch": sum(one.resets for one in readers)}
        title = "clients cut off again and again (half WebSocket, half event stream) see every event of a run once, in order"
        figure("T36", title, n=RECONNECTS, seed=SEED, seconds=time.monotonic() - began, **counters)


async def write(dsn: str, run: Run, events: int, dice: random.Random) -> int:
    """How many commits it took."""
    commits = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while events:
            n = min(events, dice.choice((1, 1, 3, 10, 60)))
            await connection.execute(TELL, {"n": n, "run": run.id, "hint": run.id.hex})
            events, commits = events - n, commits + 1
            await asyncio.sleep(0)
    return commits


async def test_events_written_one_by_one_reach_an_open_page_as_they_are_committed(world: waiting.World, site: Site, urls: Any) -> None:
    """T38: a hundred a second, commit -> browser socket."""
    run, count = await queued(world), 3_000 if CHAOS else 100
    committed: dict[int, float] = {}
    took: list[float] = []
    async with site.open(world.operator) as page:
        await sub(page, run, 1)
        writing = asyncio.create_task(paced(urls.engine, run, count, committed))
        async for seq in told(page, run, count):
            arrived = time.perf_counter()
            took.append((arrived - committed.get(seq, arrived)) * 1000)
        await writing
    assert len(took) == count
    if CHAOS:
        took.sort()
        p95, p99 = (f"{took[int(count * share)]:.1f} ms" for share in (0.95, 0.99))
        title = "commit of an event -> browser socket, at a hundred events a second"
        figure("T38", title, n=count, seconds=count / 100, p50=f"{took[count // 2]:.1f} ms", p95=p95, p99=p99)


async def told(page: Any, run: Run, count: int) -> AsyncIterator[int]:
    seen = 1
    while seen <= count:
        message = await page.next()
        if message.get("t") == topic_of(run):
            assert message["seq"] == seen + 1, json.dumps(message)
            seen = message["seq"]
            yield seen


async def paced(dsn: str, run: Run, count: int, committed: dict[int, float]) -> None:
    """The clock of an event starts just before its COMMIT is sent, as one statement is its own transaction."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for number in range(count):
            committed[number + 2] = time.perf_counter()
            await connection.execute(TELL, {"n": 1, "run": run.id, "hint": run.id.hex})
            if CHAOS:
                await asyncio.sleep(max(0.0, 0.01 - (time.perf_counter() - committed[number + 2])))
