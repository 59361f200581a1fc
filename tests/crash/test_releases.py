"""Many runs replayed, and a release taken back under a steady load."""

import asyncio
import os
import time
from datetime import datetime

import pytest
from asgiref.sync import sync_to_async
from django.db.models import Count
from django.db.models.functions import Now

from runs import forks, releases, stages
from runs.models import Agent, Call, Event, Release, Run
from tenants.actors import Actor
from tenants.models import User
from tests.runtime.world import TICKET, World, call

from .figures import figure

ALL = bool(os.environ.get("CHAOS"))
MAIL = {"to": "a@example.com", "subject": "s", "body": "b"}
SCRIPT = (call("search_docs", query="refund"), call("create_ticket", **TICKET), call("send_email", **MAIL), {"text": "Done."})


async def writes_received(world: World) -> int:
    return len([one for one in await world.received() if one["target"] in ("create_ticket", "send_email")])


@pytest.mark.mission("X9")
async def test_of_replayed_runs_none_sends_a_write(world: World) -> None:
    count, began = 200 if ALL else 30, time.monotonic()
    await world.agent()
    for tool in ("create_ticket", "send_email"):
        await world.permit(tool, "allow", loosen=True)
    await world.engine(slots=100)
    runs = [await world.script(*SCRIPT, metadata={"n": n}) for n in range(count)]
    for run in runs:
        await world.until(run, "succeeded")
    sent, effects = await writes_received(world), len(await world.ledger())
    assert sent == 2 * count, "vacuous: the runs wrote nothing"
    replays = [await sync_to_async(forks.fork)(world.people["operator"], run.id, 1, forks.Changes()) for run in runs]
    ended = [await world.until(run) for run in replays]
    again = await writes_received(world) - sent
    kept = await Call.objects.filter(run_id__in=[run.id for run in replays], error_class="rehearsed").exclude(effect="read").acount()
    title = "finished runs replayed: writes that were sent"
    figure("T13", title, n=count, seconds=time.monotonic() - began, sent_again=again, answered_from_the_record=kept)
    assert again == 0 and len(await world.ledger()) == effects and kept == 2 * count
    assert {run.state for run in ended} == {"succeeded"}


@pytest.mark.mission("P12.2")
async def test_a_release_is_taken_back_under_a_steady_load_and_no_run_is_lost(world: World) -> None:
    count, began = 300 if ALL else 60, time.monotonic()
    good, bad, actor = await two_releases(world)
    await world.fault("search_docs", "latency", times=-1, ms=300)
    await world.engine(slots=count)
    runs: list[Run] = []

    async def load() -> None:
        for n in range(count):
            runs.append(
                await world.script(call("search_docs", query="refund"), call("fetch_account", account_id=f"acct_{n}"), {"text": "x"})
            )
            await asyncio.sleep(0.01)

    loading = asyncio.create_task(load())
    while len(runs) < count // 2:
        await asyncio.sleep(0.01)
    asked = time.monotonic()
    await sync_to_async(stages.roll_back)(actor, bad, in_flight="move", reason="It loops.")
    answered, before, back = time.monotonic() - asked, len(runs), await now()
    await loading
    ended = [await world.until(run) for run in runs]
    moved = await Event.objects.filter(kind="release_changed").acount()
    late = await went_on(bad, back)
    title = "a release taken back under load: runs lost, and accepted on it afterwards"
    figure(
        "rollback", title, n=count, seconds=time.monotonic() - began, lost=sum(run.state != "succeeded" for run in ended), moved=moved,
        on_it_afterwards=sum(run.release_id == bad.id for run in ended[before + 1 :]), taken_back_in_s=round(answered, 3),
    )  # fmt: skip
    assert {run.state for run in ended} == {"succeeded"}
    assert {run.release_id for run in ended[before + 1 :]} == {good.id}
    assert moved > 0, "vacuous: nothing was in flight"
    assert late == 0


async def now() -> datetime:
    return (await Agent.objects.annotate(now=Now()).aget(name="helper")).now  # type: ignore[no-any-return,attr-defined]


async def went_on(bad: Release, back: datetime) -> int:
    """Runs that took further steps on the bad release after it was taken back. One step may have been on its way in that moment."""
    begun = Event.objects.filter(run__release=bad, kind="model_call_started", at__gt=back).values("run_id").annotate(times=Count("seq"))
    return await begun.filter(times__gt=1).acount()


async def two_releases(world: World) -> tuple[Release, Release, Actor]:
    """The first one was live, the second is."""
    await world.agent()
    await world.agent(instructions="The bad one.")
    good, bad = [one async for one in Release.objects.filter(agent_id="helper").order_by("number")]
    user = await User.objects.acreate(username="root", is_platform_admin=True)
    actor = Actor(user, world.tenant, "admin")
    await Agent.objects.filter(name="helper").aupdate(live=None)
    await sync_to_async(releases.promote)(actor, good)
    await sync_to_async(releases.promote)(actor, bad)
    return good, bad, actor
