"""Money when engines are killed: what is recorded is never less than what the provider billed, and every ceiling comes out even."""

import asyncio
import os

import pytest
from asgiref.sync import sync_to_async
from django.db.models import Sum

from runs import ceilings
from runs.models import Call, Run
from tenants.models import Reservation, Spending
from tests.runtime import provider
from tests.runtime.world import World

from .figures import figure
from .load import Load
from .nursery import Nursery

CHAOS = bool(os.environ.get("CHAOS"))
DAY, MONTH = "cost_usd_per_day", "cost_usd_per_month"


@pytest.mark.mission("P5.1")
async def test_engines_killed_during_model_calls_never_record_less_than_was_billed(world: World, nursery: Nursery) -> None:
    many, wanted = (500, 60) if CHAOS else (30, 4)
    load = Load(world, nursery, seed=31, slots=12 if CHAOS else 4)
    await load.open()
    for tenant, agent, kind in ((None, "", MONTH), (world.tenant, "", DAY), (None, "helper", DAY), (world.tenant, "helper", MONTH)):
        await sync_to_async(ceilings.put)(None, tenant, agent, kind, 10**10)
    killed = 0

    async def kill() -> None:
        nonlocal killed
        await asyncio.sleep(load.random.uniform(0.05, 0.3) if CHAOS else 0.25)
        if killed < wanted and await load.strike():
            load.start()
            killed += 1

    async with provider.opened(wait_s=0.12 if CHAOS else 0.4) as asked:
        load.runs += [await world.submit(f"run {number:05d}, please") for number in range(many)]
        load.start(3)
        await load.rest(240, kill)
        billed, requests = asked.billed_micro, asked.requests
    await sync_to_async(ceilings.sweep)()
    recorded = (await Run.objects.aaggregate(sum=Sum("cost_micro")))["sum"]
    held = [(one.reserved_micro, one.spent_micro) async for one in Spending.objects.all()]
    going = [run async for run in Run.objects.exclude(state__in=("succeeded", "failed", "cancelled"))]
    assert killed >= wanted // 2 and requests > many, "vacuous: no call in flight was lost"
    assert recorded >= billed
    if not going:  # a run in quarantine is kept for a person, with its reservation
        assert set(held) == {(0, recorded)} and not await Reservation.objects.aexists()
    assert len({pair for pair in held}) == 1
    lost = await Call.objects.filter(ord=0, attempt__gt=1).acount()
    figure("T31", "engines killed (SIGKILL) during model calls: recorded is never less than billed", n=many, seed=31, seconds=load.seconds,
           kills=killed, requests=requests, calls_sent_again=lost, billed_micro_usd=billed, recorded_micro_usd=recorded,
           quarantined=len(going))  # fmt: skip
