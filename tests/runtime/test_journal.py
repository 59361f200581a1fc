"""The journal under concurrency: the rows are compared with what the writers were told."""

import asyncio
import uuid
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from runs.engine.journal import PAUSE_S, Entry, Fault, Journal, Planned
from runs.engine.statements import REGISTER

from .world import World

pytestmark = pytest.mark.forged("entries of no run that is driven")


class Lossy(Journal):
    """Loses the connection after the commit and before the answer was read, at every fourth flush."""

    lost = 0

    async def _execute(self, batch: list[Entry]) -> list[Any]:
        rows = await super()._execute(batch)
        if self.flushes % 4 == 0:
            self.lost += 1
            assert self.connection
            await self.connection.close()
            raise psycopg.OperationalError("the answer was lost")
        return rows


class Full(Journal):
    """A database whose disk is full for the first four flushes. It answers at once."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.asked = list[float]()

    async def _execute(self, batch: list[Entry]) -> list[Any]:
        self.asked.append(asyncio.get_running_loop().time())
        if len(self.asked) <= 4:
            raise psycopg.errors.DiskFull("could not extend file: No space left on device")
        return await super()._execute(batch)


def entry(run: Any, number: int, fence: int = 1, **more: Any) -> Entry:
    event = ("plan_decided", f'{{"data":{{"f":{fence},"n":{number}}},"v":1}}')
    planned = [Planned(fence * 1000 + number, 0, "dispatched", "m", None, "read", attempt=1, deadline=5.0)]
    return Entry(run.id, fence, number, [event], planned=planned, **more)


async def claimed(world: World, count: int) -> list[Any]:
    """Runs owned by an engine that does not exist as a process."""
    await world.agent(tools=())
    runs = [await world.submit("hello") for _ in range(count)]
    engine = uuid.uuid4()
    async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as connection:
        own = {"engine": engine, "host": "test", "boot": "test", "pid": 1, "started": 1, "ttl": 3600}
        await connection.execute(REGISTER, own)
        await connection.execute("update run set state = 'running', fence = 1, owner = %s", [engine])
    return runs


async def rows(world: World, sql: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(world.dsn, autocommit=True) as connection:
        return await (await connection.execute(sql)).fetchall()


@pytest.mark.mission("X1")
async def test_every_acknowledged_entry_is_there_once_although_answers_are_lost(world: World) -> None:
    runs = await claimed(world, 30)
    journal = Lossy(world.dsn)
    await journal.start()

    async def write(run: Any) -> list[str]:
        return [(await journal.write(entry(run, n))).verdict for n in range(1, 21)]

    verdicts = [v for found in await asyncio.gather(*map(write, runs)) for v in found]
    await journal.stop()
    assert set(verdicts) == {"ok", "already"} and journal.lost > 0
    assert await rows(world, "select count(*) from event where kind = 'plan_decided'") == [(600,)]
    assert await rows(world, "select count(*) from run where entry = 20 and seq = 21") == [(30,)]


async def test_a_full_disk_is_asked_less_and_less_often_and_the_entry_is_written_once_there_is_room(world: World) -> None:
    (run,) = await claimed(world, 1)
    journal = Full(world.dsn)
    await journal.start()
    assert (await journal.write(entry(run, 1))).verdict == "ok"
    waited = [after - before for before, after in pairwise(journal.asked)]
    assert all(waited[n] >= PAUSE_S[0] * 2**n * 0.9 for n in range(4)), waited  # never sooner; later is the machine's load
    assert (len(waited), journal.pause_s) == (4, PAUSE_S[0])
    await journal.stop()


async def test_a_superseded_fence_writes_nothing(world: World) -> None:
    (run,) = await claimed(world, 1)
    journal = Journal(world.dsn)
    await journal.start()
    assert (await journal.write(entry(run, 1))).verdict == "ok"
    await rows(world, "update run set fence = 2, entry = 0 returning 1")
    assert (await journal.write(entry(run, 2))).verdict == "stale"
    await journal.stop()
    assert await rows(world, "select count(*) from call") == [(1,)]


async def test_an_entry_decided_under_other_controls_is_not_written(world: World) -> None:
    (run,) = await claimed(world, 1)
    journal = Journal(world.dsn)
    await journal.start()
    assert (await journal.write(entry(run, 1, rev=-1))).verdict == "recheck"
    assert (await journal.write(entry(run, 1))).verdict == "ok"
    await journal.stop()


async def test_a_broken_entry_takes_no_neighbour_with_it(world: World) -> None:
    runs = await claimed(world, 16)
    journal = Journal(world.dsn)
    await journal.start()
    bad = {
        3: Entry(runs[3].id, 1, 1, [("x", '"\\u0000"')]),
        7: Entry(runs[7].id, 1, 1, state="succeeded", tokens_in=2**70),
        11: Entry(runs[11].id, 1, 1, planned=[Planned(1, 0, "done", "m", None, "read")]),
        13: Entry(runs[13].id, 1, 1, [("x", '"\ud800"')]),
    }
    results = await asyncio.gather(*(journal.write(bad.get(n) or entry(run, 1)) for n, run in enumerate(runs)), return_exceptions=True)
    faults = {n for n, result in enumerate(results) if isinstance(result, Fault)}
    assert faults == set(bad)
    assert await rows(world, "select count(*) from run where entry = 1") == [(12,)]
    await journal.stop()


async def test_a_row_that_a_person_holds_delays_only_its_own_entry(world: World) -> None:
    runs = await claimed(world, 4)
    journal = Journal(world.dsn)
    await journal.start()
    async with await psycopg.AsyncConnection.connect(world.dsn) as person:
        await person.execute("select 1 from run where id = %s for update", [runs[0].id])
        held = asyncio.create_task(journal.write(entry(runs[0], 1)))
        for run in runs[1:]:
            assert (await journal.write(entry(run, 1))).verdict == "ok"
        assert not held.done()
        await person.commit()
    assert (await held).verdict == "ok"
    await journal.stop()


async def test_plain_roles_cannot_rewrite_history_or_make_illegal_moves(world: World) -> None:
    await claimed(world, 1)
    for sql in (
        "update event set kind = 'x'",
        "delete from event",
        "truncate event",
        "delete from runs_release",
        "alter table run disable trigger all",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await rows(world, sql)
    with pytest.raises(psycopg.Error, match="illegal move"):
        await rows(world, "update run set state = 'queued_x', owner = null returning 1")
