"""What an open page is told: every event once and in order, and what moved in the lists."""

import asyncio
import random
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone

from console.incidents import book
from console.incidents.moves import Opening
from runs.models import Run
from tests.runtime import waiting

from .live_site import Site, happen, queued, seqs, site, soon, sub, topic_of, world

pytestmark = pytest.mark.mission("P13.7")
__all__ = ["site", "world"]


# events of a run ----------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P1.4")
async def test_a_page_gets_the_events_after_its_seq_and_then_each_new_one(world: waiting.World, site: Site) -> None:
    run = await queued(world)
    await soon(run, 4)
    async with site.open(world.operator) as page:
        await sub(page, run, 2)
        old = await page.until(lambda m: m["seq"] == 5)
        await soon(run)
        new = await page.until(lambda m: m["seq"] == 6)
    assert seqs(old + new, topic_of(run)) == [3, 4, 5, 6]
    first, last = old[0], new[-1]
    assert (first["k"], first["v"], first["d"]["event"], first["d"]["run_id"]) == ("event", 3, "plan_decided", run.run_id)
    assert last["k"] == "run"
    assert (last["d"]["run"]["state"], last["d"]["run"]["seq"], last["d"]["run"]["id"]) == ("queued", 6, run.run_id)


async def test_without_a_seq_or_with_one_that_is_too_old_the_page_is_told_to_fetch(world: waiting.World, site: Site) -> None:
    run = await queued(world)
    await soon(run, 2100)
    async with site.open(world.operator) as page:
        for since in (None, 5, 99_999):
            numbers = {} if since is None else {topic_of(run): since}
            await page.say({"op": "sub", "topics": [topic_of(run)], "since": numbers})
            assert await page.next() == {"op": "reset", "topic": topic_of(run), "seq": 2101}
            await page.say({"op": "unsub", "topics": [topic_of(run)]})
        await sub(page, run, 101)
        got = await page.until(lambda m: m["seq"] == 2101)
    assert seqs(got, topic_of(run)) == list(range(102, 2102))


async def test_nothing_is_lost_or_repeated_by_twenty_reconnects_while_two_hundred_events_are_written(
    world: waiting.World, site: Site
) -> None:
    run = await queued(world)

    turn = asyncio.Semaphore(0)

    async def write() -> None:
        for _ in range(20):
            await turn.acquire()
            for _ in range(10):
                await soon(run)

    dice = random.Random(7)
    got = [1]
    writing = asyncio.create_task(write())
    for number in range(1, 21):
        turn.release()
        async with site.open(world.operator) as page:
            await sub(page, run, got[-1])
            wanted = min(10 * number + 1, got[-1] + dice.randint(1, 14))
            got += seqs(await page.until(lambda m, wanted=wanted: m["seq"] >= wanted), topic_of(run))
    async with site.open(world.operator) as page:
        await sub(page, run, got[-1])
        await writing
        await soon(run)
        got += seqs(await page.until(lambda m: m["seq"] == 202), topic_of(run))
    assert got == list(range(1, 203))


async def test_many_pages_that_came_at_different_moments_all_see_the_same_events(world: waiting.World, site: Site) -> None:
    run = await queued(world)

    async def watch(since: int) -> list[int]:
        async with site.open(world.operator) as page:
            await sub(page, run, since)
            return seqs(await page.until(lambda m: m["seq"] == 61), topic_of(run))

    watching = []
    for number in range(12):
        watching.append(asyncio.create_task(watch(number % 3)))
        await soon(run, 5)
    for number, got in enumerate(await asyncio.gather(*watching)):
        assert got == list(range(number % 3 + 1, 62))


async def test_a_killed_listener_and_hints_that_were_lost_meanwhile_cost_no_event(world: waiting.World, site: Site, urls: Any) -> None:
    run = await queued(world)
    async with site.open(world.operator) as page:
        await sub(page, run, 0)
        await page.until(lambda m: m["seq"] == 1)
        for number in range(2, 6):
            assert await sync_to_async(kill_listeners)(urls.engine)
            await soon(run)
            assert (await page.next())["seq"] == number


def kill_listeners(url: str) -> int:
    # A role may end its own sessions.
    with psycopg.connect(url) as connection:
        ended = "select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen signalbox_moved'"
        return len(connection.execute(ended).fetchall())


