"""The tools pages: who sees which tool, how it fares, what it may do, and the way to its permissions."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from console.histograms import ERROR
from runs.models import Run
from tenants import controls
from tenants.actors import Actor
from tenants.ids import new_id
from tenants.models import User
from tests.runtime.waiting import World, make_world, person
from tools import catalog, permissions
from tools.models import Tool, ToolVersion
from tools.spec import ToolSpec

from .past import browser, called, ended

H = timedelta(hours=1)
SCHEMA = {"type": "object", "properties": {"account_id": {"type": "string"}}, "additionalProperties": True}
BLOCK: dict[str, Any] = {
    "adapter": {"kind": "http", "url": "https://desk.example.com/tickets"},
    "description": "Open a ticket.",
    "effect": "write",
    "input_schema": SCHEMA,
    "labels": ["egress"],
}


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    controls.ensure(made.tenant)
    catalog.put(None, "create_ticket", ToolSpec.model_validate(BLOCK))
    catalog.put(None, "search_docs", ToolSpec.model_validate(BLOCK | {"effect": "read"}))
    catalog.put(None, "theirs", ToolSpec.model_validate(BLOCK | {"tenants": ["globex"]}))
    return made


def staff(actor: Actor) -> Client:
    User.objects.filter(pk=actor.user.pk).update(is_staff=True)
    return browser(actor)


def rows(client: Client) -> dict[str, Any]:
    return {row["tool"].name: row for row in client.get("/tools/").context["rows"]}


def text(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return str(answer.content.decode())


def test_people_see_the_tools_of_their_tenant(world: World) -> None:
    assert set(rows(browser(world.operator))) == {"create_ticket", "search_docs"}
    assert set(rows(browser(person(world.tenant, "vera", "viewer")))) == {"create_ticket", "search_docs"}
    assert set(rows(browser(person(world.tenant, "root", "admin", platform=True)))) == {"create_ticket", "search_docs", "theirs"}
    text(browser(world.operator), "/tools/theirs/", 404)
    text(browser(world.operator), "/tools/nothing/", 404)


@pytest.mark.mission("P8.2")
def test_a_tool_shows_its_error_rate_and_p95_of_the_tenants_calls(world: World) -> None:
    run, other = ended(world, 2 * H), ended(make_world("globex", "other"), 2 * H)
    for ord in range(1, 4):
        called(run, ord, latency_ms=100)
    called(run, 4, state="failed_not_applied", error_class="timeout", latency_ms=500)
    called(other, 1, state="failed_not_applied", error_class="timeout")
    row = rows(browser(world.operator))["search_docs"]
    assert (row["health"].calls, row["error_percent"], row["high"]) == (4, "25%", True)
    assert row["health"].p95_ms == pytest.approx(500, rel=ERROR)
    assert rows(browser(world.operator))["create_ticket"]["health"] is None


def test_calls_of_yesterday_no_longer_count(world: World) -> None:
    called(ended(world, 30 * H), 1)
    assert rows(browser(world.operator))["search_docs"]["health"] is None


def test_a_tool_that_is_off_says_so_in_the_table_and_on_its_page(world: World) -> None:
    Tool.objects.filter(name="create_ticket").update(enabled=False)
    page = text(browser(world.operator), "/tools/")
    assert "1 switched off" in page
    assert "Every call is refused, also of runs that go on now." in text(browser(world.operator), "/tools/create_ticket/")


def test_the_way_to_the_permissions_is_the_admins_list_of_this_tool(world: World) -> None:
    for tool in ("create_ticket", "search_docs"):
        permissions.set_permission(None, tool, world.tenant, decision="ask")
    client = staff(world.operator)
    url = rows(client)["create_ticket"]["permissions_url"]
    found = client.get(url)
    assert found.status_code == 200
    assert [row.tool_id for row in found.context["cl"].result_list] == ["create_ticket"]


def test_who_may_not_edit_permissions_is_shown_no_way_there(world: World) -> None:
    assert rows(browser(world.operator))["create_ticket"]["permissions_url"] == ""
    assert rows(staff(person(world.tenant, "vera", "viewer")))["create_ticket"]["permissions_url"] == ""


def test_a_tools_page_shows_the_rows_that_apply_to_this_tenant(world: World) -> None:
    other = make_world("globex", "other")
    permissions.set_permission(None, "create_ticket", None, decision="ask", approvers=2)
    permissions.set_permission(None, "create_ticket", world.tenant, decision="deny", agent="ours", when="args.account_id == 'x'")
    permissions.set_permission(None, "create_ticket", other.tenant, decision="deny", agent="theirs")
    answer = browser(world.operator).get("/tools/create_ticket/")
    assert [(row["row"].agent, row["decision"], row["everyone"]) for row in answer.context["permissions"]] == [
        ("", "Ask 2 people", True),
        ("ours", "Deny", False),
    ]
    assert answer.context["default"]["decision"] == "Ask 1 person"


def test_a_tools_page_shows_its_version_and_what_is_too_loose(world: World) -> None:
    catalog.put(None, "create_ticket", ToolSpec.model_validate(BLOCK | {"description": "Open <b>one</b> ticket."}))
    page = text(browser(world.operator), "/tools/create_ticket/")
    assert "Version 2" in page and "Open &lt;b&gt;one&lt;/b&gt; ticket." in page
    assert "POST https://desk.example.com/tickets" in page and "egress" in page


@pytest.mark.mission("P2.2")
def test_a_tools_page_says_how_grave_each_finding_is_in_words(world: World) -> None:
    answer = browser(world.operator).get("/tools/create_ticket/")
    assert [(each["number"], each["word"]) for each in answer.context["lint"]["tally"]] == [(5, "Warning")]
    page = answer.content.decode()
    for part in ("5 warnings", "unnamed arguments are let through", "/input_schema/properties/account_id", "free_id"):
        assert part in page
    assert page.count("<b>Warning</b>") == 5 and page.count("#i-triangle-alert") >= 6
    read = browser(world.operator).get("/tools/search_docs/")
    assert [(each["number"], each["word"]) for each in read.context["lint"]["tally"]] == [(5, "Info")]
    tight = {"type": "object", "properties": {}, "additionalProperties": False}
    catalog.put(None, "tight", ToolSpec.model_validate(BLOCK | {"input_schema": tight, "output_schema": tight}))
    assert "Nothing is too loose." in text(browser(world.operator), "/tools/tight/")


def test_what_a_schema_hides_is_spelt_out_on_the_page(world: World) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": "\u202eevil <b>"}}, "additionalProperties": False}
    catalog.put(None, "hiding", ToolSpec.model_validate(BLOCK | {"input_schema": schema, "description": "Open \u2067it."}))
    page = text(browser(world.operator), "/tools/hiding/")
    assert "cannot be seen: U+202E" in page and "evil <b>" not in page
    assert not {"\u202e", "\u2067"} & set(page)


def test_recent_calls_lead_to_their_runs_and_stay_in_the_tenant(world: World) -> None:
    mine, theirs = ended(world, H), ended(make_world("globex", "other"), H)
    for run in (mine, theirs):
        called(run, 1, "create_ticket")
    page = text(browser(world.operator), "/tools/create_ticket/?part=calls")
    assert f'href="/runs/{mine.run_id}/#step-1"' in page and theirs.run_id not in page
    assert page.strip().startswith("<section") and "<html" not in page


def test_the_pages_cost_the_same_few_queries_however_much_there_is(world: World, django_assert_max_num_queries: Any) -> None:
    for _ in range(15):
        called(ended(world, H), 1, "create_ticket")
    for n in range(6):
        catalog.put(None, f"tool{n}", ToolSpec.model_validate(BLOCK))
        permissions.set_permission(None, "create_ticket", world.tenant, decision="ask", agent=f"agent{n}")
    client = browser(world.operator)
    with django_assert_max_num_queries(11):
        client.get("/tools/")
    with django_assert_max_num_queries(22):
        client.get("/tools/create_ticket/")


def test_a_tool_without_a_version_has_a_page(world: World) -> None:
    Tool.objects.create(name="named")
    assert "No version" in text(browser(world.operator), "/tools/named/")
    assert rows(browser(world.operator))["named"]["effect"] == "No version"


def test_a_schema_that_no_longer_compiles_does_not_break_the_page(world: World) -> None:
    tool = Tool.objects.create(name="odd")
    fields = {"description": "d", "effect": "read", "adapter": {"kind": "python", "name": "odd"}, "timeout_s": 1, "sha256": "0" * 64}
    tool.current = ToolVersion.objects.create(id=new_id(), tool=tool, number=1, input_schema={"type": 7}, **fields)
    tool.save()
    page = text(browser(world.operator), "/tools/odd/")
    assert "python odd" in page and Run.objects.count() == 0
