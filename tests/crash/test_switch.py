"""T61: the kill switch under load. How long after the answer of the POST the last request arrives at the other side."""

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from runs.models import Call, Run, Switch
from tenants.models import Member
from tests.console.callers import Caller, key_of
from tests.runtime.world import TICKET, World, call

from .figures import figure
from .load import Load
from .nursery import Nursery

CHAOS = bool(os.environ.get("CHAOS"))
RUNS, TURNS = (60, 40) if CHAOS else (30, 24)
HANG_S = 10.0  # ten times what is promised
LIMITS = {"max_steps": 200, "max_tool_calls": 200, "max_writes": 200, "max_input_tokens": 10_000_000, "max_cost_usd": "100"}


async def busy(world: World, nursery: Nursery) -> tuple[Load, float]:
    """Runs that make one write after the other, under two engines; and the writes per second that arrive."""
    load = Load(world, nursery, slots=100)
    await world.agent(budget=LIMITS, deadlines={"model_call_s": 10, "tool_call_s": 5, "step_s": 100, "run_s": 600})
    await world.permit("create_ticket", "allow", loosen=True)
    await world.fault("create_ticket", "latency", times=-1, ms=100)
    for number in range(RUNS):
        turns = [call("create_ticket", **TICKET | {"summary": f"{number}.{turn}"}) for turn in range(TURNS)]
        load.runs.append(await world.script(*turns, {"text": "Done."}))
    load.start(2)
    async with asyncio.timeout(60):
        while len(await writes(world)) < RUNS:
            await asyncio.sleep(0.05)
    before, at = len(await writes(world)), time.monotonic()
    await asyncio.sleep(1)
    return load, (len(await writes(world)) - before) / (time.monotonic() - at)


async def writes(world: World) -> list[datetime]:
    return [moment(r["at"]) for r in await world.received() if r["target"] == "create_ticket"]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def platform_caller(world: World) -> Caller:
    user = world.people["admin"].user
    user.is_platform_admin = True
    user.save()
    assert Member.objects.filter(user=user, tenant=world.tenant).exists()
    return Caller(key_of(world.people["admin"]))


def posted(caller: Caller, path: str, body: dict[str, Any]) -> tuple[Any, datetime]:
    """The answer, and when it was there."""
    answer = caller.post(path, body)
    at = datetime.now(UTC)
    connection.close()
    return answer, at


@pytest.mark.mission("X10")
@pytest.mark.parametrize(("scope", "then"), [("writes", "pause"), ("all", "pause"), ("writes", "stop")])
async def test_the_last_call_starts_within_a_second_of_the_switch(world: World, nursery: Nursery, scope: str, then: str) -> None:
    began = time.monotonic()
    load, rate = await busy(world, nursery)
    caller = await sync_to_async(platform_caller)(world)
    answer, at = await sync_to_async(posted)(caller, "/switches", {"scope": scope, "then": then, "reason": "T61"})
    assert answer.status_code == 201, answer.content
    switch = await Switch.objects.aget()
    states = {"paused"} if then == "pause" else {"failed"}
    async with asyncio.timeout(60):
        while await Run.objects.exclude(state__in=[*states, "succeeded"]).aexists():
            await asyncio.sleep(0.05)
    assert await Run.objects.filter(state__in=states).acount() > RUNS / 2, "too few were under way: the figure says nothing"
    after = max(await writes(world)) - at
    assert after.total_seconds() < HANG_S
    later = [at async for at in Call.objects.filter(dispatched_at__gt=switch.at).values_list("dispatched_at", flat=True)]
    dispatched = max(((one - switch.at).total_seconds() for one in later if one), default=0.0)
    assert dispatched < HANG_S
    in_flight = await Call.objects.filter(state="dispatched").acount()
    assert in_flight == 0, "what was on its way ended and was kept"
    if then == "pause":
        lifted, _ = await sync_to_async(posted)(caller, f"/switches/{answer.json()['switch_id']}/lift", {"reason": "over"})
        assert lifted.status_code == 200
        await load.rest()
        assert await Run.objects.filter(state="succeeded").acount() == RUNS
    figure(
        "T61", f"kill switch ({scope}, {then}) under load: the last write to arrive, after the answer to the POST", n=RUNS,
        seconds=time.monotonic() - began, writes_per_second=round(rate), last_arrived_ms=round(after.total_seconds() * 1000),
        last_dispatched_after_ms=round(dispatched * 1000), dispatched_after_it=len(later),
    )  # fmt: skip
