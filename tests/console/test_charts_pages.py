"""Pages with charts: what they show equals the metrics, filters are kept, nobody sees another tenant's, and comparisons."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from console import metrics
from console.readings import Cut
from runs import releases
from runs.models import Release, Run
from tenants.actors import Actor
from tests.runtime.waiting import World, make_world, person
from tools.models import Tool

from .past import browser, called, ended

H = timedelta(hours=1)


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def busy(world: World) -> World:
    for ago, outcome in ((2, "completed"), (2, "tool_error"), (3, "completed_degraded"), (50, "budget_exceeded")):
        run = ended(world, ago * H, outcome, seconds=5, cost_micro=2000)
        called(run, 0, "primary", cost_micro=2000)
        called(run, 1, "search_docs", latency_ms=100)
        called(run, 2, "create_ticket", "failed_not_applied", error_class="timeout", attempt=2)
    return world


def figures(page: Any) -> dict[str, dict[str, Any]]:
    found = re.findall(r'<script id="([\w-]+)-figure" type="application/json">(.*?)</script>', page.content.decode())
    return {key: json.loads(text) for key, text in found}


def total(figure: dict[str, Any]) -> dict[str, float]:
    return {trace["name"]: sum(y or 0 for y in trace["y"]) for trace in figure["data"]}


def root(world: World) -> Actor:
    return person(world.tenant, "root", "admin", platform=True)


@pytest.mark.mission("P8.2")
def test_the_charts_show_what_the_metrics_count(busy: World) -> None:
    shown = figures(browser(busy.operator).get("/"))
    now = timezone.now()
    [made] = metrics.summary(Cut(busy.tenant.id), metrics.last_hours(now), now).values()
    assert total(shown["outcomes"]) == {"Completed": 1, "Degraded": 1, "Failed": 1}
    assert shown["outcomes"]["value"] == f"{made.runs:,}" == "3"
    assert shown["success"]["value"] == "66.7%" and made.success_rate == pytest.approx(2 / 3)
    assert shown["costs"]["value"] == "$0.003" and made.cost_per_success == 3000
    assert shown["tool-errors"]["value"] == "100%" and made.tool_error_rate == 0.5


@pytest.mark.mission("P8.2")
def test_the_period_and_the_filters_live_in_the_address_and_are_kept(busy: World) -> None:
    client = browser(busy.operator)
    week = client.get("/?period=7d&agent=support-triage")
    assert total(figures(week)["outcomes"])["Stopped at a limit"] == 1
    page = week.content.decode()
    assert 'href="/?agent=support-triage&amp;period=30d"' in page and 'href="/?agent=support-triage"' in page
    assert 'data-live-fragment="/?agent=support-triage&amp;period=7d&amp;part=series"' in page
    assert "agent=support-triage" in figures(week)["outcomes"]["links"][0]
    assert figures(client.get("/?agent=nobody")) == {}
    assert "Nothing of what you filter for" in client.get("/?agent=nobody").content.decode()


def test_the_runs_behind_a_piece_of_a_bar_are_those_it_counts(busy: World) -> None:
    client = browser(busy.operator)
    figure = figures(client.get("/"))["outcomes"]
    for trace in figure["data"]:
        for count, link in zip(trace["y"], trace["links"], strict=True):
            if count:
                assert len(client.get(link).context["listing"].rows) == count


@pytest.mark.mission("P11.3")
def test_whoever_works_incidents_opens_one_from_a_chart(busy: World) -> None:
    link = "/incidents/new/?title=Success%20rate"
    client = browser(busy.operator)
    assert link in client.get("/").content.decode()
    assert 'value="Success rate"' in client.get(link).content.decode()
    assert link not in browser(person(busy.tenant, "vera", "viewer")).get("/").content.decode()


def test_only_a_platform_admin_looks_into_another_tenant(busy: World) -> None:
    other = make_world("globex", "other")
    ended(other, 2 * H)
    everybody = browser(root(busy))
    for period in ("", "&period=30d"):
        mine = figures(browser(busy.operator).get(f"/?tenant=globex{period}"))["outcomes"]
        assert total(mine)["Failed"] == 1
        theirs = everybody.get(f"/?tenant=globex{period}")
        assert total(figures(theirs)["outcomes"]) == {"Completed": 1}
        assert "tenant=globex" in figures(theirs)["outcomes"]["links"][0]
    assert total(figures(everybody.get("/"))["outcomes"])["Completed"] == 2
    assert everybody.get("/?tenant=nowhere").status_code == 404


@pytest.mark.parametrize("text", ["rel_nonsense", "x"])
def test_a_release_that_cannot_be_is_not_found(world: World, text: str) -> None:
    assert browser(world.operator).get(f"/?release={text}").status_code == 404


@pytest.mark.mission("X11")
def test_a_change_is_marked_on_every_chart_over_time(busy: World) -> None:
    live = Release.objects.get(agent=busy.agent)
    made = Release.objects.create(agent=busy.agent, number=live.number + 1, spec=live.spec, tools={}, sha256="2" * 64)
    releases.promote(None, made, "better")
    shown = figures(browser(busy.operator).get("/"))
    for key in ("outcomes", "success", "durations", "costs", "troubles"):
        assert any("support-triage" in mark["label"] or "change" in mark["label"] for mark in shown[key]["markers"]), key


# -- an agent, a tool ---------------------------------------------------------------------------------------------------------


def test_the_agents_are_listed_with_what_their_runs_came_to(busy: World) -> None:
    page = browser(busy.operator).get("/agents/").content.decode()
    assert 'href="/agents/support-triage/"' in page and "66.7%" in page and "$0.003" in page


def test_an_agents_page_tells_its_releases_tools_roles_and_runs(busy: World, django_assert_max_num_queries: Any) -> None:
    client = browser(busy.operator)
    client.get("/agents/support-triage/")
    with django_assert_max_num_queries(22):
        answer = client.get("/agents/support-triage/")
    [line] = answer.context["releases"]
    assert (line.live, line.figures.runs) == (True, 3)
    assert [(tool.name, tool.calls, tool.errors) for tool in answer.context["tools"]] == [("create_ticket", 3, 3), ("search_docs", 3, 0)]
    [spent] = answer.context["roles"]
    assert (spent.model, spent.calls, spent.cost_micro) == ("primary", 3, 6000)
    assert len(answer.context["runs"]) == 4
    assert len(answer.context["charts"]) == 8


def test_an_agent_of_another_tenant_is_not_there(busy: World) -> None:
    other = make_world("globex", "other")
    other.agent.tenants = ["globex"]
    other.agent.save()
    assert browser(busy.operator).get("/agents/other/").status_code == 404
    assert "/agents/other/" not in browser(busy.operator).get("/agents/").content.decode()


def test_an_agents_page_never_counts_another_tenants_runs(busy: World) -> None:
    Run.objects.filter(tenant=busy.tenant).update(agent_id=busy.agent.name)
    other = make_world("globex", "other")
    theirs = ended(other, 2 * H)
    Run.objects.filter(pk=theirs.pk).update(agent_id=busy.agent.name)
    answer = browser(busy.operator).get("/agents/support-triage/")
    assert figures(answer)["outcomes"]["value"] == "3" and theirs.run_id not in answer.content.decode()


def test_a_tools_page_has_charts_of_its_own_calls(busy: World) -> None:
    Tool.objects.get_or_create(name="create_ticket")
    shown = figures(browser(busy.operator).get("/tools/create_ticket/"))
    assert total(shown["calls"]) == {"Answered": 0, "Failed": 3}
    assert total(shown["errors"]) == {"Timeout": 200}  # all of them, in two of the hours
    assert shown["repeats"]["value"] == "100%" and "tool=create_ticket" in shown["calls"]["links"][0]
    assert set(shown) == {"calls", "errors", "latency", "repeats"}


# -- comparing ----------------------------------------------------------------------------------------------------------------


def test_two_stretches_stand_side_by_side_with_how_many_runs_they_are_of(busy: World) -> None:
    now = timezone.now()
    a, b = (f"{now - ago * H:%Y-%m-%dT%H:00:00Z}/{now - (ago - 6) * H:%Y-%m-%dT%H:00:00Z}" for ago in (52, 5))
    answer = browser(busy.operator).get("/compare/", {"a": a, "b": b})
    rows = {row.name: row for row in answer.context["rows"]}
    assert (rows["Runs"].a, rows["Runs"].b) == ("1", "3")
    rate = rows["Success rate"]
    assert (rate.a, rate.b, rate.a_of, rate.b_of, rate.few) == ("0%", "66.7%", 1, 3, True)
    assert "few runs, may be chance" in answer.content.decode()
    assert {key[:2] for key in figures(answer)} == {"a-", "b-"}


@pytest.mark.parametrize("text", ["yesterday", "2026-01-02/2026-01-01", "2020-01-01/2026-01-01", "2026-13-01/2026-14-01", "/"])
def test_a_stretch_that_cannot_be_read_is_refused_with_an_example(world: World, text: str) -> None:
    answer = browser(world.operator).get("/compare/", {"a": text})
    assert answer.status_code == 400 and "2026-01-31T12:00:00Z/2026-02-01T12:00:00Z" in answer.content.decode()


def two(world: World) -> tuple[Run, Run]:
    left, right = ended(world, 2 * H), ended(world, H)
    for run, query in ((left, "refunds"), (right, "invoices")):
        called(run, 0, "primary")
        called(run, 1, "search_docs", args=json.dumps({"query": query, "limit": 3}).encode())
        called(run, 2, "search_docs", args=b'{"query": "same",  "limit": 1}' if run is left else b'{"limit": 1, "query": "same"}')
    called(right, 3, "create_ticket")
    return left, right


def test_two_runs_are_compared_call_by_call(world: World) -> None:
    left, right = two(world)
    answer = browser(world.operator).get("/compare/runs/", {"a": left.run_id, "b": right.run_id})
    assert [each["line"].what for each in answer.context["rows"]] == ["same", "changed", "same", "right"]
    page = answer.content.decode()
    assert "other arguments" in page and "args=1.1-1.1#args" in page and "1 only in B" in page


def test_the_arguments_of_a_pair_are_shown_field_by_field(world: World) -> None:
    left, right = two(world)
    pair = {"a": left.run_id, "b": right.run_id, "args": "1.1-1.1"}
    answer = browser(world.operator).get("/compare/runs/", pair)
    assert {row.name: row.state for row in answer.context["diff"]["rows"]} == {"query": "changed", "limit": "same"}
    assert browser(world.operator).get("/compare/runs/", pair | {"args": "9.9-1.1"}).status_code == 404


def test_the_list_sends_two_ticked_runs_and_one_asks_for_the_other(world: World) -> None:
    left, right = two(world)
    client = browser(world.operator)
    ticked = client.get(f"/compare/runs/?run={left.run_id}&run={right.run_id}")
    assert [one["run"].pk for one in ticked.context["runs"]] == [left.pk, right.pk]
    assert "Compare with" in client.get(f"/compare/runs/?a={left.run_id}").content.decode()
    assert client.get("/compare/runs/").status_code == 200
    assert f'value="{left.run_id}"' in client.get("/runs/").content.decode()
    assert f"/compare/runs/?a={left.run_id}" in client.get(f"/runs/{left.run_id}/").content.decode()


def test_a_run_of_another_tenant_cannot_be_compared(world: World) -> None:
    mine, _ = two(world)
    theirs = ended(make_world("globex", "other"), H)
    client = browser(world.operator)
    assert client.get("/compare/runs/", {"a": mine.run_id, "b": theirs.run_id}).status_code == 404
    assert client.get("/compare/runs/", {"a": theirs.run_id}).status_code == 404
