"""`Prefer: wait` and the event stream, through uvicorn, with a real engine and the sandbox: nothing lost, nothing twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async

from console.live import http
from runs import lifecycle
from runs.events import Kind, event
from runs.history import append
from runs.models import Run
from tenants.ids import decode
from tenants.models import Tenant
from tests.runtime.world import TICKET, World, call, make_people, opened

from .callers import key_of
from .test_api_errors import served

QUESTION = {"agent": "helper", "input": "What is the refund policy?"}


@dataclass
class Site:
    url: str
    world: World
    session: aiohttp.ClientSession
    stranger: str

    async def submit(self, body: dict[str, Any], prefer: str = "", **headers: str) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
        sent = {"Prefer": prefer, **headers} if prefer else headers
        async with self.session.post(f"{self.url}/runs", json=body, headers=sent) as answer:
            return answer, await answer.json()

    @asynccontextmanager
    async def stream(self, run_id: str, after: int | None = None, key: str = "") -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": str(after)})
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        async with self.session.get(f"{self.url}/runs/{run_id}/events", headers=headers) as answer:
            yield answer

    async def all_of(self, run_id: str, after: int | None = None) -> list[dict[str, Any]]:
        """Everything until the server ends the stream."""
        async with self.stream(run_id, after) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            return [event async for event in events(answer)]


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Each event of the stream; id and name agree with the data."""
    fields: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value
        elif fields:
            told = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(told["seq"]), told["event"])
            yield told
            fields = {}


@pytest_asyncio.fixture
async def site(committed_db: None, urls: Any) -> AsyncIterator[Site]:
    async with opened(urls.engine) as world, served() as url:
        stranger = await sync_to_async(lambda: make_people(Tenant.objects.create(slug="globex"))["admin"])()
        keys = [await sync_to_async(key_of)(actor) for actor in (world.people["operator"], stranger)]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {keys[0]}"}) as session:
            yield Site(url, world, session, keys[1])


def seqs(told: list[dict[str, Any]]) -> list[int]:
    return [one["seq"] for one in told]


# -- wait -------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P1.3")
async def test_who_waits_gets_the_finished_run(site: Site) -> None:
    await site.world.agent(tools=("search_docs",))
    await site.world.engine()
    script = "please\n#sim " + json.dumps({"turns": [call("search_docs", query="refunds"), {"text": "Within 30 days."}]})
    answer, run = await site.submit({"agent": "helper", "input": script}, "wait=20")
    assert answer.status == 200 and answer.headers["Preference-Applied"] == "wait=20"
    assert (run["state"], run["outcome"], run["tools_called"]) == ("succeeded", "completed", ["search_docs"])
    assert run["output"]["text"] == "Within 30 days." and answer.headers["Location"] == f"/api/v1/runs/{run['run_id']}"


@pytest.mark.mission("P1.3")
async def test_a_run_that_takes_longer_is_answered_with_where_to_look(site: Site) -> None:
    await site.world.agent()
    answer, run = await site.submit(QUESTION, "wait=1")
    assert (answer.status, run["state"]) == (202, "queued") and answer.headers["Location"].endswith(run["run_id"])


@pytest.mark.mission("P1.3")
async def test_a_run_that_waits_for_people_is_answered_at_once(site: Site) -> None:
    await site.world.agent()
    await site.world.engine()
    script = "please\n#sim " + json.dumps({"turns": [call("create_ticket", **TICKET), {"text": "Done."}]})
    answer, run = await asyncio.wait_for(site.submit({"agent": "helper", "input": script}, "wait=60"), 30)
    assert (answer.status, run["state"]) == (202, "waiting_approval")


async def test_a_replayed_run_is_waited_for_as_well(site: Site) -> None:
    await site.world.agent(tools=("search_docs",))
    _, first = await site.submit(QUESTION, **{"Idempotency-Key": "k"})
    await site.world.engine()
    answer, again = await site.submit(QUESTION, "wait=20", **{"Idempotency-Key": "k"})
    assert (answer.status, again["state"], again["run_id"]) == (200, "succeeded", first["run_id"])
    assert answer.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=20", 20), ("wait=0", 0), ("wait=61", 60), ("wait=999999999", 60), ("respond-async, wait=7", 7), ("WAIT = 3", 3),
        ("wait=5;x", 5), ("wait", 0), ("wait=", 0), ("wait=ten", 0), ("wait=-1", 0), ("wait=1.5", 0), ("wait=²", 0), ("await=9", 0),
        ("wait=" + "9" * 5000, 0), ("", 0), ("return=minimal", 0),
    ],
)  # fmt: skip
def test_a_preference_is_clipped_to_a_minute_and_nonsense_is_ignored(rf: Any, prefer: str, seconds: int) -> None:
    assert http.seconds_to_wait(rf.post("/", headers={"Prefer": prefer})) == seconds


