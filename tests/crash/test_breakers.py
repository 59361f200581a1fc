"""A host that is down or half down, under load and in real time, with figures: how often it is asked, and what its runs come to."""

import asyncio
import os
import time

import pytest

from runs.models import Call
from tests.runtime.test_circuits import a_host, ended, force, until_row, use
from tests.runtime.world import World

from .figures import figure

chaos = pytest.mark.skipif(not os.environ.get("CHAOS"), reason="long: CHAOS=1")


async def sends() -> int:
    return sum([call.attempt async for call in Call.objects.filter(ord=0).only("attempt")])


@chaos
@pytest.mark.mission("P3.1")
@pytest.mark.parametrize("mode", ["500", "hang", "closed"])
async def test_five_hundred_runs_at_a_dead_host(world: World, mode: str) -> None:
    await world.agent(tools=(), deadlines={"model_call_s": 10, "tool_call_s": 5, "step_s": 300, "run_s": 600})
    async with a_host(mode) as host:
        await use(host, timeout_s=5)
        runs = [await world.submit("hello") for _ in range(500)]
        began = time.monotonic()
        await world.engine()
        await world.engine()
        await asyncio.sleep(60 - (time.monotonic() - began))
        asked = await sends()
        assert 10 <= asked <= 30
        await host.heal()
        healed = time.monotonic()
        if mode != "hang":
            await until_row(world, host.url, "closed", seconds=130)
        back = time.monotonic() - healed
        outcomes = await ended(world, runs)
    assert set(outcomes) <= {"completed", "model_error"} and outcomes["completed"] >= 470
    title = f"500 runs at a dead host ({mode}), two engines: what it is asked in 60 s, then it is back"
    figure("T32", title, n=500, seconds=time.monotonic() - began, sends_in_60_s=asked, closed_again_after_s=round(back, 1), **outcomes)


@chaos
@pytest.mark.mission("P3.1")
async def test_a_storm_of_errors_at_a_host_that_fails_every_second_time(world: World) -> None:
    """The breaker is held closed, so that the budget of retries is what holds."""
    await world.agent(tools=())
    async with a_host("half") as host:
        await use(host, retry={"max_attempts": 4, "backoff_ms": [10]})
        await force(world, host.url, "close")
        runs = [await world.submit("hello") for _ in range(2000)]
        began = time.monotonic()
        await world.engine()
        outcomes = await ended(world, runs)
        seconds, sent = time.monotonic() - began, host.received
    assert sent <= 1.1 * len(runs) + 3 * (seconds + 10)
    ratio, floor = round(sent / len(runs), 2), round(3 * (seconds + 10))
    figure("T33", "retries at 50 % errors", n=2000, seconds=seconds, sends=sent, ratio=ratio, allowed_by_time=floor, **outcomes)
