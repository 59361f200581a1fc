"""Trouble at random and in bulk, with figures. Everything under CHAOS=1 (`make chaos`); small forms of what is cheap always."""

import asyncio
import os
import signal
import statistics
import time
from collections import Counter
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from runs.models import Call, Event, Observation, Run, UnknownWrite
from tests.conftest import ground
from tests.runtime.test_unknown import put_mail
from tests.runtime.world import TEXT, TICKET, World, call, schema
from tools import catalog
from tools.spec import ToolSpec

from .figures import figure
from .load import TOOL, Load, patiently, put_python
from .nursery import Nursery

CHAOS = bool(os.environ.get("CHAOS"))
chaos = pytest.mark.skipif(not CHAOS, reason="long: CHAOS=1")


def size(long: int, short: int) -> int:
    return long if CHAOS else short


@chaos
@pytest.mark.mission("P3.5")
async def test_engines_killed_at_random_under_load(world: World, nursery: Nursery) -> None:
    load = Load(world, nursery, seed=11)
    await load.open(slow_ms=150)
    await load.submit(1000)
    load.start(4)
    killed = 0

    async def kill() -> None:
        nonlocal killed
        await asyncio.sleep(load.random.uniform(0.1, 0.45))
        if killed < 150 and await load.strike():
            load.start()
            killed += 1

    await load.rest(240, kill)
    counters = await load.counters()
    assert killed >= 20 and counters["takeovers"] > 0, "vacuous"
    figure("T1", "engines killed (SIGKILL) at random", n=1000, seed=11, seconds=load.seconds, kills=killed, **counters)


@chaos
@pytest.mark.mission("P3.5")
async def test_engines_frozen_for_longer_than_their_lease_under_load(world: World, nursery: Nursery) -> None:
    load = Load(world, nursery, seed=12, lease=0.8)
    await load.open(slow_ms=60)
    await load.submit(60)
    load.start(4)
    pauses, wakes, wanted = 0, list[asyncio.Task[None]](), 100

    async def wake(engine: Any, after: float) -> None:
        await asyncio.sleep(after)
        engine.send(signal.SIGCONT)
        load.engines.append(engine)

    end = time.monotonic() + 150
    while pauses < wanted and time.monotonic() < end:
        if await load.unfinished() < 40:
            await load.submit(10)
        if len(load.engines) > 1 and (engine := await load.strike(signal.SIGSTOP)):
            wakes.append(asyncio.create_task(wake(engine, load.random.uniform(1.0, 2.2))))
            pauses += 1
        await asyncio.sleep(load.random.uniform(0.05, 0.3))
    await asyncio.gather(*wakes)
    await load.rest(90)
    counters = await load.counters()
    late = await Observation.objects.acount()
    assert pauses >= 20 and counters["takeovers"] > 0 and counters["stale_engines_stopped"] > 0, f"vacuous: {counters}"
    title = "engines frozen (SIGSTOP) for longer than their lease: no stale write accepted"
    figure("T3", title, n=len(load.runs), seed=12, seconds=load.seconds, pauses=pauses, **counters, late_evidence=late)


async def test_everything_killed_at_once_and_started_again(world: World, nursery: Nursery) -> None:
    rounds = size(20, 1)
    load = Load(world, nursery, seed=13)
    await load.open(slow_ms=size(40, 300))
    await load.submit(size(300, 10))
    for _ in range(rounds):
        load.start(size(3, 2))
        await asyncio.sleep(load.random.uniform(0.6, 1.2))
        for engine in load.engines:
            engine.send(signal.SIGKILL)
        load.engines.clear()
    load.start(2)
    again = time.monotonic()
    await load.rest(120)
    counters = await load.counters()
    assert counters["takeovers"] > 0, "vacuous"
    title = "all engines killed at once, again and again, then started"
    figure("T4", title, n=len(load.runs), seed=13, seconds=load.seconds, rounds=rounds, at_rest_after_s=round(time.monotonic() - again, 1),
           **counters)  # fmt: skip


