"""Kill switches in the API and on the pages: who gets the button, the numbers before it, the bar of every page, and the lift."""

import json
from typing import Any

import pytest
from django.test import Client

from runs import impact, switches
from runs.models import Run, Switch
from runs.states import RunState
from tenants.actors import Actor
from tenants.models import Tenant
from tests.runtime.waiting import World, make_world, park, person, queued, running
from tools.models import Tool

from .callers import caller, refusal
from .past import HTMX, browser

REASON = "the desk is on fire <b>now</b>"


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def root(world: World) -> Actor:
    return person(world.tenant, "root", "admin", platform=True)


def throw(actor: Actor, scope: str = "tenant", then: str = "pause", **more: Any) -> Switch:
    given: dict[str, Any] = {"reason": REASON, "tenant": None if scope == "all" else actor.tenant} | more
    return switches.engage(actor, switches.Order(scope, then, **given))


def shown(client: Client, path: str, headers: dict[str, str] | None = None) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200, answer.content[:500]
    return str(answer.content.decode())


# the API ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X10")
def test_a_switch_is_turned_on_read_and_lifted_over_http(world: World) -> None:
    call = caller(world.approver)
    queued(world)
    made = call.post("/switches", {"scope": "tenant", "tenant": "acme", "then": "stop", "reason": REASON})
    assert made.status_code == 201, made.content
    body = made.json()
    assert (body["scope"], body["tenant"], body["then"], body["state"], body["by"]) == ("tenant", "acme", "stop", "on", "abe-acme")
    assert body["impact"]["queued"] == 1 and body["since_on"] == {"runs_accepted": 0, "calls_sent": 0, "writes_sent": 0}
    assert call.get(f"/switches/{body['switch_id']}").json()["impact"]["last_hour"]["agent"] == {"support-triage": 1}
    assert [s["switch_id"] for s in call.get("/switches?state=on").json()["items"]] == [body["switch_id"]]
    code, name = refusal(caller(world.starter).post("/runs", {"agent": "support-triage", "input": "hello"}))
    assert (code, name) == (423, "stopped_by_switch")
    lifted = call.post(f"/switches/{body['switch_id']}/lift", {"reason": "out", "per_second": 5})
    assert lifted.status_code == 200 and lifted.json()["state"] == "lifted" and lifted.json()["lifted_by"] == "abe-acme"
    assert refusal(call.post(f"/switches/{body['switch_id']}/lift", {"reason": "out"})) == (409, "already_lifted")
    assert call.get("/switches?state=on").json()["items"] == []


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"scope": "tenant", "tenant": "acme"}, (422, "validation")),
        ({"scope": "tenant", "tenant": "acme", "reason": " "}, (422, "reason_missing")),
        ({"scope": "tenant", "tenant": "beta", "reason": "x"}, (404, "not_found")),
        ({"scope": "all", "reason": "x"}, (403, "platform_admin_needed")),
        ({"scope": "writes", "reason": "x"}, (403, "platform_admin_needed")),
        ({"scope": "tool", "tenant": "acme", "reason": "x"}, (422, "switch_invalid")),
        ({"scope": "tool", "tenant": "acme", "tool": "nope", "reason": "x"}, (404, "not_found")),
        ({"scope": "tenant", "tenant": "acme", "reason": "x", "typed": "acme"}, (422, "validation")),
    ],
)
def test_what_cannot_be_thrown_is_refused_with_its_code(world: World, body: dict[str, str], answer: tuple[int, str]) -> None:
    Tenant.objects.create(slug="beta")
    assert refusal(caller(world.approver).post("/switches", body)) == answer
    assert not Switch.objects.exists()


@pytest.mark.parametrize(("who", "answer"), [("starter", 403), ("operator", 403), ("approver", 201)])
def test_operators_cannot_throw_and_approvers_can(world: World, who: str, answer: int) -> None:
    call = caller(getattr(world, who))
    assert call.post("/switches", {"scope": "tenant", "tenant": "acme", "reason": "x"}).status_code == answer
    assert browser(getattr(world, who)).get("/switches/new/").status_code == {201: 200}.get(answer, answer)


def test_a_key_without_the_scope_cannot_throw(world: World) -> None:
    body = {"scope": "tenant", "tenant": "acme", "reason": "x"}
    assert refusal(caller(world.approver, "runs:read").post("/switches", body)) == (403, "scope_missing")