async def test_an_event_too_large_for_a_message_is_a_hint_to_fetch_it(world: waiting.World, site: Site) -> None:
    run = await queued(world)
    async with site.open(world.operator) as page:
        await sub(page, run, 1)
        await soon(run, 1, "x" * 20_000)
        hint = await page.next()
        await soon(run)
        after = await page.next()
    assert (hint["seq"], hint["k"], hint["d"]["event"]) == (2, "fetch", "plan_decided")
    assert "data" not in hint["d"]
    assert after["seq"] == 3


# lists ----------------------------------------------------------------------------------------------------------------------


async def test_the_list_of_runs_tells_of_each_run_that_moved_with_the_counts(world: waiting.World, site: Site) -> None:
    first = await queued(world)
    async with site.open(world.operator) as page:
        said = await page.follow("runs")
        second = await queued(world)
        got = await page.until(lambda m: m.get("k") == "run" and m["d"]["id"] == second.run_id)
        await soon(first)
        got += await page.until(lambda m: m.get("k") == "run" and m["d"]["id"] == first.run_id)
    new = next(m for m in got if m.get("k") == "run")
    assert new["d"] | {"state": "queued", "agent": "support-triage", "counts": {"approvals": 0, "runs": 2, "incidents": 0}} == new["d"]
    assert got[-1]["v"] == 2
    numbers = [m["seq"] for m in said + got]
    assert numbers == sorted(set(numbers))


async def test_the_list_of_approvals_tells_of_a_request_and_of_its_end(world: waiting.World, site: Site) -> None:
    async with site.open(world.operator) as page:
        await page.follow("approvals")
        run, approval = await sync_to_async(waiting.waiting)(world)
        await soon(run)
        asked = (await page.until(lambda m: m.get("k") == "approval"))[-1]
        await sync_to_async(decide)(world, approval)
        decided = (await page.until(lambda m: m.get("k") == "approval" and m["d"]["state"] != "pending"))[-1]
    assert asked["d"] == {
        "id": approval.approval_id, "run_id": run.run_id, "state": "pending", "agent": "support-triage", "tool": "create_ticket",
        "risk": "normal", "counts": {"approvals": 1, "runs": 1, "incidents": 0},
    }  # fmt: skip
    assert (decided["d"]["state"], decided["d"]["counts"]["approvals"]) == ("approved", 0)
    assert decided["v"] > asked["v"]


def decide(world: waiting.World, approval: Any) -> None:
    from runs import signoff

    signoff.decide(world.operator, approval.id, verdict="approve", digest=waiting.DIGEST)


async def test_a_list_is_fetched_again_after_a_gap_unless_nothing_moved(world: waiting.World, site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr("console.live.consumer.CLOCKS_US", 0)
    run = await queued(world)
    async with site.open(world.operator) as page:
        await page.follow("runs")
        await soon(run)
        last = (await page.until(lambda m: m.get("k") == "run"))[-1]["seq"]
    async with site.open(world.operator) as page:
        assert await page.follow("runs", runs=last) == []
    await soon(run)
    async with site.open(world.operator) as page:
        reset, counts = await page.follow("runs", runs=last)
    assert (reset["op"], reset["topic"], counts["d"]) == ("reset", "runs", {"counts": {"approvals": 0, "runs": 1, "incidents": 0}})
    assert last < reset["seq"] < counts["seq"]


async def test_more_runs_than_a_list_can_name_are_one_request_to_fetch(world: waiting.World, site: Site) -> None:
    runs = [await queued(world) for _ in range(60)]
    async with site.open(world.operator) as page:
        await page.follow("runs")
        await sync_to_async(move_all)(runs)
        got = await page.until(lambda m: m.get("op") == "reset")
    assert not [m for m in got if m.get("k") == "run"]


@transaction.atomic
def move_all(runs: list[Run]) -> None:
    for run in runs:
        happen(run)


@pytest.mark.mission("P11.3")
async def test_a_page_that_follows_incidents_is_told_when_one_opens_and_is_resolved(world: waiting.World, site: Site) -> None:
    async with site.open(world.operator) as page:
        await page.say({"op": "sub", "topics": ["incidents"]})
        await page.until(lambda m: m.get("k") == "counts")
        opening = Opening(world.tenant.pk, "Refunds are wrong", "major", "")
        incident = await sync_to_async(book.by_hand)(world.operator, opening, timezone.now())
        told = (await page.until(lambda m: m.get("k") == "incident"))[-1]["d"]
        assert (told["id"], told["state"], told["counts"]["incidents"]) == (str(incident), "open", 1)
        await sync_to_async(book.resolve)(world.operator, incident)
        told = (await page.until(lambda m: m.get("k") == "incident" and m["d"]["state"] == "resolved"))[-1]["d"]
        assert told["counts"]["incidents"] == 0
