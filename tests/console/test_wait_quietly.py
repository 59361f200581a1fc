"""`Prefer: wait` looks at its run when there is a reason to: at first, at a hint about it, and at the end. Nobody polls."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async

from console.live import http
from console.live.hub import hub
from runs import lifecycle
from runs.history import MOVED, notify
from runs.models import Run
from tenants.ids import new_id
from tests.runtime.world import World, opened


@pytest_asyncio.fixture
async def world(committed_db: None, urls: Any) -> AsyncIterator[World]:
    async with opened(urls.engine) as made:
        await made.agent()
        yield made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The runs that were read while somebody waited, in order. The safety net of some seconds is out of the way."""
    seen: list[UUID] = []
    state_of = http.state_of

    def counted(run_id: UUID) -> str:
        seen.append(run_id)
        return state_of(run_id)

    monkeypatch.setattr(http, "state_of", counted)
    monkeypatch.setattr(http, "RECHECK_S", 600.0)
    return seen


async def all_heard() -> None:
    """Every hint sent before has been heard: they keep their order, and this one, about nobody's run, is the last."""
    heard = hub.heard_at
    await sync_to_async(notify)(MOVED, new_id())
    async with asyncio.timeout(20):
        while hub.heard_at == heard:
            await asyncio.sleep(0.01)


async def still(looks: list[UUID], wanted: int) -> None:
    """Until there were `wanted` looks; then no more come although everything had its turn."""
    async with asyncio.timeout(20):
        while len(looks) < wanted:
            await asyncio.sleep(0.01)
    await all_heard()
    await asyncio.sleep(0)
    assert len(looks) == wanted


async def waiting_for(run: Run) -> "asyncio.Task[bool]":
    with hub.subscribe(run.id):
        await asyncio.wait_for(hub.listening.wait(), 20)
        await all_heard()
    return asyncio.create_task(http.ended(run.id, 60))


@pytest.mark.mission("P1.3")
async def test_who_waits_reads_the_run_once_and_then_at_each_hint_about_it(world: World, looks: list[UUID]) -> None:
    run = await world.submit("hello")
    task = await waiting_for(run)
    await still(looks, 1)
    for hints in (2, 3):
        await sync_to_async(notify)(MOVED, run.id)
        await still(looks, hints)
    await sync_to_async(lifecycle.cancel)(world.people["operator"], run.id)
    assert await asyncio.wait_for(task, 20) is True
    assert looks == [run.id] * 4


@pytest.mark.mission("P1.3")
async def test_many_who_wait_are_woken_by_the_moves_of_their_own_run_only(world: World, looks: list[UUID]) -> None:
    runs = [await world.submit("hello") for _ in range(20)]
    tasks = [await waiting_for(run) for run in runs]
    await still(looks, 20)
    await sync_to_async(lifecycle.cancel)(world.people["operator"], runs[7].id)
    assert await asyncio.wait_for(tasks[7], 20) is True
    await still(looks, 21)
    assert looks[20] == runs[7].id
    for task in tasks:
        task.cancel()


async def test_a_hint_that_was_lost_is_made_good_by_a_look_some_seconds_later(
    world: World, looks: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "RECHECK_S", 0.05)
    run = await world.submit("hello")
    task = await waiting_for(run)
    await Run.objects.filter(pk=run.pk).aupdate(state="cancelled", outcome="cancelled")  # nobody is told
    assert await asyncio.wait_for(task, 20) is True