async def test_a_refused_order_is_not_waited_for(site: Site) -> None:
    answer, body = await site.submit({"agent": "nobody", "input": "x"}, "wait=60")
    assert (answer.status, body["code"]) == (404, "not_found")


# -- stream -----------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P1.4")
async def test_every_event_comes_once_in_order_and_the_stream_ends_with_the_run(site: Site) -> None:
    await site.world.agent(tools=("search_docs",))
    _, run = await site.submit(QUESTION)
    listening = asyncio.create_task(site.all_of(run["run_id"]))
    await site.world.engine()
    told = await asyncio.wait_for(listening, 30)
    async with site.session.get(f"{site.url}/runs/{run['run_id']}/events") as answer:
        assert told == (await answer.json())["items"]
    assert seqs(told) == list(range(1, len(told) + 1)) and told[-1]["event"] == "run_completed"
    assert await site.all_of(run["run_id"]) == told  # and again, after the end
    assert await site.all_of(run["run_id"], after=told[-1]["seq"]) == []


@pytest.mark.mission("P1.4")
async def test_who_comes_back_goes_on_where_they_were(site: Site) -> None:
    await site.world.agent(tools=("search_docs",))
    _, run = await site.submit(QUESTION)
    got: list[dict[str, Any]] = []
    async with site.stream(run["run_id"]) as answer:
        async for told in events(answer):
            got.append(told)
            break
    await site.world.engine()
    while got[-1]["event"] != "run_completed":  # cut off again after every second event
        async with site.stream(run["run_id"], got[-1]["seq"]) as answer:
            fresh = 0
            async for told in events(answer):
                got.append(told)
                if (fresh := fresh + 1) == 2:
                    break
    assert seqs(got) == list(range(1, len(got) + 1))


async def test_a_long_history_and_what_comes_meanwhile_are_one_sequence(site: Site) -> None:
    await site.world.agent()
    _, run = await site.submit(QUESTION)

    def more(count: int) -> None:
        row = Run.objects.get(id=decode("agt", run["run_id"]))
        append(row, [event(Kind.RUN_RESUMED)] * count)
        Run.objects.filter(pk=row.pk).update(seq=row.seq)

    def cancel() -> None:
        lifecycle.cancel(site.world.people["operator"], decode("agt", run["run_id"]))

    await sync_to_async(more)(450)
    listening = asyncio.create_task(site.all_of(run["run_id"]))
    for _ in range(20):
        await sync_to_async(more)(7)
    await sync_to_async(cancel)()
    told = await asyncio.wait_for(listening, 30)
    assert seqs(told) == list(range(1, 1 + 450 + 140 + 2))


async def test_streams_hold_no_connection_while_they_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """More listeners than the pool has connections, and everybody else is still answered."""
    await site.world.agent()
    _, run = await site.submit(QUESTION)

    def connections() -> int:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
                " and query like '%%\"event\"%%'"
            )
            return int(cursor.fetchone()[0])

    streams = [site.stream(run["run_id"]) for _ in range(12)]
    answers = [await stream.__aenter__() for stream in streams]
    for answer in answers:
        async for told in events(answer):
            assert told["seq"] == 1
            break
    assert await until(lambda: sync_to_async(connections)(), 0)
    for stream in streams:
        await stream.__aexit__(None, None, None)


async def until(ask: Any, wanted: Any) -> bool:
    for _ in range(100):
        if await ask() == wanted:
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.mission("P13.1")
async def test_another_tenants_stream_does_not_exist(site: Site) -> None:
    await site.world.agent()
    _, run = await site.submit(QUESTION)
    async with site.stream(run["run_id"], key=site.stranger) as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")
    async with site.stream(run["run_id"], key="sbx_nothing") as answer:
        assert answer.status == 401
    async with site.stream("agt_x") as answer:
        assert answer.status == 404


async def test_a_place_that_is_none_is_refused(site: Site) -> None:
    await site.world.agent()
    _, run = await site.submit(QUESTION)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "first"}
    async with site.session.get(f"{site.url}/runs/{run['run_id']}/events", headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "bad_after")
