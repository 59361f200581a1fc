"""Starting a run from the console: the form goes through the same door as the API, and says beside the field what is wrong."""

import re
from typing import Any

import pytest
from django.test import Client

from runs.models import Agent, Run
from runs.states import RunState
from tests.console.past import browser
from tests.runtime.waiting import World, make_release, make_world, person


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    return browser(world.operator)


def send(client: Client, **fields: str) -> Any:
    return client.post("/runs/new/", {"agent": "support-triage", "text": "Where is my parcel?", "mode": "normal"} | fields)


def page_of(answer: Any, status: int = 200) -> str:
    assert answer.status_code == status
    return str(answer.content.decode())


def errors_of(answer: Any, field: str) -> str:
    """What stands beside the field; the field names it for those who cannot see it."""
    page = page_of(answer, 422)
    assert not Run.objects.exists()
    (box,) = re.findall(rf'<ul class="errs" id="id_{field}_error">(.*?)</ul>', page, re.S)
    (control,) = re.findall(rf'<(?:input|textarea|select)[^>]*id="id_{field}"[^>]*>', page)
    assert 'aria-invalid="true"' in control and f"id_{field}_error" in control
    return re.sub(r"<[^>]+>", "", box)


def test_a_good_order_becomes_a_run_of_this_person_and_leads_to_its_page(world: World, client: Client) -> None:
    answer = send(client, json_data='{"account_id": "acct_1001"}', mode="read_only", max_steps="3", max_cost_usd="0.05", deadline_s="10")
    run = Run.objects.select_related("asked").get()
    assert (answer.status_code, answer["Location"]) == (302, f"/runs/{run.run_id}/")
    assert (run.state, run.mode, run.agent_id, run.starter) == (RunState.QUEUED, "read_only", "support-triage", world.operator.user)
    assert (run.tenant, run.asked.text, run.asked.data) == (world.tenant, "Where is my parcel?", {"account_id": "acct_1001"})
    assert [run.asked.limits[name] for name in ("max_steps", "max_cost_micro", "run_s")] == [3, 50_000, 10]


def test_limits_may_only_be_lowered(world: World, client: Client) -> None:
    send(client, max_steps="900", max_cost_usd="5", deadline_s="9999")
    limits = Run.objects.get().asked.limits
    assert [limits[name] for name in ("max_steps", "max_cost_micro", "run_s")] == [6, 80_000, 20]


def test_the_same_form_sent_twice_is_one_run(world: World, client: Client) -> None:
    (key,) = re.findall(r'name="key" value="(\w+)"', page_of(client.get("/runs/new/")))
    first, second = send(client, key=key), send(client, key=key)
    assert Run.objects.count() == 1 and first["Location"] == second["Location"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("agent", "nobody", "not one of the available choices"),
        ("agent", "", "required"),
        ("text", "", "required"),
        ("text", " \n ", "Say what the agent should do"),
        ("text", "é" * 140_000, "262144 bytes"),
        ("json_data", "{not json}", "not JSON"),
        ("json_data", "[" * 5000, "not JSON"),
        ("json_data", '{"a": "\\u0000"}', "NUL"),
        ("json_data", '{"a": "\\ud800"}', "half a character"),
        ("json_data", "NaN", "cannot be stored"),
        ("mode", "yolo", "not one of the available choices"),
        ("max_steps", "0", "greater than or equal to 1"),
        ("max_steps", "three", "whole number"),
        ("max_cost_usd", "0", "greater than 0"),
        ("max_cost_usd", "NaN", "number"),
        ("deadline_s", "-1", "greater than 0"),
        ("deadline_s", "inf", "number"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(world: World, client: Client, field: str, value: str, words: str) -> None:
    assert words in errors_of(send(client, **{field: value}), field)


def test_what_was_typed_is_kept_and_escaped(world: World, client: Client) -> None:
    page = page_of(send(client, text='</textarea><script>alert("x")</script>', json_data="{"), 422)
    assert "&lt;/textarea&gt;&lt;script&gt;alert" in page and "<script>alert" not in page


def test_only_agents_that_this_tenant_sees_and_that_can_run_are_offered(world: World, client: Client) -> None:
    for name, tenants, live in (
        ("everybodys", [], True),
        ("ours", ["acme"], True),
        ("theirs", ["globex"], True),
        ("unreleased", [], False),
    ):
        agent = Agent.objects.create(name=name, tenants=tenants)
        if live:
            agent.live = make_release(agent)
            agent.save()
    offered = re.findall(r'<option value="([a-z-]+)"', page_of(client.get("/runs/new/")))
    assert [name for name in offered if name in ("everybodys", "ours", "theirs", "unreleased", "support-triage")] == [
        "everybodys", "ours", "support-triage",
    ]  # fmt: skip
    assert "not one of the available" in errors_of(send(client, agent="theirs"), "agent")


def test_an_agent_that_lost_its_release_meanwhile_is_refused_and_an_empty_console_says_what_to_do(world: World, client: Client) -> None:
    Agent.objects.update(live=None)
    assert "No agent has a live release yet" in page_of(client.get("/runs/new/"))


def test_a_tenant_that_was_switched_off_starts_nothing(world: World, client: Client) -> None:
    world.tenant.active = False
    world.tenant.save()
    assert send(client).status_code == 403 and not Run.objects.exists()


def test_a_viewer_may_not_start_runs(world: World) -> None:
    viewer = browser(person(world.tenant, "vera", "viewer"))
    assert viewer.get("/runs/new/").status_code == send(viewer).status_code == 403
    assert not Run.objects.exists()


def test_without_a_csrf_token_nothing_is_started(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.operator.user)
    assert send(client).status_code == 403 and not Run.objects.exists()