def test_switches_of_others_and_of_agents_one_does_not_see_are_not_there(world: World, root: Actor) -> None:
    beta = make_world("beta", "their-agent")
    beta.agent.tenants = ["beta"]
    beta.agent.save()
    theirs = throw(beta.approver)
    hidden = throw(root, "agent", agent="their-agent", tenant=None)
    everywhere = throw(root, "writes", tenant=None)
    call = caller(world.approver)
    assert [s["switch_id"] for s in call.get("/switches").json()["items"]] == [str(everywhere)]
    for one in (theirs, hidden):
        assert refusal(call.get(f"/switches/{one}")) == (404, "not_found")
    page = shown(browser(world.operator), "/")
    assert page.count('class="swbar') == 2 and "their-agent" not in page  # the region, and one switch


def test_a_tenant_counts_its_own_runs_only(world: World, root: Actor) -> None:
    queued(make_world("beta", "their-agent"))
    queued(world)
    switch = throw(root, "writes", tenant=None)
    assert caller(world.approver).get(f"/switches/{switch}").json()["impact"]["last_hour"]["tenant"] in ({}, {"acme": 1})
    assert impact.impact("all").queued == 2


def test_the_record_of_a_paused_run_names_its_switch(world: World) -> None:
    run = running(world)
    switch = throw(world.approver)
    park(run, RunState.PAUSED, paused_by=switch.pk)
    assert caller(world.operator).get(f"/runs/{run.run_id}").json()["paused_by"] == str(switch)
    page = shown(browser(world.operator), f"/runs/{run.run_id}/")
    assert "Paused by a kill switch." in page and f"/switches/{switch}/" in page and "abe-acme" in page


def test_the_page_of_a_run_that_a_switch_ended_leads_to_it(world: World) -> None:
    run = running(world)
    switch = throw(world.approver, then="stop")
    stop = {"limit": "switch", "value": 0, "used": 1, "by": str(switch), "step": 2}
    Run.objects.filter(pk=run.pk).update(state="failed", owner=None, outcome="stopped_by_switch", stop=stop)
    page = shown(browser(world.operator), f"/runs/{run.run_id}/")
    assert "Stopped by switch." in page and f"/switches/{switch}/" in page and "limit of" not in page.split("callout")[1]


# the pages --------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X10")
def test_work_is_stopped_in_two_plain_steps_with_the_numbers_before_the_button(world: World) -> None:
    abe = browser(world.approver)
    queued(world)
    running(world)
    assert 'href="/switches/new/"' in shown(abe, "/switches/")
    first = shown(abe, "/switches/new/")
    assert "Show what it hits" in first and 'value="all"' not in first
    step = shown(abe, "/switches/new/?scope=tenant&tenant=acme&then=pause")
    assert "Pause all work in acme?" in step and "<b>1</b> run in flight and <b>1</b> queued" in step
    assert not Switch.objects.exists()
    form = {"scope": "tenant", "tenant": "acme", "then": "pause", "reason": "fire", "typed": "acme"}
    answer = abe.post("/switches/new/", form)
    switch = Switch.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/switches/{switch}/")
    assert (switch.scope, switch.tenant, switch.then, switch.reason, switch.by) == (
        "tenant", world.tenant, "pause", "fire", world.approver.user,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"typed": ""}, "Type acme to confirm."),
        ({"typed": "ACME"}, "Type acme to confirm."),
        ({"reason": " "}, "Say why"),
        ({"scope": "agent"}, "Choose the agent."),
    ],
)
def test_without_name_and_reason_nothing_is_stopped_and_what_was_typed_stays(world: World, change: dict[str, str], message: str) -> None:
    form = {"scope": "tenant", "tenant": "acme", "then": "pause", "reason": "fire engine", "typed": "acme"} | change
    answer = browser(world.approver).post("/switches/new/", form)
    assert answer.status_code == 422 and message in answer.content.decode()
    assert not Switch.objects.exists()
    if "typed" in change:
        assert "fire engine" in answer.content.decode()


def test_a_name_that_the_scope_does_not_use_is_left_out(world: World) -> None:
    Tool.objects.create(name="refund")
    form = {"scope": "writes", "tenant": "acme", "tool": "refund", "agent": "support-triage", "then": "stop"}
    browser(world.approver).post("/switches/new/", form | {"reason": "x", "typed": "writes"})
    switch = Switch.objects.get()
    assert (switch.scope, switch.tool, switch.agent) == ("writes", "", "")


def test_a_platform_admin_types_everything_to_stop_everything(world: World, root: Actor) -> None:
    client = browser(root)
    step = shown(client, "/switches/new/?scope=all&then=stop")
    assert 'data-typed="everything"' in step and "Runs end as stopped by switch" in step
    client.post("/switches/new/", {"scope": "all", "then": "stop", "reason": "x", "typed": "everything"})
    assert Switch.objects.get().scope == "all"


