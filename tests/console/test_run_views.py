"""Saved views of the list of runs: who sees, keeps, renames and deletes them."""

import re
from typing import Any

import pytest
from django.test import Client

from console import saved_views
from console.models import SavedView
from tenants.ids import new_id
from tenants.models import AuditEntry
from tests.console.past import browser
from tests.runtime.waiting import World, make_world, person, queued


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    return browser(world.operator)


def html(response: Any, status: int = 200) -> str:
    assert response.status_code == status
    return str(response.content.decode())


def keep(client: Client, name: str, query: str, *, shared: bool = False) -> Any:
    return client.post("/runs/views/", {"name": name, "query": query} | ({"shared": "1"} if shared else {}))


def tabs(page: str) -> dict[str, bool]:
    """Tab -> whether it is the one that is open."""
    (nav,) = re.findall(r'<nav class="tabs" aria-label="Views">(.*?)</nav>', page, re.S)
    return {label: bool(current) for current, label in re.findall(r'<a href="[^"]+"( aria-current="page")?>([^<]+)', nav)}


@pytest.mark.parametrize(
    ("query", "open_tab"),
    [
        ("", "All"), ("state=failed&since=24h", "Failed 24h"), ("since=24h&state=failed", "Failed 24h"), ("state=failed", None),
        ("state=paused,quarantined,waiting_approval,waiting_budget,needs_reconciliation", "Needs a person"), ("cols=agent", "All"),
    ],
)  # fmt: skip
def test_the_tab_of_the_open_question_says_so(world: World, client: Client, query: str, open_tab: str | None) -> None:
    found = tabs(html(client.get(f"/runs/?{query}")))
    assert list(found) == ["All", "Live", "Needs a person", "Failed 24h"]
    assert [label for label, current in found.items() if current] == ([open_tab] if open_tab else [])


def test_a_view_keeps_filters_and_columns_for_those_it_is_shared_with(world: World, client: Client) -> None:
    queued(world)
    page = html(client.get("/runs/?agent=!billing&cols=cost,agent&cursor=&open=agent"))
    (query,) = re.findall(r'name="query" value="([^"]+)"', page)
    answer = keep(client, "  Not   billing ", query.replace("&amp;", "&"), shared=True)
    assert answer.status_code == 302 and answer["Location"] == "/runs/?agent=!billing&cols=agent,cost"
    keep(client, "Mine", "state=queued")
    opened = html(client.get(answer["Location"]))
    assert tabs(opened) | {"Not billing": True, "Mine": False} == tabs(opened) and "Save view" not in opened
    other = browser(person(world.tenant, "vera", "viewer"))
    assert "Not billing" in tabs(html(other.get("/runs/"))) and "Mine" not in html(other.get("/runs/"))
    foreign = browser(make_world("globex", "other-agent").operator)
    assert "Not billing" not in html(foreign.get("/runs/"))
    view = SavedView.objects.get(name="Not billing")
    entry = AuditEntry.objects.get(action="view.created", object_id=view.view_id)
    assert entry.tenant == world.tenant and entry.after and entry.after["shared"] is True and "query" not in entry.after


@pytest.mark.parametrize(
    ("name", "query", "said"),
    [
        ("", "state=failed", "1 to 40 characters"), ("x" * 41, "state=failed", "1 to 40 characters"), ("Taken", "state=failed", "already"),
        ("Odd", "state=a,!b", "not both"), ("Odd", "cols=secret", "no column secret"), ("Odd", "q=" + "x" * 300, "200 characters"),
        ("Odd", "q=a%00b", "NUL"),
    ],
)  # fmt: skip
def test_a_view_that_cannot_be_kept_says_why(world: World, client: Client, name: str, query: str, said: str) -> None:
    keep(client, "Taken", "state=queued")
    answer = keep(client, name, query)
    assert answer.status_code in (400, 422) and said in html(answer, answer.status_code)
    assert SavedView.objects.count() == 1


def test_a_tenant_has_a_number_of_views_and_no_more(world: World, client: Client) -> None:
    owner = world.operator.user
    SavedView.objects.bulk_create(
        SavedView(id=new_id(), tenant=world.tenant, owner=owner, name=f"v{n:02}", query="state=failed") for n in range(saved_views.MOST)
    )
    assert "at most 50 saved views. Delete one first." in html(keep(client, "One more", "state=queued"), 422)
    page = html(client.get("/runs/?state=queued"))
    assert len(tabs(page)) == 12 and "v49" in page  # the rest is in a menu


def test_the_owner_and_admins_rename_and_delete_and_nobody_else(world: World, client: Client) -> None:
    keep(client, "Mine", "state=queued", shared=True)
    view = SavedView.objects.get()
    url = f"/runs/views/{view.view_id}/"
    for stranger in (person(world.tenant, "vera", "viewer"), make_world("globex", "other-agent").operator):
        assert browser(stranger).get(url).status_code == 404
        assert browser(stranger).post(url, {"act": "delete"}).status_code == 404
    keep(client, "Taken", "state=failed")
    assert "already" in html(client.post(url, {"act": "save", "name": "Taken"}), 422)
    assert client.post(url, {"act": "save", "name": "Ours"}).status_code == 302
    view.refresh_from_db()
    assert (view.name, view.shared) == ("Ours", False)
    admin = browser(person(world.tenant, "ada", "admin"))
    assert "Ours" in html(admin.get("/runs/views/")) and "Ours" not in tabs(html(admin.get("/runs/")))
    assert admin.post(url, {"act": "delete"}).status_code == 302 and not SavedView.objects.filter(name="Ours").exists()
    told = list(AuditEntry.objects.filter(object_id=view.view_id).order_by("id").values_list("action", "actor"))
    operator = world.operator.user.username
    assert [(action, who == operator) for action, who in told] == [
        ("view.created", True), ("view.updated", True), ("view.deleted", False),
    ]  # fmt: skip
