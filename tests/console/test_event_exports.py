"""Events leave whole: a run as NDJSON, all of a stretch of time, from the command; and readers outlive what they do not know."""

import io
import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.functions import Now

from console import exports, records
from console.rebuild import rebuild
from console.retention import database_now
from runs.event_catalogue import schema
from runs.events import Kind
from runs.models import Event, Run
from tenants.scope import ALL
from tests.runtime.waiting import World, make_world, queued

from .callers import caller, key_of, refusal
from .past import browser
from .test_api_errors import served

MANY = 20_000
LATER = timedelta(minutes=1)  # what was written this moment is not settled yet
FUTURE = {"v": 9, "step_id": 1, "ord": 0, "mood": "calm", "data": {"attempt": "one", "new": [1]}}


@pytest.fixture
def world(committed_db: None) -> World:
    return make_world()


def grow(run: Run, to: int) -> Run:
    """Events up to `to`, as a long run of an hour ago would have written them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """insert into event (run_id, seq, tenant_id, kind, payload, at)
               select %s, n, %s, 'plan_decided', '{"step_id": 1, "v": 1, "model": "primary", "data": {"calls": [], "offered": []}}',
                 now() - interval '1 hour' + n * interval '1 millisecond' from generate_series(%s, %s) n""",
            [run.id, run.tenant_id, run.seq + 1, to],
        )
    Run.objects.filter(pk=run.pk).update(seq=to)
    run.refresh_from_db()
    return run


@pytest_asyncio.fixture
async def site(world: World) -> AsyncIterator[Any]:
    stranger = await sync_to_async(lambda: make_world("globex", "other").operator)()
    keys = [await sync_to_async(key_of)(actor) for actor in (world.operator, stranger)]
    async with served() as url, aiohttp.ClientSession(headers={"Authorization": f"Bearer {keys[0]}"}) as session:
        yield SimpleNamespace(url=url, session=session, stranger=keys[1])


async def lines(site: Any, path: str, **headers: str) -> tuple[Any, list[dict[str, Any]]]:
    async with site.session.get(f"{site.url}{path}", headers=headers) as answer:
        return answer, [json.loads(line) async for line in answer.content]


@pytest.mark.mission("P8.1", "P8.3")
async def test_a_run_of_twenty_thousand_events_is_read_by_page_stream_export_and_console(world: World, site: Any) -> None:
    run = await sync_to_async(lambda: grow(queued(world), MANY))()
    answer, exported = await lines(site, f"/runs/{run.run_id}/events?format=ndjson")
    assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
    assert [one["seq"] for one in exported] == list(range(1, MANY + 1))

    paged: list[dict[str, Any]] = []
    after = "0"
    while after:
        async with site.session.get(f"{site.url}/runs/{run.run_id}/events", params={"after": after}) as answer:
            body = await answer.json()
        paged, after = paged + body["items"], body["next_cursor"]
    assert paged == exported

    await sync_to_async(Run.objects.filter(pk=run.pk).update)(state="cancelled", outcome="cancelled", ended_at=Now())
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "15000"}
    async with site.session.get(f"{site.url}/runs/{run.run_id}/events", headers=headers) as answer:
        ids = [int(line[4:]) async for line in answer.content if line.startswith(b"id: ")]
    assert ids == list(range(15_001, MANY + 1))

    page = await sync_to_async(lambda: browser(world.operator).get(f"/runs/{run.run_id}/"))()
    assert page.status_code == 200 and "?format=ndjson" in page.content.decode() and str(MANY) in page.content.decode()
    assert len(page.content) < 1_000_000


@pytest.mark.mission("P8.1")
async def test_all_events_of_a_time_leave_in_order_each_once_and_only_the_callers_own(world: World, site: Any) -> None:
    def prepare() -> tuple[Run, Run]:
        return grow(queued(world), 2500), grow(queued(world), 700)

    one, other = await sync_to_async(prepare)()
    answer, exported = await lines(site, "/events/export?since=2020-01-01T00:00:00Z")
    until = answer.headers["X-Export-Until"]
    assert [e["at"] for e in exported] == sorted(e["at"] for e in exported)
    for run in (one, other):
        assert [e["seq"] for e in exported if e["run_id"] == run.run_id] == list(range(2, run.seq + 1))
    assert (await lines(site, f"/events/export?since={until}&until={until}"))[1] == []  # the first events are of this moment
    assert (await lines(site, "/events/export?since=2020-01-01T00:00:00Z&agent=nobody"))[1] == []
    assert len((await lines(site, "/events/export?since=2020-01-01T00:00:00Z&agent=support-triage"))[1]) == len(exported)
    assert {tuple(e) for e in exported} == {tuple(records.event_record(Event(run_id=one.id, payload={}, at=one.created_at)))}
    assert (await lines(site, "/events/export", Authorization=f"Bearer {site.stranger}"))[1] == []


def test_a_bad_time_is_refused_before_anything_is_sent(world: World) -> None:
    assert refusal(caller(world.operator).get("/events/export?since=yesterday")) == (400, "bad_since")


def test_an_export_holds_a_page_at_a_time_and_asks_few_questions(world: World) -> None:
    grow(queued(world), 3500)
    begin = database_now() - timedelta(days=2)
    pages = list(exports.walk(exports.Wanted(ALL, begin, begin + timedelta(days=3))))
    assert max(map(len, pages)) <= exports.AT_ONCE
    assert sum(map(len, pages)) == 3500 and len(pages) < 60


def test_the_command_writes_the_same_lines(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = grow(queued(world), 30)

    def said(**options: Any) -> list[dict[str, Any]]:
        out = SimpleNamespace(buffer=io.BytesIO())
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            call_command("export_events", **options)
        return [json.loads(line) for line in out.buffer.getvalue().splitlines()]

    assert [one["seq"] for one in said(run=run.run_id)] == list(range(1, 31))
    assert [one["seq"] for one in said(tenant="acme", agent="support-triage", since="2020-01-01T00:00:00Z")] == list(range(2, 31))
    for options in ({"run": "agt_x"}, {"tenant": "nowhere"}, {"since": "yesterday"}):
        with pytest.raises(CommandError):
            said(**options)


def test_the_schema_is_served_as_it_is_in_the_documents(world: World) -> None:
    served_schema = caller(world.operator).get("/events/schema").json()
    assert served_schema == schema() == json.loads((Path(__file__).parents[2] / "docs" / "events.schema.json").read_text())


@pytest.mark.mission("P8.1")
def test_readers_outlive_events_of_a_later_version_and_kinds_that_they_do_not_know(world: World) -> None:
    run = queued(world)
    kinds = [
        Kind.MODEL_CALL_STARTED,
        Kind.MODEL_CALL_COMPLETED,
        "mood_changed",
        Kind.POLICY_DECIDED,
        "tool_call_teleported",
        Kind.RUNG_ENTERED,
    ]
    for kind in kinds:
        tell(run, kind)
    api = caller(world.operator)
    told = api.get(f"/runs/{run.run_id}/events").json()["items"]
    assert [one["event"] for one in told][1:] == kinds and told[3]["v"] == 9

    assert api.get(f"/runs/{run.run_id}/steps").status_code == 200
    page = browser(world.operator).get(f"/runs/{run.run_id}/")
    assert page.status_code == 200 and "mood_changed" in page.content.decode()
    assert rebuild(told, [])["seq"] == 7


def tell(run: Run, kind: str) -> None:
    run.refresh_from_db()
    Event.objects.create(run_id=run.id, seq=run.seq + 1, tenant_id=run.tenant_id, kind=kind, payload=FUTURE)
    Run.objects.filter(pk=run.pk).update(seq=run.seq + 1)