@chaos
@pytest.mark.mission("P3.5")
async def test_the_database_crashes_under_load(world: World, nursery: Nursery, request: pytest.FixtureRequest) -> None:
    made = request.config.stash[ground]
    cluster = made._cluster
    if cluster is None:
        pytest.skip("the database is not ours to stop")
    with psycopg.connect(made.urls.owner, autocommit=True) as connection:  # the tests' own setting forgets commits in a crash
        connection.execute(f"alter database {made.name} set synchronous_commit = on".encode())
    load = Load(world, nursery, seed=14, lease=3.0)
    await load.open(slow_ms=40)
    load.start(2)
    crashes = 0
    for _ in range(12):
        for _ in range(30):
            await patiently(lambda: load.submit(1))
        await asyncio.sleep(load.random.uniform(0.3, 1.5))
        assert await asyncio.to_thread(cluster.stop, immediate=True)
        crashes += 1
        await asyncio.sleep(load.random.uniform(0, 0.5))
        await asyncio.to_thread(cluster.start)
        await sync_to_async(connections.close_all)()
    await load.rest(120)
    counters = await load.counters()
    figure("T6", "PostgreSQL stopped without a shutdown (immediate) under load", n=len(load.runs), seed=14, seconds=load.seconds,
           crashes=crashes, **counters)  # fmt: skip


@pytest.mark.mission("P3.5")
async def test_every_ambiguous_write_is_held_and_none_is_sent_again(world: World, nursery: Nursery) -> None:
    many = size(500, 20)
    load = Load(world, nursery)
    await load.open()
    await world.fault("send_email", "drop_after", times=-1)
    await load.submit(many, ("unkeyed",))
    load.start(2)
    await load.rest()
    states = Counter([run.state async for run in Run.objects.all()])
    sends = Counter(r["args_sha256"] for r in await world.received() if r["target"] == "send_email")
    assert states == {"needs_reconciliation": many} and set(sends.values()) == {1}
    figure("T8", "writes whose answer was lost after they were applied", n=many, seconds=load.seconds, needs_reconciliation=many,
           sent_again=sum(sends.values()) - many, effects=len(await world.ledger()))  # fmt: skip


