"""The live channel over real sockets: uvicorn in the test's own loop, the client of `websockets`."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import uvicorn
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import Client
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from runs.events import Kind, event
from runs.history import append
from runs.models import Run
from tenants.models import Member
from tests.runtime import waiting

pytestmark = pytest.mark.mission("P13.7")
PATIENCE_S = 15


@pytest.fixture
def world(committed_db: None) -> waiting.World:
    return waiting.make_world()


def cookie_of(actor: Any) -> str:
    client = Client()
    client.force_login(actor.user)
    return f"sessionid={client.cookies['sessionid'].value}"


class Site:
    """The web process under test."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/ws"

    @asynccontextmanager
    async def open(
        self, actor: Any = None, *, origin: Any = "http://127.0.0.1:8000", cookie: str = "", **more: Any
    ) -> AsyncIterator["Page"]:
        headers = {"Cookie": await sync_to_async(cookie_of)(actor) if actor else cookie}
        options = {"compression": None, "max_queue": None, **more}  # a client that has stopped reading cannot close either
        async with connect(self.url, origin=origin, additional_headers=headers, **options) as socket:
            yield Page(socket)

    async def refusal(self, *args: Any, **kwargs: Any) -> int:
        with pytest.raises(InvalidStatus) as refused:
            async with self.open(*args, **kwargs):
                pass
        return refused.value.response.status_code


class Page:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, said: Any) -> None:
        await self.socket.send(said if isinstance(said, str | bytes) else json.dumps(said))

    async def next(self) -> Any:
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S))

    async def until(self, wanted: Any) -> list[Any]:
        """Everything up to and with the first message that `wanted` says yes to."""
        got = []
        while not got or not wanted(got[-1]):
            got.append(await self.next())
        return got

    async def follow(self, *topics: str, **since: int) -> list[Any]:
        """Subscribe; what was said before the socket answered a ping."""
        numbers = {name.replace("__", ":"): seq for name, seq in since.items()}
        await self.say({"op": "sub", "topics": topics, "since": numbers})
        await self.say({"op": "ping"})
        return (await self.until(lambda m: m.get("op") == "pong"))[:-1]

    async def closed(self) -> int:
        """The code that the server ended with."""
        with pytest.raises(ConnectionClosed) as ended:
            while True:
                await self.next()
        assert ended.value.rcvd is not None
        return ended.value.rcvd.code


