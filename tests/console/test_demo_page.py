"""The demo page, with a sandbox of its own: faults by plain words, the ledger, and stories that become runs."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from console.pages import demo
from console.sandbox import fixtures
from console.sandbox.faults import DURATIONS_MS
from console.sandbox.world import WRITES
from runs.models import Agent, Run
from tests.runtime.waiting import World, make_release, make_world, person

from .past import browser


@pytest.fixture(scope="module")
def sandbox_url() -> Iterator[str]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner, url = asyncio.run_coroutine_threadsafe(fixtures.start(), loop).result(30)
    yield url
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def world(db: None, settings: Any, sandbox_url: str) -> World:
    settings.DEMO, settings.SANDBOX_URL = True, sandbox_url
    tell(sandbox_url, "POST", "/reset")
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    return browser(world.operator)


def tell(url: str, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data, method=method), timeout=10) as answer:
        return json.load(answer)


def faults(url: str) -> list[tuple[str, str, int]]:
    return [(fault["target"], fault["fault"], fault["times"]) for fault in tell(url, "GET", "/faults")["faults"]]


def test_outside_the_demo_there_is_no_such_page(world: World, settings: Any) -> None:
    settings.DEMO = False
    client = browser(world.operator)
    assert client.get("/demo/").status_code == 404
    assert client.post("/demo/run/", {"story": "question"}).status_code == 404
    assert not Run.objects.exists()


def test_who_may_not_start_runs_may_not_break_things(world: World, sandbox_url: str) -> None:
    client = browser(person(world.tenant, "vera", "viewer"))
    assert client.get("/demo/").status_code == 403
    assert client.post("/demo/faults/", {"target": "model", "fault": "500", "times": "1"}).status_code == 403
    assert faults(sandbox_url) == []


def test_the_page_knows_every_target_and_fault_of_the_sandbox() -> None:
    assert set(demo.FAULTS) == set(DURATIONS_MS)
    assert set(demo.TARGETS) >= {"model", *WRITES}


def test_a_fault_is_set_told_in_words_and_cleared(client: Client, sandbox_url: str) -> None:
    answer = client.post("/demo/faults/", {"target": "create_ticket", "fault": "drop_after", "times": "3"}, follow=True)
    assert faults(sandbox_url) == [("create_ticket", "drop_after", 3)]
    page = answer.content.decode()
    assert "create_ticket does it, then hangs up without an answer, the next 3 times." in page
    assert "create_ticket does it, then hangs up, 3 more times" in page
    client.post("/demo/faults/", {"target": "model", "fault": "500", "times": "-1"})
    client.post("/demo/faults/", {"clear": "create_ticket"})
    assert faults(sandbox_url) == [("model", "500", -1)]
    client.post("/demo/faults/", {"clear": "all"})
    assert faults(sandbox_url) == []


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"target": "model"},
        {"target": "x", "fault": "500", "times": "1"},
        {"target": "model", "fault": "500", "times": "99"},
        {"clear": "x&y"},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(client: Client, sandbox_url: str, said: dict[str, str]) -> None:
    assert client.post("/demo/faults/", said).status_code == 400
    assert faults(sandbox_url) == []


def test_a_fault_that_was_met_often_enough_is_no_longer_listed(client: Client, sandbox_url: str) -> None:
    tell(sandbox_url, "PUT", "/faults", {"target": "model", "fault": "500", "times": 1})
    with pytest.raises(urllib.error.HTTPError):
        tell(sandbox_url, "POST", "/v1/chat/completions", {"model": "sim", "messages": []})
    assert "Nothing is broken." in client.get("/demo/?part=faults").content.decode()


def test_the_ledger_shows_what_was_really_written(client: Client, sandbox_url: str) -> None:
    ticket = {"account_id": "acct_1001", "priority": "low", "summary": "x"}
    request = urllib.request.Request(f"{sandbox_url}/desk/tickets", json.dumps(ticket).encode(), {"Idempotency-Key": "k" * 32})
    urllib.request.urlopen(request, timeout=10).close()
    answer = client.get("/demo/?part=ledger")
    assert [(effect["tool"], effect["key"], effect["twice"]) for effect in answer.context["effects"]] == [
        ("create_ticket", "k" * 32, False)
    ]
    assert answer.content.decode().strip().count("<section") == 1
    client.post("/demo/reset/")
    assert tell(sandbox_url, "GET", "/ledger")["effects"] == []


@pytest.mark.parametrize("story", demo.STORIES, ids=lambda story: story.key)
def test_a_story_becomes_a_run_of_this_person(client: Client, world: World, story: demo.Story) -> None:
    agent, made = Agent.objects.get_or_create(name=story.agent)
    if made:
        agent.live = make_release(agent)
        agent.save()
    answer = client.post("/demo/run/", {"story": story.key})
    run = Run.objects.select_related("asked").get()
    assert (answer.status_code, answer["Location"]) == (302, f"/runs/{run.run_id}/")
    assert (run.asked.text, run.agent_id, run.starter, run.tenant) == (story.text, story.agent, world.operator.user, world.tenant)


def test_a_story_that_cannot_start_says_why(client: Client) -> None:
    answer = client.post("/demo/run/", {"story": "refund"})
    assert answer.status_code == 404
    assert client.post("/demo/run/", {"story": "x"}).status_code == 400
    assert not Run.objects.exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://192.0.2.1:9009", "https://evil.example"])
def test_a_sandbox_that_is_away_or_elsewhere_is_told_and_not_asked(client: Client, settings: Any, address: str) -> None:
    settings.SANDBOX_URL = address
    page = client.get("/demo/").content.decode()
    assert ("The sandbox does not answer." if "127" in address else "The sandbox must be on this machine") in page
    assert client.get("/demo/?part=ledger").status_code == 200
    told = client.post("/demo/faults/", {"clear": "all"}, follow=True)
    assert told.status_code == 200 and "The sandbox" in told.content.decode()


def test_only_posts_change_anything(client: Client) -> None:
    assert [client.get(f"/demo/{name}/").status_code for name in ("faults", "run", "reset")] == [405, 405, 405]
    assert client.get("/demo/?part=x").status_code == 404


def test_the_page_costs_few_queries(client: Client, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(4):
        client.get("/demo/")
