"""The list of runs as a page: filters in the address, pages by id, and rows that change where they stand."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from console.api import run_search
from runs.intake import Order, submit
from runs.models import Call, Run, RunInput
from runs.states import RunState
from tenants.ids import new_id
from tests.console.past import browser
from tests.runtime.waiting import World, make_release, make_world, park, person, queued, running, waiting

from .callers import caller


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    return browser(world.operator)


def asked(world: World, text: str) -> Run:
    return submit(world.starter, Order(agent=world.agent.name, input=text)).run


def ended(run: Run, outcome: str = "completed", state: str = "succeeded", **values: Any) -> Run:
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id())
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, outcome=outcome, ended_at=Now(), **values)
    return run


def html(response: Any, status: int = 200) -> str:
    assert response.status_code == status
    return str(response.content.decode())


def shown(page: str) -> list[str]:
    return re.findall(r'id="row-(agt_\w+)"', page)


def fragment(page: str) -> str:
    (url,) = re.findall(r'id="runs-list"[^>]*data-live-fragment="([^"]+)"', page)
    return str(url).replace("&amp;", "&")


def test_a_stranger_is_sent_to_sign_in_and_back(db: None) -> None:
    answer = Client().get("/runs/?state=failed")
    assert answer.status_code == 302 and answer["Location"] == "/sign-in/?next=%2Fruns%2F%3Fstate%3Dfailed"


def test_runs_are_listed_newest_first_with_what_people_ask_about(world: World, client: Client) -> None:
    first, second = asked(world, "\n\n  Where is my parcel?\nSecond line"), queued(world)
    ended(first, "budget_exceeded", "failed", cost_micro=43_000, step=2, unpriced=True)
    page = html(client.get("/runs/"))
    assert shown(page) == [second.run_id, first.run_id]
    for words in ("Where is my parcel?", "Budget exceeded", "$0.043", "2 / 6", "support-triage", "r1", "Queued", "Failed"):
        assert words in page
    assert "· Second line</span>" in page and "Second line" not in html(client.get("/runs/?cols=agent"))


@pytest.mark.mission("P5.1")
def test_a_cost_without_a_known_price_is_a_lower_bound_or_unknown_and_never_nothing(world: World, client: Client) -> None:
    ended(queued(world), cost_micro=43_000, unpriced=True)
    page = html(client.get("/runs/"))
    assert "the cost is a lower bound" in page and "No model call had a known price" not in page
    ended(queued(world), unpriced=True)
    page = html(client.get("/runs/"))
    assert 'title="No model call had a known price">unknown<' in page and "$0.00" not in page


def test_another_tenants_runs_are_not_there_and_a_platform_admin_sees_them(world: World, client: Client) -> None:
    other = make_world("globex", "other-agent")
    foreign = queued(other)
    assert shown(html(client.get(f"/runs/?q={foreign.run_id}"))) == []
    boss = person(world.tenant, "boss", "viewer", platform=True)
    assert shown(html(browser(boss).get("/runs/"))) == [foreign.run_id]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=succeeded", ["good"]), ("state=failed,queued", ["young", "bad"]), ("outcome=model_error", ["bad"]), ("q=PARCEL", ["good"]),
        ("tool=refund", ["bad"]), ("agent=nobody", []), ("since=1h", ["young", "bad", "good"]), ("since=2999-01-01T00:00:00Z", []),
        ("state=hibernating", []), ("q=%F0%9F%92%A9%E2%80%AE'\"<>%25_", []),
        ("state=!failed,!cancelled", ["young", "good"]), ("outcome=!model_error", ["young", "good"]),
        ("tool=!refund", ["young", "good"]), ("agent=nobody,support-triage", ["young", "bad", "good"]), ("agent=!support-triage", []),
        ("mode=any", ["young", "bad", "good"]), ("mode=!normal", []), ("tenant=!acme", []), ("cost_gt=0.01", []),
    ],
)  # fmt: skip
def test_each_filter_narrows_the_list(world: World, client: Client, query: str, found: list[str]) -> None:
    runs = {"good": ended(asked(world, "a parcel")), "bad": ended(asked(world, "x"), "model_error", "failed"), "young": asked(world, "y")}
    Call.objects.create(
        run=runs["bad"], step=1, ord=1, tenant_id=world.tenant.id, state="dispatched", name="refund", effect="write", args=b"{}", fence=1
    )
    assert shown(html(client.get(f"/runs/?{query}"))) == [runs[name].run_id for name in found]


def test_a_release_is_a_filter_and_its_chip_says_which(world: World, client: Client) -> None:
    old = queued(world)
    world.agent.live = make_release(world.agent, 2)
    world.agent.save()
    new = queued(world)
    page = html(client.get(f"/runs/?release={world.agent.live.release_id}"))
    assert shown(page) == [new.run_id] and old.run_id not in page
    assert "Release: support-triage r2" in page


def test_chips_keep_the_other_filters_and_drop_the_page(world: World, client: Client) -> None:
    page = html(client.get(f"/runs/?q=parcel&state=failed&cursor={queued(world).run_id}"))
    urls = [urlsplit(url.replace("&amp;", "&")) for url in re.findall(r'<a href="(/runs/\?[^"]+)"', page)]
    (one_day,) = [parse_qs(url.query) for url in urls if "since=24h" in url.query and "q=" in url.query]
    assert one_day == {"q": ["parcel"], "state": ["failed"], "since": ["24h"]}
    assert '<input type="hidden" name="state" value="failed">' in page and 'value="parcel"' in page


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday", "release=7", "cursor=nonsense", "after=agt_0", "part=list&ids=agt_1,2", "since=1h1h", "q=" + "x" * 10_000,
        "state=failed,!queued", "agent=!", "cols=agent,secret", "outcome=" + "y" * 3000, "release=!7", "cost_gt=much&state=!failed",
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_is_said_and_nothing_is_shown(world: World, client: Client, query: str) -> None:
    run = queued(world)
    page = html(client.get(f"/runs/?{query}"), 200 if "part" in query else 400)
    assert run.run_id not in shown(page) and 'role="alert"' in page and "must" in page


def test_no_runs_yet_is_not_no_runs_match(world: World, client: Client) -> None:
    empty = html(client.get("/runs/"))
    assert "No runs yet" in empty and "/api/v1/runs" in empty and "&quot;agent&quot;: &quot;support-triage&quot;" in empty
    assert 'data-copy="curl' in empty and 'href="/runs/new/"' in empty
    filtered = html(client.get("/runs/?state=failed"))
    assert "No runs match" in filtered and "No runs yet" not in filtered


def test_a_viewer_is_offered_no_new_run(world: World) -> None:
    assert "/runs/new/" not in html(browser(person(world.tenant, "vera", "viewer")).get("/runs/"))


def test_pages_hold_fifty_and_lead_back_and_forth(world: World, client: Client) -> None:
    ids = [queued(world).run_id for _ in range(105)][::-1]
    first = html(client.get("/runs/?agent=support-triage"))
    assert shown(first) == ids[:50] and 'rel="prev"' not in first
    second = html(client.get(link(first, "next")))
    assert shown(second) == ids[50:100]
    third = html(client.get(link(second, "next")))
    assert shown(third) == ids[100:] and 'rel="next"' not in third
    back = html(client.get(link(third, "prev")))
    assert shown(back) == ids[50:100]
    assert shown(html(client.get(link(back, "prev")))) == ids[:50]
    assert "agent=support-triage" in link(third, "prev")


def link(page: str, rel: str) -> str:
    (url,) = re.findall(rf'rel="{rel}" href="([^"]+)"', page)
    return str(url).replace("&amp;", "&")


# choices of several values --------------------------------------------------------------------------------------------


def chosen(page: str, name: str) -> str:
    """The address of the option that is called `name`, as it stands in its menu."""
    (url,) = re.findall(
        rf'<a (?:class="turn" )?href="([^"]+)"[^>]*>(?:<svg[^>]*><use[^>]*/></svg>|<span class="i s"></span>){name}</a>', page
    )
    return str(url).replace("&amp;", "&")


def test_options_put_themselves_in_and_out_and_the_chip_says_what_is_chosen(world: World, client: Client) -> None:
    run = ended(queued(world), "model_error", "failed")
    one = html(client.get(chosen(html(client.get("/runs/")), "Failed")))
    two = html(client.get(chosen(one, "Succeeded")))
    assert "State: Failed<" in one and "State: Succeeded or Failed<" in two and shown(two) == [run.run_id]
    assert re.search(r'<details class="menu" name="filter" open><summary class="chip" aria-current="true">State', two)
    turned = html(client.get(chosen(two, "Is not")))
    assert "State: not Succeeded or Failed<" in turned and shown(turned) == []
    back = html(client.get(chosen(chosen_page := html(client.get(chosen(turned, "Is not"))), "Failed")))
    assert "State: Succeeded or Failed<" in chosen_page and "State: Succeeded<" in back
    live = html(client.get(chosen(html(client.get("/runs/")), "Live")))
    assert "State: Live<" in live


def test_the_page_and_the_api_find_the_same(world: World, client: Client) -> None:
    asked(world, "x")
    for state, outcome in (("failed", "model_error"), ("succeeded", "completed"), ("failed", "tool_error")):
        ended(queued(world), outcome, state)
    api = caller(world.operator)
    for query in ("state=!failed", "outcome=!model_error,!completed", "state=failed,queued&outcome=!tool_error", "agent=!a,!b"):
        found = [item["run_id"] for item in api.get(f"/runs?{query}").json()["items"]]
        assert shown(html(client.get(f"/runs/?{query}"))) == found != []


# columns --------------------------------------------------------------------------------------------------------------


def test_columns_are_picked_kept_in_the_address_and_remembered(world: World, client: Client) -> None:
    run = queued(world)
    RunInput.objects.filter(pk=run.pk).update(user={"id": "u-77"}, session="s-88")
    page = html(client.get("/runs/?state=queued&cols=user,session,tokens,writes,calls,ended,mode,tenant"))
    heads = re.findall(r'<th role="columnheader"[^>]*>([^<]+)</th>', page)
    assert heads[-9:] == ["Run", "Tenant", "Mode", "User", "Session", "Ended", "Tool calls", "Writes", "Tokens"]
    assert "u-77" in page and "s-88" in page and "support-triage</td>" not in page
    assert 'name="cols" value="user,session,tokens,writes,calls,ended,mode,tenant"' in page
    assert "<th" in html(client.get("/runs/")) and ">Agent</th>" in html(client.get("/runs/"))  # an address alone is not a choice
    picked = html(client.get("/runs/?cols=agent,cost&open=columns"))
    assert ">Agent</th>" in picked and ">Steps</th>" not in picked and "cols=cost" in picked
    assert ">Steps</th>" not in html(client.get("/runs/?state=queued")) and ">Steps</th>" in html(client.get("/runs/?cols=steps"))
    assert ">Steps</th>" in html(client.get("/runs/?open=columns")) and ">Steps</th>" in html(client.get("/runs/"))


def test_a_list_may_show_no_column_but_those_that_are_always_there(world: World, client: Client) -> None:
    queued(world)
    assert re.findall(r"<th[^>]*>([^<]+)</th>", html(client.get("/runs/?cols=none")))[-1:] == ["Run"]


# a search that is bounded ---------------------------------------------------------------------------------------------


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_search, "LOOKED_AT", 3)


@pytest.mark.mission("P5.1")
@pytest.mark.usefixtures("three")
def test_a_search_looks_at_some_runs_says_how_far_and_goes_on_from_there(world: World, client: Client) -> None:
    needle = asked(world, "a needle")
    hay = [queued(world) for _ in range(6)]
    near = asked(world, "the near needle")
    page = html(client.get("/runs/?q=needle"))
    assert shown(page) == [near.run_id] and "Looked at the newest 3 runs, back to" in page and "Search older" in page
    assert f"cursor={hay[4].run_id}" in page and hay[4].created_at.strftime("%Y-%m-%dT%H:%M") in page
    part = html(client.get(fragment(page)))
    assert shown(part) == [near.run_id] and f"cursor={hay[4].run_id}" in part and "Looked at the newest 3 runs" in part
    second = html(client.get(f"/runs/?q=needle&cursor={hay[4].run_id}"))
    assert shown(second) == [] and "No runs match among the next 3, back to" in second and "No runs yet" not in second
    assert f"cursor={hay[1].run_id}" in second and f"cursor={hay[4].run_id}" in fragment(second)
    third = html(client.get(f"/runs/?q=needle&cursor={hay[1].run_id}"))
    assert shown(third) == [needle.run_id] and "Looked at" not in third and "Search older" not in third
    assert shown(html(client.get(f"/runs/?q={needle.run_id}"))) == [needle.run_id]  # an id is looked up


@pytest.mark.usefixtures("three")
def test_the_api_leads_a_search_on_although_a_page_is_not_full(world: World) -> None:
    needles = [asked(world, "needle").run_id]
    for _ in range(7):
        queued(world)
    needles.append(asked(world, "needle").run_id)
    api, cursor, found, pages = caller(world.operator), "", [], 0
    while cursor is not None:
        page = api.get(f"/runs?q=needle&cursor={cursor}").json()
        found += [item["run_id"] for item in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert found == needles[::-1] and pages == 3
    since = (timezone.now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert api.get(f"/runs?q=absent&until={since}").json() == {"items": [], "next_cursor": None}  # ids tell that nothing is that old


# live -----------------------------------------------------------------------------------------------------------------


def test_an_update_brings_the_shown_rows_up_to_date_and_adds_none(world: World, client: Client) -> None:
    old = queued(world)
    page = html(client.get("/runs/"))
    new = queued(world)
    ended(old)
    part = html(client.get(fragment(page)))
    assert shown(part) == [old.run_id] and "Succeeded" in part and new.run_id not in part
    assert "1 new run<" in part and part.lstrip().startswith('<div id="runs-list"')
    assert shown(html(client.get("/runs/?part=list"))) == [new.run_id, old.run_id]


def test_a_row_that_no_longer_matches_is_greyed_and_stays(world: World, client: Client) -> None:
    moving, staying = queued(world), queued(world)
    page = html(client.get("/runs/?state=queued"))
    ended(moving)
    queued(world)
    part = html(client.get(fragment(page)))
    assert shown(part) == [staying.run_id, moving.run_id]
    assert part.count('class="gone"') == 1 and "no longer matches" in part and "1 new run<" in part


def test_new_runs_are_counted_through_the_filter_and_not_on_older_pages(world: World, client: Client) -> None:
    ids = [queued(world).run_id for _ in range(52)]
    first, older = html(client.get("/runs/?q=refund")), html(client.get(f"/runs/?cursor={ids[2]}"))
    asked(world, "something else")
    assert 'id="runs-new"' not in html(client.get(fragment(first)))
    queued(world)
    assert "1 new run<" in html(client.get(fragment(first)))
    assert shown(html(client.get(fragment(older)))) == [ids[1], ids[0]]
    assert 'id="runs-new"' not in html(client.get(fragment(older)))


def test_in_an_empty_list_the_first_run_appears_by_itself(world: World, client: Client) -> None:
    page = html(client.get("/runs/"))
    run = queued(world)
    assert shown(html(client.get(fragment(page)))) == [run.run_id]


def test_an_update_of_another_tenants_rows_shows_nothing(world: World, client: Client) -> None:
    foreign = queued(make_world("globex", "other-agent"))
    assert shown(html(client.get(f"/runs/?part=list&ids={foreign.run_id}"))) == []


# foreign text, and what it costs --------------------------------------------------------------------------------------


def test_what_strangers_wrote_is_escaped_and_made_visible(world: World, client: Client) -> None:
    asked(world, '<script>alert("x")</script> \u202etxt.exe\u200b')
    page = html(client.get("/runs/?q=" + "%3Cscript%3E"))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "\u202e" not in page and "U+202E" in page


def test_a_huge_input_costs_the_list_nothing(world: World, client: Client) -> None:
    run = queued(world)
    RunInput.objects.filter(pk=run.pk).update(text="w" * 2_000_000)
    assert len(html(client.get("/runs/"))) < 60_000


def test_the_queries_of_the_list_do_not_grow_with_its_rows(world: World, client: Client) -> None:
    def count(url: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            html(client.get(url))
        return len(seen)

    queued(world)
    one = count("/runs/")
    for _ in range(30):
        waiting(world)
    park(running(world), RunState.PAUSED)
    assert count("/runs/") == one <= 9
    assert count(fragment(html(client.get("/runs/")))) <= 8


def test_long_titles_and_right_to_left_text_are_cut_and_shown(world: World, client: Client) -> None:
    asked(world, "w" * 4000 + "\nmore")
    asked(world, "\u05e9\u05dc\u05d5\u05dd \u202ehidden\nnext \u202eline")
    page = html(client.get("/runs/"))
    assert "w" * 89 + "…" in page and "w" * 90 not in page and "\u05e9\u05dc\u05d5\u05dd" in page and "\u202e" not in page


def test_a_nul_in_a_filter_is_a_clear_sentence(client: Client) -> None:
    for query in ("q=%00", "agent=a%00b", "cols=%00"):
        assert "holds a NUL character" in html(client.get(f"/runs/?{query}"), 400)
