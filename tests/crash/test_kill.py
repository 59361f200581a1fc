"""Engines die in the middle of runs. No run is lost, no write is made twice, and what is unknown is said to be unknown."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable
from subprocess import Popen

import pytest

from runs.models import Call, Engine, Event, Run
from tests.runtime.world import TICKET, World, call

Start = Callable[..., "Popen[bytes]"]
RUNS = 40


@pytest.mark.mission("P3.5")
async def test_engines_killed_at_random_lose_no_run_and_repeat_no_write(world: World, start_engine: Start) -> None:
    """Half of the writes carry a key (sent again with it, applied once), half do not (unknown when in flight, never sent again)."""
    await world.agent()
    for tool in ("create_ticket", "send_email"):
        await world.permit(tool, "allow", loosen=True)
        await world.fault(tool, "latency", times=-1, ms=250)
    runs = []
    for number in range(RUNS):
        write = call("create_ticket", **{**TICKET, "summary": f"ticket {number}"})
        if number % 2:
            write = call("send_email", to="a@example.com", subject=f"mail {number}", body="b")
        runs.append(await world.script(call("search_docs", query="x"), write, {"text": "Done."}))
    seed = random.Random(7)
    engines = [start_engine(slots=4), start_engine(slots=4)]
    killed = 0
    while await unfinished():
        await asyncio.sleep(seed.uniform(0.05, 0.4))
        victim = seed.randrange(2)
        if killed < 8 and await owned_by(engines[victim].pid):
            engines[victim].send_signal(signal.SIGKILL)
            engines[victim].wait()
            engines[victim] = start_engine(slots=4)
            killed += 1
    assert killed >= 4 and await Event.objects.filter(kind="run_taken_over").acount() > 0, "the test was vacuous"
    states = Counter([run.state async for run in Run.objects.all()])
    assert set(states) <= {"succeeded", "needs_reconciliation", "quarantined"} and states["succeeded"] > RUNS / 2, states
    effects = Counter([effect["args_sha256"] for effect in await world.ledger()])
    assert max(effects.values()) == 1, "a write was made twice"
    unkeyed = Counter(r["args_sha256"] for r in await world.received() if r["target"] == "send_email")
    assert max(unkeyed.values()) == 1, "a write without a key was sent twice"
    unknown = await Call.objects.filter(state="unknown").acount()
    assert states["needs_reconciliation"] <= unknown <= states["needs_reconciliation"] + states["quarantined"]
    await seqs_are_whole()


async def owned_by(pid: int) -> bool:
    """Whether the engine process with this pid drives runs right now."""
    engines = [engine.id async for engine in Engine.objects.filter(pid=pid)]
    return await Run.objects.filter(owner__in=engines).aexists()


async def unfinished() -> bool:
    held = ("succeeded", "failed", "cancelled", "needs_reconciliation", "quarantined")
    return await Run.objects.exclude(state__in=held).aexists()


async def seqs_are_whole() -> None:
    async for run in Run.objects.all():
        seqs = [seq async for seq in Event.objects.filter(run_id=run.id).order_by("seq").values_list("seq", flat=True)]
        assert seqs == list(range(1, run.seq + 1)), run.run_id


async def test_a_frozen_engine_that_wakes_up_changes_nothing(world: World, start_engine: Start) -> None:
    """A zombie: stopped for longer than its lease while its answer is on the way, then continued."""
    await world.agent()
    await world.fault("model", "latency", times=1, ms=700)
    run = await world.script({"text": "Done."})
    zombie = start_engine(lease=1.0)
    while not [r for r in await world.received() if r["target"] == "model"]:
        await asyncio.sleep(0.02)
    zombie.send_signal(signal.SIGSTOP)
    await world.until(run, "running")
    start_engine(lease=1.0)
    done = await world.until(run, seconds=15)
    before = done.seq
    zombie.send_signal(signal.SIGCONT)
    await asyncio.sleep(1.0)
    after = await Run.objects.aget(id=run.id)
    assert (after.state, after.seq) == ("succeeded", before)
    assert "run_taken_over" in await world.kinds(run)


async def test_a_run_that_kills_every_engine_is_put_in_quarantine(world: World, start_engine: Start) -> None:
    await world.agent()
    await world.fault("search_docs", "hang", times=-1)
    run = await world.script(call("search_docs", query="x"), {"text": "Done."})
    for _ in range(4):
        engine = start_engine()
        sent = len([r for r in await world.received() if r["target"] == "search_docs"])
        while (await Run.objects.aget(id=run.id)).state != "quarantined":
            if len([r for r in await world.received() if r["target"] == "search_docs"]) > sent:
                engine.send_signal(signal.SIGKILL)
                break
            await asyncio.sleep(0.05)
        engine.kill() if engine.poll() is None and (await Run.objects.aget(id=run.id)).state == "quarantined" else engine.wait()
    assert (await Run.objects.aget(id=run.id)).state == "quarantined"


async def test_sigterm_lets_calls_end_and_gives_runs_back(world: World, start_engine: Start) -> None:
    await world.agent()
    await world.fault("search_docs", "latency", times=-1, ms=300)
    runs = [await world.script(call("search_docs", query="x"), {"text": "Done."}) for _ in range(10)]
    first = start_engine()
    while not [r for r in await world.received() if r["target"] == "search_docs"]:
        await asyncio.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait, 30) == 0
    assert not await Run.objects.filter(owner__isnull=False).aexists()
    start_engine()
    for run in runs:
        assert (await world.until(run)).outcome == "completed"
    assert not await Event.objects.filter(kind="run_taken_over").aexists()
