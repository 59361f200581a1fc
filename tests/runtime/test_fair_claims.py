"""Who is claimed first: tenants take turns, whoever is waited for goes first in their own, and a crowd holds up nobody else."""

import asyncio
import statistics
import time
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db.models import Max
from django.db.models.functions import Now

from console.postgres import Urls
from runs.engine.journal import SESSION
from runs.engine.statements import CLAIM, FEW
from runs.intake import Order, submit
from runs.models import Event, Run, RunInput
from runs.states import RunState
from tenants import controls
from tenants.actors import Actor
from tenants.ids import new_id
from tenants.models import Tenant

from .waiting import World as People
from .waiting import make_world, queued
from .world import World, make_people

SCRIPT = 'please\n#sim {"turns": [{"text": "Done."}]}'


@pytest.fixture
def three(committed_db: None) -> list[People]:
    return [make_world(), make_world("globex", "second"), make_world("initech", "third")]


def claimed(urls: Urls, n: int, held: dict[UUID, int] | None = None, deep: int = 80) -> list[UUID]:
    """Runs in the order in which they were due to this engine."""
    held = held or {}
    asked: dict[str, Any] = {"engine": new_id(), "n": n, "deep": deep, "tenants": list(held), "held": list(held.values())}
    with psycopg.connect(urls.engine, options=SESSION) as connection:
        return [row[0] for row in connection.execute(CLAIM, asked).fetchall()]


def shares(urls: Urls, n: int, held: dict[UUID, int] | None = None) -> Counter[str]:
    return Counter(Run.objects.filter(id__in=claimed(urls, n, held)).values_list("tenant__slug", flat=True))


@pytest.mark.mission("P3.5")
def test_tenants_take_turns_whatever_one_of_them_has_queued(three: list[People], urls: Urls) -> None:
    for world, count in zip(three, (30, 3, 1), strict=True):
        for _ in range(count):
            queued(world)
    assert shares(urls, 6) == {"acme": 3, "globex": 2, "initech": 1}
    assert shares(urls, 40) == {"acme": 27, "globex": 1}
    assert not claimed(urls, 40)


def test_what_an_engine_drives_already_counts_as_turns_that_were_taken(three: list[People], urls: Urls) -> None:
    for world in three[:2]:
        for _ in range(8):
            queued(world)
    assert shares(urls, 4, {three[0].tenant.id: 4}) == {"globex": 4}
    assert shares(urls, 4, {three[0].tenant.id: 3, three[1].tenant.id: 1}) == {"globex": 3, "acme": 1}


def test_of_one_tenant_those_go_first_that_somebody_waits_for_then_the_oldest(three: list[People], urls: Urls) -> None:
    acme, globex = three[0], three[1]
    plain = [queued(acme) for _ in range(3)]
    urgent = submit(acme.starter, Order(agent="support-triage", input="now"), priority=1).run
    other = queued(globex)
    first = claimed(urls, 2)
    assert set(first) == {urgent.id, other.id}  # in front of its own, and of nobody else
    assert claimed(urls, 1) == [plain[0].id]


def test_what_is_not_due_yet_is_left_alone(three: list[People], urls: Urls) -> None:
    run, later = queued(three[0]), queued(three[0])
    Run.objects.filter(pk=later.pk).update(available_at=Now() + timedelta(hours=1))
    queued(three[1])
    Run.objects.filter(tenant=three[1].tenant).update(state=RunState.RUNNING, owner=new_id())
    assert claimed(urls, 40) == [run.id]


def test_runs_that_another_engine_is_claiming_are_passed_over(three: list[People], urls: Urls) -> None:
    runs = [queued(three[0]) for _ in range(12)]
    with psycopg.connect(urls.engine) as other:
        other.execute("select id from run where id = any(%s) for no key update", [[run.id for run in runs[:9]]])
        assert set(claimed(urls, 5, deep=45)) == {run.id for run in runs[9:]}


def test_many_tenants_with_nothing_due_leave_room_for_the_one_that_has(three: list[People], urls: Urls) -> None:
    for world in three[1:]:
        queued(world)
    Run.objects.update(available_at=Now() + timedelta(hours=1))
    runs = [queued(three[0]) for _ in range(FEW + 2)]
    assert len(claimed(urls, 40, deep=3)) == 3
    assert len(claimed(urls, 40)) == len(runs) - 3


# in an engine -----------------------------------------------------------------------------------------------------------------


def crowd(tenant: Tenant, like: Run, count: int) -> None:
    """Queued runs of `tenant`, many at once."""
    asked = RunInput.objects.get(pk=like.pk)
    same = {"agent_id": like.agent_id, "release_id": like.release_id, "deadline_at": like.deadline_at, "starter_id": like.starter_id}
    runs = [Run(id=new_id(), tenant=tenant, **same) for _ in range(count)]
    Run.objects.bulk_create(runs)
    RunInput.objects.bulk_create([RunInput(run=run, text=asked.text, limits=asked.limits) for run in runs])


async def through(world: World, actor: Actor, count: int) -> tuple[list[Run], float]:
    """So many runs of this person, and the 95th percentile of their seconds from acceptance to their end."""
    runs = [(await sync_to_async(submit)(actor, Order(agent="helper", input=SCRIPT))).run for _ in range(count)]
    for run in runs:
        await world.until(run, "succeeded")
    ended = [run async for run in Run.objects.filter(id__in=[run.id for run in runs])]
    seconds = [(run.ended_at - run.created_at).total_seconds() for run in ended if run.ended_at]
    return runs, statistics.quantiles(seconds, n=20)[-1]


@pytest.mark.mission("P3.5")
async def test_ten_runs_of_one_tenant_are_not_held_up_by_five_thousand_of_another(world: World) -> None:
    await world.agent(tools=())
    quiet = await sync_to_async(Tenant.objects.create)(slug="quiet")
    await sync_to_async(controls.ensure)(quiet)
    actor = (await sync_to_async(make_people)(quiet))["operator"]
    slots = 20
    await world.engine(slots=slots)
    _, alone = await through(world, actor, 10)
    like = await world.submit(SCRIPT)
    await sync_to_async(crowd)(world.tenant, like, 5_000)
    end = time.monotonic() + 60
    while await Run.objects.filter(tenant=world.tenant, state="succeeded").acount() < slots and time.monotonic() < end:
        await asyncio.sleep(0.01)  # the engine is full of the crowd
    runs, together = await through(world, actor, 10)
    left = await Run.objects.filter(tenant=world.tenant, state="queued").acount()
    print(f"\nT35: p95 of ten runs: {alone:.2f} s alone, {together:.2f} s beside 5,000 of another tenant ({together / alone:.1f}x)")
    assert left > 1_000, "vacuous: the crowd was through already"
    overtaken = [await starts_between(world.tenant, run) for run in runs]
    assert max(overtaken) <= 5 * slots, overtaken  # a claim or a few, as slow as the machine is; never the queue


async def starts_between(tenant: Tenant, run: Run) -> int:
    """How many of the tenant's runs an engine started after this one was accepted and before it was started."""
    own = Event.objects.filter(run_id=run.id, kind="run_started")
    at = (await own.aaggregate(at=Max("at")))["at"]
    return await Event.objects.filter(tenant_id=tenant.id, kind="run_started", at__gt=run.created_at, at__lt=at).acount()
