"""The models pages and the breakers on them: figures, prices and where they come from, and a person's word on a breaker."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from console.histograms import ERROR
from runs.models import Agent, Call, ModelDefinition, Step
from tenants import controls
from tenants.models import AuditEntry, Controls
from tests.runtime.waiting import World, make_release, make_world, person
from tools import breakers, catalog
from tools.models import Breaker
from tools.spec import ToolSpec

from .callers import caller, refusal
from .past import browser, called, ended

H = timedelta(hours=1)
HOST = "models.example.com:443"


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    controls.ensure(made.tenant)
    model("primary", price_input="1", price_output="2", tier="medium")
    return made


def model(name: str, **values: Any) -> ModelDefinition:
    given = {"provider": "openai", "base_url": "https://models.example.com/v1", "model": "our-own-model", "timeout_s": 8} | values
    return ModelDefinition.objects.create(name=name, **given)


def asked(run: Any, step: int = 1, role: str = "planner", name: str = "primary", **values: Any) -> None:
    given = {"attempt": 1, "latency_ms": 100, "ended_at": Now(), "cost_micro": 500} | values
    state = given.pop("state", "done")
    Call.objects.create(run=run, step=step, ord=0, tenant_id=run.tenant_id, fence=1, name=name, effect="read", state="dispatched", **given)
    Call.objects.filter(run_id=run.id, step=step, ord=0).update(state=state)
    Step.objects.create(run_id=run.id, step=step, tenant_id=run.tenant_id, role=role, model=name, calls=0)


def opened(world: World, host: str = HOST, **values: Any) -> Breaker:
    given = {"state": "open", "reason": "20 of 24 sends failed within 30 s", "opened_at": Now(), "probe_at": Now()} | values
    return Breaker.objects.create(tenant=world.tenant, host_port=host, **given)


def rows(client: Any) -> dict[str, Any]:
    return {row["model"].name: row for row in client.get("/models/").context["rows"]}


def text(client: Any, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return str(answer.content.decode())


@pytest.mark.mission("P8.2")
def test_a_model_shows_how_it_fares_and_what_it_cost_in_this_tenant(world: World) -> None:
    run, other = ended(world, 2 * H), ended(make_world("globex", "other"), 2 * H)
    for step in (1, 2, 3):
        asked(run, step)
    asked(run, 4, state="failed_not_applied", error_class="timeout", latency_ms=500, attempt=2, cost_micro=0)
    asked(other, 1, state="failed_not_applied", error_class="timeout")
    row = rows(browser(world.operator))["primary"]
    assert (row["used"].calls, row["used"].sends, row["error_percent"], row["high"]) == (4, 5, "25%", True)
    assert row["used"].p95_ms == pytest.approx(500, rel=ERROR) and row["used"].cost_micro == 1500 and row["spark"].startswith("M0.0,")
    whole = rows(browser(person(world.tenant, "root", "admin", platform=True)))["primary"]
    assert whole["used"].calls == 5


def test_calls_of_yesterday_no_longer_count_and_calls_of_tools_never_do(world: World) -> None:
    asked(ended(world, 30 * H), 1)
    called(ended(world, H), 1, name="primary")
    assert rows(browser(world.operator))["primary"]["used"] is None


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"price_input": "1", "price_output": "2"}, "Set by the operator"),
        ({"model": "gpt-4o-mini"}, "From the price list"),
        ({"model": "gpt-4o-mini", "price_input": "9"}, "Partly set by the operator, partly from the price list"),
    ],
)
def test_a_price_says_where_it_comes_from(world: World, values: dict[str, Any], source: str) -> None:
    model("other", **values)
    assert source in text(browser(world.operator), "/models/other/")


def test_a_model_without_a_price_is_not_free_but_not_priced(world: World) -> None:
    model("other")
    asked(ended(world, H), name="other", cost_micro=0)
    page = text(browser(world.operator), "/models/")
    assert "not priced" in page and "unknown" in page
    assert "ceilings in USD do not see them" in text(browser(world.operator), "/models/other/")
    record = caller(world.operator).get("/models/other").json()
    assert (record["price_per_mtok_usd"], record["cost_usd"], record["calls"]) == (None, None, 1)


def test_a_models_page_tells_its_roles_releases_failures_and_retries(world: World) -> None:
    spare = {"planner": {"model": "other", "fallback": ["primary"]}, "critique": {"model": "primary", "fallback": []}}
    release = make_release(world.agent, 2, models=spare)
    Agent.objects.filter(name=world.agent.name).update(live=release)
    run = ended(world, H)
    asked(run, 1, cost_micro=300)
    asked(run, 2, role="critique", cost_micro=700, state="failed_not_applied", error_class="transient_upstream")
    answer = browser(world.operator).get("/models/primary/")
    assert [(role.name, role.calls, role.cost_micro) for role in answer.context["roles"]] == [("critique", 1, 700), ("planner", 1, 300)]
    found = {each["release"].number: (each["live"], each["roles"]) for each in answer.context["releases"]}
    assert found[2] == (True, ["critique", "planner (fallback)"])
    page = answer.content.decode()
    assert f'href="/runs/{run.run_id}/#step-2"' in page and "transient_upstream" in page and "2 at most" in page
    text(browser(world.operator), "/models/nothing/", 404)


def test_failures_of_other_tenants_are_not_shown(world: World) -> None:
    theirs = ended(make_world("globex", "other"), H)
    asked(theirs, state="failed_not_applied", error_class="timeout")
    assert theirs.run_id not in text(browser(world.operator), "/models/primary/")


def test_an_open_breaker_is_seen_on_the_models_and_on_the_tools_of_its_host(world: World) -> None:
    spec = {"adapter": {"kind": "http", "url": "https://models.example.com/x"}, "description": "d", "effect": "read", "input_schema": {
        "type": "object", "properties": {}, "additionalProperties": False}}  # fmt: skip
    catalog.put(None, "neighbour", ToolSpec.model_validate(spec))
    opened(world)
    opened(make_world("globex", "other"), host="elsewhere.example.com:443")
    client = browser(world.operator)
    assert rows(client)["primary"]["circuit"]["state"] == "open"
    assert {row["tool"].name: row["circuit"]["state"] for row in client.get("/tools/").context["rows"]} == {"neighbour": "open"}
    for path in ("/models/primary/", "/tools/neighbour/"):
        assert "20 of 24 sends failed within 30 s" in text(client, path)
    assert rows(browser(make_world("initech", "third").operator))["primary"]["circuit"]["state"] == "closed"


def test_an_operator_forces_a_breaker_with_a_reason_and_runs_decide_anew(world: World) -> None:
    before = Controls.objects.get(tenant=world.tenant).rev
    client = browser(world.operator)
    link = f"/breakers/move/?host={HOST}&tenant=acme&action=open&next=/models/primary/"
    assert "No call is sent there" in text(client, link)
    said = {"host": HOST, "tenant": "acme", "action": "open", "next": "/models/primary/", "reason": "their status page is red"}
    refused = client.post("/breakers/move/", said | {"reason": "  "})
    assert refused.status_code == 422 and "Say why" in refused.content.decode()
    moved = client.post("/breakers/move/", said)
    assert (moved.status_code, moved["Location"]) == (303, "/models/primary/")
    row = Breaker.objects.get(tenant=world.tenant, host_port=HOST)
    assert (row.forced, row.changed_by, row.reason) == ("open", world.operator.user.username, "their status page is red")
    entry = AuditEntry.objects.filter(object_kind="breaker").latest("id")
    assert (entry.action, entry.actor, entry.tenant, entry.reason) == (
        "breaker.forced_open", world.operator.user.username, world.tenant, "their status page is red",
    )  # fmt: skip
    assert Controls.objects.get(tenant=world.tenant).rev > before
    assert rows(client)["primary"]["circuit"]["state"] == "held_open"


def test_who_may_not_move_a_breaker_is_offered_no_button_and_is_refused(world: World) -> None:
    viewer, stranger = person(world.tenant, "vera", "viewer"), make_world("globex", "other").operator
    assert "/breakers/move/" not in text(browser(viewer), "/models/primary/")
    said = {"host": HOST, "tenant": "acme", "action": "open", "reason": "because"}
    assert browser(viewer).post("/breakers/move/", said).status_code == 403
    assert browser(stranger).post("/breakers/move/", said).status_code == 404
    assert not Breaker.objects.exists()


@pytest.mark.parametrize("back", ["https://evil.example.com/", "//evil.example.com", "javascript:alert(1)"])
def test_the_way_back_stays_on_this_site(world: World, back: str) -> None:
    said = {"host": HOST, "tenant": "acme", "action": "reset", "reason": "because", "next": back}
    assert browser(world.operator).post("/breakers/move/", said)["Location"] == "/models/"


@pytest.mark.parametrize(
    "wrong",
    [{"host": "x"}, {"host": "a.example.com:443/../"}, {"tenant": "nobody"}, {"action": "explode"}, {"host": "user@h.example.com:80"}],
)
def test_what_is_no_breaker_is_not_found(world: World, wrong: dict[str, str]) -> None:
    said = {"host": HOST, "tenant": "acme", "action": "open", "reason": "because"} | wrong
    assert browser(world.operator).post("/breakers/move/", said).status_code == 404
    assert not Breaker.objects.exists()


def test_the_api_lists_models_and_breakers_and_takes_a_persons_word(world: World) -> None:
    row = opened(world)
    opened(make_world("globex", "other"))
    api = caller(world.operator)
    [found] = api.get("/models").json()["items"]
    assert found["price_per_mtok_usd"] == {"input": "1", "output": "2", "source": "operator"}
    assert [each["state"] for each in found["breakers"]] == ["open"]
    [listed] = api.get("/breakers").json()["items"]
    assert (listed["id"], listed["host_port"], listed["forced"]) == (str(row.pk), HOST, None)
    moved = api.post(f"/breakers/{row.pk}", {"action": "close", "reason": "a false alarm"}).json()
    assert (moved["state"], moved["forced"]) == ("closed", "closed")
    moved = api.post(f"/breakers/{row.pk}", {"action": "reset", "reason": "done"}).json()
    assert (moved["state"], moved["forced"]) == ("closed", None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"action": "explode", "reason": "because"}, 422),
        ({"action": "open", "reason": ""}, 422),
        ({"action": "open"}, 422),
    ],
)
def test_a_word_without_sense_or_reason_is_refused(world: World, body: dict[str, str], expected: int) -> None:
    row = opened(world)
    assert refusal(caller(world.operator).post(f"/breakers/{row.pk}", body))[0] == expected


def test_a_breaker_of_another_tenant_is_not_found_and_a_viewer_moves_none(world: World) -> None:
    row, word = opened(world), {"action": "open", "reason": "because"}
    assert refusal(caller(make_world("globex", "other").operator).post(f"/breakers/{row.pk}", word))[0] == 404
    assert refusal(caller(person(world.tenant, "vera", "viewer")).post(f"/breakers/{row.pk}", word)) == (403, "scope_missing")
    assert refusal(caller(world.operator).post("/breakers/nonsense", word))[0] == 404
    assert refusal(caller(world.operator, "config:read").post(f"/breakers/{row.pk}", word))[0] == 403


def test_the_pages_cost_the_same_few_queries_however_much_there_is(world: World, django_assert_max_num_queries: Any) -> None:
    for n in range(8):
        model(f"model{n}", base_url=f"https://m{n}.example.com/v1", price_input="1", price_output="1")
        opened(world, f"m{n}.example.com:443")
        asked(ended(world, H), 1, name=f"model{n}", state="failed_not_applied", error_class="timeout")
    client = browser(world.operator)
    with django_assert_max_num_queries(12):
        client.get("/models/")
    with django_assert_max_num_queries(17):
        client.get("/models/model1/")


def test_a_host_is_the_key_of_a_breaker_however_its_url_is_written() -> None:
    same = ("https://Models.example.com/v1", "https://models.example.com:443/other?x=1", "https://models.example.com.:443/a/{b}")
    assert {breakers.host_port(url) for url in same} == {HOST}
    assert breakers.host_port("http://[::1]:80/x") == "[::1]:80" and breakers.host_port("python") == ""
