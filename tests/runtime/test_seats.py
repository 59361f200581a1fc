"""Model calls wait for a seat: never more in flight than the model allows over all engines, and a wait uses no attempt."""

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async

from runs import lifecycle
from runs.models import ModelDefinition
from tenants import controls

from . import provider
from .world import World

DONE = {"text": "Done."}


async def allow(model: str, most: int) -> None:
    await ModelDefinition.objects.filter(name=model).aupdate(max_concurrency=most)
    await sync_to_async(controls.bump)(None)


@pytest.mark.mission("P5.1")
async def test_never_more_calls_are_in_flight_than_the_model_allows(world: World) -> None:
    await world.agent(tools=())
    await allow("primary", 2)
    async with provider.opened() as asked:
        runs = [await world.submit("hello") for _ in range(10)]
        await world.engine()
        for run in runs:
            await world.until(run, "succeeded")
    assert (asked.most, asked.requests) == (2, 10)


async def test_engines_share_the_seats_of_a_model(world: World) -> None:
    await world.agent(tools=())
    await allow("primary", 4)
    engines = [await world.engine(slots=10) for _ in range(2)]
    end = time.monotonic() + 30
    while any(engine.services.circuits.engines != 2 for engine in engines) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    async with provider.opened() as asked:
        runs = [await world.submit("hello") for _ in range(16)]
        for run in runs:
            await world.until(run, "succeeded")
        assert [engine.services.seats.shares["primary"] for engine in engines if engine.services.seats.shares] in ([2], [2, 2])
    assert asked.most <= 4


@pytest.mark.mission("P5.3")
async def test_a_call_whose_time_passes_without_a_seat_falls_back_and_has_used_no_attempt(world: World) -> None:
    planner = {"planner": {"model": "primary", "fallback": ["spare"]}}
    deadlines = {"model_call_s": 0.3, "tool_call_s": 5, "step_s": 100, "run_s": 300}
    await world.agent(tools=(), models=planner, deadlines=deadlines)
    await allow("primary", 1)
    engine = await world.engine()
    assert engine.services.seats.now("primary", 1)  # somebody else's call that does not end
    run = await world.until(await world.script(DONE), "succeeded")
    [call] = await world.calls(run)
    assert (call.name, call.attempt) == ("spare", 1)
    told = [(event.kind, event.payload.get("data", {}).get("reason")) for event in await world.events(run)]
    assert ("call_held", "no_seat") in told and ("fallback_activated", "no_seat") in told


async def test_without_a_fallback_the_run_ends_and_says_why(world: World) -> None:
    await world.agent(tools=(), deadlines={"model_call_s": 0.2, "tool_call_s": 5, "step_s": 100, "run_s": 300})
    await allow("primary", 1)
    engine = await world.engine()
    assert engine.services.seats.now("primary", 1)
    run = await world.until(await world.script(DONE), "failed")
    assert run.last_error is not None
    assert (run.outcome, run.last_error["error_type"], await world.calls(run)) == ("model_error", "rate_limit", [])
    assert "1 calls of primary are in flight" in run.last_error["message"]


async def test_a_run_that_waits_for_a_seat_is_cancelled_at_once(world: World) -> None:
    await world.agent(tools=())
    await allow("primary", 1)
    engine = await world.engine()
    assert engine.services.seats.now("primary", 1)
    run = await world.script(DONE)
    end = time.monotonic() + 30
    while not engine.services.seats.lines["primary"] and time.monotonic() < end:
        await asyncio.sleep(0.01)
    await sync_to_async(lifecycle.cancel)(world.people["operator"], run.id)
    assert (await world.until(run)).state == "cancelled"
    assert not engine.services.seats.lines["primary"]


async def test_a_run_that_waits_for_a_seat_goes_back_when_its_engine_stops(world: World) -> None:
    await world.agent(tools=())
    await allow("primary", 1)
    engine = await world.engine()
    assert engine.services.seats.now("primary", 1)
    run = await world.script(DONE)
    end = time.monotonic() + 30
    while not engine.services.seats.lines["primary"] and time.monotonic() < end:
        await asyncio.sleep(0.01)
    engine.stop()
    assert (await world.until(run, "queued")).owner is None
    assert await world.calls(run) == []