@pytest_asyncio.fixture
async def site(world: waiting.World) -> AsyncIterator[Site]:
    from console.asgi import application
    from console.live.feed import feed
    from console.live.hub import hub

    config = uvicorn.Config(application, port=0, lifespan="off", ws="websockets-sansio", log_level="warning")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    turns = asyncio.create_task(server.main_loop())
    hub.start()
    feed.start()
    await hub.listening.wait()
    while feed.hints.lost:  # told to look at everything because it has just begun to listen
        await asyncio.sleep(0.01)
    yield Site(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await turns
    await server.shutdown()


@transaction.atomic
def happen(run: Run, times: int = 1, note: str = "") -> None:
    """`times` events of `run` in one commit, as a person's transaction writes them."""
    row = Run.objects.select_for_update(no_key=True).get(pk=run.pk)
    append(row, [event(Kind.PLAN_DECIDED, step_id=1, data={"note": note} if note else None) for _ in range(times)])
    row.save(update_fields=["seq"])


queued = sync_to_async(waiting.queued)
soon = sync_to_async(happen)


def seqs(messages: list[Any], topic: str) -> list[int]:
    return [m["seq"] for m in messages if m.get("t") == topic]


def topic_of(run: Run) -> str:
    return f"run:{run.run_id}"


async def sub(page: Page, run: Run, since: int) -> None:
    await page.say({"op": "sub", "topics": [topic_of(run)], "since": {topic_of(run): since}})


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
            assert await sync_to_async(kill_listeners)(urls.web)
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
    assert new["d"] | {"state": "queued", "agent": "support-triage", "counts": {"approvals": 0, "runs": 2}} == new["d"]
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
        "risk": "normal", "counts": {"approvals": 1, "runs": 1},
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
    assert (reset["op"], reset["topic"], counts["d"]) == ("reset", "runs", {"counts": {"approvals": 0, "runs": 1}})
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


# rights ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8000", "null", None])
async def test_a_page_of_another_origin_opens_no_socket(world: waiting.World, site: Site, origin: Any) -> None:
    assert await site.refusal(world.operator, origin=origin) == 403


async def test_nobody_opens_a_socket_without_a_session(world: waiting.World, site: Site) -> None:
    assert await site.refusal() == 403
    assert await site.refusal(cookie="sessionid=abc") == 403


async def test_another_tenants_run_is_an_unknown_topic_and_its_moves_are_not_heard(world: waiting.World, site: Site) -> None:
    theirs = await sync_to_async(lambda: waiting.queued(waiting.make_world("globex", "other-agent")))()
    ours = await queued(world)
    names = [topic_of(theirs), "run:agt_nonsense", "run:", "secrets"]
    async with site.open(world.operator) as page:
        said = await page.follow(*names, "runs", "approvals")
        assert [m["topic"] for m in said if m.get("op") == "error"] == names
        assert {m["code"] for m in said if m.get("op") == "error"} == {"unknown_topic"}
        await soon(theirs, 3)
        await soon(ours)
        got = await page.until(lambda m: m.get("k") == "run")
    assert got[-1]["d"]["id"] == ours.run_id
    assert theirs.run_id not in json.dumps(got)
    assert got[-1]["d"]["counts"]["runs"] == 1


async def test_a_platform_admin_follows_every_tenant(world: waiting.World, site: Site) -> None:
    theirs = await sync_to_async(lambda: waiting.queued(waiting.make_world("globex", "other-agent")))()
    await queued(world)
    admin = await sync_to_async(waiting.person)(world.tenant, "root", "admin", platform=True)
    async with site.open(admin) as page:
        await page.follow("runs")
        await soon(theirs)
        got = await page.until(lambda m: m.get("k") == "run")
    assert (got[-1]["d"]["id"], got[-1]["d"]["counts"]["runs"]) == (theirs.run_id, 2)


def remove(actor: Any) -> None:
    Member.objects.filter(user=actor.user).delete()


def demote(actor: Any) -> None:
    Member.objects.filter(user=actor.user).update(role="viewer")


def change_password(actor: Any) -> None:
    actor.user.set_password("another password")
    actor.user.save()


def switch_off(actor: Any) -> None:
    actor.user.is_active = False
    actor.user.save()


def sign_out(actor: Any) -> None:
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()


@pytest.mark.parametrize(
    ("change", "code"), [(remove, 4403), (demote, 4403), (change_password, 4401), (switch_off, 4401), (sign_out, 4401)]
)
async def test_whoever_lost_their_rights_is_cut(world: waiting.World, site: Site, monkeypatch: Any, change: Any, code: int) -> None:
    monkeypatch.setattr("console.live.consumer.RECHECK_S", 0.05)
    run = await queued(world)
    async with site.open(world.operator) as page:
        await page.follow("runs", topic_of(run))
        await sync_to_async(change)(world.operator)
        assert await page.closed() == code


# hostile and slow clients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("{", "bad_json"),
        ("[" * 5000, "bad_json"),
        ("\x00", "bad_json"),
        ("[]", "unknown_op"),
        ("1", "unknown_op"),
        ({"op": "shout"}, "unknown_op"),
        ({"op": ["sub"]}, "unknown_op"),
        ({"op": "sub"}, "bad_message"),
        ({"op": "sub", "topics": "runs"}, "bad_message"),
        ({"op": "sub", "topics": [{"t": 1}]}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": {"runs": -1}}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": {"runs": 2**70}}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": {"runs": True}}, "bad_message"),
        ({"op": "sub", "topics": ["runs"], "since": [1]}, "bad_message"),
        ({"op": "sub", "topics": ["run:\ud800"]}, "unknown_topic"),
        ({"op": "sub", "topics": [f"run:{n}" for n in range(51)]}, "too_many_topics"),
    ],
)
async def test_what_makes_no_sense_is_answered_with_a_typed_error_and_the_socket_goes_on(
    world: waiting.World, site: Site, said: Any, code: str
) -> None:
    async with site.open(world.operator) as page:
        await page.say(said)
        answer = await page.next()
        assert (answer["op"], answer["code"]) == ("error", code)
        await page.say({"op": "ping"})
        assert await page.next() == {"op": "pong"}


@pytest.mark.parametrize("said", [b"\x00\x01", json.dumps({"op": "ping", "pad": "x" * 17_000})])
async def test_binary_and_oversized_messages_end_the_socket(world: waiting.World, site: Site, said: Any) -> None:
    async with site.open(world.operator) as page:
        await page.say(said)
        assert await page.closed() == 4400


async def test_a_flood_of_messages_ends_the_socket(world: waiting.World, site: Site) -> None:
    async with site.open(world.operator) as page:
        for _ in range(25):
            await page.say({"op": "ping"})
        assert await page.closed() == 4400


async def test_a_client_that_does_not_read_is_let_go_and_holds_up_nobody(world: waiting.World, site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr("console.live.consumer.WAITING", 50)
    run = await queued(world)
    async with site.open(world.operator, max_queue=1) as slow, site.open(world.operator) as quick:
        await sub(slow, run, 1)
        await sub(quick, run, 1)
        slow.socket.transport.pause_reading()
        got = []
        for _ in range(40):
            await soon(run, 25, "x" * 5_000)
            got += seqs(await quick.until(lambda m: m["seq"] % 25 == 1), topic_of(run))
        assert got == list(range(2, 1002))
        slow.socket.transport.resume_reading()
        assert await slow.closed() == 4408


async def test_any_other_path_is_refused(world: waiting.World, site: Site) -> None:
    site.url += "/else"
    assert await site.refusal(world.operator) == 403