@chaos
@pytest.mark.mission("X1")
async def test_the_verify_adapter_is_right_about_every_unknown_write(world: World, nursery: Nursery) -> None:
    await put_mail(world, probes=2)
    load = Load(world, nursery)
    await load.open()
    many = 200
    for number in range(many):
        await world.fault("send_email", "drop_after" if number % 2 else "drop_before", match=f"run {number:05d}")
    await load.submit(many, ("unkeyed",))
    load.start(3)
    end = time.monotonic() + 180
    while await UnknownWrite.objects.exclude(result="").acount() < many and time.monotonic() < end:
        await asyncio.sleep(0.2)
    await load.rest()
    applied = {effect["args_sha256"] for effect in await world.ledger()}
    sha = {r["run"]: r["args_sha256"] for r in await world.received() if r["target"] == "send_email"}
    said = Counter()
    async for case in UnknownWrite.objects.all():
        run = next(run for run in load.runs if run.id == case.run_id)
        truth = "applied" if sha[run.run_id] in applied else "not_applied"
        said[case.result, "right" if case.result == truth else "wrong"] += 1
    assert said == {("applied", "right"): many // 2, ("not_applied", "right"): many // 2}, said
    figure("T9", "unknown writes settled by asking the tool, half of them applied", n=many, seconds=load.seconds,
           applied=many // 2, not_applied=many // 2, wrong=0)  # fmt: skip


@chaos
@pytest.mark.mission("P3.4")
async def test_the_same_effect_asked_for_three_times_is_made_once(world: World, nursery: Nursery) -> None:
    spec = {
        "adapter": {"kind": "http", "url": f"{world.url}/desk/tickets"}, "description": "Open a ticket", "effect": "write",
        "idempotency": "key", "effect_key": "ticket:{summary}",
        "input_schema": schema(account_id=TEXT, priority={"enum": ["low", "normal", "urgent"]}, summary=TEXT),
    }  # fmt: skip
    await sync_to_async(catalog.put)(None, "create_ticket", ToolSpec.model_validate(spec))
    load = Load(world, nursery)
    await load.open()
    for number in range(300):
        asks = [call("create_ticket", **{**TICKET, "priority": p, "summary": f"run {number}"}) for p in ("low", "normal", "urgent")]
        load.runs.append(await world.script(*asks, {"text": "Done."}))
    load.start(2)
    await load.rest()
    answered = await Call.objects.filter(result__status="already_applied").acount()
    effects = len(await world.ledger())
    assert (effects, answered) == (300, 600)
    figure("T12", "the model asks for the same effect three times", n=300, seconds=load.seconds, effects=effects, already_applied=answered)


@chaos
async def test_how_long_a_takeover_takes_when_a_process_is_killed(world: World, nursery: Nursery) -> None:
    load = Load(world, nursery, lease=30.0)
    await load.open()
    await world.fault("search_docs", "latency", times=-1, ms=500)
    load.start(2)
    latencies = []
    for _ in range(30):
        await load.submit(1, ("read",))
        run = load.runs[-1]
        while not (killed := await load.strike()):
            await asyncio.sleep(0.02)
        at = time.monotonic()
        assert killed
        while "run_taken_over" not in (kinds := await world.kinds(run)) and "run_completed" not in kinds:
            await asyncio.sleep(0.01)
        latencies.append(time.monotonic() - at)
        load.start()
        await world.until(run)
    await load.rest()
    p50, worst = statistics.median(latencies), max(latencies)
    assert worst < 20, "hang guard"
    figure("T14", "takeover after a killed process on the same host (the lease is 30 s)", n=30, seconds=load.seconds,
           p50_s=round(p50, 2), max_s=round(worst, 2))  # fmt: skip


@chaos
async def test_a_run_that_kills_its_engines_is_put_aside_and_the_others_end(world: World, nursery: Nursery) -> None:
    await put_python(world, "poison")
    load = Load(world, nursery, slots=20)
    await load.open(tool_call_s=20)
    await world.agent("poisoned", (*TOOL.values(), "poison"))
    await load.submit(50, ("read", "keyed"))
    load.runs.append(await world.script(call("poison", tag="x"), {"text": "Done."}, agent="poisoned"))
    await load.submit(50, ("read", "keyed"))
    load.start(2)
    killed = 0

    async def replace() -> None:
        nonlocal killed
        for engine in [engine for engine in load.engines if not engine.alive]:
            load.engines.remove(engine)
            load.start()
            killed += 1

    await load.rest(120, replace)
    states = Counter([run.state async for run in Run.objects.all()])
    assert states["quarantined"] >= 1 and states["succeeded"] + states["quarantined"] == 101, states
    figure("T15", "a run that kills every engine it meets, among 100 others", n=101, seconds=load.seconds, engines_killed=killed, **states)


@chaos
async def test_no_call_is_sent_more_than_six_times_whatever_happens(world: World, nursery: Nursery) -> None:
    load = Load(world, nursery, seed=17)
    await load.open()
    for tool in ("search_docs", "create_ticket"):
        await world.fault(tool, "500", times=-1)
    await load.submit(200, ("read", "keyed"))
    load.start(2)
    killed = 0

    async def kill() -> None:
        nonlocal killed
        await asyncio.sleep(load.random.uniform(0.15, 0.4))
        if killed < 30 and await load.strike():
            load.start()
            killed += 1

    await load.rest(120, kill)
    sends = Counter((r["run"]) for r in await world.received() if r["target"] in TOOL.values())
    counters = await load.counters()
    assert max(sends.values()) <= 6
    figure("T17", "sends of one call when everything fails and engines die", n=200, seed=17, seconds=load.seconds,
           kills=killed, most_sends=max(sends.values()), sends=sum(sends.values()), **counters)  # fmt: skip


@chaos
async def test_engines_that_are_told_to_stop_lose_nothing_and_leave_nothing_unknown(world: World, nursery: Nursery) -> None:
    load = Load(world, nursery, seed=39)
    await load.open(slow_ms=150)
    load.start(2)
    drains, longest = 0, 0.0
    while drains < 20:
        if await load.unfinished() < 60:
            await load.submit(40)
        if engine := await load.strike(signal.SIGTERM):
            load.start()
            at = time.monotonic()
            while engine.alive and time.monotonic() < at + 60:
                await asyncio.sleep(0.02)
            assert not engine.alive
            longest, drains = max(longest, time.monotonic() - at), drains + 1
        await asyncio.sleep(load.random.uniform(0.1, 0.5))
    await load.rest()
    counters = await load.counters()
    assert counters["takeovers"] == 0 and counters["unknown_writes"] == 0, counters
    parked = await Event.objects.filter(kind="run_parked").acount()
    figure("T39", "engines told to stop (SIGTERM) under load", n=len(load.runs), seed=39, seconds=load.seconds, drains=drains,
           longest_drain_s=round(longest, 1), given_back=parked, **counters)  # fmt: skip