@pytest.mark.mission("X10")
def test_a_drill_asks_for_no_name_and_looks_different_in_the_bar(world: World) -> None:
    abe = browser(world.approver)
    abe.post("/switches/new/", {"scope": "tenant", "tenant": "acme", "then": "stop", "reason": "monthly", "drill": "1"})
    drill = Switch.objects.get()
    assert drill.drill
    page = shown(abe, "/runs/")
    assert "swbar drill" in page and "Drill: all work in acme would be stopped" in page
    queued(world)
    assert '<b class="num">1</b> run accepted' in shown(abe, f"/switches/{drill}/").replace("\n", " ")


@pytest.mark.mission("X10")
@pytest.mark.parametrize("address", ["/", "/runs/", "/approvals/", "/tools/", "/unknowns/", "/switches/"])
def test_every_page_of_those_it_concerns_shows_it_and_others_do_not(world: World, address: str) -> None:
    other = make_world("beta", "their-agent")
    switch = throw(world.approver)
    page = shown(browser(world.operator), address)
    assert "All work in acme is paused" in page and "abe-acme" in page and f'href="/switches/{switch}/#lift"' in page
    assert "on fire &lt;b&gt;now" in page
    assert "All work in acme" not in shown(browser(other.operator), address)


def test_the_bar_is_a_region_of_its_own_that_live_data_fetches_again(world: World) -> None:
    otto = browser(world.operator)
    empty = shown(otto, "/switches/bar/", HTMX)
    assert 'data-live-fragment="/switches/bar/"' in empty and 'class="swbar"' not in empty and "<html" not in empty
    throw(world.approver)
    assert "All work in acme is paused" in shown(otto, "/switches/bar/", HTMX)


def test_while_nothing_is_on_the_bar_costs_no_query(world: World, django_assert_num_queries: Any) -> None:
    otto = browser(world.operator)
    shown(otto, "/switches/bar/")
    with django_assert_num_queries(4):  # the session, the person, their membership, the counts of the sidebar
        shown(otto, "/switches/bar/")


def test_many_switches_become_one_line_that_counts_them(world: World) -> None:
    for then in ("pause", "stop"):
        throw(world.approver, then=then)
        throw(world.approver, "writes", then)
    page = shown(browser(world.operator), "/runs/")
    assert "4 switches are on" in page and page.count("Lift…") == 3


@pytest.mark.mission("X10")
def test_a_lift_asks_for_a_reason_and_puts_the_runs_back(world: World) -> None:
    run = running(world)
    switch = throw(world.approver)
    park(run, RunState.PAUSED, paused_by=switch.pk)
    abe, address = browser(world.approver), f"/switches/{switch}/"
    assert "The 1 run paused in its scope goes on" in shown(abe, address)
    assert abe.post(address, {"reason": ""}).status_code == 422
    assert abe.post(address, {"reason": "out", "per_second": "fast"}).status_code == 422
    assert Run.objects.get(pk=run.pk).state == "paused"
    assert abe.post(address, {"reason": "out", "per_second": "2"}).status_code == 302
    assert Run.objects.get(pk=run.pk).state == "queued"
    page = shown(abe, address)
    assert "abe-acme lifted it" in page and 'id="lift"' not in page
    assert abe.post(address, {"reason": "again"}).status_code == 409


def test_whoever_may_not_lift_is_told_who_can(world: World, root: Actor) -> None:
    switch, everywhere = throw(world.approver), throw(root, "all")
    otto, abe = browser(world.operator), browser(world.approver)
    assert "An approver or admin of acme can lift it." in shown(otto, f"/switches/{switch}/")
    assert otto.post(f"/switches/{switch}/", {"reason": "x"}).status_code == 403
    assert "A platform admin can lift it." in shown(abe, f"/switches/{everywhere}/")
    assert "Stop work" not in shown(otto, "/switches/")


def test_the_history_keeps_who_and_why(world: World) -> None:
    switch = throw(world.approver)
    switches.lift(world.second, switch.pk, "the fire is out")
    page = shown(browser(world.operator), "/switches/")
    assert "Nothing is stopped." in page and "amy-acme" in page and "on fire" in page
    assert "the fire is out" in shown(browser(world.operator), f"/switches/{switch}/")


def test_json_of_a_switch_is_plain(world: World) -> None:
    switch = throw(world.approver)
    record = json.loads(caller(world.operator).get(f"/switches/{switch}").content)
    assert record["reason"] == REASON and record["agent"] is None and record["lifted_at"] is None
